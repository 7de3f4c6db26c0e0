"""What the readers of all formats share: their base class, the header of an image, limits of its size, orientation."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

from ..locations.open import local_path

__all__ = [
    "MAX_PIXELS",
    "Header",
    "ImageFormat",
    "ImageSeries",
    "OpenFile",
    "channels_of",
    "check_level",
    "check_size",
    "is_picture",
    "mode_of",
    "mode_of_array",
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


class Header(NamedTuple):
    """Shape, dtype, format and mode of an image, as its file has them.

    Attributes
    ----------
    shape : tuple of int
        (height, width) or (height, width, n_channels), as read: palette and orientation applied.
    dtype : numpy.dtype
    format : str
        Name of the format, such as "JPEG"; of an array "zarr", "hdf5" or "npy".
    mode : str
        Pillow's name of how the pixels are stored, where it has one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    format: str
    mode: str


class ImageSeries(NamedTuple):
    """Images of one shape and dtype in a file.

    Attributes
    ----------
    shape : tuple of int
        Of an image: (height, width) or (height, width, n_channels).
    dtype : numpy.dtype
        Of whole or floating-point numbers.
    keys : sequence
        One for each image, by which `ImageFormat.read` finds it: None, an int, a string, or tuples of these. Their
        order is that of the images, and images of neighbouring keys are read faster one after the other.
    mode : str
        How the file stores pixels; empty for that of the shape and dtype.
    axes : str
        A letter for each axis that counts images, the last one fastest: t, z, c, s (scene), p (position) or others.
        Empty where images have no other order than that of `keys`.
    sizes : tuple of int
        Sizes of these axes; their product is the number of images.
    channel_names : tuple of str
        Of the channels of an image, or of the axis c.
    starts : sequence of int
        Positions of the images at which decoding begins, such as the keyframes of a film, in order from 0 on. Empty
        where it begins at any image. Blocks of a stack begin there, as far as memory allows.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml.io import ImageSeries
    >>> film = ImageSeries((480, 640), np.dtype("uint8"), range(100), axes="t", sizes=(100,))
    >>> len(film.keys)
    100
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    keys: Sequence[Any] = (None,)
    mode: str = ""
    axes: str = ""
    sizes: tuple[int, ...] = ()
    channel_names: tuple[str, ...] = ()
    starts: Sequence[int] = ()


class OpenFile(NamedTuple):
    """A file that is open for reading, wherever it is.

    Attributes
    ----------
    name : str
        Its path, its URL, or ``archive::member``.
    file : binary file
        At its beginning; it can seek.
    n_bytes : int
        Its size.
    head : bytes
        Its first bytes, 1024 at most.
    max_pixels : int
        Most pixels that an image may claim to have.
    with_alpha : bool
        Whether a colour that stands for transparency becomes an alpha channel.
    modified : int
        A number that differs once the file is written anew, where it is known.
    level : int
        Level of a pyramid whose images are listed; 0 is the full resolution.

    Examples
    --------
    >>> import io
    >>> from imgstack_ml.io import OpenFile
    >>> pixels = bytes(36)
    >>> OpenFile("six.dump", io.BytesIO(pixels), len(pixels), pixels[:1024]).n_bytes
    36
    """

    name: str
    file: BinaryIO
    n_bytes: int
    head: bytes
    max_pixels: int = MAX_PIXELS
    with_alpha: bool = False
    modified: int = 0
    level: int = 0

    def as_path(self) -> AbstractContextManager[str]:
        """Give a path of this machine, for libraries that need one: of a copy, where the file is elsewhere."""
        return local_path(self.name)


class ImageFormat(ABC):
    """A kind of image files; an object of it is one open file. Provisional: it may change until version 1.0.

    A reader of one more format is a subclass with `name`, `suffixes`, `list_images` and `read`. Make it known by
    `register_format`, or, to all processes, by an entry point of the group ``imgstack_ml.formats``. Whatever
    `list_images` and `read` raise becomes a BadImageError that names the file.

    Parameters
    ----------
    source : OpenFile

    Attributes
    ----------
    name : str
        Short name of the format, such as "JPEG".
    suffixes : tuple of str
        In lower case, such as ``(".jpg", ".jpeg")``. Files that end so are found in folders.
    beside_pictures : bool, default=True
        Whether files of a folder are read where it holds pictures too. It is False for films and arrays.
    has_levels : bool, default=False
        Whether `list_images` goes by ``source.level``. Other formats are not asked for a level but 0.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import imgstack_ml as im
    >>> from imgstack_ml.io import ImageFormat, ImageSeries, register_format
    >>> class Dump(ImageFormat):
    ...     name, suffixes = "dump", (".dump",)
    ...
    ...     def list_images(self):
    ...         side = int(self.source.n_bytes**0.5)
    ...         return [ImageSeries((side, side), np.dtype("uint8"))]
    ...
    ...     def read(self, key, out):
    ...         out[...] = np.frombuffer(self.source.file.read(), np.uint8).reshape(out.shape)
    >>> register_format(Dump)
    >>> folder = Path(tempfile.mkdtemp())
    >>> for i in range(3):
    ...     _ = (folder / f"{i}.dump").write_bytes(bytes([i] * 36))
    >>> im.open_stack(folder).data[:, 0, 0].compute()
    array([0, 1, 2], dtype=uint8)
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    beside_pictures: ClassVar[bool] = True
    has_levels: ClassVar[bool] = False

    def __init__(self, source: OpenFile):
        self.source = source

    @classmethod
    def recognise(cls, head: bytes) -> bool | None:
        """Tell by its first bytes whether a file is of this format.

        Parameters
        ----------
        head : bytes
            The first 1024 bytes of the file, or all of a smaller one.

        Returns
        -------
        bool or None
            None, the default: they do not tell, and the suffix decides. Content goes before suffixes.
        """
        return None

    @abstractmethod
    def list_images(self) -> Sequence[ImageSeries]:
        """List the images of the file without decoding them."""

    @abstractmethod
    def read(self, key: Any, out: np.ndarray) -> None:
        """Decode an image.

        Parameters
        ----------
        key : object
            One of those that `list_images` gives, in this process or in another one.
        out : ndarray
            Contiguous, of the image's shape and dtype; all of it is to be written.
        """

    def key_of_channels(self, key: Any, channels: tuple[int, ...]) -> Any:
        """Return the key of an image that has some channels of another one; None, the default: all are decoded."""
        return None

    @functools.cached_property
    def series(self) -> Sequence[ImageSeries]:
        """What `list_images` gives, which is called once, and before any `read`."""
        return self.list_images()

    def only_key(self) -> Any:
        """Return the key of the only image of the file.

        Raises
        ------
        ValueError
            It holds several.
        """
        keys = [key for series in self.series for key in series.keys]
        if len(keys) != 1:
            several = "several images" if keys else "no image"
            raise ValueError(f"it holds {several}, and one is needed; open it as a stack")
        return keys[0]

    def header(self, key: Any) -> Header:
        """Return the header of an image; override it where listing all images of a file takes long."""
        for series in self.series:
            if key in series.keys:
                return self.header_of(series)
        raise ValueError(f"it holds no image {key!r} any more")

    def header_of(self, series: ImageSeries) -> Header:
        """Return the header that all images of a series have, after checking its size."""
        shape, dtype = tuple(map(int, series.shape)), np.dtype(series.dtype)
        if len(shape) not in (2, 3) or dtype.kind not in "uif":
            raise ValueError(
                f"its images are of shape {shape}, {dtype}; they need (height, width[, n_channels]) of numbers"
            )
        check_size(*shape, max_pixels=self.source.max_pixels)
        return Header(shape, dtype, self.name, series.mode or mode_of(shape, dtype))

    def close(self) -> None:  # noqa: B027 (most formats hold nothing but the file)
        """Let go of what the object holds; the file itself is closed by others."""


@functools.lru_cache(maxsize=1000)
def mode_of(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Return Pillow's name for the mode of an image in memory, or one such as ``"2×float32"`` where it has none."""
    channels = shape[2:]
    return _MODES.get((channels, dtype.name)) or channels_of(shape, dtype)


def channels_of(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Return the mode of an image whose channels are no colours, e.g. ``"4×uint16"``."""
    return f"{shape[2]}×{dtype}" if len(shape) == 3 else str(dtype)


def mode_of_array(shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Return the mode of an image of an array, which does not say whether one of its channels is transparency."""
    return channels_of(shape, dtype) if shape[2:] in ((2,), (4,)) else mode_of(shape, dtype)


def is_picture(mode: str) -> bool:
    """Tell whether a mode is one of pictures, whose channels are colours."""
    return "×" not in mode


def check_size(height: int, width: int, n_channels: int = 1, *, max_pixels: int) -> None:
    """Raise if an image claims to have more pixels than are read, before memory is allocated for them."""
    # Up to four channels are not counted; more count as further pixels.
    if not 0 < height * width * max(1, n_channels // 4) <= max_pixels:
        channels = f" of {n_channels} channels" if n_channels > 4 else ""
        raise ValueError(
            f"it claims {height} × {width} pixels{channels}; at most {max_pixels:,} are read. If it is right: "
            "open_stack(..., max_pixels=...)"
        )


def check_level(level: int, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise unless a pyramid has a level; `shapes` are those of its levels, the full resolution first."""
    if level < len(shapes):
        return
    if len(shapes) < 2:
        raise ValueError(f"it is no pyramid, and level={level} is asked of it; there is only level=0")
    known = ", ".join(f"{number} of shape {shape}" for number, shape in enumerate(shapes))
    raise ValueError(f"its pyramid has no level={level}; its levels are {known}")


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
