"""The exact solvers by inner products: of images (``"gram"``) or of pixels (``"covariance_eigh"``)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..linalg import gram as lin
from ..linalg.integers import are_fast, products_of_images
from ..linalg.krylov import add_products
from ..linalg.moments import moments, weighted_pixels
from ..linalg.orthonormal import orthonormalise_rows
from ..linalg.scaling import ALL_ZERO, exponent_of
from ..linalg.tiles import weights_of
from ..passes.runner import PassRunner, no_result
from ..passes.steps import concatenated
from .leading import Leading, completed_factors, components_of_kept, weights_and_scores
from .records import Factors, FitRequest, FitSize, SolverCost, component_count

__all__ = ["solve_covariance", "solve_gram"]

logger = logging.getLogger("imgstack_ml")

# Rounding moves an eigenvalue by up to 0.6 eps of the largest one. This was measured on images whose variance lies in
# few pixels, where errors do not average out. An eigenvalue is accepted if that error is within these shares of it, for
# results in float32 and in float64.
_ROUNDING = 0.8
_DIGITS = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}
# A stage of the refinement accepts singular values down to this share of its largest. Then the error that inexact
# eigenvectors leave in the images stays below 1e-12 of the largest singular value of all.
_STAGE = 2e-3
_SMALLEST = 1e-12  # share of the largest singular value below which refinement stops


def solve_gram(runner: PassRunner, cost: SolverCost, size: FitSize, request: FitRequest) -> Factors:
    """Eigenvectors of the inner products of images. One read if images are kept, else by panels and one read more."""
    if runner.regions:
        return _solve_by_regions(runner, cost, size, request)
    if cost.keeps_images:
        runner.keep()
        assert runner.blocks is not None
        products = partial(_gram_of_kept, runner, size, exponent_of(runner.blocks))
        leading, found = _eigenpairs(products, size, request, refine=True)
    else:
        leading, found = _eigenpairs(partial(_gram_by_panels, runner, cost, size), size, request, refine=False)
    (weights, scores), exponent = weights_and_scores(leading, runner.roots), found.exponent
    if cost.keeps_images:
        mean, squares = found.mean, found.squares
        components = components_of_kept(runner, weights, mean, size.dtype, exponent)
    else:
        mean, components, squares = _components_by_reading(runner, weights, found.mean, size, exponent)
    assert squares is not None
    return completed_factors(mean, components, leading, scores, squares, exponent, runner.run_pixels)


def _solve_by_regions(runner: PassRunner, cost: SolverCost, size: FitSize, request: FitRequest) -> Factors:
    """Do the same over chunks that hold parts of images, region by region: two reads, or one if images are kept."""
    if cost.keeps_images:
        runner.keep_by_region()
    leading, found = _eigenpairs(partial(_gram_by_regions, runner, size), size, request, refine=False)
    weights, scores = weights_and_scores(leading, runner.roots)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = runner.run(
        partial(_weighted_regions, dtype=size.dtype, exponent=found.exponent),
        concatenated,
        shared=(weights, runner.weights),
        label="components",
        by_region=True,
    )
    mean, squares, components = (runner.assembled(part[i] for part in parts) for i in range(3))
    del parts
    orthonormalise_rows(components, runner.run_pixels)
    return completed_factors(mean, components, leading, scores, squares, found.exponent, runner.run_pixels)


def _weighted_regions(
    regions: list[list[np.ndarray]],
    start: int,
    weights: np.ndarray,
    counts: np.ndarray | None = None,
    *,
    dtype: np.dtype,
    exponent: int,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Mean, sums of squares about it and components of each of some regions, in one piece of work.

    `counts` (n,) say how often each image counts in the first two; `weights` (n, k) are those of sums.
    """
    found = []
    for blocks in regions:
        own = moments(blocks, with_norms=True, weights=counts)
        mean, squares = own.mean, np.ldexp(own.deviations(), -exponent) ** 2
        components = np.zeros((weights.shape[1], mean.size), dtype)
        add_products(blocks, 0, mean.size, weights, mean, dtype, components, exponent)
        found.append((mean, squares, components))
    return found


def solve_covariance(runner: PassRunner, cost: SolverCost, size: FitSize, request: FitRequest) -> Factors:
    """Eigenvectors of the covariance of pixels, for small images. One read, and one more for each refinement."""
    if cost.keeps_images:
        runner.keep()
    leading, found = _eigenpairs(partial(_scatter_of_pixels, runner, size), size, request, refine=True)
    components = np.ascontiguousarray(leading.vectors.T, dtype=size.dtype)
    assert found.squares is not None
    return completed_factors(found.mean, components, leading, None, found.squares, found.exponent)


class _Products(NamedTuple):
    """Inner products of the centred images, or of their pixels.

    Attributes
    ----------
    matrix : ndarray of shape (n, n) or (p, p), float64
    mean : ndarray of shape (p,), float64
        Mean image, or the shift that was subtracted instead of it before the products.
    dtype : dtype
        Precision of the products; float64 for exact ones, which are rounded once.
    offset : float
        Sum of squares that centring the matrix took out after the products. Its rounding stays in the matrix.
    exponent : int
        `matrix`, `offset` and `squares` are in squares of the units 2^exponent, see `linalg.scaling`.
    squares : ndarray of shape (p,), float64, or None
        Sums of squares of each pixel about its mean, where they are known.
    """

    matrix: np.ndarray
    mean: np.ndarray
    dtype: np.dtype
    offset: float = 0.0
    exponent: int = 0
    squares: np.ndarray | None = None


class _Known(NamedTuple):
    """Eigenvectors that are accurate already, orthonormal and in columns; and the mean image (p,)."""

    vectors: np.ndarray
    mean: np.ndarray


def _eigenpairs(
    products: Callable[..., _Products], size: FitSize, request: FitRequest, refine: bool
) -> tuple[Leading, _Products]:
    """Singular values and eigenvectors of ``products(dtype, known)``, in as much precision as they need.

    Eigenvalues are squares of singular values: small ones are lost in the rounding of large ones. If that can have
    happened to the k-th one, the products are computed again in float64, unless they were exact. If that is not enough
    and `refine` is True, the accurate eigenvectors are taken out of the images, and the products computed again, in
    stages, until the next singular value is below 1e-12 of the first.
    """
    for wanted in _precisions(size, request):
        found = products(wanted, None)
        dtype = found.dtype
        total = float(np.trace(found.matrix))
        if not np.isfinite(total):
            raise OverflowError
        values, vectors = lin.eigh_descending(found.matrix, size.k)
        k = component_count(values, total, size.k, request)
        possible = min(k, size.n - 1, size.p)
        last, largest = values[possible - 1], max(values[0], found.offset)
        values, vectors = values[:possible], vectors[:, :possible]
        rounding = _ROUNDING * np.finfo(dtype).eps * largest
        if last > max(rounding / _DIGITS[size.dtype], _least(dtype, size)):
            return Leading(np.sqrt(values), vectors, total, k), found
        logger.info("eigenvalue %d, %.3g of %.3g, drowns in %s rounding", possible, last, values[0], dtype)
        if dtype == np.float64:  # no products would be more precise
            break
    if refine:
        values, vectors = _refined(products, values, vectors, found.mean)
    else:  # keep the eigenvalues above the rounding of a float64 eigenvalue solver
        rank = np.count_nonzero(values > size.n * np.finfo(np.float64).eps * largest)
        values, vectors = values[:rank], vectors[:, :rank]
    return Leading(np.sqrt(values), vectors, total, k), found


def _refined(
    products: Callable[..., _Products], values: np.ndarray, vectors: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs in stages. Each stage takes the accurate eigenvectors of the stages before out of the images."""
    n_wanted, largest = len(values), values[0]
    known = np.empty((len(vectors), 0))
    accepted: list[float] = []
    while values[0] > _SMALLEST**2 * largest:
        keep = values >= max(_STAGE**2 * values[0], _SMALLEST**2 * largest)
        fresh = vectors[:, keep] - known @ (known.T @ vectors[:, keep])
        known = np.hstack([known, np.linalg.qr(fresh)[0]])
        accepted.extend(values[keep])
        if len(accepted) == n_wanted:
            break
        rest = products(np.dtype(np.float64), _Known(known, mean))
        values, vectors = lin.eigh_descending(rest.matrix, n_wanted - len(accepted))
    order = np.argsort(accepted)[::-1]
    return np.array(accepted)[order], known[:, order]


def _precisions(size: FitSize, request: FitRequest) -> list[np.dtype]:
    """Precisions to try in turn. All components include small ones, which are lost in float32: float64 at once."""
    double = np.dtype(np.float64)
    first = size.precision(min(size.n, size.p))
    return [double] if first == double or request.n_components is None else [first, double]


def _least(dtype: np.dtype, size: FitSize) -> float:
    """Eigenvalue below which squares underflow in float32."""
    return 0.0 if dtype == np.float64 else size.n * size.p * float(np.finfo(dtype).tiny)


def _in_bytes(runner: PassRunner, size: FitSize, known: _Known | None = None) -> bool:
    """Tell whether products are made of bytes, exactly: where images have 8 bits, and enough of them for a gain."""
    return known is None and not size.few_products(min(size.n, size.p)) and are_fast(runner.dtype)


def _gram_of_kept(runner: PassRunner, size: FitSize, exponent: int, dtype: np.dtype, known: _Known | None) -> _Products:
    pixels = np.empty((2, runner.n_pixels))
    mean, squares = pixels
    if _in_bytes(runner, size, known):
        own = pixels if runner.weights is None else None
        gram = runner.run_pixels(partial(products_of_images, pixels=own), lin.merge_products)
        if runner.weights is not None:
            runner.run_pixels(partial(weighted_pixels, weights=runner.weights, pixels=pixels), no_result)
        return _Products(lin.exactly_centred(gram, runner.roots), mean, np.dtype(np.float64), squares=squares)
    vectors = None if known is None else known.vectors
    step = partial(
        lin.centred_gram, dtype=dtype, known=vectors, exponent=exponent, weights=runner.weights, pixels=pixels
    )
    gram = runner.run_pixels(step, lin.merge_products)
    # Centring again corrects for the rounding of the means.
    return _Products(lin.double_centred(gram, runner.roots), mean, dtype, exponent=exponent, squares=squares)


def _gram_by_regions(runner: PassRunner, size: FitSize, dtype: np.dtype, known: None) -> _Products:
    in_bytes = _in_bytes(runner, size)
    gram, exponent = runner.run(
        partial(lin.gram_of_regions, dtype=None if in_bytes else dtype),
        lin.merge_scaled,
        shared=(runner.weights,),
        partial_bytes=8 * runner.n_images**2,
        label="exact inner products" if in_bytes else "inner products",
        by_region=True,
    )
    if in_bytes:
        return _Products(lin.exactly_centred(gram, runner.roots), np.empty(0), np.dtype(np.float64))
    gram = lin.double_centred(gram, runner.roots)
    return _Products(gram, np.empty(0), dtype, exponent=0 if exponent == ALL_ZERO else exponent)


def _scatter_of_pixels(runner: PassRunner, size: FitSize, dtype: np.dtype, known: _Known | None) -> _Products:
    in_bytes = runner.weights is None and _in_bytes(runner, size, known)
    shared: tuple[Any, ...] = () if in_bytes else (runner.weights,)
    if known is not None:
        shared = (*shared, np.ascontiguousarray(known.vectors.T), known.mean)
    step = lin.exact_scatter if in_bytes else partial(_scatter, dtype)
    n_bytes = 3 * 8 * size.p**2
    # Another label, so that a fit that is resumed on another machine does not mix exact results with rounded ones.
    label = "exact covariance" if in_bytes else "covariance"
    found = runner.run(step, lin.merge_scatter, shared=shared, partial_bytes=n_bytes, label=label)
    dtype, squares = np.dtype(np.float64) if in_bytes else dtype, found.matrix.diagonal().copy()
    return _Products(found.matrix, found.mean, dtype, exponent=found.exponent, squares=squares)


def _scatter(dtype: np.dtype, blocks: list[np.ndarray], start: int, *shared: Any) -> lin.Scatter:
    return lin.scatter(blocks, start, dtype, *shared)


def _gram_by_panels(runner: PassRunner, cost: SolverCost, size: FitSize, dtype: np.dtype, known: None) -> _Products:
    """Hold a panel of raw images, read all images after it, continue with the next panel."""
    in_bytes = _in_bytes(runner, size)
    gram = np.zeros((runner.n_images, runner.n_images), np.int64 if in_bytes else np.float64)
    shift: np.ndarray | None = None
    units = 0
    for first, stop in _panels(runner.layout.starts, cost.panel):
        strips_of = partial(_strips, runner, first, stop, shift, units, None if in_bytes else dtype)
        found = runner.once(strips_of, "panel and exact strips" if in_bytes else "panel and strips")
        strips, exponent, shift = found
        if exponent != units:  # after the first panel they become larger only: nothing overflows
            np.ldexp(gram, 2 * (units - exponent), out=gram)
            units = exponent
        rows = slice(runner.layout.starts[first], runner.layout.starts[stop])
        gram[rows, rows.start :] = np.hstack(strips)
        gram[rows.start :, rows] = gram[rows, rows.start :].T
    assert shift is not None
    if in_bytes:
        return _Products(lin.exactly_centred(gram, runner.roots), shift, np.dtype(np.float64))
    gram = lin.weighted_gram(gram, runner.roots)
    before = np.trace(gram)
    gram = lin.double_centred(gram, runner.roots)
    return _Products(gram, shift, dtype, float(before - np.trace(gram)), units)


def _strips(
    runner: PassRunner, first: int, stop: int, shift: np.ndarray | None, units: int, dtype: np.dtype | None
) -> tuple[list[np.ndarray], int, np.ndarray]:
    """Inner products of the images of a panel with each other and with all later ones, after subtracting a shift.

    The shift is that of the first panel, and `units` the exponent of the panels before. Returned are the strips of the
    matrix, the exponent of their units, at least `units`, and the shift. Without a `dtype` the products are exact, and
    nothing is subtracted.
    """
    panel = runner.fetch((first, stop), label="panel into memory")
    exponent = exponent_of(panel)
    if shift is None:
        heavy = weights_of(runner.weights, runner.layout.starts[first], panel)
        shift, exponent = (
            _shift(panel, heavy, dtype or np.dtype(np.float32)),
            0 if exponent == ALL_ZERO else exponent,
        )
    else:
        exponent = max(exponent, units)
    step: Callable[..., Any]
    shared: tuple[Any, ...]
    if dtype is None:
        strips = [runner.run_pixels(products_of_images, lin.merge_products, panel)]
        step, shared = lin.exact_strips, (panel,)
    else:
        own = partial(lin.shifted_gram, shift=shift, dtype=dtype, exponent=exponent)
        strips = [runner.run_pixels(own, lin.merge_products, panel)]
        step, shared = partial(lin.cross_gram, dtype=dtype, exponent=exponent), (panel, shift)
    if stop < runner.layout.n_blocks:
        rest = (stop, runner.layout.n_blocks)
        later: list[np.ndarray] = runner.run(step, lin.merge_strips, shared=shared, span=rest, label="inner products")
        strips.extend(later)
    return strips, exponent, shift


def _shift(blocks: list[np.ndarray], weights: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """Mean of some images, rounded so that images minus the shift are exact in `dtype` if they are integers.

    The closer it is to the mean of all images, the less centring has to take out after the products. A single noisy
    image would be too far away.
    """
    mean = moments(blocks, weights=weights).mean
    return np.rint(mean) if blocks[0].dtype.kind in "biu" else mean.astype(dtype).astype(np.float64)


def _panels(starts: list[int], n_images: int) -> list[tuple[int, int]]:
    """Group consecutive blocks, at most `n_images` in a group, but at least one block."""
    panels, first = [], 0
    for stop in range(1, len(starts)):
        if stop == len(starts) - 1 or starts[stop + 1] - starts[first] > n_images:
            panels.append((first, stop))
            first = stop
    return panels


def _components_by_reading(
    runner: PassRunner, weights: np.ndarray, shift: np.ndarray, size: FitSize, exponent: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean image (p,), components (k, p) as from `components_of_kept`, and sums of squares (p,), in one more read."""
    shift = shift.astype(size.dtype).astype(np.float64)
    components, total, squares = runner.run(
        partial(lin.weighted_sums, dtype=size.dtype, exponent=exponent),
        lin.merge_sums,
        shared=(weights.T, shift, runner.weights),
        partial_bytes=size.result_bytes,
        label="components",
    )
    orthonormalise_rows(components, runner.run_pixels)
    offset = total / (size.total_weight or runner.n_images)
    return shift + np.ldexp(offset, exponent), components, squares - total * offset
