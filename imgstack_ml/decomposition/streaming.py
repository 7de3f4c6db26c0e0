"""The streaming solver: a summary in the first read, then a block of a Krylov basis a read, until it has converged."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..base.warn import warn
from ..linalg.certificate import estimated_errors, nystrom_values, trusted, upper_bounds
from ..linalg.incremental import Summary, merge_summaries, summarise
from ..linalg.orthonormal import completed_rows, orthonormalise_rows
from ..passes.runner import PassRunner
from .certificate import Certificate
from .krylov_basis import Centre, KrylovBasis
from .leading import subtract_explained
from .records import ITERATIONS, Factors, FitRequest, FitSize, RowCounts, SolverCost, component_count

__all__ = ["PAD", "factors_of_summary", "first_look", "share_reached", "solve_randomized"]

logger = logging.getLogger("imgstack_ml")

_STEPS = 5  # last products, of which the fastest gives the pace
PAD = 64  # rounding can move a bound by this many times eps times the largest eigenvalue


def solve_randomized(runner: PassRunner, cost: SolverCost, size: FitSize, request: FitRequest) -> Factors | None:
    """Summarise in one read, then multiply Krylov blocks until estimated errors are within `tol` or reads run out.

    None, if another solver is to take over, which takes a time G. This one gives up after the time h = G, and earlier
    if it would converge after G even if further products brought the errors down twice as fast as the fastest of the
    last five. So both together take at most twice the time of the better one, but for rounding G to whole products:

    - This one converges before G. Then it is the better one, and nothing is lost.
    - It would converge after G. Then the better one takes G, and both take h + G <= 2 G.
    - It gave up, and would have converged before G after all. Then products would have been more than twice as fast.
      Unless they are four times as fast, they take at least half of what was left: h + (G - h) / 2 = (h + G) / 2.
    """
    if cost.keeps_images:
        runner.keep()
    if cost.instead is not None and not cost.patience:
        return None
    counts = cost.counts or size.row_counts()
    summary, dtype = first_look(runner, size, counts, request.seed)
    products = ITERATIONS if cost.keeps_images else request.max_passes - round(runner.n_passes)
    if cost.instead is not None:
        products = min(products, cost.patience)
    if products < 1 or summary.total == 0:
        return factors_of_summary(summary, size, request)
    basis = _begin(runner, cost.room, size, counts, summary, dtype, request)
    seen = Figures.of(summary)
    del summary  # frees its rows before the basis grows
    far: list[float] = []
    for left in reversed(range(products)):
        basis.multiply()
        rough = _judge(basis, seen, size, request, rough=True) if left else None
        if rough is not None and not rough.good:
            far.append(rough.far)
            if cost.instead is not None and _products_left(far) >= 2 * left:
                return None
            if basis.grow():
                continue
        verdict = _judge(basis, seen, size, request)
        logger.info("%d products: %r", basis.n_products, verdict)
        if verdict.good or not left or not basis.grow():
            break
    if cost.instead is not None and not verdict.good:
        return None
    return _finish(basis, seen, verdict, size, request)


def _products_left(far: list[float]) -> float:
    """Estimate how many products it takes until errors are within `tol`, of which they were so many times as large.

    0 if nothing is known: after one product, and while a share of the variance is not reached, which makes `far`
    infinite.
    """
    known = np.log([one for one in far[-_STEPS - 1 :] if np.isfinite(one)])
    if len(known) < 2 or not np.isfinite(far[-1]):
        return 0.0
    pace = -np.diff(known).min()
    return float(known[-1] / pace) if pace > 0 else np.inf


class Figures(NamedTuple):
    """Parts of a `Summary` that later reads need, without its rows; `n_draws` counts its random sums."""

    mean: np.ndarray
    total: float
    singular_values: np.ndarray
    lost: float
    rounding: float
    eps: float
    n_draws: int
    exponent: int
    squares: np.ndarray

    @property
    def largest_total(self) -> float:
        """T with the largest rounding error that it can have."""
        return self.total * (1 + PAD * self.eps)

    @classmethod
    def of(cls, summary: Summary) -> Figures:
        """Take the figures of a summary."""
        s = summary.singular_values
        room = (summary.lost, summary.rounding, summary.eps, len(summary.draws), summary.exponent)
        return cls(summary.mean, summary.total, s, *room, summary.squares)


def first_look(
    runner: PassRunner, size: FitSize, counts: RowCounts, seed: int = 0, draws: int | None = None
) -> tuple[Summary, np.dtype]:
    """Summarise the images in one read; in a second one in float64, if squares of what varies underflow in float32.

    Returns
    -------
    summary : Summary
    dtype : dtype
        Precision for later products.
    """
    n_rows = counts.summary
    single = size.precision(n_rows) == np.float32
    n_draws = counts.draws if draws is None else draws
    for dtype in [np.dtype(np.float32)] * single + [np.dtype(np.float64)]:
        summary = runner.run(
            partial(summarise, size=n_rows, n_draws=n_draws, seed=seed, dtype=dtype),
            partial(merge_summaries, size=n_rows),
            shared=(runner.weights,),
            partial_bytes=counts.summary_bytes,
            batch_bytes=counts.batch_bytes,
            label="summary",
            n_merged=4,
            divides=True,
        )
        least = summary.n * size.p * float(np.finfo(dtype).tiny)
        if not np.isfinite(summary.total):
            raise OverflowError
        exact_zero = summary.total == 0 and size.integers
        if summary.total > least or exact_zero:
            break
    return summary, dtype


def _begin(
    runner: PassRunner,
    room: int,
    size: FitSize,
    counts: RowCounts,
    summary: Summary,
    dtype: np.dtype,
    request: FitRequest,
) -> KrylovBasis:
    """Start a basis whose first block is spanned by leading rows of the summary and its random sums."""
    s = summary.singular_values
    leading = min(counts.block - len(summary.draws), len(s))
    rows = np.vstack([summary.rows[:leading], summary.draws]).astype(size.dtype, copy=False)
    scale = np.full(len(rows), np.sqrt(summary.total))
    scale[:leading] = s[0]
    k = len(s) if request.share else min(counts.k, len(s))
    eps = np.finfo(np.float32).eps
    # In float32, squares of small singular values are lost in the rounding, or not known to `tol`.
    if s[k - 1] < 10 * np.sqrt(eps) * s[0] or request.tol * s[k - 1] < 8 * eps * s[0]:
        dtype = np.dtype(np.float64)
    centre = Centre.of(summary.mean, size.integers, dtype, summary.rest, summary.exponent)
    return KrylovBasis(runner, rows, scale, room, centre, counts.batch_bytes)


class Verdict(NamedTuple):
    """State of convergence after a product.

    Attributes
    ----------
    k : int
        Number of components.
    nystrom : ndarray of shape (m,)
        Nystrom approximations of the eigenvalues.
    errors : ndarray of shape (k,)
        Estimated errors of the leading Ritz values.
    deficit : float
        Estimated variance missed: at least the sum of the errors.
    far : float
        How many times errors or deficit are what `tol` allows.
    good : bool
        Whether errors and deficit are within `tol`: more products would gain nothing.
    rounding : float
        Largest relative error of a Ritz value that rounding alone can cause.
    converged : bool
        Whether the fit is good, and `tol` is not below `rounding`.
    """

    k: int
    nystrom: np.ndarray
    errors: np.ndarray
    deficit: float
    far: float
    good: bool
    rounding: float
    converged: bool


def _judge(basis: KrylovBasis, summary: Figures, size: FitSize, request: FitRequest, rough: bool = False) -> Verdict:
    """Judge convergence, which means estimated errors of the variances, and of the variance left over, within `tol`.

    `rough` uses the leading Ritz vectors alone, in a fraction of the time. Then errors are smaller, or equal (Cauchy's
    interlacing): what is not good is not good either if all vectors are used.
    """
    residuals, theta, total = basis.residuals(), basis.values, summary.total
    k = component_count(theta, total, min(size.k, len(theta)), request)
    use, real = trusted(residuals, basis.noise, summary.largest_total), theta[:k] > basis.noise
    undecided = real & ~use[:k]
    if rough:
        use[k:] = False
    nystrom = nystrom_values(residuals, use)
    errors = estimated_errors(theta, nystrom, k, basis.block)
    # A residual that is rounding tells nothing of its vector: the error can be all that is left.
    errors[undecided] = max(summary.largest_total - theta.sum(), 0.0)
    deficit = max(2 * float((nystrom[:k] - theta[:k]).sum()), float(errors.sum()))
    # Rounding alone makes denominators this large, and numerators.
    least, rounding = PAD * summary.eps * total, PAD * float(np.finfo(np.float64).eps) * float(theta[0])
    found = np.append(errors, deficit)
    allowed = np.append(
        request.tol * theta[:k] + rounding, request.tol * max(total - theta[:k].sum(), least) + k * rounding
    )
    reached = request.share is None or theta[:k].sum() > request.share * total
    good = bool(reached and (found <= allowed).all())
    with np.errstate(divide="ignore", invalid="ignore"):
        far = float(np.fmax.reduce(found / allowed)) if reached else np.inf
    relative = float(basis.rounding(k)[real].max(initial=0.0))
    return Verdict(k, nystrom, errors, deficit, far, good, relative, good and relative <= request.tol)


def _finish(basis: KrylovBasis, summary: Figures, verdict: Verdict, size: FitSize, request: FitRequest) -> Factors:
    """Return leading Ritz vectors with their scores, and the certificate; warn if the fit has not converged."""
    theta, k, total = basis.values, verdict.k, summary.total
    rank = int(np.count_nonzero(theta[:k] > basis.noise))
    components = basis.vectors(rank)
    left = summary.squares - 2 * basis.along_residuals(components)
    subtract_explained(left, components, np.sqrt(theta[:rank]), basis.run)
    orthonormalise_rows(components, basis.run)
    asked = k if request.share is not None else size.k
    certificate = _certify(basis, summary, verdict, rank, asked, size)
    _warn_unless_converged(certificate, verdict, request, float(theta[:k].sum() / total), basis.n_products)
    scores = np.pad(basis.scores(rank), ((0, 0), (0, asked - rank)))
    singular = np.pad(np.sqrt(theta[:rank]), (0, asked - rank))
    components = completed_rows(components, asked)
    n_iter, exponent = basis.n_products, summary.exponent
    return Factors(summary.mean, components, singular, total, rank, scores, n_iter, certificate, exponent, left)


def _certify(
    basis: KrylovBasis, summary: Figures, verdict: Verdict, rank: int, asked: int, size: FitSize
) -> Certificate:
    theta, k, s = basis.values, verdict.k, summary.singular_values
    others = s[basis.block - summary.n_draws :]  # rows of the summary that are not in the first block
    lost = summary.lost + summary.rounding + basis.rounded + basis.dropped
    lost += float(others[0]) ** 2 if len(others) else 0.0
    residuals = basis.residuals()
    pad = PAD * basis.eps * theta[0]
    pads = pad + basis.restart_error * theta[:k]
    # Residuals are rounded to the dtype of the basis, and small ones dropped: their squares are off by as much.
    rounded, forgotten = basis.stored_eps * basis.image_norms(k), basis.forgotten_norms(k)
    squares = 2 * residuals.norms[:k] * rounded + (8 * rounded) ** 2 + (2 * forgotten) ** 2
    stored = squares / np.maximum(theta[:k], basis.noise)
    captured = float(theta[:rank].sum())
    bounds = upper_bounds(residuals, verdict.nystrom, k, summary.largest_total, lost)
    upper = np.minimum(bounds[:k] + pads + stored + pad, _from_summary(summary, k))
    upper = np.append(upper, np.full(asked - k, min(upper[-1], bounds[k] + pad)))
    lower = np.zeros(asked)
    lower[:k] = np.clip(theta[:k] - pads, 0, upper[:k])
    # Components below the noise count as missed.
    most = min(float(upper.sum() - lower[:rank].sum()), summary.largest_total - captured + pad)
    least = max(float((verdict.nystrom[:k] - theta[:k] - pads - stored).sum()), 0.0)
    errors = np.zeros(asked)
    np.divide(verdict.errors, theta[:k], out=errors[:k], where=theta[:k] > basis.noise)
    np.maximum(errors[:k], basis.rounding(k), out=errors[:k], where=theta[:k] > basis.noise)
    norms = np.zeros(asked)
    norms[:k] = residuals.norms[:k]
    degrees = size.degrees
    return Certificate(
        captured_variance=captured / degrees,
        total_variance=summary.total / degrees,
        estimated_deficit=verdict.deficit / degrees,
        deficit_bounds=(least / degrees, max(most, least) / degrees),
        explained_variance_bounds=np.vstack([lower, upper]) / degrees,
        estimated_errors=errors,
        residual_norms=norms / degrees,
        is_exact=True,
        converged=verdict.converged,
    )


def _from_summary(summary: Summary | Figures, k: int) -> np.ndarray:
    """Upper bounds s_j^2 + lost of the leading eigenvalues."""
    s = np.pad(summary.singular_values, (0, k + 1))
    return s[:k] ** 2 + summary.lost + summary.rounding + PAD * summary.eps * s[0] ** 2


def _warn_unless_converged(
    certificate: Certificate, verdict: Verdict, request: FitRequest, reached: float, n_products: int
) -> None:
    """Warn if the share of the variance was not reached, or the estimated errors are above `tol`."""
    if certificate.converged:
        return
    if request.share is not None and reached <= request.share:
        warn(
            f"n_components={request.share:g}: {verdict.k} components explain {reached:.4g} of the variance, and "
            f"max_passes={request.max_passes} and the memory allow no more components. Raise max_passes or "
            "memory_limit, or set n_components to a number.",
            ConvergenceWarning,
        )
        return
    if verdict.good:
        warn(
            f"tol={request.tol:g} is not known to be reached: rounding alone can change the smallest explained "
            f"variance by {verdict.rounding:.1g} of it. Set tol={1.5 * verdict.rounding:.1g}, or ask for fewer "
            "components.",
            ConvergenceWarning,
        )
        return
    # All errors can be within tol, and the variance missed is not: then a much larger tol is suggested.
    acceptable = certificate.largest_error if certificate.largest_error > request.tol else 10 * request.tol
    warn(
        f"After {n_products} products with the images, the estimated relative error of explained variances is up to "
        f"{certificate.largest_error:.1g}, and tol={request.tol:g} is not reached. certificate_ has rigorous bounds. "
        f"Raise max_passes={request.max_passes}, e.g. to {2 * request.max_passes}, or set tol={1.5 * acceptable:.1g}.",
        ConvergenceWarning,
    )


def share_reached(summary: Summary, request: FitRequest) -> bool:
    """Whether the rows of a summary explain the share of the variance asked for, if one was."""
    explained = float((summary.singular_values**2).sum())
    return request.share is None or summary.total == 0 or explained > request.share * summary.total


def factors_of_summary(summary: Summary, size: FitSize, request: FitRequest) -> Factors:
    """Components from a single read: variances are lower bounds, and scores need another read.

    Warns if they do not explain the share of the variance that was asked for.
    """
    s, total = summary.singular_values, summary.total
    k = component_count(s**2, total, min(size.k, max(1, len(s))), request)
    if not share_reached(summary, request):
        warn(
            f"n_components={request.share:g}: {k} components explain {(s**2).sum() / total:.4g} of the variance, and "
            "no more directions are kept from a single read of each image. Set n_oversamples, e.g. to "
            f"{2 * len(s)}, or set n_components to a number.",
            ConvergenceWarning,
        )
    dtype = summary.rows.dtype
    # Rounding moves squares of singular values by up to `noise`: rows below that have no direction.
    noise = PAD * summary.eps * (s[0] ** 2 if len(s) else 0.0)
    rank = int(np.count_nonzero(s[:k] ** 2 > noise))
    asked = max(rank, 1) if request.share is not None else size.k
    components = summary.rows[:rank] / s[:rank, None].astype(dtype)
    orthonormalise_rows(components)
    components = completed_rows(components, asked).astype(size.dtype, copy=False)
    pad = summary.rounding + noise
    largest_total = Figures.of(summary).largest_total
    upper = np.minimum(_from_summary(summary, asked), largest_total)
    lower = np.pad(np.clip(s[:rank] ** 2 - pad, 0, upper[:rank]), (0, asked - rank))
    captured = float(lower.sum())
    degrees = size.degrees
    certificate = Certificate(
        captured_variance=captured / degrees,
        total_variance=total / degrees,
        estimated_deficit=None,
        deficit_bounds=(0.0, max(min(float(upper.sum()), largest_total) - captured, 0.0) / degrees),
        explained_variance_bounds=np.vstack([lower, upper]) / degrees,
        estimated_errors=None,
        residual_norms=None,
        is_exact=False,
        converged=total == 0,
    )
    left = None
    if len(summary.squares):
        left = summary.squares.copy()  # those of the summary are needed again when more images come
        subtract_explained(left, components[:rank], s[:rank])
    singular = np.pad(s[:rank], (0, asked - rank))
    return Factors(summary.mean, components, singular, total, rank, None, 0, certificate, summary.exponent, left)
