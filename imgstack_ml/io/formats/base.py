"""What the readers of all formats share: the header of an image, limits of its size, its orientation."""

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

#: Pillow refuses images of more pixels as decompression bombs; tifffile has no limit of its own.
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


#: Where an image of a TIFF is: for each of its channels, the offset of a directory, and which of the planes that follow
#: each other from there. None stands for the only image of a file.
Planes = tuple[tuple[int, int], ...]


class Header(NamedTuple):
    """Shape, dtype, format and mode of an image, as its file has them.

    Attributes
    ----------
    shape : tuple of int
        (height, width) or (height, width, n_channels), as read: palette and orientation applied.
    dtype : numpy.dtype
    format : str
        "JPEG", "PNG" or "TIFF"; of an array "zarr", "hdf5" or "npy".
    mode : str
        Pillow's name of how the pixels are stored, where it has one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    format: str
    mode: str


@functools.lru_cache(maxsize=1000)
def mode_of(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Return Pillow's name for the mode of an image in memory, or one such as ``"2×float32"`` where it has none."""
    channels = shape[2:]
    return _MODES.get((channels, dtype.name)) or (f"{channels[0]}×{dtype}" if channels else str(dtype))


def check_size(height: int, width: int, n_channels: int = 1, *, max_pixels: int) -> None:
    """Raise if an image claims to have more pixels than are read, before memory is allocated for them."""
    # Up to four channels are not counted; more count as further pixels.
    if not 0 < height * width * max(1, n_channels // 4) <= max_pixels:
        channels = f" of {n_channels} channels" if n_channels > 4 else ""
        raise ValueError(
            f"it claims {height} × {width} pixels{channels}; at most {max_pixels:,} are read. If it is right: "
            "open_stack(..., max_pixels=...)"
        )


def oriented_shape(shape: tuple[int, ...], orientation: int) -> tuple[int, ...]:
    """Return the shape of an image once its EXIF orientation is applied."""
    return (shape[1], shape[0], *shape[2:]) if orientation >= 5 else shape


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an upright view of an image that has an EXIF orientation from 1 to 8."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    # Then mirrored left to right, upside down, or both (turned by 180 degrees).
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
