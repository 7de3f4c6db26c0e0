"""Sample images: real ones that scikit-image and scikit-learn ship, and generated ones in any number.

Nothing is downloaded. ``write_sample`` puts any of them on disk as a folder of image files.
"""

import os
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage import data as skimage_data

from .errors import StoreError
from .files.atomic import atomic_path

__all__ = [
    "SAMPLES",
    "PlantedStack",
    "SampleImage",
    "cell_image",
    "load_digits",
    "load_faces",
    "load_textures",
    "load_tissue",
    "make_cells",
    "make_planted",
    "write_sample",
]

N_CELL_IMAGES = 844  # the size of the tutorial's own collection


# Real images ------------------------------------------------------------------------------------------


def load_faces() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Faces and non-faces cut from photographs (``skimage.data.lfw_subset``).

    Returns
    -------
    stack : ndarray of shape (200, 25, 25), uint8
        Grey images; scikit-image's floats in [0, 1], rounded to 0..255.
    labels : ndarray of shape (200,)
        ``"face"`` for the first 100 images, ``"nonface"`` for the others.

    Examples
    --------
    >>> from imgstack_ml.datasets import load_faces
    >>> stack, labels = load_faces()
    >>> stack.shape, str(labels[0])
    ((200, 25, 25), 'face')
    """
    stack = np.rint(skimage_data.lfw_subset() * 255).astype(np.uint8)
    return stack, np.repeat(["face", "nonface"], 100)


def load_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Handwritten digits (``sklearn.datasets.load_digits``).

    Returns
    -------
    stack : ndarray of shape (1797, 8, 8), uint8
        Grey images; scikit-learn's 17 levels 0..16, spread over 0..255 (0 stays 0, 16 becomes 255).
    labels : ndarray of shape (1797,)
        ``"0"`` to ``"9"``.
    """
    from sklearn.datasets import load_digits as sklearn_digits  # slow to import, and needed only here

    digits = sklearn_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(str)


def load_textures(patch: int = 64) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Photographed brick, grass and gravel, cut into patches that do not overlap.

    Parameters
    ----------
    patch : int, default=64
        Side of a patch in pixels, at most 512.

    Returns
    -------
    stack : ndarray of shape (n_images, patch, patch), uint8
        Grey images, 192 for the default patch.
    labels : ndarray of shape (n_images,)
        ``"brick"``, ``"grass"`` or ``"gravel"``.
    """
    photographs = {
        "brick": skimage_data.brick(),
        "grass": skimage_data.grass(),
        "gravel": skimage_data.gravel(),
    }
    patches = [_cut(photograph, patch) for photograph in photographs.values()]
    return np.concatenate(patches), np.repeat(list(photographs), [len(part) for part in patches])


def load_tissue(patch: int = 64) -> npt.NDArray[np.uint8]:
    """Stained colon tissue under the microscope, cut into patches that do not overlap.

    Parameters
    ----------
    patch : int, default=64
        Side of a patch in pixels, at most 512.

    Returns
    -------
    stack : ndarray of shape (n_images, patch, patch, 3), uint8
        RGB images from ``skimage.data.immunohistochemistry``, 64 for the default patch.
    """
    return _cut(skimage_data.immunohistochemistry(), patch)


def _cut(image: np.ndarray, patch: int) -> np.ndarray:
    """Cut an image into whole square patches, row by row; what is left over at the edges is dropped."""
    if not 1 <= patch <= min(image.shape[:2]):
        raise ValueError(f"patch={patch!r} must lie between 1 and {min(image.shape[:2])}, e.g. patch=64")
    rows, cols = image.shape[0] // patch, image.shape[1] // patch
    whole = image[: rows * patch, : cols * patch]
    grid = whole.reshape(rows, patch, cols, patch, *image.shape[2:]).swapaxes(1, 2)
    return grid.reshape(rows * cols, patch, patch, *image.shape[2:])


# Generated cells --------------------------------------------------------------------------------------


def make_cells(n: int = N_CELL_IMAGES, size: int = 256, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Generate images that look like fluorescent cells under a microscope.

    About one image in ten is dim, with a very different intensity range from the others; some are greener
    than red, others redder than green.

    Parameters
    ----------
    n : int, default=844
        Number of images; the default is the size of the tutorial's collection.
    size : int, default=256
        Height and width in pixels. The same scene is drawn at any size.
    seed : int, default=0
        Another seed, other images.

    Returns
    -------
    stack : ndarray of shape (n, size, size, 3), uint8
        RGB images. Image i is ``cell_image(i, size, seed=seed)``, whatever ``n`` is.

    Examples
    --------
    >>> from imgstack_ml.datasets import make_cells
    >>> make_cells(3, 64).shape
    (3, 64, 64, 3)
    """
    stack = np.empty((n, size, size, 3), dtype=np.uint8)
    for index in range(n):
        stack[index] = cell_image(index, size, seed=seed)
    return stack


def cell_image(index: int, size: int = 256, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Generate one image of the endless collection that `make_cells` begins.

    Parameters
    ----------
    index : int
        Number of the image, from 0.
    size : int, default=256
        Height and width in pixels.
    seed : int, default=0
        Number of the collection.

    Returns
    -------
    image : ndarray of shape (size, size, 3), uint8
        RGB image; a function of the three arguments alone, so that any image can be made by itself.
    """
    rng = np.random.default_rng([seed, index])
    scene = _draw_scene(rng)
    light = _render(scene, size)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32)
    # The camera's grain follows the light, as shot noise does; a dim image is not mostly noise.
    pixels = 255 * scene.exposure * light * (1 + 0.06 * grain) + grain
    return np.rint(pixels.clip(0, 255)).astype(np.uint8)


class _Spots(NamedTuple):
    """Gaussian spots in the unit square."""

    y: np.ndarray
    x: np.ndarray
    width: np.ndarray  # standard deviation, as a share of the side
    weight: np.ndarray


class _Scene(NamedTuple):
    """What one image shows, free of its size in pixels."""

    bodies: _Spots  # several overlapping lobes make a cell of irregular outline
    greenness: np.ndarray  # of each lobe, 0 (red stain) to 1 (green stain)
    nuclei: _Spots
    granules: _Spots
    background: np.ndarray  # RGB of the medium
    illumination: np.ndarray  # cosine coefficients of the lamp's unevenness
    exposure: float


def _draw_scene(rng: np.random.Generator) -> _Scene:
    """Draw places, colours and lighting at random."""
    n_cells, n_lobes, n_granules = int(rng.integers(12, 30)), 4, 5
    y, x = rng.uniform(-0.05, 1.05, (2, n_cells))
    radius = rng.uniform(0.035, 0.075, n_cells)
    image_greenness = rng.beta(1.6, 1.9)
    greenness = np.clip(image_greenness + 0.18 * rng.standard_normal(n_cells), 0, 1)
    is_dim = rng.random() < 0.1
    frequency = np.arange(4)
    return _Scene(
        bodies=_scatter(rng, y, x, radius, n_lobes, spread=0.55, width=(0.45, 0.7), weight=(0.7, 1.0)),
        greenness=np.repeat(greenness, n_lobes),
        nuclei=_scatter(rng, y, x, radius, 1, spread=0.2, width=(0.3, 0.45), weight=(0.8, 1.2)),
        granules=_scatter(rng, y, x, radius, n_granules, spread=0.6, width=(0.06, 0.16), weight=(0.3, 1.3)),
        background=rng.uniform(0.02, 0.13, 3),
        illumination=0.4 * rng.standard_normal((4, 4)) / (1 + frequency[:, None] + frequency) ** 1.5,
        exposure=rng.uniform(0.15, 0.3) if is_dim else rng.uniform(0.7, 1.15),
    )


def _scatter(
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    radius: np.ndarray,
    n_each: int,
    *,
    spread: float,
    width: tuple[float, float],
    weight: tuple[float, float],
) -> _Spots:
    """Scatter `n_each` spots about each cell; spread and width are in units of the cell's radius."""
    y, x, radius = (np.repeat(values, n_each) for values in (y, x, radius))
    dy, dx = spread * radius * rng.standard_normal((2, len(radius)))
    return _Spots(y + dy, x + dx, radius * rng.uniform(*width, len(radius)), rng.uniform(*weight, len(radius)))


def _render(scene: _Scene, size: int) -> np.ndarray:
    """Draw the scene as light of shape (size, size, 3), dark 0 to bright 1 and above."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    field = _paint(scene.bodies, grid)
    green_field = _paint(scene.bodies._replace(weight=scene.bodies.weight * scene.greenness), grid)
    body = _edge(field, 0.55, 9)
    nucleus = _edge(_paint(scene.nuclei, grid), 0.5, 8)
    granules = _paint(scene.granules, grid) * body
    green = green_field / (field + 1e-6)

    stain = body * (0.35 + 0.25 * np.minimum(field, 1.5)) * (1 - 0.5 * nucleus) + 0.6 * granules
    light = np.empty((size, size, 3), dtype=np.float32)
    light[..., 0] = stain * (1 - green) + 0.15 * granules
    light[..., 1] = stain * green + 0.15 * granules
    light[..., 2] = 0.12 * stain + 0.55 * nucleus
    light += scene.background.astype(np.float32)

    waves = np.cos(np.pi * np.arange(len(scene.illumination))[:, None] * grid).astype(np.float32)
    lamp = np.exp(waves.T @ scene.illumination.astype(np.float32) @ waves)
    return light * lamp[..., None]


def _paint(spots: _Spots, grid: np.ndarray) -> np.ndarray:
    """Sum Gaussian spots on a square grid: each is a product in y and x, so one matrix product draws all."""

    def profile(centre: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((grid - centre[:, None]) / spots.width[:, None]) ** 2).astype(np.float32)

    return (profile(spots.y).T * spots.weight.astype(np.float32)) @ profile(spots.x)


def _edge(field: np.ndarray, level: float, steepness: float) -> np.ndarray:
    """Turn a smooth field into regions with a soft edge where it crosses a level."""
    return 1 / (1 + np.exp(steepness * (level - field)))


# Stacks with a known answer ---------------------------------------------------------------------------


class PlantedStack(NamedTuple):
    """A stack and the principal components hidden in it; see `make_planted`."""

    stack: np.ndarray
    mean: np.ndarray
    singular_values: np.ndarray
    modes: np.ndarray


def make_planted(
    n: int,
    image_shape: tuple[int, ...],
    *,
    n_modes: int = 5,
    noise: float = 0.0,
    dtype: npt.DTypeLike = np.float64,
    seed: int = 0,
    decay: float = 0.5,
) -> PlantedStack:
    """Make a stack whose centred singular values and modes are known.

    Parameters
    ----------
    n : int
        Number of images, above `n_modes`: centring takes one direction.
    image_shape : tuple of int
        Shape of one image, e.g. ``(64, 64)`` or ``(64, 64, 3)``.
    n_modes : int, default=5
        Number of planted components.
    noise : float, default=0.0
        Standard deviation of white noise, as a share of the intensity range. Noise and the rounding of an
        integer dtype are not part of the truth returned.
    dtype : dtype, default=float64
        Floats lie about 0.5, within [0, 1] where there is no noise; unsigned integers use 0 to their maximum.
    seed : int, default=0
        Seed of the random numbers.
    decay : float, default=0.5
        Each singular value is this share of the one before.

    Returns
    -------
    PlantedStack
        ``stack`` (n, *image_shape), ``mean`` (*image_shape), ``singular_values`` (n_modes,) of the centred
        stack, and orthonormal ``modes`` (n_modes, *image_shape), whose signs mean nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml.datasets import make_planted
    >>> planted = make_planted(20, (4, 5), n_modes=3)
    >>> centred = (planted.stack - planted.stack.mean(axis=0)).reshape(20, -1)
    >>> bool(np.allclose(np.linalg.svd(centred)[1][:3], planted.singular_values))
    True
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "uf":
        raise ValueError(f"dtype={dtype} must be a float or an unsigned integer, e.g. dtype=np.uint8")
    n_features = int(np.prod(image_shape))
    if not 1 <= n_modes <= min(n - 1, n_features):
        raise ValueError(f"n_modes={n_modes} must lie between 1 and {min(n - 1, n_features)} for {n} images")
    rng = np.random.default_rng(seed)
    U = _orthonormal(rng, n, n_modes, centred=True)
    V = _orthonormal(rng, n_features, n_modes)
    s = decay ** np.arange(n_modes, dtype=np.float64)
    deviation = (U * s) @ V.T
    full = float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
    scale = 0.4 * full / np.abs(deviation).max()  # leaves a tenth of the range on either side
    mean = np.full(n_features, 0.5 * full)
    pixels = mean + scale * deviation
    if noise:
        pixels += noise * full * rng.standard_normal(pixels.shape)
    if dtype.kind == "u":
        pixels = np.rint(pixels).clip(0, full)
    return PlantedStack(
        stack=pixels.reshape(n, *image_shape).astype(dtype),
        mean=mean.reshape(image_shape),
        singular_values=scale * s,
        modes=V.T.reshape(n_modes, *image_shape),
    )


def _orthonormal(rng: np.random.Generator, n_rows: int, n_cols: int, centred: bool = False) -> np.ndarray:
    """Random orthonormal columns, of zero mean if centred."""
    random = rng.standard_normal((n_rows, n_cols))
    if centred:
        random -= random.mean(axis=0)
    return np.linalg.qr(random)[0]


# Sample folders ---------------------------------------------------------------------------------------


class SampleImage(NamedTuple):
    """One image of a sample: where it goes in the folder, its pixels, and its label, if it has one."""

    file: str
    image: np.ndarray
    label: str | None


def _labelled(stack: np.ndarray, labels: np.ndarray, n: int | None) -> Iterator[SampleImage]:
    """Yield the first images of each label in turn, so that any number is spread evenly over labels."""
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
"""Samples by name: functions of (n, seed) that yield a `SampleImage` at a time."""


def write_sample(name: str, folder: str | os.PathLike[str], *, n: int | None = None, seed: int = 0) -> list[str]:
    """Write sample images into a folder, one file an image.

    Parameters
    ----------
    name : {"faces", "digits", "textures", "tissue", "cells"}
        The sample. Labelled ones (faces, digits, textures) get a sub-folder a label, e.g. ``face/0001.png``.
        Cells are generated and written as JPEG (quality 90), the others are real and written as PNG.
    folder : path
        A new or empty folder.
    n : int, optional
        Number of images: by default all there are, and 844 cells. Fewer are spread evenly over the labels.
    seed : int, default=0
        Number of the generated collection; the real samples are always the same.

    Returns
    -------
    files : list of str
        The files written.

    Raises
    ------
    ValueError
        If there is no such sample, or it has fewer than `n` images.
    StoreError
        If the folder holds something, or is a file.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample named {name!r}; there are {', '.join(SAMPLES)}")
    if n is not None and n < 1:
        raise ValueError(f"n={n} must be at least 1; leave it out for the usual number")
    root = Path(folder)
    _check_empty(root)
    return [_write_image(root / sample.file, sample.image) for sample in SAMPLES[name](n, seed)]


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise StoreError(f"{str(folder)!r} {what}; samples need a new or empty folder: name another one")


# Pillow cannot tell the format from the name of a temporary file.
_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 90},
}


def _write_image(path: Path, image: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, overwrite=False) as temporary:
        Image.fromarray(image).save(temporary, **_FORMATS[path.suffix])
    return str(path)
