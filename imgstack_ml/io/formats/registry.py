"""Opening of image files of any format: their images are found by their headers, and decoded one by one."""

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from ..locations.base import State, check_unchanged
from ..locations.faults import naming_the_file
from ..locations.open import open_bytes
from .base import MAX_PIXELS, Header, Planes
from .jpeg_png import Picture
from .tiff import TiffImages
from .tiff_directory import is_tiff

__all__ = ["Images", "Key", "Page", "find_images", "open_images", "read_header"]


class Page(NamedTuple):
    """Key of an image in a file of several: the name of the file, and where the image is in it."""

    file: str
    planes: Planes


#: By which a task finds an image: the name of its file, or a page of it.
Key = str | Page


class Images(Protocol):
    """The images of an open file. `planes` selects one of them; None stands for the only one."""

    def list_images(self) -> list: ...  # noqa: D102

    def header(self, planes: Planes | None) -> Header: ...  # noqa: D102

    def decode(self, planes: Planes | None, out: np.ndarray) -> None: ...  # noqa: D102


@contextlib.contextmanager
def open_images(name: str, max_pixels: int = MAX_PIXELS, state: State | None = None) -> Iterator[Images]:
    """Open a file of images, in the format that its content has; an error inside the block names the file.

    Parameters
    ----------
    name : str
        See `imgstack_ml.io.locations.names`.
    max_pixels : int
        Most pixels that an image may claim to have.
    state : State, optional
        That of the file when the stack was opened.

    Raises
    ------
    BadImageError
        The file is missing, not a regular file, damaged, too large or of a kind that is not read; or its state is
        another one.
    """
    with naming_the_file(name), open_bytes(name) as (file, found):
        if state is not None:
            check_unchanged(state, found)
        signature = file.read(8)
        file.seek(0)
        if is_tiff(signature):
            yield TiffImages(file, found.n_bytes, max_pixels)
        else:
            yield Picture(file, signature, found.n_bytes, max_pixels)


# An entry takes about 500 bytes for a file of one image.
@functools.lru_cache(maxsize=100_000)
def find_images(name: str, state: State, max_pixels: int) -> tuple[tuple[Key, Header], ...]:
    """Find the images of a file by its headers; a process reads a file again only when its state changes.

    Parameters
    ----------
    name : str
    state : State
        See `imgstack_ml.io.locations.open.read_state`.
    max_pixels : int

    Returns
    -------
    tuple of (Key, Header)

    Raises
    ------
    BadImageError
        See `open_images`.
    """
    with open_images(name, max_pixels, state) as images:
        found = images.list_images()
    return tuple((name if planes is None else Page(name, planes), header) for planes, header in found)


def read_header(path: str, max_pixels: int = MAX_PIXELS) -> Header:
    """Read shape, dtype, format and mode of a file of one image without decoding it.

    Parameters
    ----------
    path : str
    max_pixels : int

    Returns
    -------
    Header

    Raises
    ------
    BadImageError
        See `open_images`.
    """
    with open_images(path, max_pixels) as images:
        return images.header(None)
