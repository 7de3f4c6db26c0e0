"""Images as pictures that can be drawn: what of them is visible, their colour limits, their titles. NumPy only."""

from __future__ import annotations

from itertools import product
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from ..linalg.large_integers import beyond_float64, differences, exact_number

__all__ = [
    "Picture",
    "colours_of",
    "common_limits",
    "component_picture",
    "component_title",
    "number_text",
    "plain_limits",
    "plain_picture",
    "range_text",
    "share_text",
    "shrink",
    "shrink_by",
    "signed_limit",
    "signed_picture",
    "visible_channels",
]

_MAX_CHANNELS = 8  # of images whose channels are drawn; of more, as of a spectrum, their mean is
_PIECE_BYTES = 2**22


class Picture(NamedTuple):
    """Pixels, and the options with which Matplotlib's ``imshow`` draws them.

    Attributes
    ----------
    pixels : ndarray of shape (height, width), (height, width, 3) or (height, width, 4)
        Grey values in any unit, or colours from 0 to 1. Pixels outside a mask are transparent: hidden in a masked array
        of grey values, alpha 0 in colours.
    options : dict
        ``cmap``, ``vmin`` and ``vmax`` for grey values; empty for colours.
    """

    pixels: np.ndarray
    options: dict[str, Any]


def plain_picture(
    image: np.ndarray, limits: tuple[Any, Any] | None = None, colours: np.ndarray | None = None
) -> Picture:
    """Draw intensities from black to white between `limits`; the default limits are `plain_limits`.

    Channels are red, green and blue, or have `colours` (n_channels, 3) of a composite, in which they are added up; then
    `limits` are two arrays. Pixels that a masked array hides are transparent.
    """
    grey = _is_grey(image)
    image = _without_channel(image) if grey else image if colours is not None else image[..., :3]
    hidden, image = np.ma.getmask(image), _filled(image)
    low, high = limits or plain_limits(image, colours)
    if colours is None and beyond_float64(image):
        image, (low, high) = differences(image, (low, high))
    if grey:
        options = {"cmap": "gray", "vmin": low, "vmax": max(low + (high - low or 1.0), np.nextafter(low, np.inf))}
        return Picture(_transparent(image, hidden), options)
    span = np.where(np.equal(high, low), 1.0, np.subtract(high, low))
    return Picture(_transparent(_added_up(((image - low) / span).clip(0, 1), colours), hidden), {})


def signed_picture(image: np.ndarray, cmap: str, limit: Any = None, colours: np.ndarray | None = None) -> Picture:
    """Draw positive and negative values alike: zero is the middle of `cmap`, or mid-grey in a colour image.

    The limits are plus and minus `limit`, by default `signed_limit`. Pixels that a masked array hides are transparent.
    """
    hidden = np.ma.getmask(image)
    limit = signed_limit(image, colours) if limit is None else limit
    image = _filled(image)
    if _is_grey(image):
        options = {"cmap": cmap, "vmin": -limit, "vmax": limit}
        return Picture(_without_channel(_transparent(image, hidden)), options)
    shown = image if colours is not None else image[..., :3]
    return Picture(_transparent((0.5 + _added_up(shown / (2 * limit), colours)).clip(0, 1), hidden), {})


def signed_limit(image: np.ndarray, colours: np.ndarray | None = None) -> Any:
    """Return the 99th percentile of the absolute values, of each channel if these have `colours` of a composite."""
    if colours is not None:
        return np.array([signed_limit(image[..., i]) for i in range(image.shape[-1])])
    size = np.abs(np.ma.compressed(image) if isinstance(image, np.ma.MaskedArray) else image)
    # The percentile is zero where almost all pixels are. Then the largest value is the limit.
    return float(np.percentile(size, 99) or size.max() or 1)


def plain_limits(images: np.ndarray, colours: np.ndarray | None = None) -> tuple[Any, Any]:
    """Return the 0.5th and 99.5th percentile of intensities, of each channel if these have `colours` of a composite.

    They are the smallest and largest intensity where almost all intensities are equal.
    """
    if colours is not None:
        limits = [plain_limits(images[..., i]) for i in range(images.shape[-1])]
        return np.array([low for low, _ in limits]), np.array([high for _, high in limits])
    values = np.ma.compressed(images) if np.ma.is_masked(images) else np.ma.getdata(images)
    if not beyond_float64(values):
        low, high = map(float, np.percentile(values, (0.5, 99.5)))
        if low < high:
            return low, high
    return exact_number(values.min()), exact_number(values.max())


def common_limits(images: np.ndarray, colours: np.ndarray | None = None) -> tuple[Any, Any]:
    """Limits for several images: 0 and 255 for uint8, else `plain_limits`."""
    return (0.0, 255.0) if images.dtype == np.uint8 else plain_limits(images, colours)


def component_picture(image: np.ndarray, share: float | None, cmap: str) -> Picture:
    """Draw an eigenimage as a signed picture; flat if its `share` of the variance is 0, as it is arbitrary then."""
    return signed_picture(image * 0 if share == 0 else image, cmap)


def visible_channels(images: np.ndarray) -> np.ndarray:
    """Return images (b, height, width[, n_channels]) of up to 8 channels as they are, others as their mean."""
    return images if images.ndim == 3 or images.shape[-1] <= _MAX_CHANNELS else images.mean(axis=-1)


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Reduce images (b, height, width[, n_channels]) to at most `side` pixels a side, by means of squares of pixels.

    Integers keep their dtype. Others become float32, or float64 if the means are no usual float32. Of a masked array,
    means are those of the pixels that are not hidden. Images are read in pieces of a few MB, each once.
    """
    return shrink_by(images, ceil(max(images.shape[1:3]) / side))


def shrink_by(images: Any, factor: int) -> np.ndarray:
    """Reduce images as `shrink` does, by means of squares of `factor` pixels a side; what is left at edges is cut."""
    if factor <= 1:
        return np.asanyarray(images)
    steps = [min(factor, size) for size in images.shape[1:3]]
    height, width = (size // step for size, step in zip(images.shape[1:3], steps, strict=True))
    whole = images[:, : height * steps[0], : width * steps[1]]
    is_masked, is_large = isinstance(images, np.ma.MaskedArray), images.dtype.kind in "ui" and images.itemsize == 8
    out = np.empty((len(images), height, width, *images.shape[3:]), images.dtype if is_large else np.float64)
    hidden = np.zeros(out.shape if is_masked else 0, bool)
    row_bytes = steps[0] * max(1, images[:1, :1].nbytes)
    n_rows = max(1, _PIECE_BYTES // row_bytes)
    n_images = max(1, _PIECE_BYTES // (row_bytes * height))
    for i, row in product(range(0, len(images), n_images), range(0, height, n_rows)):
        piece = whole[i : i + n_images, row * steps[0] : (row + n_rows) * steps[0]]
        place = slice(i, i + n_images), slice(row, row + n_rows)
        if is_masked:
            shown = _means_of_squares((~np.ma.getmaskarray(piece)).view(np.uint8), steps)
            found = _means_of_squares(piece.filled(0), steps) / np.where(shown > 0, shown, 1)
            out[place] = np.rint(found) if is_large else found
            hidden[place] = shown == 0
        else:
            out[place] = _means_of_squares(piece, steps)
    if images.dtype.kind in "ui":
        out = out if is_large else np.rint(out).astype(images.dtype)
    else:
        largest = np.abs(out).max(initial=0)
        out = out.astype(np.float32) if largest == 0 or 1e-30 < largest < 1e30 else out
    return np.ma.array(out, mask=hidden) if is_masked else out


def _means_of_squares(images: np.ndarray, steps: list[int]) -> np.ndarray:
    """Return the means of squares, of 64-bit integers in their dtype."""
    if images.dtype.kind in "ui" and images.itemsize == 8:  # float64 does not hold all of them
        smallest = int(images.min())
        small = np.rint(_means_of_squares(differences(images, [smallest])[0], steps))
        return (small.astype(np.uint64) + np.uint64(smallest % 2**64)).astype(images.dtype)
    # The rows of a square are summed first, along memory, in a dtype that the processor adds without conversion.
    kind = images.dtype.kind if images.itemsize <= 4 else ""
    short = {"u": np.uint64 if images.itemsize > 2 else np.uint32, "f": np.float32}.get(kind, np.float64)
    n, height, width, *channels = images.shape
    split = images.reshape(n, height // steps[0], steps[0], width * prod(channels))
    with np.errstate(over="ignore"):
        rows = split.sum(axis=2, dtype=short)
    if short is np.float32 and not np.isfinite(rows).all():
        rows = split.sum(axis=2, dtype=np.float64)
    squares = rows.reshape(n, -1, width // steps[1], steps[1], *channels)
    total = squares.sum(axis=3, dtype=np.float64)
    means: np.ndarray = total / (steps[0] * steps[1])
    return means


def colours_of(picture: Picture) -> np.ndarray:
    """Colours (height, width, 3), uint8, as Matplotlib's `imshow` would draw them; with alpha if pixels are hidden."""
    pixels, options = picture
    if pixels.ndim == 3:
        return np.rint(255 * pixels).astype(np.uint8)
    from matplotlib import colormaps

    low, high = options["vmin"], options["vmax"]
    scaled = ((pixels.astype(np.float64) - low) / (high - low)).clip(0, 1)
    colours: np.ndarray = colormaps[options["cmap"]](scaled, bytes=True)
    return colours if np.ma.is_masked(scaled) else colours[..., :3].copy()


def component_title(number: int, share: float | None = None) -> str:
    """Name component `number`, counted from 1, with its share of the variance where that is known."""
    return f"PC {number}" if share is None else f"PC {number} · {share_text(share)}"


def range_text(low: float, high: float) -> str:
    """Write the intensities that are drawn black and white."""
    return f"{number_text(low)} to {number_text(high)}"


def number_text(number: float) -> str:
    """Write three digits of a number, without an exponent up to a million."""
    return f"{float(f'{number:.3g}'):g}"


def share_text(share: float) -> str:
    """Write a share of the variance in percent; a tiny share is "<0.1 %", and only zero is "variance 0"."""
    if share == 0:
        return "variance 0"
    percent = 100 * share
    return "<0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def _filled(image: np.ndarray) -> np.ndarray:
    """Return an image with an arbitrary visible value where a masked array hides one: limits stay the same."""
    return image.filled(image.compressed()[0]) if isinstance(image, np.ma.MaskedArray) else image


def _transparent(pixels: np.ndarray, hidden: Any) -> np.ndarray:
    """Hide grey pixels (height, width[, 1]), or give colours an alpha channel of 0 where all channels are hidden."""
    if hidden is np.ma.nomask:
        return pixels
    if _is_grey(pixels):
        return np.ma.array(pixels, mask=hidden)
    return np.dstack([pixels, ~hidden[..., :3].all(axis=-1)])


def _added_up(scaled: np.ndarray, colours: np.ndarray | None) -> np.ndarray:
    """Return the sum of the channels of a composite, each in its colour; the channels themselves if there is none."""
    return scaled if colours is None else (scaled @ colours).clip(-1, 1)


def _is_grey(image: np.ndarray) -> bool:
    return image.ndim == 2 or image.shape[-1] == 1


def _without_channel(image: np.ndarray) -> np.ndarray:
    """Remove the last axis of a grey image (height, width, 1)."""
    return image if image.ndim == 2 else image[..., 0]
