"""Intensities of each image: their ranges and mean colours, and the images that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._drawing import GREY, MANY_POINTS, channel_colours, channel_names, subplot_grid
from ._steps import names_of, short_name
from .statistics import odd_ranges, read_statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .statistics import ImageStatistics

_NAMED = 6  # marked images whose names are written beside them


class IntensityDisplay:
    """Largest and mean intensity of each image and channel, in the order of the images, and one against another.

    Images whose range of intensities is far from that of most others are marked: under half or over twice the median
    width, and more than 5 robust standard deviations away. They are bright or dim by their exposure, which a PCA takes
    for the main difference between images; ``IntensityRescaler()`` before it brings them to one range.

    Parameters
    ----------
    means, maxima : array-like of shape (n_images, n_channels) or (n_images,)
        In the intensity units of the stack.
    marked : array-like of int or bool, optional
        Images to mark, as an index of `means`.
    names : sequence of str, optional
        A name for each image; the marked ones are named while they are few.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of 3 matplotlib Axes
        Maxima and means by image, and the plane: mean green by mean red where there are such channels, else largest
        by mean intensity.
    maxima_, means_ : list of matplotlib Line2D
        Points of each channel.
    plane_ : matplotlib Line2D
        Points of the plane.
    marked_ : list of matplotlib Line2D
        Rings about the marked images, in each of the axes; empty without any.

    Examples
    --------
    >>> from imgstack_ml import IntensityDisplay
    >>> from imgstack_ml.datasets import make_cells
    >>> display = IntensityDisplay.from_stack(make_cells(40, 32))
    >>> display.marked.tolist()  # the dim ones
    [18, 30, 33]
    """

    def __init__(
        self,
        means: npt.ArrayLike,
        maxima: npt.ArrayLike,
        *,
        marked: npt.ArrayLike = (),
        names: Sequence[str] | None = None,
    ):
        self.means, self.maxima = _as_columns(means), _as_columns(maxima)
        if self.means.shape != self.maxima.shape:
            raise ValueError(f"means has shape {self.means.shape} and maxima {self.maxima.shape}; they must be alike")
        marked = np.asarray(marked)
        self.marked = np.arange(len(self.means))[marked if marked.dtype == bool else marked.astype(int)]
        self.names = names

    @classmethod
    def from_stack(cls, X: Any, *, ax: Axes | None = None, progress: bool = False) -> IntensityDisplay:
        """Draw the intensities of a stack; reads a lazy one once.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            The images.
        ax : matplotlib Axes, optional
            Subplot to fill; a new figure if None.
        progress : bool, default=False
            Show a bar, on stderr.

        Returns
        -------
        IntensityDisplay

        Raises
        ------
        NonFiniteError
            Naming the image (and file) with a NaN or infinite pixel.
        """
        statistics = read_statistics(X, asker=cls.__name__, progress=progress)
        return cls.from_statistics(statistics, names=names_of(X, len(statistics.means)), ax=ax)

    @classmethod
    def from_statistics(
        cls, statistics: ImageStatistics, *, names: Sequence[str] | None = None, ax: Axes | None = None
    ) -> IntensityDisplay:
        """Draw the intensities that a read has found.

        Parameters
        ----------
        statistics : ImageStatistics
            As a pass over the images makes them.
        names : sequence of str, optional
            A name for each image.
        ax : matplotlib Axes, optional
            Subplot to fill; a new figure if None.

        Returns
        -------
        IntensityDisplay
        """
        return cls(statistics.means, statistics.maxima, marked=odd_ranges(statistics), names=names).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> IntensityDisplay:
        """Draw the three plots.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Subplot whose place they take; a new figure if None.

        Returns
        -------
        self : IntensityDisplay
        """
        self.figure_, grid = subplot_grid(ax, 2, 2, (9.0, 4.6), width_ratios=[1.7, 1.0])
        top = self.figure_.add_subplot(grid[0, 0])
        bottom = self.figure_.add_subplot(grid[1, 0], sharex=top)
        plane = self.figure_.add_subplot(grid[:, 1])
        self.axes_ = np.array([top, bottom, plane])
        self.maxima_ = _draw_by_image(top, self.maxima, "largest intensity")
        self.means_ = _draw_by_image(bottom, self.means, "mean intensity")
        bottom.set_xlabel("image")
        x, y = self._plane(plane)
        (self.plane_,) = plane.plot(x, y, ".", color=GREY, alpha=0.7, **_points(len(x)))
        indices = np.arange(len(self.means))
        self.marked_ = []
        if len(self.marked):
            for axes, across, up in (
                (top, indices, self.maxima.max(axis=1)),
                (bottom, indices, self.means.max(axis=1)),
                (plane, x, y),
            ):
                self.marked_ += _draw_rings(axes, across[self.marked], up[self.marked])
            self._name_marked(top, indices, self.maxima.max(axis=1))
        return self

    def _plane(self, axes: Axes) -> tuple[np.ndarray, np.ndarray]:
        """Choose what to plot against what: the first two channels, or largest by mean where there is one."""
        n_channels = self.means.shape[1]
        if n_channels == 1:
            axes.set(xlabel="mean intensity", ylabel="largest intensity")
            return self.means[:, 0], self.maxima[:, 0]
        first, second = channel_names(n_channels)[:2]
        axes.set(xlabel=f"mean {first}", ylabel=f"mean {second}")
        return self.means[:, 0], self.means[:, 1]

    def _name_marked(self, axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
        if self.names is None or len(self.marked) > _NAMED:
            return
        for index in self.marked:
            right = index < 0.6 * len(x)  # towards the middle, where there is room
            axes.annotate(
                short_name(self.names[index]),
                (x[index], y[index]),
                xytext=(6 if right else -6, 4),
                textcoords="offset points",
                ha="left" if right else "right",
                fontsize="x-small",
                parse_math=False,  # a file name may hold dollars
            )


def _as_columns(values: npt.ArrayLike) -> np.ndarray:
    columns = np.asarray(values, dtype=np.float64)
    columns = columns[:, np.newaxis] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.size == 0:
        raise ValueError(f"intensities of shape {columns.shape} cannot be drawn; needed is (n_images, n_channels)")
    return columns


def _draw_by_image(axes: Axes, values: np.ndarray, label: str) -> list[Any]:
    names, colours = channel_names(values.shape[1]), channel_colours(values.shape[1])
    lines = [
        axes.plot(column, ".", color=colour, alpha=0.7, label=name, **_points(len(values)))[0]
        for column, name, colour in zip(values.T, names, colours, strict=True)
    ]
    axes.set_ylabel(label)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin if low < 0 else 0, high + margin)  # all intensities begin at zero, where they can
    axes.margins(x=0.02)
    axes.label_outer()
    if 1 < len(lines) <= 6 and label.startswith("largest"):
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=len(lines), frameon=False, fontsize="small", markerscale=2
        )
    return lines


def _points(n: int) -> dict[str, Any]:
    return {"markersize": 5 if n <= 500 else 3, "markeredgewidth": 0, "rasterized": n > MANY_POINTS}


def _draw_rings(axes: Axes, x: np.ndarray, y: np.ndarray) -> list[Any]:
    return axes.plot(x, y, "o", color="none", markeredgecolor="#CC3311", markersize=9, label="marked")
