"""Intensities of each image: their ranges and mean colours, and the images that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..base.channels import channel_names_of
from ..base.validation import StackLike
from ._drawing import GREY, MANY_POINTS, channel_colours, draw_legend, draw_names, subplot_grid, tick_whole_numbers
from .channels import channel_positions, check_names
from .stacks import check_stack, image_names, short_name
from .statistics import ImageStatistics, odd_ranges, read_statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NAMED = 6  # more names beside their points would cover each other
_MAX_IN_LEGEND = 24  # channels; of a spectrum there is no room for all names
_RING = "#CC3311"  # red


class IntensityDisplay:
    """Three plots: largest and mean intensity of each image and channel, and one channel or measure against another.

    `from_stack` marks images whose range of intensities is far from that of most others: less than half or more than
    twice the median width, and more than 5 robust standard deviations away. Usually their exposure differs, and a PCA
    makes this difference its first component; ``IntensityRescaler()`` before the PCA gives all images one range. Images
    of one value throughout, such as black ones, are marked where they are less than half of the images.

    Parameters
    ----------
    means, maxima : array-like of shape (n_images, n_channels) or (n_images,)
        In the intensity units of the stack.
    marked : array-like of int or bool, optional
        Images to mark: their positions, or a mask over all images.
    names : sequence of str, optional
        A name for each image; up to six marked images are named in the plot.
    channel_names : sequence of str, optional
        Names of the channels, by default ``c0``, ``c1``, …

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of 3 matplotlib Axes
        Maxima by image; means by image; and the plane: mean of the second by mean of the first channel (green by red),
        or largest by mean intensity where there is one channel.
    maxima_, means_ : list of matplotlib Line2D
        Points of each channel.
    plane_ : matplotlib Line2D
        Points of the plane.
    marked_ : list of matplotlib Line2D
        Rings around the marked images, one item for each of the axes; empty if no image is marked.

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
        channel_names: Sequence[str] | None = None,
    ):
        self.means, self.maxima = _as_columns(means), _as_columns(maxima)
        if self.means.shape != self.maxima.shape:
            raise ValueError(f"means has shape {self.means.shape} and maxima {self.maxima.shape}; they must be equal")
        marked = np.asarray(marked)
        self.marked = np.arange(len(self.means))[marked if marked.dtype == bool else marked.astype(int)]
        self.names = names
        self.channel_names = check_names(channel_names, (1, *self.means.shape))

    @classmethod
    def from_stack(
        cls,
        X: StackLike,
        *,
        channels: Sequence[int | str] | None = None,
        ax: Axes | None = None,
        progress: bool = False,
    ) -> IntensityDisplay:
        """Draw the intensities of a stack; a lazy stack is read once.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            The images.
        channels : sequence of int or str, optional
            Names or positions of the channels to draw; all if None.
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
        statistics = read_statistics(X, caller=cls.__name__, progress=progress)
        images = check_stack(cls.__name__, X)
        found = channel_names_of(X, images.image_shape, images.data.dtype)
        names = image_names(X, len(statistics.means))
        return cls.from_statistics(statistics, names=names, channel_names=found, channels=channels, ax=ax)

    @classmethod
    def from_statistics(
        cls,
        statistics: ImageStatistics,
        *,
        names: Sequence[str] | None = None,
        channel_names: Sequence[str] | None = None,
        channels: Sequence[int | str] | None = None,
        ax: Axes | None = None,
    ) -> IntensityDisplay:
        """Draw the intensities of a stack that was read before.

        Parameters
        ----------
        statistics : ImageStatistics
            What `imgstack_ml.inspection.statistics.read_statistics` returns.
        names : sequence of str, optional
            A name for each image.
        channel_names : sequence of str, optional
            Names of the channels.
        channels : sequence of int or str, optional
            Names or positions of those to draw; all if None.
        ax : matplotlib Axes, optional
            Subplot to fill; a new figure if None.

        Returns
        -------
        IntensityDisplay
        """
        constant = statistics.maxima.max(axis=1) == statistics.minima.min(axis=1)
        marked = odd_ranges(statistics) | (constant & (constant.mean() < 0.5))
        display = cls(statistics.means, statistics.maxima, marked=marked, names=names, channel_names=channel_names)
        return display.plot(channels=channels, ax=ax)

    def plot(self, *, channels: Sequence[int | str] | None = None, ax: Axes | None = None) -> IntensityDisplay:
        """Draw the three plots.

        Parameters
        ----------
        channels : sequence of int or str, optional
            Names or positions of the channels to draw; all if None. The first two make the plane.
        ax : matplotlib Axes, optional
            Subplot whose place the plots take; a new figure if None.

        Returns
        -------
        self : IntensityDisplay
        """
        chosen = self.channel_names if channels is None else channels
        positions = list(channel_positions(chosen, self.channel_names))
        names = [short_name(self.channel_names[i], 16) for i in positions]
        colours = [channel_colours(self.channel_names)[i] for i in positions]
        maxima, means = self.maxima[:, positions], self.means[:, positions]
        self.figure_, grid = subplot_grid(ax, 2, 2, (9.0, 4.6), width_ratios=[1.7, 1.0])
        top = self.figure_.add_subplot(grid[0, 0])
        bottom = self.figure_.add_subplot(grid[1, 0], sharex=top)
        plane = self.figure_.add_subplot(grid[:, 1])
        self.axes_ = np.array([top, bottom, plane])
        self.maxima_ = _draw_by_image(top, maxima, colours, "largest intensity")
        if 1 < len(names) <= _MAX_IN_LEGEND:
            place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": min(6, len(names))}
            draw_legend(top, self.maxima_, names, **place)
        self.means_ = _draw_by_image(bottom, means, colours, "mean intensity")
        bottom.set_xlabel("image")
        tick_whole_numbers(bottom.xaxis)
        self.plane_ = _draw_plane(plane, means, maxima, names)
        self.marked_ = []
        if len(self.marked):
            largest = maxima.max(axis=1)
            images = np.arange(len(means))
            points = [(images, largest), (images, means.max(axis=1)), self.plane_.get_data()]
            for axes, (x, y) in zip(self.axes_, points, strict=True):
                style = {"color": "none", "markeredgecolor": _RING, "markersize": 9, "label": "marked"}
                self.marked_ += axes.plot(x[self.marked], y[self.marked], "o", **style)
            if self.names is not None and len(self.marked) <= _MAX_NAMED:
                named = [(index, largest[index]) for index in self.marked]
                draw_names(top, named, [short_name(self.names[index]) for index in self.marked])
        return self


def _draw_plane(axes: Axes, means: np.ndarray, maxima: np.ndarray, names: list[str]) -> Any:
    """Draw the means of the first two channels, or largest by mean intensity where there is one channel."""
    x, y, labels = means[:, 0], maxima[:, 0], ["mean intensity", "largest intensity"]
    if len(names) > 1:
        y, labels = means[:, 1], [f"mean intensity, {name}" for name in names[:2]]
    axes.set(xlabel=labels[0], ylabel=labels[1])
    return axes.plot(x, y, "o", color=GREY, alpha=0.7, **_point_style(len(x)))[0]


def _as_columns(values: npt.ArrayLike) -> np.ndarray:
    columns = np.asarray(values, dtype=np.float64)
    columns = columns[:, np.newaxis] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.size == 0:
        raise ValueError(f"intensities of shape {columns.shape} cannot be drawn; needed is (n_images, n_channels)")
    return columns


def _draw_by_image(axes: Axes, values: np.ndarray, colours: list[str], label: str) -> list[Any]:
    """Draw values (n_images, n_channels) by the position of the image, one line of points for each channel."""
    lines = [
        axes.plot(column, "o", color=colour, alpha=0.7, **_point_style(len(values)))[0]
        for column, colour in zip(values.T, colours, strict=True)
    ]
    axes.set_ylabel(label)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)  # dots at zero are drawn whole
    axes.margins(x=0.02)
    axes.label_outer()
    return lines


def _point_style(n: int) -> dict[str, Any]:
    return {"markersize": 3.5 if n <= 500 else 2, "markeredgewidth": 0, "rasterized": n > MANY_POINTS}
