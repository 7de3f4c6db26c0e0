"""The exact solvers: inner products of images or of pixels, and tall-skinny QR."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import dask.array as da
import numpy as np

from ..linalg import gram as lin
from ..linalg.krylov import add_products
from ..linalg.moments import moments
from ..linalg.tsqr import centred_columns, rows_after_ones, svd_of_r
from ..passes.runner import PassRunner, nothing
from .factors import Factors, Wanted, count
from .plan import tall_height
from .problem import Problem, Requirement

__all__ = ["solve_covariance", "solve_gram", "solve_tsqr"]

logger = logging.getLogger("imgstack_ml")

# Rounding moves eigenvalues by up to 0.6 eps of the largest: measured where few pixels hold all the variance, so that
# errors do not even out. An eigenvalue is used while that is within these shares of it, for images that are worked on
# in float32 and in float64.
_ROUNDING = 0.8
_DIGITS = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}
_FEW_PRODUCTS = 2e9  # fewer than this are made in float64 at once
# Eigenvalues accepted at a stage that takes known eigenvectors out: their square roots are within this of the largest,
# so that what errors of the eigenvectors leave behind is below 1e-12 of the largest singular value of all.
_STAGE = 2e-3
_NOTHING = 1e-12


def solve_gram(runner: PassRunner, need: Requirement, problem: Problem, wanted: Wanted) -> Factors:
    """Eigenvectors of the inner products of images: one read if they are kept, else panels and one more."""
    if need.keeps_images:
        runner.keep()
        leading, found = _eigenpairs(partial(_gram_of_kept, runner), problem, wanted, refine=True)
    else:
        leading, found = _eigenpairs(partial(_gram_by_panels, runner, need), problem, wanted, refine=False)
    weights = leading.vectors / leading.singular
    if need.keeps_images:
        mean, components = found.mean, _components_of_kept(runner, weights, found.mean, problem.dtype)
    else:
        mean, components = _components_by_reading(runner, weights, found.mean, problem.dtype, problem.result_bytes)
    return _completed(mean, components, leading, leading.vectors * leading.singular)


def solve_covariance(runner: PassRunner, need: Requirement, problem: Problem, wanted: Wanted) -> Factors:
    """Eigenvectors of the covariance of pixels, for small images: one read, and one more for each refinement."""
    if need.keeps_images:
        runner.keep()
    leading, found = _eigenpairs(partial(_scatter_of_pixels, runner, problem), problem, wanted, refine=True)
    components = np.ascontiguousarray(leading.vectors.T, dtype=problem.dtype)
    return _completed(found.mean, components, leading, None)


def solve_tsqr(runner: PassRunner, need: Requirement, problem: Problem, wanted: Wanted) -> Factors:
    """Tall-skinny QR with `dask.array.linalg.tsqr`, in float64: keeps the digits of small singular values.

    Only the triangular factor R is computed; the long orthogonal one never exists. Components follow from the
    images and R's singular vectors, orthonormalised once more (indirect TSQR with one refinement: Constantine &
    Gleich 2011; Benson, Gleich & Demmel 2013).
    """
    if need.keeps_images:
        runner.keep()
    if problem.n > problem.p:
        return _tsqr_of_images(runner, problem, wanted)
    return _tsqr_of_pixels(runner, problem, wanted)


class _Leading(NamedTuple):
    """Leading singular values above 0 and eigenvectors in columns; sum of squares of all; and how many are wanted."""

    singular: np.ndarray
    vectors: np.ndarray
    total: float
    k: int


class _Products(NamedTuple):
    """Centred inner products of images or of pixels; the mean, at least roughly; squares centring took out late."""

    matrix: np.ndarray
    mean: np.ndarray
    offset: float = 0.0


class _Known(NamedTuple):
    """Orthonormal eigenvectors, in columns, that are known well; and the mean."""

    vectors: np.ndarray
    mean: np.ndarray


def _eigenpairs(
    products: Callable[..., _Products], problem: Problem, wanted: Wanted, refine: bool
) -> tuple[_Leading, _Products]:
    """Singular values and eigenvectors by ``products(dtype, known)``, in as much precision as they need.

    Eigenvalues are squares of singular values, so that small ones drown in the rounding of large ones. Where the
    k-th one may have, the products are made again in float64, and then, if `refine`, with the eigenvectors that
    are well known taken out of the images, until the next singular value is below 1e-12 of the first.
    """
    for dtype in _precisions(problem, wanted):
        found = products(dtype, None)
        total = float(np.trace(found.matrix))
        if not np.isfinite(total):
            continue
        values, vectors = lin.eigh_descending(found.matrix, problem.k)
        k = count(values, total, problem.k, wanted)
        possible = min(k, problem.n - 1, problem.p)
        last, largest = values[possible - 1], max(values[0], found.offset)
        values, vectors = values[:possible], vectors[:, :possible]
        rounding = _ROUNDING * np.finfo(dtype).eps * largest
        if last > max(rounding / _DIGITS[problem.dtype], _least(dtype, problem)):
            return _Leading(np.sqrt(values), vectors, total, k), found
        logger.info("eigenvalue %d, %.3g of %.3g, drowns in %s rounding", possible, last, values[0], dtype)
    if not np.isfinite(total):
        raise ValueError("The squares of the intensities are beyond float64. Scale the images down, e.g. X / X.max().")
    if refine:
        values, vectors = _refined(products, values, vectors, found.mean)
    else:  # what is left above the rounding of a float64 eigenvalue solver
        rank = np.count_nonzero(values > problem.n * np.finfo(np.float64).eps * largest)
        values, vectors = values[:rank], vectors[:, :rank]
    return _Leading(np.sqrt(values), vectors, total, k), found


def _refined(
    products: Callable[..., _Products], values: np.ndarray, vectors: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs in stages, each with the well-known eigenvectors of the ones before taken out of the images."""
    wanted, largest = len(values), values[0]
    known = np.empty((len(vectors), 0))
    accepted: list[float] = []
    while values[0] > _NOTHING**2 * largest:
        keep = values >= max(_STAGE**2 * values[0], _NOTHING**2 * largest)
        fresh = vectors[:, keep] - known @ (known.T @ vectors[:, keep])
        known = np.hstack([known, np.linalg.qr(fresh)[0]])
        accepted.extend(values[keep])
        if len(accepted) == wanted:
            break
        rest = products(np.dtype(np.float64), _Known(known, mean))
        values, vectors = lin.eigh_descending(rest.matrix, wanted - len(accepted))
    order = np.argsort(accepted)[::-1]
    return np.array(accepted)[order], known[:, order]


def _precisions(problem: Problem, wanted: Wanted) -> list[np.dtype]:
    """Working precisions to try in turn; all components need the small ones, which float32 products lose."""
    double = np.dtype(np.float64)
    few = problem.n * problem.p * min(problem.n, problem.p) < _FEW_PRODUCTS
    return [double] if few or problem.dtype == double or wanted.n_components is None else [problem.dtype, double]


def _least(dtype: np.dtype, problem: Problem) -> float:
    """Eigenvalue below which squares fall out of the range of float32."""
    return 0.0 if dtype == np.float64 else problem.n * problem.p * float(np.finfo(dtype).tiny)


def _gram_of_kept(runner: PassRunner, dtype: np.dtype, known: _Known | None) -> _Products:
    step = partial(lin.centred_gram, dtype=dtype, known=None if known is None else known.vectors)
    gram, mean = runner.run_pixels(step, lin.merge_gram)
    return _Products(lin.double_centred(gram), np.concatenate(mean))  # takes out what rounded means left


def _scatter_of_pixels(runner: PassRunner, problem: Problem, dtype: np.dtype, known: _Known | None) -> _Products:
    shared = () if known is None else (np.ascontiguousarray(known.vectors.T), known.mean)
    step = partial(_scatter, dtype)
    n_bytes = 3 * 8 * problem.p**2
    found = runner.run(step, lin.merge_scatter, shared=shared, partial_bytes=n_bytes, label="covariance")
    return _Products(found.matrix, found.mean)


def _scatter(dtype: np.dtype, blocks: list[np.ndarray], start: int, *known: np.ndarray) -> lin.Scatter:
    return lin.scatter(blocks, start, dtype, *known)


def _gram_by_panels(runner: PassRunner, need: Requirement, dtype: np.dtype, known: None) -> _Products:
    """Hold a panel of raw images, stream the ones after it, move on to the next panel."""
    gram = np.empty((runner.n_images, runner.n_images))
    shift: np.ndarray | None = None
    for first, stop in _panels(runner.starts, need.panel):
        strips, shift = runner.once(partial(_strips, runner, first, stop, shift, dtype), "panel and strips")
        rows = slice(runner.starts[first], runner.starts[stop])
        gram[rows, rows.start :] = np.hstack(strips)
        gram[rows.start :, rows] = gram[rows, rows.start :].T
    assert shift is not None
    before = np.trace(gram)
    gram = lin.double_centred(gram)
    return _Products(gram, shift, float(before - np.trace(gram)))


def _strips(
    runner: PassRunner, first: int, stop: int, shift: np.ndarray | None, dtype: np.dtype
) -> tuple[list[np.ndarray], np.ndarray]:
    """Inner products of the images of a panel with each other and all after them, less a shift: the first panel's."""
    panel = runner.fetch((first, stop), label="panel into memory")
    shift = _shift(panel, dtype) if shift is None else shift
    own = partial(lin.shifted_gram, shift=shift, dtype=dtype)
    strips = [runner.run_pixels(own, lin.merge_products, panel)]
    if stop < runner.n_blocks:
        step, rest = partial(lin.cross_gram, dtype=dtype), (stop, runner.n_blocks)
        later = runner.run(step, lin.merge_strips, shared=(panel, shift), span=rest, label="inner products")
        strips.extend(later)
    return strips, shift


def _shift(blocks: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Mean of some images, rounded so that `dtype` holds it, and integers less it, exactly.

    The nearer to the mean of all, the less there is to take out late: a single noisy image is too far.
    """
    mean = moments(blocks).mean
    return np.rint(mean) if blocks[0].dtype.kind in "biu" else mean.astype(dtype).astype(np.float64)


def _panels(starts: list[int], n_images: int) -> list[tuple[int, int]]:
    """Consecutive blocks in groups of at most `n_images`, one block at the least."""
    panels, first = [], 0
    for stop in range(1, len(starts)):
        if stop == len(starts) - 1 or starts[stop + 1] - starts[first] > n_images:
            panels.append((first, stop))
            first = stop
    return panels


def _components_of_kept(runner: PassRunner, weights: np.ndarray, mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Components from eigenvectors (n, k), whose entries weigh the images; these are in memory."""
    components = np.zeros((weights.shape[1], runner.n_pixels), dtype)
    shift = mean.astype(dtype).astype(np.float64)  # what the tiles will subtract
    step = partial(add_products, scores=weights, shift=shift, dtype=dtype, out=components)
    runner.run_pixels(step, nothing)
    lin.orthonormalise_rows(components)
    return components


def _components_by_reading(
    runner: PassRunner, weights: np.ndarray, shift: np.ndarray, dtype: np.dtype, n_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean image, and components as above, in one more read."""
    shift = shift.astype(dtype).astype(np.float64)
    components, total = runner.run(
        partial(lin.weighted_sums, dtype=dtype),
        lin.merge_sums,
        shared=(weights.T, shift),
        partial_bytes=n_bytes,
        label="components",
    )
    lin.orthonormalise_rows(components)
    return shift + total / runner.n_images, components


def _tsqr_of_images(runner: PassRunner, problem: Problem, wanted: Wanted) -> Factors:
    """Images x pixels is the tall orientation: R of rows [1, image], the ones taking the mean away."""
    height = tall_height(problem.p, problem.n)
    rows, shift = runner.as_array(rows_after_ones, 1 + problem.p, height, lin.first_image)
    _, R = da.linalg.tsqr(rows)
    R, shift = runner.compute(R, shift, label="triangular factor")
    leading = _leading_of_r(R[1:, 1:], problem, wanted)
    components = np.ascontiguousarray(leading.vectors.T, dtype=problem.dtype)
    return _completed(shift + R[0, 1:] / R[0, 0], components, leading, None)


def _tsqr_of_pixels(runner: PassRunner, problem: Problem, wanted: Wanted) -> Factors:
    """Pixels x images is the tall orientation: ranges of pixels of all the images, centred, from images kept."""
    assert runner.blocks is not None
    _, R = da.linalg.tsqr(runner.pixels_as_array(centred_columns, tall_height(problem.n, problem.p)))
    (R,) = runner.compute(R)
    leading = _leading_of_r(R, problem, wanted)
    mean = moments(runner.blocks).mean
    weights = leading.vectors / leading.singular
    components = _components_of_kept(runner, weights, mean, np.dtype(np.float64))
    scores = leading.vectors * leading.singular
    return _completed(mean, components.astype(problem.dtype, copy=False), leading, scores)


def _leading_of_r(R: np.ndarray, problem: Problem, wanted: Wanted) -> _Leading:
    """Singular pairs of a triangular factor, as far as they stand above rounding."""
    s, Vt = svd_of_r(R)
    total = float(s @ s)
    k = count(s**2, total, problem.k, wanted)
    floor = max(problem.n, problem.p) * np.finfo(np.float64).eps * s[0]  # as numpy.linalg.matrix_rank
    rank = np.count_nonzero(s[: min(k, problem.n - 1)] > floor)
    return _Leading(s[:rank], Vt[:rank].T, total, k)


def _completed(mean: np.ndarray, components: np.ndarray, leading: _Leading, scores: np.ndarray | None) -> Factors:
    """Fill up to the components wanted with orthonormal directions of variance 0."""
    rank = len(leading.singular)
    missing = leading.k - rank
    if scores is not None:
        scores = np.pad(scores, ((0, 0), (0, missing)))
    components = lin.completed_rows(components, leading.k)
    return Factors(mean, components, np.pad(leading.singular, (0, missing)), leading.total, rank, scores)
