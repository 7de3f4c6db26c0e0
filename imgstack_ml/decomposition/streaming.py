"""The streaming solver: a summary in the first read, then one block of a Krylov basis a read, until it is good."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from sklearn.exceptions import ConvergenceWarning

from ..errors import ImagesChangedError
from ..linalg import krylov
from ..linalg.certificate import Residuals, estimated_errors, nystrom_values, upper_bounds
from ..linalg.gram import completed_rows, orthonormalise_rows
from ..linalg.incremental import Summary, merge_summaries, summarise
from ..linalg.tiles import TERMS
from ..passes.runner import PassRunner, nothing
from .certificate import Certificate
from .factors import Factors, Wanted, count
from .problem import FEW_PRODUCTS, Problem, Requirement, Sizes

__all__ = ["factors_of_summary", "first_look", "solve_randomized"]

logger = logging.getLogger("imgstack_ml")

_ITERATIONS = 30  # products with images in memory, which cost no read
_CHANGED = 1e-2  # relative disagreement of two reads, far beyond what rounding makes
_PAD = 64  # times eps times the largest eigenvalue: what rounding can move a bound by


def solve_randomized(runner: PassRunner, need: Requirement, problem: Problem, wanted: Wanted) -> Factors:
    """Summary, then Krylov blocks until the estimated errors are within `tol`, or the reads are used up."""
    if need.keeps_images:
        runner.keep()
    sizes = need.sizes or problem.sizes()
    summary, dtype = first_look(runner, problem, sizes, wanted.seed)
    products = _ITERATIONS if need.keeps_images else wanted.max_passes - round(runner.n_passes)
    if products < 1 or summary.total == 0:
        return factors_of_summary(summary, problem, wanted)
    basis = _begin(runner, need.room, problem, sizes, summary, dtype)
    seen = Figures.of(summary)
    del summary  # its rows take as much as blocks of the basis
    for left in reversed(range(products)):
        basis.multiply()
        verdict = _judge(basis, seen, problem, wanted)
        logger.info("%d products: %r", basis.n_products, verdict)
        if verdict.good or not left or not basis.grow():
            break
    return _finish(basis, seen, verdict, problem, wanted)


class Figures(NamedTuple):
    """What later reads need of a `Summary` beside its rows; `n_draws` counts its random sums."""

    mean: np.ndarray
    total: float
    singular_values: np.ndarray
    lost: float
    eps: float
    n_draws: int

    @classmethod
    def of(cls, summary: Summary) -> Figures:
        """Take them from a summary."""
        s = summary.singular_values
        return cls(summary.mean, summary.total, s, summary.lost, summary.eps, len(summary.draws))


def first_look(
    runner: PassRunner, problem: Problem, sizes: Sizes, seed: int = 0, draws: int | None = None
) -> tuple[Summary, np.dtype]:
    """Read once, a second time in float64 where squares leave the range of float32; and the dtype of products."""
    size = sizes.summary
    few = runner.n_images * problem.p * size < FEW_PRODUCTS
    single = problem.dtype == np.float32 and not few
    n_draws = sizes.draws if draws is None else draws
    for dtype in [np.dtype(np.float32)] * single + [np.dtype(np.float64)]:
        summary = runner.run(
            partial(summarise, size=size, n_draws=n_draws, seed=seed, dtype=dtype),
            partial(merge_summaries, size=size),
            partial_bytes=sizes.summary_bytes,
            batch_bytes=sizes.batch_bytes,
            label="summary",
        )
        least = summary.n * problem.p * float(np.finfo(dtype).tiny)
        exact_zero = summary.total == 0 and problem.integers
        if np.isfinite(summary.total) and (summary.total > least or exact_zero):
            return summary, dtype
    if not np.isfinite(summary.total):
        raise ValueError("The squares of the intensities are beyond float64. Scale the images down, e.g. X / X.max().")
    return summary, dtype


def _begin(
    runner: PassRunner, room: int, problem: Problem, sizes: Sizes, summary: Summary, dtype: np.dtype
) -> KrylovBasis:
    """Leading rows of the summary and its random sums span the first block."""
    s = summary.singular_values
    leading = min(sizes.block - len(summary.draws), len(s))
    rows = np.vstack([summary.rows[:leading], summary.draws]).astype(problem.dtype, copy=False)
    scale = np.full(len(rows), np.sqrt(summary.total))
    scale[:leading] = s[0]
    k = min(sizes.k, len(s))
    if s[k - 1] < 10 * np.sqrt(np.finfo(np.float32).eps) * s[0]:
        dtype = np.dtype(np.float64)  # squares of small singular values drown in what float32 rounds of the first
    centre = Centre.of(summary.mean, problem.integers, dtype)
    return KrylovBasis(runner, rows, scale, room, centre, sizes.batch_bytes)


class Verdict(NamedTuple):
    """How many components; Nystrom eigenvalues; estimated errors and their sum at the least; whether that will do."""

    k: int
    nystrom: np.ndarray
    errors: np.ndarray
    deficit: float
    good: bool


def _judge(basis: KrylovBasis, summary: Figures, problem: Problem, wanted: Wanted) -> Verdict:
    """Stop when no explained variance is off by more than `tol`, by estimate, and neither is what was missed."""
    residuals, theta, total = basis.residuals(), basis.values, summary.total
    k = count(theta, total, min(problem.k, len(theta)), wanted)
    # Denominators are no smaller than what rounding makes of the total, and numerators are nothing below rounding.
    least, nothing = _PAD * summary.eps * total, _PAD * float(np.finfo(np.float64).eps) * float(theta[0])
    nystrom = nystrom_values(residuals, basis.noise, total)
    errors = estimated_errors(theta, nystrom, k, basis.block)
    deficit = max(2 * float((nystrom[:k] - theta[:k]).sum()), float(errors.sum()))
    near = errors <= wanted.tol * theta[:k] + nothing
    missed_little = deficit <= wanted.tol * max(total - theta[:k].sum(), least) + k * nothing
    reached = wanted.share is None or theta[:k].sum() > wanted.share * total
    return Verdict(k, nystrom, errors, deficit, bool(reached and near.all() and missed_little))


def _finish(basis: KrylovBasis, summary: Figures, verdict: Verdict, problem: Problem, wanted: Wanted) -> Factors:
    """Leading Ritz vectors with their scores, and the certificate."""
    theta, k, total = basis.values, verdict.k, summary.total
    rank = int(np.count_nonzero(theta[:k] > basis.noise))
    components = basis.vectors(rank)
    orthonormalise_rows(components)
    asked = k if wanted.share is not None else problem.k
    certificate = _certify(basis, summary, verdict, rank, asked, problem)
    _warn(certificate, verdict, wanted, float(theta[:k].sum() / total), basis.n_products)
    scores = np.pad(basis.scores(rank), ((0, 0), (0, asked - rank)))
    singular = np.pad(np.sqrt(theta[:rank]), (0, asked - rank))
    components = completed_rows(components, asked)
    return Factors(summary.mean, components, singular, total, rank, scores, basis.n_products, certificate)


def _certify(
    basis: KrylovBasis, summary: Figures, verdict: Verdict, rank: int, asked: int, problem: Problem
) -> Certificate:
    theta, k, s = basis.values, verdict.k, summary.singular_values
    outside = s[basis.block - summary.n_draws :]  # rows of the summary that the first block left out
    lost = summary.lost + (float(outside[0]) ** 2 if len(outside) else 0.0) + basis.dropped
    residuals = basis.residuals()
    # Variances are those of the last products; upper bounds rest on the total and the cuts of the summary as well.
    pad, pad_above = _PAD * basis.eps * theta[0], _PAD * max(basis.eps, summary.eps) * theta[0]
    pads = pad + basis.restart_error * theta[:k]
    # Residuals are stored in the dtype of the basis, and small ones were dropped: that enters their squares.
    rounded, forgotten = basis.stored_eps * basis.image_norms(k), basis.forgotten_norms(k)
    squares = 2 * residuals.norms[:k] * rounded + (8 * rounded) ** 2 + (2 * forgotten) ** 2
    stored = squares / np.maximum(theta[:k], basis.noise)
    captured = float(theta[:rank].sum())
    upper = upper_bounds(residuals, verdict.nystrom, k, summary.total, lost)
    upper = np.minimum(upper + pads + stored, _from_summary(summary, k)) + pad_above
    upper = np.append(upper, np.full(asked - k, upper[-1]))  # no eigenvalue is above the one before
    lower = np.zeros(asked)
    lower[:k] = np.maximum(theta[:k] - pads, 0)
    # What is below the noise counts as missed; the total is summed up with a rounding of its own.
    most = min(float(upper.sum() - lower[:rank].sum()), summary.total * (1 + _PAD * summary.eps) - captured + pad_above)
    least = max(float((verdict.nystrom[:k] - theta[:k] - pads - stored).sum()), 0.0)
    errors = np.zeros(asked)
    np.divide(verdict.errors, theta[:k], out=errors[:k], where=theta[:k] > basis.noise)
    norms = np.zeros(asked)
    norms[:k] = residuals.norms[:k]
    degrees = max(problem.n - 1, 1)
    return Certificate(
        captured_variance=captured / degrees,
        total_variance=summary.total / degrees,
        estimated_deficit=verdict.deficit / degrees,
        deficit_bounds=(least / degrees, max(most, least) / degrees),
        explained_variance_bounds=np.vstack([lower, upper]) / degrees,
        estimated_errors=errors,
        residual_norms=norms / degrees,
        is_exact=True,
        converged=verdict.good,
    )


def _from_summary(summary: Summary | Figures, k: int) -> np.ndarray:
    """Upper bounds s_j^2 + lost of the leading eigenvalues."""
    return np.pad(summary.singular_values, (0, k))[:k] ** 2 + summary.lost


def _warn(certificate: Certificate, verdict: Verdict, wanted: Wanted, reached: float, n_products: int) -> None:
    if certificate.converged:
        return
    if wanted.share is not None and reached <= wanted.share:
        warnings.warn(
            f"n_components={wanted.share:g}: {verdict.k} components, as many as max_passes={wanted.max_passes} reads "
            f"and the memory allow, explain {reached:.4g} of the variance. Set n_components to a number to accept "
            "that, or raise max_passes or memory_limit.",
            ConvergenceWarning,
            stacklevel=6,
        )
        return
    error = max(certificate.largest_error, 10 * wanted.tol if certificate.largest_error <= wanted.tol else 0.0)
    warnings.warn(
        f"After {n_products} products with the images, explained variances are off by up to an estimated "
        f"{certificate.largest_error:.1g}, and tol={wanted.tol:g}. See certificate_ for what is certain. Raise "
        f"max_passes={wanted.max_passes}, e.g. to {2 * wanted.max_passes}, or accept it with tol={error:.1g}.",
        ConvergenceWarning,
        stacklevel=6,
    )


def factors_of_summary(summary: Summary, problem: Problem, wanted: Wanted) -> Factors:
    """Components from a single look: variances are lower bounds, scores cost a read."""
    s, total = summary.singular_values, summary.total
    k = count(s**2, total, min(problem.k, max(1, len(s))), wanted)
    asked = k if wanted.share is not None else problem.k
    dtype = summary.rows.dtype
    noise = max(problem.n, 64) * float(np.finfo(dtype).eps) * (s[0] if len(s) else 0.0)
    rank = int(np.count_nonzero(s[:k] > noise))
    components = summary.rows[:rank] / s[:rank, None].astype(dtype)
    orthonormalise_rows(components)
    components = completed_rows(components, asked).astype(problem.dtype, copy=False)
    pad = _PAD * float(np.finfo(dtype).eps) * (s[0] ** 2 if len(s) else 0.0)
    lower = np.pad(np.maximum(s[:rank] ** 2 - pad, 0), (0, asked - rank))
    upper = np.minimum(_from_summary(summary, asked), total) + pad
    captured = float((s[:rank] ** 2).sum())
    degrees = max(problem.n - 1, 1)
    certificate = Certificate(
        captured_variance=captured / degrees,
        total_variance=total / degrees,
        estimated_deficit=None,
        deficit_bounds=(0.0, min(float((upper - lower).sum()), total - captured + pad) / degrees),
        explained_variance_bounds=np.vstack([lower, upper]) / degrees,
        estimated_errors=None,
        residual_norms=None,
        is_exact=False,
        converged=total == 0,
    )
    singular = np.pad(s[:rank], (0, asked - rank))
    return Factors(summary.mean, components, singular, total, rank, None, 0, certificate)


class Centre(NamedTuple):
    """A shift (p,) that leaves integers exact, the rest of the mean (p,), and the dtype of products; float64 both."""

    shift: np.ndarray
    drift: np.ndarray
    dtype: np.dtype

    @classmethod
    def of(cls, mean: np.ndarray, integers: bool, dtype: np.dtype) -> Centre:
        """Split a mean."""
        shift = np.rint(mean) if integers else mean.astype(dtype).astype(np.float64)
        return cls(shift, mean - shift, dtype)


class KrylovBasis:
    """A growing orthonormal basis W of images, the centred stack's projections on it, and their inner products.

    Parameters
    ----------
    runner : PassRunner
        Reads the stack, or has it in memory.
    rows : ndarray of shape (m, p)
        Span the first block, strongest first.
    scale : ndarray of shape (m,)
        Sizes below which rows are rounding, over 30 eps.
    room : int
        Rows that may be stored: a basis of three blocks, at least, and the products of one.
    centre : Centre
    batch_bytes : int
        Of raw images that make a product worth its merging.

    Attributes
    ----------
    size : int
        Rows of the basis.
    n_products : int
        Blocks multiplied so far.
    block : int
        Rows that the first block was made of.
    dropped : float
        A bound of C within what restarts took out of the basis.
    """

    def __init__(
        self, runner: PassRunner, rows: np.ndarray, scale: np.ndarray, room: int, centre: Centre, batch_bytes: int = 0
    ):
        self._runner, self._batch_bytes = runner, batch_bytes
        self._centre = centre
        self._most = min(runner.n_images - 1, runner.n_pixels)
        self._rows = np.empty((max(room, len(rows)), runner.n_pixels), rows.dtype)
        self._rows[: len(rows)] = rows
        self.size = self._last = self.n_products = 0
        self.block, self.dropped = len(rows), 0.0
        self._inner = np.empty((0, 0))  # of the basis: W W'
        self._products = np.empty((0, 0))  # of its image: W C W'
        self._forgotten = np.empty((0, 0))  # of what C W has outside of W and of the last products
        self._scores = np.empty((runner.n_images, len(self._rows)), centre.dtype, order="F")  # a column a row
        inner = self._sweep(len(rows))
        self._append(len(rows), inner, self._independent(inner, scale))

    def multiply(self) -> None:
        """Project the images on the last block and form what C makes of it: one read, if they are not kept."""
        size, last = self.size, self._last
        Y = self._read()
        self.n_products += 1
        self._scores[:, size - last : size] = Y
        products = np.empty((size, size))
        products[: size - last, : size - last] = self._products
        for a in range(0, size, last):  # in strips: no float64 copy of all scores
            b = min(a + last, size)
            products[a:b, size - last :] = self._scores[:, a:b].T.astype(np.float64) @ Y
        products[size - last :] = products[:, size - last :].T
        coefficients = scipy.linalg.solve(self._inner, products[:, size - last :], assume_a="pos")
        self._left = self._sweep(last, coefficients.T, offset=(self._sums, self._centre.drift))
        outside = self._left[-last:]
        self._norms = np.sqrt(np.einsum("ij,ij->j", coefficients, coefficients) + np.diag(outside))
        inside = np.abs(self._left[:size]).max(initial=0)
        if inside > _CHANGED * (products.diagonal().max() + np.finfo(float).tiny):
            raise ImagesChangedError
        self._products = products
        self._ritz = krylov.ritz_pairs(self._inner, products)

    @property
    def eps(self) -> float:
        """Rounding of a product."""
        return float(np.finfo(self._centre.dtype).eps)

    @property
    def stored_eps(self) -> float:
        """Rounding of the rows."""
        return float(np.finfo(self._rows.dtype).eps)

    @property
    def restart_error(self) -> float:
        """Relative error of Ritz values after a restart: its vectors are rounded, and their products are not."""
        return 8 * self.stored_eps if self.dropped else 0.0

    @property
    def noise(self) -> float:
        """Ritz value up to which there is nothing but rounding."""
        return max(len(self._scores) * float(np.finfo(np.float64).eps), (8 * self.eps) ** 2) * float(self.values[0])

    @property
    def values(self) -> np.ndarray:
        """Ritz values, descending."""
        return self._ritz.values

    def image_norms(self, k: int) -> np.ndarray:
        """Norms (k,) of what images of the leading Ritz vectors are summed up from, for its rounding."""
        squares = np.einsum("ij,ij->j", self._products, self._products)
        return np.sqrt(squares @ self._ritz.coefficients[:, :k] ** 2)

    def forgotten_norms(self, k: int) -> np.ndarray:
        """Norms (k,) of what residuals of the leading Ritz vectors had in rows that did not come into the basis."""
        coefficients = self._ritz.coefficients[:, :k]
        return np.sqrt(np.maximum(np.einsum("ij,ij->j", coefficients, self._forgotten @ coefficients), 0))

    def residuals(self) -> Residuals:
        """Ritz values, and what C makes of Ritz vectors outside of the basis."""
        last = self._last
        return Residuals(self.values, self._ritz.coefficients[-last:], self._left[-last:])

    def scores(self, k: int) -> np.ndarray:
        """Projections (n, k) of the centred images on the leading Ritz vectors."""
        coefficients = self._ritz.coefficients[:, :k].astype(self._scores.dtype)
        return self._scores[:, : len(coefficients)] @ coefficients

    def vectors(self, k: int) -> np.ndarray:
        """Leading Ritz vectors in rows (k, p)."""
        out = np.empty((k, self._runner.n_pixels), self._rows.dtype)
        self._combine(self._ritz.coefficients[:, :k].T, out)
        return out

    def grow(self) -> bool:
        """Take what the last products have outside of the basis as its next block; False where there is nothing."""
        last, turn = self._last, self._independent(self._left, self._norms)
        if not len(turn):
            return False
        outside = self._left[self.size :]
        taken = turn @ outside
        self._forgotten[-last:, -last:] = outside - taken.T @ taken
        if self.size + max(last, 2 * len(turn)) > len(self._rows):
            self._restart(len(self._rows) - 2 * last)
        self._append(last, self._left, turn)
        return True

    def _independent(self, inner: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Weights of the rows after the basis that make its next block, which has no more rows than are dimensions."""
        return krylov.orthonormalising_weights(inner[self.size :], scale, self.stored_eps)[: self._most - self.size]

    def _append(self, n_new: int, inner: np.ndarray, turn: np.ndarray) -> None:
        """Orthonormalise the rows after the basis, whose inner products with it and each other are `inner`."""
        n = len(turn)
        inner = self._sweep(n_new, inner[: self.size].T, turn)
        # Once is not enough: what rounding leaves of the old rows goes in a second round.
        factor = scipy.linalg.cholesky(inner[self.size :], lower=True)
        turn = scipy.linalg.solve_triangular(factor, np.eye(n), lower=True)
        inner = self._sweep(n, inner[: self.size].T, turn)
        size = self.size + n
        whole = np.empty((size, size))
        whole[: self.size, : self.size] = self._inner
        whole[:, self.size :] = inner
        whole[self.size :, : self.size] = inner[: self.size].T
        self._forgotten = np.pad(self._forgotten, (0, n))
        self._inner, self.size, self._last = whole, size, n

    def _restart(self, keep: int) -> None:
        """Shrink the basis to its leading Ritz vectors; their residuals stay in the span of the next block."""
        coefficients, last = self._ritz.coefficients[:, :keep], self._last
        keep = coefficients.shape[1]
        self.dropped += float(self.values[keep]) if keep < self.size else 0.0
        weights = np.zeros((keep + last, self.size + last))
        weights[:keep, : self.size] = coefficients.T
        weights[keep:, self.size :] = np.eye(last)
        self._combine(weights, self._rows)
        self._left = np.vstack([coefficients.T @ self._left[: self.size], self._left[self.size :]])
        turn = coefficients.astype(self._scores.dtype)
        for a in range(0, len(self._scores), TERMS):  # in strips: no copy of all scores
            strip = self._scores[a : a + TERMS]
            strip[:, :keep] = strip[:, : len(turn)] @ turn
        self._forgotten = coefficients.T @ self._forgotten @ coefficients
        self._products, self._inner = np.diag(self.values[:keep]), np.eye(keep)
        self.size = keep

    def _read(self) -> np.ndarray:
        """Projections (n, last); the products with them go after the basis."""
        runner, (shift, drift, dtype) = self._runner, self._centre
        V = self._rows[self.size - self._last : self.size]
        target = self._rows[self.size : self.size + self._last]
        along = np.einsum("ij,j->i", V, drift)
        if runner.blocks is None:
            image = runner.run(
                partial(krylov.both_products, dtype=dtype),
                krylov.merge_both_products,
                shared=(V, shift, along),
                partial_bytes=V.nbytes,
                batch_bytes=self._batch_bytes,
                label="components",
            )
            target[:] = image.products
            Y = np.concatenate(image.scores).astype(np.float64)
        else:
            Y = runner.run_pixels(partial(krylov.project, V=V, shift=shift, dtype=dtype), np.add) - along
            target[:] = 0
            runner.run_pixels(partial(krylov.add_products, scores=Y, shift=shift, dtype=dtype, out=target), nothing)
        self._sums = Y.sum(axis=0)  # 0 but for rounding; what is left stands in the products too
        Y -= self._sums / len(Y)
        return Y

    def _sweep(self, n_new: int, along: Any = None, turn: Any = None, offset: Any = None) -> np.ndarray:
        along = np.zeros((n_new, self.size)) if along is None else along
        step = partial(
            krylov.orthogonalise_rows,
            n_old=self.size,
            n_new=n_new,
            along=along,
            turn=turn,
            offset=offset,
            dtype=self._centre.dtype,
        )
        return self._runner.run_pixels(step, np.add, [self._rows])

    def _combine(self, weights: np.ndarray, out: np.ndarray) -> None:
        step = partial(krylov.combine_rows, weights=weights, dtype=self._centre.dtype, out=out)
        self._runner.run_pixels(step, nothing, [self._rows])
