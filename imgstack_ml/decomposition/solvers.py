"""The exact solvers: plain functions of a pass runner, with one signature and one result record."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from .._passes import PassRunner
from ..linalg import gram as lin
from ..linalg.moments import moments
from ..linalg.tsqr import centred_columns, rows_after_ones, svd_of_r
from .plan import Problem, Requirement, tall_height

__all__ = ["SOLVERS", "Factors"]

logger = logging.getLogger("imgstack_ml")

_CLEAR = 30  # an eigenvalue is used while its root is this many times the root of eps above nothing


class Factors(NamedTuple):
    """Leading singular triplets of the centred stack.

    Attributes
    ----------
    mean : ndarray of shape (p,), float64
    components : ndarray of shape (k, p), float32 or float64
        Orthonormal rows, signs not yet settled.
    singular_values : ndarray of shape (k,), float64
        Descending; exactly 0 beyond the numerical rank.
    total : float
        Sum of squares of the centred stack.
    rank : int
        Numerical rank, as far as it was determined: at least `k` where all singular values are real.
    scores : ndarray of shape (n, k), or None
        Projections of the images, where they cost no read.
    """

    mean: np.ndarray
    components: np.ndarray
    singular_values: np.ndarray
    total: float
    rank: int
    scores: np.ndarray | None


def solve_gram(runner: PassRunner, need: Requirement, problem: Problem, n_components: object) -> Factors:
    """Eigenvectors of the inner products of images: one read if they are kept, else panels and one more.

    Eigenvalues are squares of singular values, so that small ones drown in the rounding of large ones. Where the
    k-th one may have, the products are made again in float64, and then, if the images are kept, by `solve_tsqr`.
    """
    if need.keeps_images:
        runner.keep()
    for dtype in _precisions(problem, n_components):
        found = _gram_of_kept(runner, dtype) if need.keeps_images else _gram_by_panels(runner, need, dtype)
        leading = _leading(found.gram, problem, n_components)
        if leading.trustworthy(dtype, found.offset, problem):
            break
    else:
        if need.keeps_images:
            return solve_tsqr(runner, need, problem, n_components)
    singular = leading.nonzero(found.offset, problem)
    U = leading.vectors[:, : len(singular)]
    mean, components = _components(runner, U / singular, found.shift, problem.dtype, problem.result_bytes)
    return _completed(mean, components, singular, leading, U * singular)


def solve_covariance(runner: PassRunner, need: Requirement, problem: Problem, n_components: object) -> Factors:
    """Eigenvectors of the covariance of pixels, for small images: one read, two where float32 was not enough.

    Where float64 is not enough either, and the images are kept, `solve_tsqr` takes over as in `solve_gram`.
    """
    if need.keeps_images:
        runner.keep()
    for dtype in _precisions(problem, n_components):
        step = partial(lin.scatter, dtype=dtype)
        found = runner.run(step, lin.merge_scatter, partial_bytes=3 * 8 * problem.p**2, label="covariance")
        leading = _leading(found.matrix, problem, n_components)
        if leading.trustworthy(dtype, 0.0, problem):
            break
    else:
        if need.keeps_images:
            return solve_tsqr(runner, need, problem, n_components)
    singular = leading.nonzero(0.0, problem)
    components = np.ascontiguousarray(leading.vectors[:, : len(singular)].T, dtype=problem.dtype)
    return _completed(found.mean, components, singular, leading, None)


def solve_tsqr(runner: PassRunner, need: Requirement, problem: Problem, n_components: object) -> Factors:
    """Tall-skinny QR with `dask.array.linalg.tsqr`, in float64: keeps the digits of small singular values.

    Only the triangular factor R is computed; the long orthogonal one never exists. Components follow from the
    images and R's singular vectors, orthonormalised once more (indirect TSQR with one refinement: Constantine &
    Gleich 2011; Benson, Gleich & Demmel 2013).
    """
    if need.keeps_images:
        runner.keep()
    if problem.n > problem.p:
        return _tsqr_of_images(runner, problem, n_components)
    return _tsqr_of_pixels(runner, problem, n_components)


SOLVERS: dict[str, Callable[[PassRunner, Requirement, Problem, object], Factors]] = {
    "gram": solve_gram,
    "covariance_eigh": solve_covariance,
    "tsqr": solve_tsqr,
}


class _Leading(NamedTuple):
    """Eigenvalues, descending, and eigenvectors of the centred stack; trace; and the number of components wanted."""

    values: np.ndarray
    vectors: np.ndarray
    total: float
    k: int

    def trustworthy(self, dtype: np.dtype, offset: float, problem: Problem) -> bool:
        """Whether the smallest value that is wanted, and can be above 0, stands clear of rounding in `dtype`."""
        last = self.values[min(self.k, problem.n - 1, problem.p) - 1]
        clear = last >= _CLEAR**2 * np.finfo(dtype).eps * max(self.values[0], offset)
        if not clear:
            logger.info("eigenvalue %.3g of %.3g drowns in %s rounding", last, self.values[0], dtype)
        return bool(clear)

    def nonzero(self, offset: float, problem: Problem) -> np.ndarray:
        """Singular values above the rounding of a float64 eigenvalue solver, at most n - 1 of them."""
        singular = np.sqrt(self.values[: min(self.k, problem.n - 1)])
        floor = len(self.vectors) * np.finfo(np.float64).eps * max(self.values[0], offset)
        return singular[singular > np.sqrt(floor)]


def _precisions(problem: Problem, n_components: object) -> list[np.dtype]:
    """Working precisions to try in turn; all components need the small ones, which float32 products lose."""
    double = np.dtype(np.float64)
    return [double] if problem.dtype == double or n_components is None else [problem.dtype, double]


def _leading(matrix: np.ndarray, problem: Problem, n_components: Any) -> _Leading:
    """Eigenpairs of a Gram or scatter matrix, which is destroyed."""
    total = float(np.trace(matrix))
    values, vectors = lin.eigh_descending(matrix, problem.k)
    return _Leading(values, vectors, total, _count(values, total, problem, n_components))


def _count(values: np.ndarray, total: float, problem: Problem, n_components: Any) -> int:
    """Return the number of components: as asked, or as many as explain more than a share of the variance."""
    if n_components is None or isinstance(n_components, Integral):
        return problem.k
    share = np.cumsum(values) / (total or 1.0)
    return min(problem.k, int(np.searchsorted(share, n_components, side="right")) + 1)


class _Gram(NamedTuple):
    """Centred Gram matrix; a shift (p,) close to the mean; and the squares that centring took out afterwards."""

    gram: np.ndarray
    shift: np.ndarray
    offset: float


def _gram_of_kept(runner: PassRunner, dtype: np.dtype) -> _Gram:
    gram, mean = runner.run_pixels(partial(lin.centred_gram, dtype=dtype), lin.merge_gram)
    return _Gram(lin.double_centred(gram), np.concatenate(mean), 0.0)  # takes out what rounded means left


def _gram_by_panels(runner: PassRunner, need: Requirement, dtype: np.dtype) -> _Gram:
    """Hold a panel of raw images, stream the ones after it, move on to the next panel."""
    gram = np.empty((runner.n_images, runner.n_images))
    shift: np.ndarray | None = None
    for first, stop in _panels(runner.starts, need.panel):
        panel = runner.fetch((first, stop), label="panel")
        shift = lin.first_image(panel) if shift is None else shift
        strips = [lin.shifted_gram(panel, shift, dtype)]
        if stop < runner.n_blocks:
            step, rest = partial(lin.cross_gram, dtype=dtype), (stop, runner.n_blocks)
            later = runner.run(step, lin.merge_strips, shared=(panel, shift), span=rest, label="inner products")
            strips.extend(later)
        rows = slice(runner.starts[first], runner.starts[stop])
        gram[rows, rows.start :] = np.hstack(strips)
        gram[rows.start :, rows] = gram[rows, rows.start :].T
    assert shift is not None
    before = np.trace(gram)
    gram = lin.double_centred(gram)
    return _Gram(gram, shift, float(before - np.trace(gram)))


def _panels(starts: list[int], n_images: int) -> list[tuple[int, int]]:
    """Consecutive blocks in groups of at most `n_images`, one block at the least."""
    panels, first = [], 0
    for stop in range(1, len(starts)):
        if stop == len(starts) - 1 or starts[stop + 1] - starts[first] > n_images:
            panels.append((first, stop))
            first = stop
    return panels


def _components(
    runner: PassRunner, weights: np.ndarray, shift: np.ndarray, dtype: np.dtype, n_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean image, and components from eigenvectors (n, k), whose entries weigh the images."""
    shift = shift.astype(dtype).astype(np.float64)  # what the tiles will subtract
    if runner.blocks is not None:
        step = partial(_weighted_pixels, weights=weights.T, shift=shift, dtype=dtype)
        sums, totals = runner.run_pixels(step, _side_by_side)
        components, total = np.concatenate(sums, axis=1), np.concatenate(totals)
    else:
        components, total = runner.run(
            partial(lin.weighted_sums, dtype=dtype),
            lin.merge_sums,
            shared=(weights.T, shift),
            partial_bytes=n_bytes,
            label="components",
        )
    lin.orthonormalise_rows(components)
    return shift + total / runner.n_images, components


def _weighted_pixels(
    blocks: list[np.ndarray], lo: int, hi: int, weights: np.ndarray, shift: np.ndarray, dtype: np.dtype
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    sums, total = lin.weighted_sums(blocks, 0, weights, shift, dtype, lo, hi)
    return [sums], [total]


def _side_by_side(a: tuple[list, list], b: tuple[list, list]) -> tuple[list, list]:
    return a[0] + b[0], a[1] + b[1]


def _tsqr_of_images(runner: PassRunner, problem: Problem, n_components: object) -> Factors:
    """Images x pixels is the tall orientation: R of rows [1, image], the ones taking the mean away."""
    height = tall_height(problem.p, problem.n)
    rows, shift = runner.as_array(rows_after_ones, 1 + problem.p, height, lin.first_image)
    _, R = da.linalg.tsqr(rows)
    R, shift = runner.compute(R, shift)
    leading, singular = _leading_of_r(R[1:, 1:], problem, n_components)
    components = np.ascontiguousarray(leading.vectors[:, : len(singular)].T, dtype=problem.dtype)
    return _completed(shift + R[0, 1:] / R[0, 0], components, singular, leading, None)


def _tsqr_of_pixels(runner: PassRunner, problem: Problem, n_components: object) -> Factors:
    """Pixels x images is the tall orientation: ranges of pixels of all the images, centred, from images kept."""
    assert runner.blocks is not None
    _, R = da.linalg.tsqr(runner.pixels_as_array(centred_columns, tall_height(problem.n, problem.p)))
    (R,) = runner.compute(R)
    leading, singular = _leading_of_r(R, problem, n_components)
    U = leading.vectors[:, : len(singular)]
    mean = moments(runner.blocks).mean
    mean, components = _components(runner, U / singular, mean, np.dtype(np.float64), problem.result_bytes)
    return _completed(mean, components.astype(problem.dtype, copy=False), singular, leading, U * singular)


def _leading_of_r(R: np.ndarray, problem: Problem, n_components: object) -> tuple[_Leading, np.ndarray]:
    """Singular triplets of a triangular factor, and those singular values that stand above rounding."""
    s, Vt = svd_of_r(R)
    total = float(s @ s)
    leading = _Leading(s**2, Vt.T, total, _count(s**2, total, problem, n_components))
    floor = max(problem.n, problem.p) * np.finfo(np.float64).eps * s[0]  # as numpy.linalg.matrix_rank
    singular = s[: min(leading.k, problem.n - 1)]
    return leading, singular[singular > floor]


def _completed(
    mean: np.ndarray, components: np.ndarray, singular: np.ndarray, leading: _Leading, scores: np.ndarray | None
) -> Factors:
    """Fill up to the components wanted with orthonormal directions of variance 0."""
    missing = leading.k - len(singular)
    if scores is not None:
        scores = np.pad(scores, ((0, 0), (0, missing)))
    components = lin.completed_rows(components, leading.k)
    return Factors(mean, components, np.pad(singular, (0, missing)), leading.total, len(singular), scores)
