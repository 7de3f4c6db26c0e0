"""From image files to pixels: the images of a block are read into one array."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import BadImageError, ImgstackError
from .convert import Conversion
from .formats.base import ImageFormat
from .formats.registry import Key, Page, open_images, registered_names
from .keys import FileKeys
from .lazy import Reader
from .locations.base import State, check_unchanged
from .locations.faults import naming_the_file
from .locations.open import forget_listings_of, local_path, read_state
from .locations.urls import storage_options_of

__all__ = ["ConvertingReader", "FileReader", "FunctionReader", "apply_to_file", "decode_file", "places_by_file"]


def decode_file(path: str) -> np.ndarray:
    """Read a file of one image.

    Parameters
    ----------
    path : str

    Returns
    -------
    ndarray of shape (height, width) or (height, width, n_channels)
        Pixels as a viewer shows them; see `imgstack_ml.open_stack` for what is read.

    Raises
    ------
    BadImageError
        The file cannot be read whole.
    """
    with open_images(path) as images:
        key = images.only_key()
        header = images.header(key)
        out = np.empty(header.shape, header.dtype)
        images.read(key, out)
        return out


@dataclass(frozen=True)
class FileReader:
    """Read blocks of images from files.

    Parameters
    ----------
    shape : tuple of int
        Shape of an image once it is converted.
    dtype : numpy.dtype
        Its dtype then.
    conversion : Conversion
        What is done to each image.
    registered : tuple of str
        Names of the formats, of those among the images, that were registered at run time.
    storage_options : mapping or None
        For URLs; see `imgstack_ml.open_stack`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    conversion: Conversion = field(default_factory=Conversion)
    registered: tuple[str, ...] = ()
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    images_per_chunk: ClassVar[int] = 1

    def read(self, keys: Sequence[Key]) -> np.ndarray:
        """Read the images that `keys` name into one block, each file opened once.

        Returns
        -------
        ndarray of shape (len(keys), *shape)

        Raises
        ------
        BadImageError
            An image cannot be read whole, or its file was replaced or written to since `keys` were made.
        """
        if unknown := set(self.registered) - registered_names():
            raise ImgstackError(
                f"the format {min(unknown)!r} was registered in another process, and this one does not know it. For "
                "the workers of a cluster, name its class in an entry point of the group 'imgstack_ml.formats'"
            )
        with storage_options_of(self.storage_options):
            return self._read(keys)

    def _read(self, keys: Sequence[Key]) -> np.ndarray:
        block = np.empty((len(keys), *self.shape), self.dtype)
        files = places_by_file(keys)
        forget_listings_of(files)
        for name, (state, places) in files.items():
            with open_images(name, self.conversion.max_pixels, state, self.conversion.with_alpha) as images:
                for i, key in places:
                    self._read_image(images, key, block[i])
        return block

    def _read_image(self, images: ImageFormat, key: Any, out: np.ndarray) -> None:
        conversion = self.conversion
        # Where channels are stored apart, the others are not decoded.
        if conversion.channels is not None and (chosen := images.key_of_channels(key, conversion.channels)) is not None:
            key, conversion = chosen, replace(conversion, channels=None)
        header = images.header(key)
        self._check_unchanged(conversion.layout(header.shape, header.dtype))
        if conversion.is_identity:
            images.read(key, out)
        else:
            image = np.empty(header.shape, header.dtype)
            images.read(key, image)
            out[...] = conversion.apply(image)

    def _check_unchanged(self, found: tuple[tuple[int, ...], np.dtype]) -> None:
        if found != (self.shape, self.dtype):
            raise ValueError(
                f"it is of shape {found[0]}, {found[1]} now, and was of shape {self.shape}, {self.dtype} when the "
                "stack was opened; open the stack again"
            )


class ConvertingReader:
    """Convert the images that another reader reads.

    Parameters
    ----------
    reader : object
        Its images are of one shape and dtype.
    conversion : Conversion

    Raises
    ------
    ValueError
        The images cannot be converted without losing values.
    """

    def __init__(self, reader: Reader, conversion: Conversion):
        self.reader, self.conversion = reader, conversion
        self.shape, self.dtype = conversion.layout(reader.shape, reader.dtype)
        self.images_per_chunk = reader.images_per_chunk

    def __dask_tokenize__(self) -> tuple[Reader, Conversion]:
        return self.reader, self.conversion

    def read(self, keys: Any) -> np.ndarray:
        """Read the images that `keys` name into one block."""
        images = self.reader.read(keys)
        block = np.empty((len(images), *self.shape), self.dtype)
        for place, image in zip(block, images, strict=True):
            place[...] = self.conversion.apply(image)
        return block


@dataclass(frozen=True)
class FunctionReader:
    """Read blocks of images by functions of the user.

    Parameters
    ----------
    imread : callable
        From a path to an image.
    preprocess : callable or None
        Applied to each image.
    shape : tuple of int
        Shape of every result.
    dtype : numpy.dtype
    storage_options : mapping or None
    """

    imread: Callable[[str], Any]
    preprocess: Callable[[Any], Any] | None
    shape: tuple[int, ...]
    dtype: np.dtype
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    images_per_chunk: ClassVar[int] = 1

    def read(self, paths: Sequence[str]) -> np.ndarray:
        """Read the files at `paths` into one block."""
        with storage_options_of(self.storage_options):
            return self._read(paths)

    def _read(self, paths: Sequence[str]) -> np.ndarray:
        block = np.empty((len(paths), *self.shape), self.dtype)
        forget_listings_of(paths)
        for i, (path, state) in enumerate(zip(paths, _states(paths), strict=True)):
            if state is not None:
                with naming_the_file(path):
                    check_unchanged(state, read_state(path))
            image = apply_to_file(self.imread, self.preprocess, path)
            if (image.shape, image.dtype) != (self.shape, self.dtype):
                raise BadImageError(
                    path,
                    f"the function that reads it makes {image.shape}, {image.dtype} of it; "
                    f"the first image gave {self.shape}, {self.dtype}",
                )
            block[i] = image
        return block


def apply_to_file(imread: Callable[[str], Any], preprocess: Callable[[Any], Any] | None, path: str) -> np.ndarray:
    """Read one image by functions of the user; their errors become one that names the file."""
    with naming_the_file(path), local_path(path) as found:
        image = imread(found)
        return np.asarray(image if preprocess is None else preprocess(image))


def places_by_file(keys: Sequence[Key]) -> dict[str, tuple[State | None, list[tuple[int, Any]]]]:
    """Group the places of images in a block, and what they are in their file, by file; with the state of the file."""
    groups: dict[str, tuple[State | None, list[tuple[int, Any]]]] = {}
    for i, (key, state) in enumerate(zip(keys, _states(keys), strict=True)):
        name, within = key if isinstance(key, Page) else (key, None)
        groups.setdefault(name, (state, []))[1].append((i, within))
    for _, places in groups.values():
        if places[0][1] is not None:  # in the order of the file, in which they are read faster
            places.sort(key=operator.itemgetter(1))
    return groups


def _states(keys: Sequence[Key]) -> Iterable[State | None]:
    return keys.states() if isinstance(keys, FileKeys) else [None] * len(keys)
