"""Reconstructions of a few images, reduced to the size of pictures, with errors over all of their pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ..decomposition.projection import residual_squares
from .pictures import shrink_by
from .pipelines import Route, hide_outside

__all__ = [
    "Reduced",
    "SmallBasis",
    "is_plain",
    "n_values",
    "reduced_reconstructions",
    "scores_and_squares",
    "small_basis",
]

_GROUP_BYTES = 2**27  # of large images, as read, whose scores are computed together


class Reduced(NamedTuple):
    """Images (b, height, width[, n_channels]), their reconstructions (b, n_steps, …), and root mean square errors."""

    images: np.ndarray
    reconstructions: np.ndarray
    errors: np.ndarray


class SmallBasis(NamedTuple):
    """Mean (height, width[, n_channels]) and components (k, …) of a PCA, by means of squares of `factor` pixels a side.

    A reconstruction is the mean plus scores times components. That of the reduced ones is the reduced reconstruction.
    """

    mean: np.ndarray
    components: np.ndarray
    factor: int

    def reconstruct(self, scores: np.ndarray) -> np.ndarray:
        """Make small images, float64, from scores (b, up to k) that are not whitened."""
        change = np.tensordot(scores.astype(np.float64), self.components[: scores.shape[1]], 1)
        found: np.ndarray = self.mean.astype(np.float64)[np.newaxis] + change
        return found


def is_plain(route: Route, prepared: np.ndarray | None = None) -> bool:
    """Whether reconstructions are the mean plus scores times components, in floats that hold prepared images."""
    return (
        not route.between
        and len(getattr(route.pca, "image_shape_", ())) > 1
        and getattr(route.pca, "missing", "raise") == "raise"
        and (prepared is None or not (prepared.dtype.kind in "iu" and prepared.itemsize == 8))
    )


def small_basis(route: Route, side: int, inside: np.ndarray | None, number: int | None = None) -> SmallBasis | None:
    """Reduce the mean and the first components to at most `side` pixels a side; None of images that are not larger."""
    if not is_plain(route) or (factor := ceil(max(route.pca.image_shape_[:2]) / side)) <= 1:
        return None
    rows = (route.pca.mean_[np.newaxis], route.pca.components_[:number])
    (mean,), parts = (shrink_by(hide_outside(one.reshape(-1, *route.pca.image_shape_), inside), factor) for one in rows)
    return SmallBasis(mean, _filled(parts), factor)


def scores_and_squares(
    pca: Any, blocks: Sequence[np.ndarray], number: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, k) of images on the first components, not whitened, and squares (n,) of what these leave of them.

    Squares have four digits. Pixels that a masked array hides have no part in them.
    """
    dtype = np.float32 if blocks[0].dtype.kind in "iu" and blocks[0].itemsize <= 2 else np.float64
    return residual_squares([*map(_filled, blocks)], pca.components_[:number], pca.mean_, dtype=dtype)


def reduced_reconstructions(
    route: Route, images: Iterable[np.ndarray], numbers: Sequence[int], inside: np.ndarray | None, side: int
) -> Reduced:
    """Reconstruct images from each number of components, and reduce them to at most `side` pixels a side.

    Larger images of a PCA that gets them as they are, are reconstructed from its reduced components. Their errors are
    those of all pixels: what all components leave, and the squares of the scores on those that are left out.

    Raises
    ------
    ValueError
        If the PCA gets rows of which no images can be made.
    """
    basis = small_basis(route, side, inside, max(numbers))
    # Unlike a loop, `map` does not keep images while the next ones are read.
    reduce = partial(_reduced, route, numbers=numbers, inside=inside, side=side, basis=basis)
    together = _GROUP_BYTES if basis is not None and not route.before else 0
    parts = list(map(reduce, _in_groups(images, together)))
    found, steps, errors = zip(*parts, strict=True)
    return Reduced(_joined(found), _joined(steps), np.concatenate(errors))


def _in_groups(images: Iterable[np.ndarray], n_bytes: int) -> Iterator[list[np.ndarray]]:
    """Yield stacks together, as many as take no more memory: all components are read once for each group."""
    group: list[np.ndarray] = []
    for one in images:
        group.append(one)
        is_full = (len(group) + 1) * one.nbytes > n_bytes
        del one
        if is_full:
            yield group
            group = []
    if group:
        yield group


def _reduced(
    route: Route,
    group: list[np.ndarray],
    numbers: Sequence[int],
    inside: np.ndarray | None,
    side: int,
    basis: SmallBasis | None,
) -> Reduced:
    parts = [route.prepare(images) for images in group]
    if parts[0].ndim < 3:
        raise ValueError(
            f"the PCA gets rows of {parts[0].shape[1]} features, of which no images can be made. "
            "Fit it on images, with an ImageFlattener before a PCA that needs rows"
        )
    factor = ceil(max(parts[0].shape[1:3]) / side)
    hidden = [hide_outside(images, inside) for images in parts]
    if basis is not None and is_plain(route, parts[0]):
        scores, squares = scores_and_squares(route.pca, hidden, max(numbers))
        beyond = [squares + np.square(scores[:, number:]).sum(axis=1) for number in numbers]
        steps = [basis.reconstruct(scores[:, :number]) for number in numbers]
        errors = list(np.sqrt(np.array(beyond) / n_values(hidden[0])))
    else:
        prepared, shown = _joined(parts), _joined(hidden)
        projected = route.scores(prepared)
        steps, errors = [], []
        for number in numbers:
            whole = hide_outside(route.reconstruct(projected, number), inside)
            difference = np.asanyarray(whole - shown.astype(np.float64))
            errors.append(np.asarray(np.sqrt((difference**2).mean(axis=tuple(range(1, difference.ndim))))))
            steps.append(shrink_by(whole, factor))
    stacked = np.ma.stack if isinstance(hidden[0], np.ma.MaskedArray) else np.stack
    small = _joined([shrink_by(images, factor) for images in hidden])
    return Reduced(small, stacked(steps, axis=1), np.stack(errors, axis=1))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate arrays, of which a single one is not copied."""
    join = np.ma.concatenate if isinstance(parts[0], np.ma.MaskedArray) else np.concatenate
    return parts[0] if len(parts) == 1 else join(parts)


def n_values(images: np.ndarray) -> int:
    """Count the values of an image that a masked array does not hide, the same ones in all images."""
    return int(np.ma.count(images[0])) if isinstance(images, np.ma.MaskedArray) else images[0].size


def _filled(values: np.ndarray) -> np.ndarray:
    return values.filled(0) if isinstance(values, np.ma.MaskedArray) else values
