"""What a notebook shows of images: a strip of some of a stack, and a single one; they are decoded when shown."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence

import dask.array as da
import numpy as np

from ..base.notebook import picture, reduce_image
from ..errors import ImgstackError

__all__ = ["ShownImage", "strip"]

_MAX_SHOWN = 8  # images of a strip, and channels of an image
_MAX_DECODED = 2**28  # bytes of a strip; of larger images fewer are decoded
_STRIP_SIDE, _SIDE = 96, 384


class ShownImage(da.Array):
    """One image of a stack as a lazy array, which a notebook shows as a picture; what is computed from it is plain."""

    name_shown: str = ""
    colours: bool = False
    channel_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, array: da.Array, name: str, channel_names: tuple[str, ...], *, colours: bool) -> ShownImage:
        """Make it of an array (height, width[, n_channels])."""
        shown = cls(array.dask, array.name, array.chunks, dtype=array.dtype, meta=array._meta)
        shown.name_shown, shown.channel_names, shown.colours = name, channel_names, colours
        return shown

    def _repr_html_(self) -> str:
        table = str(super()._repr_html_())
        try:
            pixels = reduce_image(np.asarray(self.compute()), _SIDE)
        except (ImgstackError, OSError, ValueError) as error:
            return f"<p>{html.escape(str(error))}</p>{table}"
        name = os.path.basename(self.name_shown)
        if self.colours:
            return picture(_as_bytes(pixels[..., :3], (0, 255)), name, _SIDE) + table
        channels = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, 2, 0))
        numbered = [f"channel {number}" for number in range(len(channels))]
        names = self.channel_names if len(self.channel_names) == len(channels) else numbered
        named = [name] if pixels.ndim == 2 else [f"{name}, {channel}" for channel in names]
        pictures = [_grey(*both, self.dtype) for both in zip(channels[:_MAX_SHOWN], named, strict=False)]
        more = len(channels) - _MAX_SHOWN
        return "".join(pictures) + (f"<p>and {more} more channels</p>" if more > 0 else "") + table


def strip(names: Sequence[str], read: Callable[[int], np.ndarray], image_bytes: int, *, colours: bool) -> str:
    """Show up to 8 evenly spaced images, fewer of large ones, on one scale; those that cannot be read say why.

    Parameters
    ----------
    names : sequence of str
        Of all images.
    read : callable
        Decodes the image at a position.
    image_bytes : int
        Of one image.
    colours : bool
        Whether the channels are red, green, blue; otherwise their mean is shown.
    """
    n_shown = min(len(names), _MAX_SHOWN, max(1, _MAX_DECODED // max(1, image_bytes)))
    found: dict[int, np.ndarray] = {}
    errors = []
    dtype = np.dtype(np.uint8)
    for index in np.unique(np.linspace(0, len(names) - 1, n_shown).round().astype(int)).tolist():
        try:
            pixels = read(index)
        except (ImgstackError, OSError, ValueError) as error:
            errors.append(str(error))
            continue
        dtype, found[index] = pixels.dtype, reduce_image(pixels, _STRIP_SIDE)
    texts = [f"<p>{html.escape(text)}</p>" for text in errors]
    if not found:
        return "".join(texts)
    several = not colours and next(iter(found.values())).ndim == 3
    shown = [pixels.mean(axis=2) if several else pixels[..., :3] if colours else pixels for pixels in found.values()]
    limits = _limits(np.stack(shown), dtype)
    pictures = [
        picture(_as_bytes(pixels, limits), f"{index} · {_short(os.path.basename(names[index]))}", _STRIP_SIDE)
        for index, pixels in zip(found, shown, strict=True)
    ]
    what = "the mean of all channels, " if several else ""
    texts.insert(0, f"<p>{len(found)} of {len(names):,} images: {what}{_range(limits)}</p>")
    return f"<div>{''.join(pictures)}</div>{''.join(texts)}"


def _grey(pixels: np.ndarray, name: str, dtype: np.dtype) -> str:
    limits = _limits(pixels, dtype)
    return picture(_as_bytes(pixels, limits), f"{name} · {_range(limits)}", _SIDE)


def _limits(pixels: np.ndarray, dtype: np.dtype) -> tuple[float, float]:
    if dtype == np.uint8:
        return 0.0, 255.0
    return min(0.0, float(pixels.min())), float(pixels.max())


def _as_bytes(pixels: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return np.rint(((pixels - low) / (high - low or 1.0)).clip(0, 1) * 255).astype(np.uint8)


def _range(limits: tuple[float, float]) -> str:
    return "black {:.5g}, white {:.5g}".format(*limits)


def _short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2) :]}"
