"""Conversion of images that differ to one mode, dtype and size, so that they make one stack."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .formats.base import MAX_PIXELS, mode_of

__all__ = ["Conversion"]

_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")
_DTYPES = {"L": "uint8", "LA": "uint8", "RGB": "uint8", "RGBA": "uint8", "I;16": "uint16", "I": "int32", "F": "float32"}
_CHANNELS: dict[str, tuple[int, ...]] = {"LA": (2,), "RGB": (3,), "RGBA": (4,)}
_EIGHT_BITS = ("L", "LA", "RGB", "RGBA")
_FITS = ("resize", "crop", "pad")


@dataclass(frozen=True)
class Conversion:
    """Conversion of all images of a stack: choice of channels, mode, dtype and size, in this order.

    Parameters
    ----------
    mode : str or None
        Pillow's name; see `imgstack_ml.open_stack`.
    dtype : str or None
    shape : (int, int) or None
        Height and width.
    fit : {"resize", "crop", "pad"}
        How an image is brought to this size.
    max_pixels : int
        Most pixels that an image may claim to have.
    channels : tuple of int or None
        Positions of those that are kept; a single one becomes grey.
    """

    mode: str | None = None
    dtype: str | None = None
    shape: tuple[int, int] | None = None
    fit: str = "resize"
    max_pixels: int = MAX_PIXELS
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in _MODES:
            raise ValueError(f"mode={self.mode!r} is not known; it is one of {', '.join(map(repr, _MODES))}")
        if self.fit not in _FITS:
            raise ValueError(f"fit={self.fit!r} is not known; it is one of {', '.join(map(repr, _FITS))}")
        if self.shape is not None and (len(self.shape) != 2 or min(self.shape) < 1):
            raise ValueError(
                f"shape={self.shape!r} is not the height and width of an image; give e.g. shape=(256, 256)"
            )
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels={self.max_pixels!r} is not a number of pixels; give a positive int")

    @property
    def is_identity(self) -> bool:
        """Whether images stay as they are."""
        return self.mode is self.dtype is self.shape is self.channels is None

    @property
    def with_alpha(self) -> bool:
        """Whether images get an alpha channel."""
        return self.mode in ("LA", "RGBA")

    def layout(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[tuple[int, ...], np.dtype]:
        """Return the shape and dtype that an image has once it is converted.

        Parameters
        ----------
        shape : tuple of int
            (height, width) or (height, width, n_channels).
        dtype : numpy.dtype

        Returns
        -------
        shape : tuple of int
        dtype : numpy.dtype

        Raises
        ------
        ValueError
            The image cannot be converted without losing values.
        """
        if self.channels is not None:
            shape = shape[:2] if len(self.channels) == 1 else (*shape[:2], len(self.channels))
        if self.mode is not None:
            _check_mode(mode_of(shape, dtype), self.mode)
            shape, dtype = (*shape[:2], *_CHANNELS.get(self.mode, ())), np.dtype(_DTYPES[self.mode])
        if self.dtype is not None:
            _check_dtype(dtype, np.dtype(self.dtype))
            dtype = np.dtype(self.dtype)
        if self.shape is not None:
            self._check_size(shape, dtype)
            shape = (*self.shape, *shape[2:])
        return shape, dtype

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Convert an image, after `layout` has said that it can be converted.

        Parameters
        ----------
        image : ndarray of shape (height, width) or (height, width, n_channels)

        Returns
        -------
        ndarray
        """
        if self.channels is not None:
            image = image[..., self.channels[0] if len(self.channels) == 1 else list(self.channels)]
        if self.mode is not None:
            image = _converted(image, self.mode)
        if self.dtype is not None:
            with np.errstate(over="raise"):  # float64 beyond the range of float32
                image = image.astype(self.dtype, copy=False)
        if self.shape is None or image.shape[:2] == self.shape:
            return image
        return _resized(image, self.shape) if self.fit == "resize" else _cropped_or_padded(image, self.shape)

    def _check_size(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        assert self.shape is not None
        (height, width), (new_height, new_width) = shape[:2], self.shape
        needs = f"it is of height and width {height, width}, and fit={self.fit!r} to {self.shape} needs"
        if self.fit == "crop" and (height < new_height or width < new_width):
            raise ValueError(f"{needs} at least that; give a smaller shape, fit='pad' or fit='resize'")
        if self.fit == "pad" and (height > new_height or width > new_width):
            raise ValueError(f"{needs} at most that; give a larger shape, fit='crop' or fit='resize'")
        if self.fit == "resize" and dtype.kind != "f" and not np.can_cast(dtype, np.int32):
            raise ValueError(f"images of {dtype} are not resized; give dtype='float64' too")


def _check_mode(mode: str, wanted: str) -> None:
    exact = {"I;16": ("I", "F")}.get(mode, ())
    if mode == wanted or mode in _EIGHT_BITS or wanted in exact:
        return
    raise ValueError(
        f"its pixels are of mode {mode!r}, which mode={wanted!r} cannot hold. Modes of 8 bits a channel become any "
        "mode, and 'I;16' becomes 'I' or 'F'. Scale others to 8 bits: "
        f"{_scaling('uint8')}"
    )


def _check_dtype(dtype: np.dtype, wanted: np.dtype) -> None:
    if np.can_cast(dtype, wanted) or dtype.kind == wanted.kind == "f":
        return
    raise ValueError(
        f"dtype={wanted.name!r} cannot hold all values of {dtype}. Give dtype='float32' or 'float64', and scale "
        f"the stack where you need {wanted}: "
        f"{_scaling(wanted.name)}"
    )


def _scaling(dtype: str) -> str:
    rescaler = f"IntensityRescaler(out_range={dtype!r})"
    return f"from imgstack_ml.preprocessing import IntensityRescaler; {rescaler}.fit_transform(stack)"


def _converted(image: np.ndarray, mode: str) -> np.ndarray:
    own = mode_of(image.shape, image.dtype)
    if own == mode:
        return image
    if mode in _EIGHT_BITS:
        return np.asarray(Image.fromarray(image).convert(mode))
    if own == "LA":
        image = image[:, :, 0]
    elif image.ndim == 3:
        image = np.asarray(Image.fromarray(image).convert("F" if mode == "F" else "L"))  # the luma of F is not rounded
    return image.astype(_DTYPES[mode])


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize each channel with Pillow's triangle filter, which averages over the area that a new pixel covers."""
    out = np.empty((*size, *image.shape[2:]), image.dtype)
    # Pillow resizes pixels of 8 and 32 bits as integers, and rounds them after each of the two axes. Pixels of 16 bits
    # are resized as float32, which holds them exactly, and rounded once.
    is_native = image.dtype in (np.uint8, np.int32)
    for place in np.ndindex(image.shape[2:]):
        with np.errstate(over="raise"):  # float64 beyond the range of float32
            channel = np.ascontiguousarray(image[:, :, *place], dtype=None if is_native else np.float32)
        resized = np.asarray(Image.fromarray(channel).resize(size[::-1], Image.Resampling.BILINEAR))
        out[:, :, *place] = resized if is_native or image.dtype.kind == "f" else np.rint(resized)
    return out


def _cropped_or_padded(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop or pad with zeros around the centre; if the difference is odd, the larger half comes last."""
    out = np.zeros((*size, *image.shape[2:]), image.dtype)
    source, target = [], []
    for n_old, n_new in zip(image.shape[:2], size, strict=True):
        cut, gap = max(0, n_old - n_new) // 2, max(0, n_new - n_old) // 2
        n = min(n_old, n_new)
        source.append(slice(cut, cut + n))
        target.append(slice(gap, gap + n))
    out[tuple(target)] = image[tuple(source)]
    return out
