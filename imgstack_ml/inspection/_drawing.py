"""What several Displays share: colours, a check of shapes, and the places and artists of Matplotlib."""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpecBase

    from .pictures import Picture

# The colours of Okabe and Ito, which people with any colour vision tell apart.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
GREY = "#888888"
MANY_POINTS = 2000  # above this number, points are stored as pixels: as shapes they make a vector file too large

# Inches.
MIN_TILE = 1.5
MIN_SHEET = 4.0
PAD = 0.1
TITLE = 0.28


def array_of_shape(name: str, values: npt.ArrayLike | None, shape: tuple[int, ...], owner: str) -> np.ndarray | None:
    """Make an array of an optional parameter, and check its shape; `owner` is what needs that shape, for the error."""
    if values is None:
        return None
    array = np.asanyarray(values)  # a masked array hides pixels
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; {owner} need {shape}")
    return array


def channel_names(n_channels: int) -> list[str]:
    """Names of channels: three or four channels are taken for colours."""
    if n_channels in (3, 4):
        return ["red", "green", "blue", "alpha"][:n_channels]
    return ["intensity"] if n_channels == 1 else [f"channel {number}" for number in range(1, 1 + n_channels)]


def channel_colours(n_channels: int) -> list[str]:
    """Colours in which channels are drawn; red, green and blue channels have their own."""
    if n_channels in (3, 4):
        return [VERMILION, GREEN, BLUE, GREY][:n_channels]
    return [PALETTE[channel % len(PALETTE)] for channel in range(n_channels)]


def axes_or_new(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """Return `ax`, or the axes of a new figure if it is None."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1]


def subplot_grid(
    ax: Axes | None, n_rows: int, n_columns: int, figsize: tuple[float, float], **options: Any
) -> tuple[Any, GridSpecBase]:
    """Return a figure and a grid for several axes: a new figure, or the place of the subplot `ax`, which is hidden."""
    if ax is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=figsize, layout="constrained")
        return figure, figure.add_gridspec(n_rows, n_columns, **options)
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("ax must be a subplot, e.g. ax = fig.add_subplot()")
    ax.set_axis_off()
    return ax.get_figure(), place.subgridspec(n_rows, n_columns, **options)


def picture_grid(
    n_tiles: int, aspect: float, ax: Axes | None, *, max_columns: int = 8, n_columns: int | None = None
) -> tuple[Any, GridSpecBase]:
    """Return a figure and a grid for pictures of one aspect (height / width).

    A new figure has the size that the pictures and their titles need; a given subplot `ax` keeps its size.
    """
    n_columns = n_columns or choose_columns(n_tiles, max_columns)
    n_rows = ceil(n_tiles / n_columns)
    if ax is not None:
        return subplot_grid(ax, n_rows, n_columns, (0, 0), wspace=0.1, hspace=0.35)
    import matplotlib.pyplot as plt

    # In inches, because a title has the same height above a small picture as above a large one.
    tile_width = max(MIN_TILE, MIN_SHEET / n_columns)
    tile_height = tile_width * min(max(aspect, 0.2), 5.0)
    width = n_columns * (tile_width + PAD) + PAD
    height = n_rows * (tile_height + TITLE) + PAD
    figure = plt.figure(figsize=(width, height))
    grid = figure.add_gridspec(
        n_rows,
        n_columns,
        left=PAD / width,
        right=1 - PAD / width,
        bottom=PAD / height,
        top=1 - TITLE / height,
        wspace=PAD / tile_width,
        hspace=TITLE / tile_height,
    )
    return figure, grid


def choose_columns(n_tiles: int, max_columns: int) -> int:
    """Columns of a sheet of pictures: about square, or up to four times as wide as high if that leaves fewer gaps."""
    square = ceil(sqrt(n_tiles))
    candidates = range(min(square, max_columns), min(int(2 * sqrt(n_tiles)), max_columns) + 1)
    return min(candidates, key=lambda columns: (-n_tiles % columns, columns))


def draw_picture(axes: Axes, title: str, picture: Picture) -> Any:
    """Draw a picture without ticks, under its title."""
    axes.set_title(title, fontsize="small", pad=3)
    axes.set_axis_off()
    return axes.imshow(picture.pixels, **picture.options)


def draw_thumbnail(axes: Axes, point: np.ndarray, picture: Picture) -> Any:
    """Draw a small picture beside a point, towards the middle of the axes, and join the two by a line."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    options = picture.options
    image = OffsetImage(picture.pixels, zoom=34 / max(picture.pixels.shape[:2]), cmap=options.get("cmap"))
    image.image.set_data(picture.pixels)  # OffsetImage shows what a masked array hides
    image.image.set_clim(**{key: options[key] for key in ("vmin", "vmax") if key in options})
    # Towards the middle there is room for it.
    right, up = axes.transAxes.inverted().transform(axes.transData.transform(point)) < 0.5
    box = AnnotationBbox(
        image,
        tuple(point),
        xybox=(24 if right else -24, 24 if up else -24),
        boxcoords="offset points",
        pad=0.1,
        frameon=True,
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8},
        bboxprops={"edgecolor": GREY, "linewidth": 0.6},
        annotation_clip=False,
    )
    return axes.add_artist(box)
