"""The images of a file, found by its headers without decoding a pixel."""

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from ..locations.base import State
from ..locations.faults import naming_the_file
from ..locations.open import open_bytes, read_state
from .base import MAX_PIXELS, Header, Planes
from .jpeg_png import Picture
from .tiff import TiffImages
from .tiff_directory import is_tiff

__all__ = ["Images", "Key", "Page", "find_images", "open_images", "read_header"]


class Page(NamedTuple):
    """Key of an image that shares its file with others: the name of the file, and where in it the image is."""

    file: str
    planes: Planes


#: What a task is told of an image: the name of its file, or where it is in a file of several.
Key = str | Page


class Images(Protocol):
    """The images of an open file; `planes` tells which one, None where there is only one."""

    def find(self) -> list: ...  # noqa: D102

    def header(self, planes: Planes | None) -> Header: ...  # noqa: D102

    def decode(self, planes: Planes | None, out: np.ndarray) -> None: ...  # noqa: D102


@contextlib.contextmanager
def open_images(name: str, max_pixels: int = MAX_PIXELS, state: State | None = None) -> Iterator[Images]:
    """Open a file of images, told by content, not by suffix; whatever fails inside the block names the file.

    Parameters
    ----------
    name : str
        See `imgstack_ml.io.locations.names`.
    max_pixels : int
        Most pixels that an image may claim to have.
    state : State, optional
        Size and state of the file, where they are known.

    Raises
    ------
    BadImageError
        The file is missing, not a regular file, damaged, too large or of a kind that is not read.
    """
    with naming_the_file(name):
        # Before opening it, which would wait at a named pipe until someone writes to it.
        state = state or read_state(name)
        with open_bytes(name) as file:
            signature = file.read(8)
            file.seek(0)
            if is_tiff(signature):
                yield TiffImages(file, state.n_bytes, max_pixels)
            else:
                yield Picture(file, signature, state.n_bytes, max_pixels)


# Some 500 bytes an entry of one image.
@functools.lru_cache(maxsize=100_000)
def find_images(name: str, state: State, max_pixels: int) -> tuple[tuple[Key, Header], ...]:
    """Find the images of a file by its headers; a file that is as it was is not read twice in a process.

    Parameters
    ----------
    name : str
    state : State
        Its size and state, see `imgstack_ml.io.locations.open.read_state`.
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
        return tuple((name if planes is None else Page(name, planes), header) for planes, header in images.find())


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
