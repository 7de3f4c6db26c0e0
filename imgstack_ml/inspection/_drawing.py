"""What the Displays draw with: colours, places for axes, and pictures made of arrays."""

from __future__ import annotations

from math import ceil, prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpecBase

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
GREY = "#888888"
MANY_POINTS = 2000  # from here on points are stored as pixels in vector files, which would grow too large

# Inches.
MIN_TILE = 1.5
MIN_SHEET = 4.0
PAD = 0.1
TITLE = 0.28


def channel_names(n_channels: int) -> list[str]:
    """Names of channels: colours where there are three or four of them."""
    if n_channels in (3, 4):
        return ["red", "green", "blue", "alpha"][:n_channels]
    return ["intensity"] if n_channels == 1 else [f"channel {number}" for number in range(1, 1 + n_channels)]


def channel_colours(n_channels: int) -> list[str]:
    """Colours to draw channels in: their own where there are three or four of them."""
    if n_channels in (3, 4):
        return [VERMILION, GREEN, BLUE, GREY][:n_channels]
    return [PALETTE[channel % len(PALETTE)] for channel in range(n_channels)]


def share_text(share: float) -> str:
    """Write a share of the variance in percent; what is not zero does not look like it."""
    if share == 0:
        return "variance 0"
    percent = 100 * share
    return "<0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def subplot_grid(
    ax: Axes | None, n_rows: int, n_columns: int, figsize: tuple[float, float], **options: Any
) -> tuple[Any, GridSpecBase]:
    """Make places for several axes: a new figure, or the place of a given subplot, whose frame disappears."""
    if ax is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=figsize, layout="constrained")
        return figure, figure.add_gridspec(n_rows, n_columns, **options)
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("ax must be a subplot, e.g. ax = fig.add_subplot()")
    ax.set_axis_off()
    return ax.get_figure(), place.subgridspec(n_rows, n_columns, **options)


def choose_columns(n_tiles: int, max_columns: int) -> int:
    """Columns of a sheet that is about square, or up to four times as wide as high to leave fewer gaps."""
    square = ceil(sqrt(n_tiles))
    candidates = range(min(square, max_columns), min(int(2 * sqrt(n_tiles)), max_columns) + 1)
    return min(candidates, key=lambda columns: (-n_tiles % columns, columns))


def make_grid(
    n_tiles: int, aspect: float, ax: Axes | None, *, max_columns: int = 8, n_columns: int | None = None
) -> tuple[Any, GridSpecBase]:
    """Make places for pictures of one aspect (height / width): a new figure cut to measure, or that of a subplot."""
    n_columns = n_columns or choose_columns(n_tiles, max_columns)
    n_rows = ceil(n_tiles / n_columns)
    if ax is not None:
        return subplot_grid(ax, n_rows, n_columns, (0, 0), wspace=0.1, hspace=0.35)
    import matplotlib.pyplot as plt

    # Measured in inches, since titles keep their size whatever the pictures do.
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


def draw_picture(axes: Axes, title: str, picture: np.ndarray, options: dict[str, Any]) -> Any:
    """Draw a picture as the functions below make it, without ticks, under its title."""
    axes.set_title(title, fontsize="small", pad=3)
    axes.set_axis_off()
    return axes.imshow(picture, **options)


def signed_picture(image: np.ndarray, cmap: str, limit: float | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Scale about zero: symmetric colour limits for grey, 0..1 about mid-grey for RGB."""
    if limit is None:
        size = np.abs(image)
        # Where almost all pixels are zero, the percentile is too, and the few others set the limit.
        limit = float(np.percentile(size, 99) or size.max() or 1)
    if is_grey(image):
        return without_channel(image), {"cmap": cmap, "vmin": -limit, "vmax": limit}
    return (0.5 + image[..., :3] / (2 * limit)).clip(0, 1), {}


def plain_picture(image: np.ndarray, limits: tuple[float, float] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Scale intensities between `limits`; by default from zero, or the smallest if that is less, to the largest."""
    grey = is_grey(image)
    image = without_channel(image) if grey else image[..., :3]  # the range of an alpha channel is not that of colours
    low, high = limits or (min(float(image.min()), 0.0), float(image.max()))
    span = high - low or 1.0
    if grey:
        return image, {"cmap": "gray", "vmin": low, "vmax": low + span}
    return ((image - low) / span).clip(0, 1), {}


def component_picture(image: np.ndarray, share: float | None, cmap: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw an eigenimage as a signed picture; flat where it explains nothing, and its direction is arbitrary."""
    return signed_picture(np.zeros_like(image) if share == 0 else image, cmap)


def mean_title(mean: np.ndarray) -> str:
    """Name a mean image by the intensities of its darkest and brightest colour, as `plain_picture` draws it."""
    low, high = limits_of(mean[np.newaxis].astype(np.float64))
    return f"mean · {low:.3g} to {high:.3g}"


def limits_of(images: np.ndarray) -> tuple[float, float]:
    """Limits that suit several images alike: those of 8 bits as they are, others from zero (or less) to the largest."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    colours = images[..., :3] if images.ndim == 4 and images.shape[-1] == 4 else images
    return min(float(colours.min()), 0.0), float(colours.max())


def is_grey(image: np.ndarray) -> bool:
    """Whether an image has one channel."""
    return image.ndim == 2 or image.shape[-1] == 1


def without_channel(image: np.ndarray) -> np.ndarray:
    """Take the last axis off a grey image that has one."""
    return image if image.ndim == 2 else image[..., 0]


def as_shown(images: np.ndarray) -> np.ndarray:
    """Choose what can be seen of images (b, height, width[, n_channels]): the mean of channels that are no colours."""
    return images if images.ndim == 3 or images.shape[-1] in (1, 3, 4) else images.mean(axis=-1)


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Make images (b, height, width[, n_channels]) small by averaging squares of pixels, to at most `side` pixels."""
    factor = ceil(max(images.shape[1:3]) / side)
    if factor <= 1:
        return images
    steps = [min(factor, size) for size in images.shape[1:3]]
    height, width = (size // step for size, step in zip(images.shape[1:3], steps, strict=True))
    whole = images[:, : height * steps[0], : width * steps[1]]
    # Rows of a square first, along memory: ten times faster than both ways at once.
    rows = whole.reshape(len(images), height, steps[0], prod(whole.shape[2:])).sum(axis=2, dtype=np.float64)
    squares = rows.reshape(len(images), height, width, steps[1], *images.shape[3:])
    small = (squares.sum(axis=3) / (steps[0] * steps[1])).astype(np.float32)
    return np.rint(small).astype(images.dtype) if images.dtype.kind in "ui" else small


def draw_thumbnail(axes: Axes, point: np.ndarray, picture: np.ndarray, options: dict[str, Any]) -> Any:
    """Draw a small picture beside a point, towards the middle of the axes, and join the two by a line."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    norm = {key: options[key] for key in ("vmin", "vmax") if key in options}
    image = OffsetImage(picture, zoom=34 / max(picture.shape[:2]), cmap=options.get("cmap"))
    image.image.set_clim(**norm)
    # Towards the middle, where there is room for it.
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
