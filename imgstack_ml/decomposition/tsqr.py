"""The exact solver ``"tsqr"``: tall-skinny QR with `dask.array.linalg.tsqr`, and the tall arrays that it factors."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np

from ..linalg.moments import moments
from ..linalg.scaling import largest_value
from ..linalg.tiles import column_squares, heaviest_image, weights_of
from ..linalg.tsqr import centred_columns, rows_after_ones, svd_of_r
from ..passes.batches import Batch
from ..passes.runner import PassRunner
from ..passes.steps import checked_step
from .leading import Leading, completed_factors, components_of_kept, weights_and_scores
from .plan import tall_height
from .records import Factors, FitRequest, FitSize, SolverCost, component_count

__all__ = ["solve_tsqr"]


def solve_tsqr(runner: PassRunner, cost: SolverCost, size: FitSize, request: FitRequest) -> Factors:
    """Singular values and vectors of the triangular factor, in float64: keeps the digits of small singular values.

    Only the triangular factor R is computed; the long orthogonal one never exists. Components follow from the
    images and R's singular vectors, orthonormalised once more (indirect TSQR with one refinement: Constantine &
    Gleich 2011; Benson, Gleich & Demmel 2013).
    """
    if cost.keeps_images:
        runner.keep()
    if size.n > size.p:
        return _tsqr_of_images(runner, size, request)
    return _tsqr_of_pixels(runner, size, request)


def _tsqr_of_images(runner: PassRunner, size: FitSize, request: FitRequest) -> Factors:
    """More images than pixels: R of the rows [1, image], whose column of ones takes the mean away."""
    rows, shift, images_of = _rows_of_images(runner, tall_height(size.p, size.n))
    _, R = da.linalg.tsqr(rows)
    R, shift = runner.compute(R, shift, images_of=images_of, label="triangular factor")
    # LAPACK compares with absolute numbers: only values of one size give the same digits in all units.
    exponent = int(np.frexp(largest_value([R[1:, 1:]]))[1])
    leading = _leading_of_r(np.ldexp(R[1:, 1:], -exponent), size, request)
    components = np.ascontiguousarray(leading.vectors.T, dtype=size.dtype)
    squares = column_squares(np.ldexp(R[1:, 1:], -exponent))
    return completed_factors(shift + R[0, 1:] / R[0, 0], components, leading, None, squares, exponent)


def _tsqr_of_pixels(runner: PassRunner, size: FitSize, request: FitRequest) -> Factors:
    """No more images than pixels: R of rows of pixels, centred; the images are in memory."""
    assert runner.blocks is not None
    exponent = 0 if size.integers else int(np.frexp(largest_value(runner.blocks))[1])
    _, R = da.linalg.tsqr(_rows_of_pixels(runner, tall_height(size.n, size.p), exponent))
    (R,) = runner.compute(R, images_of={}, label="triangular factor")
    leading = _leading_of_r(R, size, request)
    _, mean, _, norms = moments(runner.blocks, with_norms=True, weights=runner.weights)
    assert norms is not None
    if not np.isfinite(mean).all():
        raise OverflowError
    weights, scores = weights_and_scores(leading, runner.roots)
    components = components_of_kept(runner, weights, mean, np.dtype(np.float64), exponent)
    squares = np.ldexp(norms, -exponent) ** 2
    return completed_factors(mean, components.astype(size.dtype, copy=False), leading, scores, squares, exponent)


def _rows_of_images(runner: PassRunner, height: int) -> tuple[da.Array, Any, dict[Any, int]]:
    """Lazy array with one row per image: a 1, and then the image minus the heaviest image.

    The column of ones lets the QR take the mean away, see `rows_after_ones`.

    Parameters
    ----------
    runner : PassRunner
    height : int
        Most rows to which consecutive blocks are joined.

    Returns
    -------
    rows : dask array of shape (n, 1 + p), float64
    shift : Delayed
        The heaviest image (p,), float64, which is the first without weights.
    images_of : dict
        Number of images that each task handles, by the key of the task.
    """
    layout = runner.layout
    batches = layout.batches(Batch(0, layout.n_blocks), height * layout.image_bytes)
    sources = runner.sources(batches)
    task = dask.delayed(checked_step, pure=False)
    inside = [dask.delayed(positions, pure=False, traverse=False) for positions in runner.inside]
    weights = dask.delayed(runner.weights, pure=False, traverse=False)
    position = 0 if runner.weights is None else int(np.argmax(runner.weights))
    i = next(i for i, batch in enumerate(batches) if position < layout.starts[batch.stop])
    first = layout.starts[batches[i].first]
    shift = task(_heaviest_image, sources[i], runner.check(batches[i]), first, [weights], inside)
    parts, images_of = [], {}
    for batch, blocks in zip(batches, sources, strict=True):
        part = task(rows_after_ones, blocks, runner.check(batch), layout.starts[batch.first], [shift, weights], inside)
        images_of[part.key] = layout.n_images(batch)
        parts.append(da.from_delayed(part, shape=(images_of[part.key], 1 + runner.n_pixels), dtype=np.float64))
    return da.concatenate(parts), shift, images_of


def _heaviest_image(blocks: list[np.ndarray], start: int, weights: np.ndarray | None) -> np.ndarray:
    return heaviest_image(blocks, weights_of(weights, start, blocks))


def _rows_of_pixels(runner: PassRunner, height: int, exponent: int) -> da.Array:
    """Pixels of all images in memory, centred, in units of 2^exponent, as the rows of a lazy array (p, n), float64."""
    task = dask.delayed(centred_columns, pure=False, traverse=False)
    blocks = dask.delayed(runner.blocks, pure=False, traverse=False)
    weights = dask.delayed(runner.weights, pure=False, traverse=False)
    parts = []
    for lo in range(0, runner.n_pixels, height):
        hi = min(lo + height, runner.n_pixels)
        parts.append(
            da.from_delayed(task(blocks, lo, hi, exponent, weights), shape=(hi - lo, runner.n_images), dtype=np.float64)
        )
    return da.concatenate(parts)


def _leading_of_r(R: np.ndarray, size: FitSize, request: FitRequest) -> Leading:
    """Singular pairs of a triangular factor, as far as they stand above rounding."""
    if not np.isfinite(R).all():
        raise OverflowError
    s, Vt = svd_of_r(R)
    total = float(s @ s)
    k = component_count(s**2, total, size.k, request)
    floor = max(size.n, size.p) * np.finfo(np.float64).eps * s[0]  # as numpy.linalg.matrix_rank
    rank = np.count_nonzero(s[: min(k, size.n - 1)] > floor)
    return Leading(s[:rank], Vt[:rank].T, total, k)
