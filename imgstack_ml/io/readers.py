"""From image files to pixels: one image to one array, the images of a block into one array."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import BadImageError
from .convert import Policy
from .formats.base import Header, Planes
from .formats.registry import Images, Key, Page, open_images
from .locations.faults import naming_the_file

__all__ = ["FileReader", "FunctionReader", "decode", "read_group", "read_with"]


def decode(path: str) -> np.ndarray:
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
        header = images.header(None)
        return _decoded(images, None, header)


def read_group(
    keys: Sequence[Key], shape: tuple[int, ...], dtype: np.dtype, policy: Policy | None = None
) -> np.ndarray:
    """Read several images into one block, each decoded into its place.

    Parameters
    ----------
    keys : sequence of Key
    shape : tuple of int
        Shape that every image had when its header was read and the policy was applied.
    dtype : numpy.dtype
        Their dtype then.
    policy : Policy, optional
        What is done to each image.

    Returns
    -------
    ndarray of shape (len(keys), *shape)

    Raises
    ------
    BadImageError
        An image cannot be read whole, or is of another shape or dtype by now.
    """
    policy = policy or Policy()
    is_identity = policy.is_identity
    out = np.empty((len(keys), *shape), dtype)
    for name, places in _places_by_file(keys):
        with open_images(name, policy.max_pixels) as images:
            for i, planes in places:
                header = images.header(planes)
                found = header[:2] if is_identity else policy.layout(header.shape, header.dtype)
                _check_unchanged(found, shape, dtype)
                if is_identity:
                    _decode_into(out[i], images, planes)
                else:
                    out[i] = policy.apply(_decoded(images, planes, header))
    return out


@dataclass(frozen=True)
class FileReader:
    """Read blocks of images from files.

    Parameters
    ----------
    shape : tuple of int
        Shape of an image.
    dtype : numpy.dtype
    fingerprint : str
        Differs when the files do, so that Dask does not take new pixels for those it has kept.
    policy : Policy
        What is done to each image.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fingerprint: str
    policy: Policy = field(default_factory=Policy)
    images_per_chunk: ClassVar[int] = 1

    def read(self, keys: Sequence[Key]) -> np.ndarray:
        """Read the images that `keys` name into one block."""
        return read_group(keys, self.shape, self.dtype, self.policy)


@dataclass(frozen=True)
class FunctionReader:
    """Read blocks of images with functions of the caller's.

    Parameters
    ----------
    imread : callable
        From a path to an image.
    preprocess : callable or None
        Applied to each image.
    shape : tuple of int
        Shape of every result.
    dtype : numpy.dtype
    fingerprint : str
        Differs when the files do.
    """

    imread: Callable[[str], Any]
    preprocess: Callable[[Any], Any] | None
    shape: tuple[int, ...]
    dtype: np.dtype
    fingerprint: str
    images_per_chunk: ClassVar[int] = 1

    def read(self, paths: Sequence[str]) -> np.ndarray:
        """Read the files at `paths` into one block."""
        out = np.empty((len(paths), *self.shape), self.dtype)
        for i, path in enumerate(paths):
            image = read_with(self.imread, self.preprocess, path)
            if (image.shape, image.dtype) != (self.shape, self.dtype):
                raise BadImageError(
                    path,
                    f"imread and preprocess make {image.shape}, {image.dtype} of it; "
                    f"the first image gave {self.shape}, {self.dtype}",
                )
            out[i] = image
        return out


def read_with(imread: Callable[[str], Any], preprocess: Callable[[Any], Any] | None, path: str) -> np.ndarray:
    """Read one image with functions of the caller's; what they raise names the file."""
    with naming_the_file(path):
        image = imread(path)
        return np.asarray(image if preprocess is None else preprocess(image))


def _places_by_file(keys: Sequence[Key]) -> Iterator[tuple[str, list[tuple[int, Planes | None]]]]:
    """Group the images of a block by file, so that each file is opened once however they are shuffled."""
    groups: dict[str, list[tuple[int, Planes | None]]] = {}
    for i, key in enumerate(keys):
        name, planes = key if isinstance(key, Page) else (key, None)
        groups.setdefault(name, []).append((i, planes))
    yield from groups.items()


def _check_unchanged(found: tuple[tuple[int, ...], np.dtype], shape: tuple[int, ...], dtype: np.dtype) -> None:
    if found != (shape, dtype):
        raise ValueError(
            f"it is of shape {found[0]}, {found[1]} now, and was of shape {shape}, {dtype} when the stack "
            "was opened; open the stack again"
        )


def _decoded(images: Images, planes: Planes | None, header: Header) -> np.ndarray:
    out = np.empty(header.shape, header.dtype)
    _decode_into(out, images, planes)
    return out


def _decode_into(out: np.ndarray, images: Images, planes: Planes | None) -> None:
    images.decode(planes, out)
