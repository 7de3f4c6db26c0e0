"""Reconstructions of a few images, reduced to the size of pictures, with errors over all of their pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from .pictures import shrink_by
from .pipelines import Route, hide_outside

__all__ = ["Reduced", "reduced_reconstructions"]

_BAND_BYTES = 2**23


class Reduced(NamedTuple):
    """Images (b, height, width[, n_channels]), their reconstructions (b, n_steps, …), and root mean square errors."""

    images: np.ndarray
    reconstructions: np.ndarray
    errors: np.ndarray


def reduced_reconstructions(
    route: Route, images: np.ndarray, numbers: Sequence[int], inside: np.ndarray | None, side: int
) -> Reduced:
    """Reconstruct images from each number of components, and reduce them to at most `side` pixels a side.

    Images that are larger are reconstructed in bands of rows, where a PCA gets them as they are: no reconstruction is
    ever in memory whole.

    Raises
    ------
    ValueError
        If the PCA gets rows of which no images can be made.
    """
    prepared = route.prepare(images)
    if prepared.ndim < 3:
        raise ValueError(
            f"the PCA gets rows of {prepared.shape[1]} features, of which no images can be made. "
            "Fit it on images, with an ImageFlattener before a PCA that needs rows"
        )
    factor = ceil(max(prepared.shape[1:3]) / side)
    hidden = hide_outside(prepared, inside)
    if factor > 1 and _is_plain(route, prepared):
        return _in_bands(route.pca, hidden, numbers, factor)
    scores = route.scores(prepared)
    steps, errors = [], []
    for number in numbers:
        whole = hide_outside(route.reconstruct(scores, number), inside)
        difference = np.asanyarray(whole - hidden.astype(np.float64))
        errors.append(np.asarray(np.sqrt((difference**2).mean(axis=tuple(range(1, difference.ndim))))))
        steps.append(shrink_by(whole, factor))
    stacked = np.ma.stack if isinstance(hidden, np.ma.MaskedArray) else np.stack
    return Reduced(shrink_by(hidden, factor), stacked(steps, axis=1), np.stack(errors, axis=1))


def _is_plain(route: Route, prepared: np.ndarray) -> bool:
    """Whether a reconstruction is the mean plus scores times components, in floats that hold the images."""
    pca = route.pca
    return (
        not route.between
        and hasattr(pca, "mean_")
        and not getattr(pca, "whiten", False)
        and not (prepared.dtype.kind in "iu" and prepared.itemsize == 8)
    )


def _in_bands(pca: Any, images: np.ndarray, numbers: Sequence[int], factor: int) -> Reduced:
    k, shape = max(numbers), images.shape[1:]
    components = pca.components_[:k].reshape(k, *shape)
    mean = pca.mean_.reshape(shape)
    scores = np.zeros((len(images), k))
    for band in _bands(shape, factor):
        centred = _filled(images[:, band]).astype(components.dtype) - mean[band].astype(components.dtype)
        scores += centred.reshape(len(images), -1) @ components[:, band].reshape(k, -1).T
    squares = np.zeros((len(images), len(numbers)))
    small: list[list[np.ndarray]] = [[] for _ in range(1 + len(numbers))]
    for band in _bands(shape, factor):
        parts = components[:, band].reshape(k, -1)
        original = images[:, band]
        pictures = [original]
        for step, number in enumerate(numbers):
            found = (scores[:, :number].astype(parts.dtype) @ parts[:number]).reshape(original.shape)
            found += mean[band].astype(parts.dtype)
            if isinstance(original, np.ma.MaskedArray):
                found = np.ma.array(found, mask=np.ma.getmaskarray(original))
            difference = _filled(found - original.astype(found.dtype)).reshape(len(images), -1)
            squares[:, step] += np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
            pictures.append(found)
        if not small[0] or original.shape[1] >= factor:
            for parts_of_picture, picture in zip(small, pictures, strict=True):
                parts_of_picture.append(shrink_by(picture, factor))
    join = np.ma.concatenate if isinstance(images, np.ma.MaskedArray) else np.concatenate
    reduced, *steps = (join(parts_of_picture, axis=1) for parts_of_picture in small)
    stacked = np.ma.stack if isinstance(images, np.ma.MaskedArray) else np.stack
    n_values = np.ma.count(images[:1]) if isinstance(images, np.ma.MaskedArray) else mean.size
    return Reduced(reduced, stacked(steps, axis=1), np.sqrt(squares / n_values))


def _bands(shape: tuple[int, ...], factor: int) -> Iterator[slice]:
    """Yield bands of rows, whose number is a multiple of `factor`; the last one may be smaller."""
    row_bytes = 4 * int(np.prod(shape[1:]))
    n_rows = factor * max(1, _BAND_BYTES // (factor * row_bytes))
    for start in range(0, shape[0], n_rows):
        yield slice(start, start + n_rows)


def _filled(values: np.ndarray) -> np.ndarray:
    return values.filled(0) if isinstance(values, np.ma.MaskedArray) else values
