"""Images as pictures that can be drawn: what of them is visible, their colour limits, their titles. NumPy only."""

from __future__ import annotations

from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from ..linalg.large_integers import beyond_float64, differences, exact_number

__all__ = [
    "Picture",
    "common_limits",
    "component_picture",
    "component_title",
    "mean_title",
    "plain_picture",
    "share_text",
    "shrink",
    "signed_picture",
    "visible_channels",
]


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


def plain_picture(image: np.ndarray, limits: tuple[float, float] | None = None) -> Picture:
    """Draw intensities from black to white between `limits`.

    The default limits are zero, or the smallest intensity if that is negative, and the largest intensity. Pixels that
    a masked array hides are transparent.
    """
    grey = _is_grey(image)
    image = _without_channel(image) if grey else image[..., :3]  # the range of an alpha channel is not that of colours
    hidden, image = np.ma.getmask(image), _filled(image)
    low, high = limits or (min(exact_number(image.min()), 0.0), exact_number(image.max()))
    if beyond_float64(image):
        image, (low, high) = differences(image, (low, high))
    span = high - low or 1.0
    if grey:
        options = {"cmap": "gray", "vmin": low, "vmax": max(low + span, np.nextafter(low, np.inf))}
        return Picture(_transparent(image, hidden), options)
    return Picture(_transparent(((image - low) / span).clip(0, 1), hidden), {})


def signed_picture(image: np.ndarray, cmap: str) -> Picture:
    """Draw positive and negative values alike: zero is the middle of `cmap`, or mid-grey in a colour image.

    The limits are plus and minus the 99th percentile of the absolute values. Pixels that a masked array hides are
    transparent.
    """
    hidden = np.ma.getmask(image)
    size = np.abs(image if hidden is np.ma.nomask else np.ma.compressed(image))
    image = _filled(image)
    # The percentile is zero where almost all pixels are. Then the largest value is the limit.
    limit = float(np.percentile(size, 99) or size.max() or 1)
    if _is_grey(image):
        options = {"cmap": cmap, "vmin": -limit, "vmax": limit}
        return Picture(_without_channel(_transparent(image, hidden)), options)
    return Picture(_transparent((0.5 + image[..., :3] / (2 * limit)).clip(0, 1), hidden), {})


def component_picture(image: np.ndarray, share: float | None, cmap: str) -> Picture:
    """Draw an eigenimage as a signed picture; flat if its `share` of the variance is 0, as it is arbitrary then."""
    return signed_picture(image * 0 if share == 0 else image, cmap)


def common_limits(images: np.ndarray) -> tuple[float, float]:
    """Limits for several images: 0 and 255 for uint8; else zero (or the smallest, if negative) and the largest."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    colours = images[..., :3] if images.ndim == 4 and images.shape[-1] == 4 else images
    return min(exact_number(colours.min()), 0.0), exact_number(colours.max())


def visible_channels(images: np.ndarray) -> np.ndarray:
    """Return images (b, height, width[, n_channels]) of 1, 3 or 4 channels as they are, others as their mean."""
    return images if images.ndim == 3 or images.shape[-1] in (1, 3, 4) else images.mean(axis=-1)


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Reduce images (b, height, width[, n_channels]) to at most `side` pixels a side, by means of squares of pixels.

    Integers keep their dtype. Others become float32, or float64 if the means are no usual float32. Of a masked array,
    means are those of the pixels that are not hidden.
    """
    if isinstance(images, np.ma.MaskedArray):
        shares = shrink((~np.ma.getmaskarray(images)).astype(np.float32), side)
        means = shrink(images.filled(0).astype(np.float64), side) / np.where(shares > 0, shares, 1)
        means = np.rint(means) if images.dtype.kind in "ui" else means
        return np.ma.array(means.astype(images.dtype), mask=shares == 0)
    factor = ceil(max(images.shape[1:3]) / side)
    if factor <= 1:
        return images
    if images.dtype.kind in "ui" and images.itemsize == 8:  # float64 does not hold all of them
        smallest = int(images.min())
        small = np.rint(_means_of_squares(differences(images, [smallest])[0], factor))
        return (small.astype(np.uint64) + np.uint64(smallest % 2**64)).astype(images.dtype)
    means = _means_of_squares(images, factor)
    largest = np.abs(means).max(initial=0)
    if images.dtype.kind in "ui":
        return np.rint(means).astype(images.dtype)
    return means.astype(np.float32) if largest == 0 or 1e-30 < largest < 1e30 else means


def _means_of_squares(images: np.ndarray, factor: int) -> np.ndarray:
    steps = [min(factor, size) for size in images.shape[1:3]]
    height, width = (size // step for size, step in zip(images.shape[1:3], steps, strict=True))
    whole = images[:, : height * steps[0], : width * steps[1]]
    # The rows of a square are summed first, along memory: ten times faster than both axes at once.
    rows = whole.reshape(len(images), height, steps[0], prod(whole.shape[2:])).sum(axis=2, dtype=np.float64)
    squares = rows.reshape(len(images), height, width, steps[1], *images.shape[3:])
    means: np.ndarray = squares.sum(axis=3) / (steps[0] * steps[1])
    return means


def component_title(number: int, share: float | None = None) -> str:
    """Name component `number`, counted from 1, with its share of the variance where that is known."""
    return f"PC {number}" if share is None else f"PC {number} · {share_text(share)}"


def mean_title(mean: np.ndarray) -> str:
    """Name a mean image, with the intensities that `plain_picture` draws black and white."""
    low, high = common_limits(mean[np.newaxis].astype(np.float64))
    return f"mean · {low:.3g} to {high:.3g}"


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


def _is_grey(image: np.ndarray) -> bool:
    return image.ndim == 2 or image.shape[-1] == 1


def _without_channel(image: np.ndarray) -> np.ndarray:
    """Remove the last axis of a grey image (height, width, 1)."""
    return image if image.ndim == 2 else image[..., 0]
