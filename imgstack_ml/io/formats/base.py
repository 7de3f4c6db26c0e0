"""What the readers of all formats share: the record of an image, its limits, its orientation, its errors."""

import functools
from typing import NamedTuple

import numpy as np

__all__ = [
    "MAX_PIXELS",
    "Header",
    "Planes",
    "check_size",
    "mode_of",
    "orient",
    "oriented_shape",
]

#: What Pillow refuses as a decompression bomb. tifffile has no guard of its own.
MAX_PIXELS = 178_956_970

_MODES = {
    ((), "uint8"): "L",
    ((2,), "uint8"): "LA",
    ((3,), "uint8"): "RGB",
    ((4,), "uint8"): "RGBA",
    ((), "uint16"): "I;16",
    ((), "int32"): "I",
    ((), "float32"): "F",
}


#: Which image of a file is meant: for each of its channels, the offset of a TIFF's directory and the number of the
#: plane behind it. None stands for the only image of a file.
Planes = tuple[tuple[int, int], ...]


class Header(NamedTuple):
    """What a file says about an image.

    Attributes
    ----------
    shape : tuple of int
        (height, width) or (height, width, n_channels), as read: palette and orientation applied.
    dtype : numpy.dtype
    format : str
        "JPEG", "PNG" or "TIFF".
    mode : str
        Pillow's name of how the pixels are stored, where it has one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    format: str
    mode: str


@functools.lru_cache(maxsize=1000)
def mode_of(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Name the mode of an image in memory as Pillow does; ``"2×float32"`` and the like where it has no name."""
    channels = shape[2:]
    return _MODES.get((channels, dtype.name)) or (f"{channels[0]}×{dtype}" if channels else str(dtype))


def check_size(height: int, width: int, n_channels: int = 1, *, max_pixels: int) -> None:
    """Refuse what an image claims to be before anything is allocated for it."""
    # Four channels are an image's own; more count as further pixels.
    if not 0 < height * width * max(1, n_channels // 4) <= max_pixels:
        channels = f" of {n_channels} channels" if n_channels > 4 else ""
        raise ValueError(
            f"it claims {height} × {width} pixels{channels}; at most {max_pixels:,} are read. If it is right: "
            "open_stack(..., max_pixels=...)"
        )


def oriented_shape(shape: tuple[int, ...], orientation: int) -> tuple[int, ...]:
    """Shape of an image once its EXIF orientation is applied."""
    return (shape[1], shape[0], *shape[2:]) if orientation >= 5 else shape


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image upright: a view of `pixels`, for an EXIF orientation from 1 to 8."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    # Mirrored left to right, upside down, both: of the image as it then stands.
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
