"""What several Displays share: colours, a check of shapes, and the places and artists of Matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import signature
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ..base.channels import are_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpecBase

    from .pictures import Picture

# The colours of Okabe and Ito, which people with any colour vision tell apart.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, "#8C564B", "#9467BD", "#BCBD22", "#2A8C94")
MARKERS = "os^DvPX*"
MAX_GROUPS = len(PALETTE) * len(MARKERS)
GREY = "#888888"
MANY_POINTS = 2000  # above this number, points are stored as pixels: as shapes they make a vector file too large

# Inches.
MIN_TILE = 1.5
MIN_SHEET = 4.0
PAD = 0.1
TITLE = 0.28
CAPTION = 0.16
KEY = 0.3  # names of the colours of a composite, above all pictures
# Points: a thumbnail, a smaller one where there are many, and the space around it.
THUMBNAIL, MIN_THUMBNAIL, GAP = 34.0, 16.0, 6.0


def check_plot_options(display: type, options: Iterable[str]) -> None:
    """Raise TypeError that names `from_estimator`, which was called, for an option that `plot` does not have."""
    known = signature(display.plot).parameters  # type: ignore[attr-defined]
    for name in options:
        if name not in known:
            raise TypeError(f"{display.__name__}.from_estimator() got an unexpected keyword argument {name!r}")


def array_of_shape(name: str, values: npt.ArrayLike | None, shape: tuple[int, ...], owner: str) -> np.ndarray | None:
    """Make an array of an optional parameter, and check its shape; `owner` is what needs that shape, for the error."""
    if values is None:
        return None
    array = np.asanyarray(values)  # a masked array hides pixels
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; {owner} need {shape}")
    return array


def channel_colours(names: tuple[str, ...]) -> list[str]:
    """Colours in which channels are drawn; red, green and blue channels have their own."""
    if are_colours(names):
        return [VERMILION, GREEN, BLUE, GREY][: len(names)]
    return [colour for colour, _ in group_styles(len(names))]


def group_styles(n_groups: int) -> list[tuple[str, str]]:
    """Colour and marker of each of up to `MAX_GROUPS` groups, all different; more of them begin anew."""
    # Neighbours differ in both. Each time that colours begin anew, markers are three further, of eight.
    return [(PALETTE[i % len(PALETTE)], MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]) for i in range(n_groups)]


def draw_legend(axes: Axes, artists: list[Any], names: list[str], **place: Any) -> Any:
    """Name groups of points, in columns of up to 16; their markers have one size, and are opaque."""
    # The names are set afterwards, because a legend leaves out names that begin with an underscore.
    n_columns = place.pop("ncols", ceil(len(names) / 16))
    options = {"frameon": False, "fontsize": "small", "handletextpad": 0.4, "columnspacing": 1.0, "ncols": n_columns}
    legend = axes.legend(artists, ["name"] * len(names), **options, **place)
    handles: list[Any] = legend.legend_handles
    for handle in handles:
        handle.set_alpha(1)
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([36])
        else:
            handle.set_markersize(6)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # dollars in a name are no formula
        text.set_text(name)
    return legend


def tick_whole_numbers(axis: Any) -> None:
    """Let the ticks of an axis that counts images or components be whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))


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
    n_tiles: int,
    aspect: float,
    ax: Axes | None,
    *,
    max_columns: int = 8,
    n_columns: int | None = None,
    key: Sequence[tuple[str, Any]] = (),
) -> tuple[Any, GridSpecBase]:
    """Return a figure and a grid for pictures of one aspect (height / width).

    A new figure has the size that the pictures, their titles and captions need, and a legend above them of the names
    and colours in `key`; a given subplot `ax` keeps its size.
    """
    from matplotlib.patches import Patch

    n_columns = n_columns or choose_columns(n_tiles, max_columns)
    n_rows = ceil(n_tiles / n_columns)
    legend = {
        "handles": [Patch(facecolor=colour, edgecolor=GREY, label=name) for name, colour in key],
        "ncols": max(1, len(key)),
        "fontsize": "x-small",
        "frameon": False,
    }
    if ax is not None:
        # A layout engine finds the space for titles and captions by itself.
        placed = ax.figure.get_layout_engine() is not None
        figure, grid = subplot_grid(ax, n_rows, n_columns, (0, 0), wspace=0.1, hspace=0.05 if placed else 0.5)
        if key:
            ax.legend(**legend, loc="lower center", bbox_to_anchor=(0.5, 1))
        return figure, grid
    import matplotlib.pyplot as plt

    # In inches, because a title has the same height above a small picture as above a large one.
    tile_width = max(MIN_TILE, MIN_SHEET / n_columns)
    tile_height = tile_width * min(max(aspect, 0.2), 5.0)
    width = n_columns * (tile_width + PAD) + PAD
    head = KEY if key else 0.0
    height = n_rows * (tile_height + TITLE + CAPTION) + PAD + head
    figure = plt.figure(figsize=(width, height))
    if key:
        figure.legend(**legend, loc="upper center", borderaxespad=0.2)
    grid = figure.add_gridspec(
        n_rows,
        n_columns,
        left=PAD / width,
        right=1 - PAD / width,
        bottom=(PAD + CAPTION) / height,
        top=1 - (TITLE + head) / height,
        wspace=PAD / tile_width,
        hspace=(TITLE + CAPTION) / tile_height,
    )
    return figure, grid


def choose_columns(n_tiles: int, max_columns: int) -> int:
    """Columns of a sheet of pictures: about square, or up to four times as wide as high if that leaves fewer gaps."""
    square = ceil(sqrt(n_tiles))
    candidates = range(min(square, max_columns), min(int(2 * sqrt(n_tiles)), max_columns) + 1)
    return min(candidates, key=lambda columns: (-n_tiles % columns, columns))


def draw_picture(axes: Axes, title: str, picture: Picture, caption: str = "") -> Any:
    """Draw a picture without ticks, under its title; below it a caption, such as the range of its intensities."""
    axes.set_title(title, fontsize="small", pad=3)
    axes.set_axis_off()
    image = axes.imshow(picture.pixels, **picture.options)
    if caption:
        # At the lower edge of the picture, which need not be that of its axes.
        place: dict[str, Any] = {"xycoords": image, "xytext": (0, -2), "textcoords": "offset points"}
        axes.annotate(caption, (0.5, 0), **place, ha="center", va="top", fontsize="x-small", annotation_clip=False)
    return image


def draw_thumbnails(axes: Axes, points: np.ndarray, pictures: Sequence[Picture]) -> list[Any]:
    """Draw small pictures in a frame around all points, and join each to its own point (n, 2) by a line.

    Limits of the axes grow, so that there is no point in the frame. Thumbnails are as close to their points as it can
    be without one covering another; if there are very many, they are smaller, and those that do not fit are left out.
    """
    points_per_pixel = _place_axes(axes)
    box = axes.get_window_extent()
    width, height = points_per_pixel * box.width, points_per_pixel * box.height
    size = THUMBNAIL
    while len(slots := _frame(width, height, size + GAP)) < len(pictures) and size > MIN_THUMBNAIL:
        size *= 0.95
    bands = [min((size + 2 * GAP) / side, 0.35) for side in (width, height)]
    axes.margins(*(band / (1 - 2 * band) for band in bands))
    axes.autoscale_view()
    places = axes.transAxes.inverted().transform(axes.transData.transform(points))
    scale = np.array([width, height])
    distances = np.linalg.norm((places[:, np.newaxis] - slots) * scale, axis=2)
    rows, columns = linear_sum_assignment(distances)
    drawn = zip(rows.tolist(), slots[columns], strict=True)
    return [_draw_thumbnail(axes, points[row], slot, pictures[row], size) for row, slot in drawn]


def _frame(width: float, height: float, cell: float) -> np.ndarray:
    """Return places (n, 2) along the edges of axes of a size in points, as fractions of it, a `cell` apart."""
    n_across, n_down = max(2, int(width / cell)), max(0, int((height - 2 * cell) / cell))
    across = cell / 2 + np.linspace(0, width - cell, n_across)
    down = np.linspace(1.5 * cell, height - 1.5 * cell, n_down) if n_down > 1 else np.full(n_down, height / 2)
    slots = [(x, y) for y in (cell / 2, height - cell / 2) for x in across]
    slots += [(x, y) for x in (cell / 2, width - cell / 2) for y in down]
    return np.array(slots) / [width, height]


def _draw_thumbnail(axes: Axes, point: np.ndarray, slot: np.ndarray, picture: Picture, size: float) -> Any:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    options = picture.options
    image = OffsetImage(picture.pixels, zoom=size / max(picture.pixels.shape[:2]), cmap=options.get("cmap"))
    image.image.set_data(picture.pixels)  # OffsetImage shows what a masked array hides
    image.image.set_clim(**{key: options[key] for key in ("vmin", "vmax") if key in options})
    box = AnnotationBbox(
        image,
        tuple(point),
        xybox=tuple(slot),
        boxcoords="axes fraction",
        pad=0.1,
        frameon=True,
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "alpha": 0.8},
        bboxprops={"edgecolor": GREY, "linewidth": 0.6},
        annotation_clip=False,
    )
    return axes.add_artist(box)


def _place_axes(axes: Axes) -> float:
    """Lay out the figure, so that the size of the axes is known; return the points (1/72 inch) of a pixel."""
    figure: Any = axes.figure
    figure.figure.draw_without_rendering()  # of a part of a figure, the figure
    return 72 / float(figure.dpi)


def draw_names(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> list[Any]:
    """Write a name beside each point, on the side where there is room, and higher where another name is in the way."""
    points_per_pixel = _place_axes(axes)
    middle = axes.get_window_extent().x0 + 0.6 * axes.get_window_extent().width
    places = points_per_pixel * axes.transData.transform(points)
    taken: list[tuple[float, float, float]] = [(x - 6, x + 6, y) for x, y in places]  # rings around the points
    texts = []
    for point, (x, y), name in zip(points, places.tolist(), names, strict=True):
        right, length = x < middle * points_per_pixel, 4.4 * len(name) + 6
        start, rise = (x + 6 if right else x - 6 - length), 4.0
        while any(abs(y + rise - top) < 9 and start < end and begin < start + length for begin, end, top in taken):
            rise += 3
        taken.append((start, start + length, y + rise))
        options: dict[str, Any] = {"ha": "left" if right else "right", "fontsize": "x-small", "parse_math": False}
        offset = (6 if right else -6, rise)
        texts.append(axes.annotate(name, point, xytext=offset, textcoords="offset points", **options))
    return texts
