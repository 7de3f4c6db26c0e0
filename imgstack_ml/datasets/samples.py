"""Sample images by name, and as folders of image files."""

import os
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import StoreError
from ..files.atomic import atomic_path
from ..files.names import refuse_url
from ..passes.progress import tqdm
from .cells import N_CELL_IMAGES, cell_image
from .real import load_digits, load_faces, load_textures, load_tissue

__all__ = ["SAMPLES", "SampleImage", "write_sample"]


class SampleImage(NamedTuple):
    """One image of a sample: its path within a folder, its pixels, and its label or None.

    Examples
    --------
    >>> from imgstack_ml.datasets import SAMPLES
    >>> first = next(SAMPLES["faces"](1, 0))
    >>> first.file, first.image.shape, first.label
    ('face/0001.png', (25, 25), 'face')
    """

    file: str
    image: np.ndarray
    label: str | None


def _labelled(stack: np.ndarray, labels: np.ndarray, n: int | None) -> Iterator[SampleImage]:
    """Yield an image of each label in turn, so that the first `n` are spread evenly over the labels."""
    _check_available(n, len(stack))
    names = sorted(set(labels.tolist()))
    members = {name: np.flatnonzero(labels == name) for name in names}
    turns = ((name, turn) for turn in count() for name in names if turn < len(members[name]))
    for name, turn in islice(turns, len(stack) if n is None else n):
        yield SampleImage(f"{name}/{turn + 1:04d}.png", stack[members[name][turn]], name)


def _faces(n: int | None, seed: int) -> Iterator[SampleImage]:
    return _labelled(*load_faces(), n)


def _digits(n: int | None, seed: int) -> Iterator[SampleImage]:
    return _labelled(*load_digits(), n)


def _textures(n: int | None, seed: int) -> Iterator[SampleImage]:
    return _labelled(*load_textures(), n)


def _tissue(n: int | None, seed: int) -> Iterator[SampleImage]:
    stack = load_tissue()
    _check_available(n, len(stack))
    for number, image in enumerate(stack[:n], start=1):
        yield SampleImage(f"{number:04d}.png", image, None)


def _cells(n: int | None, seed: int) -> Iterator[SampleImage]:
    n = N_CELL_IMAGES if n is None else n
    digits = max(4, len(str(n)))
    for index in range(n):
        yield SampleImage(f"{index + 1:0{digits}d}.jpg", cell_image(index, seed=seed), None)


def _check_available(n: int | None, available: int) -> None:
    if n is not None and n > available:
        raise ValueError(f"n={n}, but this sample has {available} images; leave n out for all of them")


SAMPLES: dict[str, Callable[[int | None, int], Iterator[SampleImage]]] = {
    "faces": _faces,
    "digits": _digits,
    "textures": _textures,
    "tissue": _tissue,
    "cells": _cells,
}
"""Samples by name: functions of (n, seed) that yield `SampleImage` records."""


def write_sample(
    name: str, folder: str | os.PathLike[str], *, n: int | None = None, seed: int = 0, progress: bool = False
) -> list[str]:
    """Write sample images into a folder, one file an image.

    Parameters
    ----------
    name : {"faces", "digits", "textures", "tissue", "cells"}
        The sample. Those with labels (faces, digits, textures) get a sub-folder for each label, e.g.
        ``face/0001.png``. Cells are generated and written as JPEG (quality 90); the others are written as PNG.
    folder : path
        A new or empty folder.
    n : int, optional
        Number of images, spread evenly over the labels. By default all, or 844 cells.
    seed : int, default=0
        Number of the collection of cells; the other samples are always the same.
    progress : bool, default=False
        Whether to show a bar of images, on stderr.

    Returns
    -------
    files : list of str
        The files written.

    Raises
    ------
    ValueError
        If there is no sample of this name, or it has fewer than `n` images.
    StoreError
        If the folder is a URL, is not empty, or is a file.

    Examples
    --------
    >>> import os
    >>> import tempfile
    >>> from imgstack_ml import open_stack
    >>> from imgstack_ml.datasets import write_sample
    >>> folder = os.path.join(tempfile.mkdtemp(), "digits")
    >>> len(write_sample("digits", folder, n=20))
    20
    >>> open_stack(folder, recursive=True).shape
    (20, 8, 8)
    """
    refuse_url(folder)
    if name not in SAMPLES:
        raise ValueError(f"no sample named {name!r}; there are {', '.join(SAMPLES)}")
    if n is not None and n < 1:
        raise ValueError(f"n={n} must be at least 1; leave it out for the default")
    root = Path(folder)
    _check_empty(root)
    samples = tqdm(SAMPLES[name](n, seed), "writing", _count(name, n), unit=" images", disable=not progress)
    return [_write_image(root / sample.file, sample.image) for sample in samples]


def _count(name: str, n: int | None) -> int | None:
    return N_CELL_IMAGES if n is None and name == "cells" else n


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise StoreError(f"{str(folder)!r} {what}; choose a new or empty folder for the sample")


# Pillow needs the format, as the name of the temporary file does not show it.
_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 90},
}


def _write_image(path: Path, image: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, overwrite=False) as temporary:
        Image.fromarray(image).save(temporary, **_FORMATS[path.suffix])
    return str(path)
