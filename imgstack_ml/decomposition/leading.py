"""From leading singular pairs to the factors of a fit: what the exact solvers share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ..linalg.krylov import add_products
from ..linalg.orthonormal import completed_rows, orthonormalise_rows
from ..linalg.ranges import Run, at_once
from ..passes.runner import PassRunner, no_result
from .records import Factors

__all__ = ["Leading", "completed_factors", "components_of_kept", "subtract_explained", "weights_and_scores"]

_TILE = 2**14  # pixels, of which some float64 arrays stay in the cache
_LIGHT = 1e-3  # share of the largest root of a weight below which scores lose more than three digits


class Leading(NamedTuple):
    """Leading singular pairs of the centred stack, as far as they stand above rounding.

    Attributes
    ----------
    singular : ndarray of shape (rank,), float64
        Singular values above 0, descending.
    vectors : ndarray of shape (n, rank) or (p, rank), float64
        Singular vectors on the side of the images or of the pixels, in columns.
    total : float
        Sum of squares of the centred stack.
    k : int
        Number of components wanted.
    """

    singular: np.ndarray
    vectors: np.ndarray
    total: float
    k: int


def components_of_kept(
    runner: PassRunner, weights: np.ndarray, mean: np.ndarray, dtype: np.dtype, exponent: int = 0
) -> np.ndarray:
    """Components (k, p) of images in memory: their centred sums, weighted by the columns of `weights` (n, k).

    The weights are for images in units of 2^exponent, see `linalg.scaling`.
    """
    components = np.zeros((weights.shape[1], runner.n_pixels), dtype)
    step = partial(add_products, scores=weights, shift=mean, dtype=dtype, out=components, exponent=exponent)
    runner.run_pixels(step, no_result)
    orthonormalise_rows(components, runner.run_pixels)
    return components


def weights_and_scores(leading: Leading, roots: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights (n, rank) of images in the sums that are components, and scores (n, rank), from vectors of the images.

    `roots` are those of the weights of the images, which the vectors are for, if there are weights. Where some weights
    are so small that the vectors are rounding there, scores are None, and need another read.
    """
    weights, scores = leading.vectors / leading.singular, leading.vectors * leading.singular
    if roots is None:
        return weights, scores
    return weights * roots[:, None], scores / roots[:, None] if roots.min() >= _LIGHT * roots.max() else None


def completed_factors(
    mean: np.ndarray,
    components: np.ndarray,
    leading: Leading,
    scores: np.ndarray | None,
    squares: np.ndarray,
    exponent: int = 0,
    run: Run = at_once,
) -> Factors:
    """Fill up to the number of components wanted with orthonormal directions of variance 0.

    `squares` (p,) are sums of squares of each pixel about its mean, in the units of ``leading.total``; they are
    overwritten.
    """
    rank = len(leading.singular)
    missing = leading.k - rank
    if scores is not None:
        scores = np.pad(scores, ((0, 0), (0, missing)))
    subtract_explained(squares, components, leading.singular, run)
    components = completed_rows(components, leading.k)
    singular = np.pad(leading.singular, (0, missing))
    return Factors(mean, components, singular, leading.total, rank, scores, exponent=exponent, left=squares)


def subtract_explained(squares: np.ndarray, components: np.ndarray, singular: np.ndarray, run: Run = at_once) -> None:
    """Subtract from the sums of squares (p,) of the pixels, in place, what singular triplets explain.

    The residuals A - AV'V of a pixel j have the sum of squares C_jj - sum_i lambda_i v_ij^2 - 2 sum_i v_ij r_ij. For
    exact eigenvectors r_i = C v_i - lambda_i v_i are 0; for others, subtract the last sum before.
    """
    subtract = partial(_subtract_explained, components=components, singular=singular)
    run(subtract, no_result, [squares[None]])


def _subtract_explained(
    buffers: Sequence[np.ndarray], lo: int, hi: int, components: np.ndarray, singular: np.ndarray
) -> None:
    for a in range(lo, hi, _TILE):
        span = slice(a, min(a + _TILE, hi))
        part = buffers[0][0, span]
        for value, row in zip(singular, components, strict=True):
            part -= (value * row[span].astype(np.float64)) ** 2
        np.maximum(part, 0, out=part)
