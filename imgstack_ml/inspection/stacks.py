"""What Displays and reports ask of a stack: a check, some of its images, and their names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator

from ..base.gate import first_nonfinite, gated
from ..base.mask import pixels_at
from ..base.validation import FileStack, Images, check_images, data_and_files
from ..errors import NonFiniteError

__all__ = ["check_stack", "evenly_spaced", "image_names", "iterate_images", "printable", "read_images", "short_name"]

_READ_BYTES = 2**26  # of images read at a time


def check_stack(caller: str, X: Any, inside: np.ndarray | None = None) -> Images:
    """Check a stack as `check_images` does, for a `caller` that is no estimator; errors begin with its name.

    `inside` is a mask of pixels, which applies to images of its shape.
    """
    mask = inside if inside is None or getattr(X, "shape", ())[1:] == inside.shape else None
    return check_images(type(caller, (BaseEstimator,), {})(), X, reset=True, mask=mask)


def read_images(caller: str, X: Any, indices: Sequence[int], inside: np.ndarray | None = None) -> np.ndarray:
    """Read some images: of an ImageStack only their files, of a Dask array only the blocks that hold them.

    Pixels outside the mask `inside` may be NaN or infinite.

    Raises
    ------
    IndexError
        For an index beyond the stack.
    NonFiniteError
        Naming the image (and file) with NaN or infinity.
    """
    indices = [int(index) for index in indices]
    images = check_stack(caller, X[indices] if isinstance(X, FileStack) else X, inside)
    positions, data = images.positions, images.data
    if isinstance(data, da.Array):
        data = gated(data, images.files, finite=positions is None)
    found = np.asarray(data if isinstance(X, FileStack) else data[indices])
    bad = None if positions is None else first_nonfinite(pixels_at(found, positions))
    if bad is not None:
        files = None if images.files is None else images.files[bad if isinstance(X, FileStack) else indices[bad]]
        raise NonFiniteError(indices[bad], files)
    return found


def iterate_images(
    caller: str, X: Any, indices: Sequence[int], inside: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Read some images as `read_images` does, and yield each as a stack of one; huge ones are read one by one."""
    image_bytes = np.dtype(getattr(X, "dtype", np.float64)).itemsize * prod(getattr(X, "shape", ())[1:])
    step = max(1, _READ_BYTES // max(1, image_bytes))
    for i in range(0, len(indices), step):
        images = read_images(caller, X, indices[i : i + step], inside)
        yield from (images[j : j + 1] for j in range(len(images)))
        del images  # before the next ones are read


def evenly_spaced(n_images: int, n_chosen: int) -> list[int]:
    """Positions of at most `n_chosen` images at equal distances, from the first image to the last."""
    return np.unique(np.linspace(0, n_images - 1, min(n_chosen, n_images)).round().astype(int)).tolist()


def image_names(X: Any, n_images: int) -> list[str]:
    """Names of images for people: files relative to the folder that all share, or numbers if X has no files."""
    _, files = data_and_files(X)
    if files is None:
        return [f"image {index}" for index in range(n_images)]
    folders = {os.path.dirname(file) for file in files}
    root = os.path.commonpath(folders) if len(folders) > 1 else next(iter(folders), "")
    return [printable(os.path.relpath(file, root or os.curdir).replace(os.sep, "/")) for file in files]


def printable(name: str) -> str:
    r"""Write bytes of a file name that are not UTF-8 as ``\udcff`` and the like: no file or page can hold them."""
    return name.encode("utf-8", "backslashreplace").decode()


def short_name(name: str, length: int = 24) -> str:
    """Shorten a long name in the middle: files differ at the ends of their names."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2) :]}"
