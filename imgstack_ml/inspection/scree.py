"""Scree plot: how much of the variance each component explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._drawing import BLUE, VERMILION, array_of_shape, axes_or_new, tick_whole_numbers
from .pipelines import split_at_pca

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARE_COLOUR = BLUE
CUMULATIVE_COLOUR = VERMILION
MAX_BARS = 40  # more bars are too thin to be seen; a line shows the same


class ScreeDisplay:
    """Share of the variance that each component explains, and their running sum.

    Parameters
    ----------
    explained_variance_ratio : array-like of shape (k,)
        Shares of the total variance, from 0 to 1.
    bounds : array-like of shape (2, k), optional
        Lower and upper bounds of the true shares, drawn as brackets around the shares.
    sum_bounds : (float, float), optional
        Bounds of the share that the best k components explain together, drawn as a bracket at the end of the running
        sum.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
        Share of each component in percent, on the left.
    cumulative_ax_ : matplotlib Axes
        Running sum in percent, from 0 to 100, on the right.
    share_ : matplotlib BarContainer or Line2D
        Bars for up to 40 components, a line for more.
    cumulative_ : matplotlib Line2D
        Line of the running sum.
    bounds_ : matplotlib ErrorbarContainer, FillBetweenPolyCollection or None
        Brackets around the bars, or a band around the line.
    sum_bounds_ : matplotlib ErrorbarContainer or None
        Bracket around the last point of the running sum.

    Examples
    --------
    >>> from imgstack_ml import ScreeDisplay
    >>> display = ScreeDisplay([0.5, 0.25, 0.125]).plot()
    >>> display.cumulative_.get_ydata().tolist()
    [50.0, 75.0, 87.5]
    """

    def __init__(
        self,
        explained_variance_ratio: npt.ArrayLike,
        *,
        bounds: npt.ArrayLike | None = None,
        sum_bounds: tuple[float, float] | None = None,
    ):
        ratio = np.asarray(explained_variance_ratio)
        if ratio.ndim != 1 or ratio.size == 0:
            raise ValueError(f"explained_variance_ratio has shape {ratio.shape}; needed is (n_components,)")
        self.explained_variance_ratio = ratio
        self.bounds = array_of_shape("bounds", bounds, (2, len(ratio)), f"{len(ratio)} components")
        self.sum_bounds = sum_bounds

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> ScreeDisplay:
        """Draw the scree plot of a fitted PCA, or of a Pipeline that has one.

        Where the PCA has a `Certificate`, its rigorous bounds are drawn as brackets.

        Parameters
        ----------
        estimator : ImagePCA or Pipeline
            The fitted estimator.
        ax : matplotlib Axes, optional
            Axes to draw in; a new figure if None.

        Returns
        -------
        ScreeDisplay

        Raises
        ------
        NotFittedError
            If there is no fitted PCA.
        """
        _, pca = split_at_pca(estimator)
        ratio = pca.explained_variance_ratio_
        certificate = getattr(pca, "certificate_", None)
        if certificate is None or not certificate.total_variance:
            return cls(ratio).plot(ax=ax)
        total = certificate.total_variance
        low, high = ((certificate.captured_variance + missed) / total for missed in certificate.deficit_bounds)
        return cls(ratio, bounds=certificate.explained_variance_bounds / total, sum_bounds=(low, high)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> ScreeDisplay:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw in; a new figure if None.

        Returns
        -------
        self : ScreeDisplay
        """
        ax = axes_or_new(ax, (6.4, 3.8))
        self.ax_, self.cumulative_ax_ = ax, ax.twinx()
        self.figure_: Any = ax.get_figure()
        percent = 100 * self.explained_variance_ratio
        self.share_ = _draw_share(self.ax_, percent)
        self.cumulative_ = _draw_cumulative(self.cumulative_ax_, np.cumsum(percent))
        self.bounds_ = None if self.bounds is None else _draw_bounds(self.ax_, percent, 100 * self.bounds)
        self.sum_bounds_ = None
        if self.sum_bounds is not None:
            low, high = (100 * bound for bound in self.sum_bounds)
            self.sum_bounds_ = _draw_bracket(self.cumulative_ax_, len(percent), percent.sum(), low, high)
        largest = percent.max() if self.bounds is None else max(percent.max(), 100 * self.bounds[1].max())
        _label(self.ax_, self.cumulative_ax_, len(percent), largest)
        return self


def _draw_share(ax: Axes, percent: np.ndarray) -> Any:
    components = np.arange(1, len(percent) + 1)
    if len(percent) <= MAX_BARS:
        return ax.bar(components, percent, width=0.8, color=SHARE_COLOUR)
    (line,) = ax.plot(components, percent, color=SHARE_COLOUR)
    return line


def _draw_cumulative(ax: Axes, cumulative: np.ndarray) -> Any:
    components = np.arange(1, len(cumulative) + 1)
    (line,) = ax.plot(components, cumulative, color=CUMULATIVE_COLOUR)
    if len(cumulative) <= MAX_BARS:
        line.set(marker="o", markersize=6, markeredgecolor="white")
    return line


def _draw_bounds(ax: Axes, percent: np.ndarray, bounds: np.ndarray) -> Any:
    components = np.arange(1, len(percent) + 1)
    if len(percent) > MAX_BARS:
        return ax.fill_between(components, bounds[0], bounds[1], color=SHARE_COLOUR, alpha=0.25, linewidth=0)
    return _draw_bracket(ax, components, percent, bounds[0], bounds[1])


def _draw_bracket(ax: Axes, x: Any, value: Any, low: Any, high: Any) -> Any:
    from matplotlib import rcParams

    # Rounding may put a value just outside its bounds, and Matplotlib refuses error bars of negative length.
    lengths = np.maximum([np.atleast_1d(value - low), np.atleast_1d(high - value)], 0)
    return ax.errorbar(x, value, yerr=lengths, fmt="none", ecolor=rcParams["text.color"], elinewidth=1.2, capsize=3)


def _label(ax: Axes, cumulative_ax: Axes, k: int, largest: float) -> None:
    """Set limits, ticks and labels; a label has the colour of what its axis measures, so that no legend is needed."""
    margin = max(0.6, 0.02 * k, (5 - k) / 2)  # few bars stay slim; many points do not touch the frame
    ax.set_xlim(1 - margin, k + margin)
    if k <= 10:
        ax.set_xticks(range(1, k + 1))
    else:
        tick_whole_numbers(ax.xaxis)
    ax.set_xlabel("component")
    ax.set_ylabel("explained variance (%)", color=SHARE_COLOUR)
    ax.set_ylim(0, 1.08 * largest or 1)
    cumulative_ax.set_ylabel("cumulative (%)", color=CUMULATIVE_COLOUR)
    cumulative_ax.set_ylim(0, 104)
    ax.tick_params(axis="y", colors=SHARE_COLOUR)
    cumulative_ax.tick_params(axis="y", colors=CUMULATIVE_COLOUR)
    for axes in (ax, cumulative_ax):
        axes.spines["top"].set_visible(False)
