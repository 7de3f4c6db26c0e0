"""Fits to images with missing pixels: filled with the mean of the others, or by alternating least squares."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..base.mask import put_back
from ..base.missing import filled
from ..base.parts import map_pixels
from ..base.validation import Images, working_dtype
from ..base.warn import warn
from ..errors import NonFiniteError, RankWarning
from ..linalg import observed as lin
from ..linalg.incremental import Summary
from ..linalg.orthonormal import completed_rows, orthonormalise_rows
from ..linalg.scaling import ALL_ZERO, exponent_of
from ..passes.batches import BATCH_BYTES
from ..passes.memory import Allowance
from ..passes.runner import PassRunner
from ..passes.steps import Pass, no_result
from .projection import Scoring, divided, in_intensities, project, scores_of_part
from .records import ALS, ITERATIONS, Factors, FitRequest, FitSize, SolverCost
from .streaming import first_look

__all__ = ["READS_BEFORE", "SCORINGS", "als_cost", "filled_images", "solve_observed"]

_NOMINAL = 3  # reads with least squares that are planned
READS_BEFORE = 2  # of the images, before the first least squares: means, and a first look
_NOISE = 64 * np.finfo(np.float64).eps  # share of the largest variance below which there is only rounding


def filled_images(images: Images, runner: PassRunner) -> Images:
    """Images with the mean of what is observed in place of missing pixels; one read finds the mean."""
    mean = put_back(_observed_mean(runner, images, 1).mean[None], images.mask, np.nan)[0]
    data = map_pixels(filled, images, dtype=images.data.dtype, fills=False, finite=False, mean=mean)
    return images._replace(data=data, missing=False)


def als_cost(size: FitSize, allowed: Allowance, threads: int) -> SolverCost:
    """Cost of alternating least squares; `room` are the bytes of the normal equations of all pixels."""
    n, p, k = size.n, size.p, size.k
    normals = 8 * p * ((k + 1) * (k + 2) // 2 + k + 1)
    # Two sums and their merge, the scores, and tiles of images, of what is observed, and of products of loadings.
    fixed = size.result_bytes + 3 * normals + 3 * 8 * n * k
    # A thread solves a batch, or before that fills and summarises it: a copy, and what is missing.
    batch = min(size.raw_bytes, max(BATCH_BYTES, size.block * size.image_bytes))
    fixed += threads * (3 * size.tile_bytes + max(normals, size.row_counts().summary_bytes + batch + batch // 4))
    whole = fixed + (0 if size.in_memory else size.raw_bytes)
    keeps = size.in_memory or whole <= allowed.keep
    reading = size.reading_bytes(allowed, fixed, threads, normals)
    peak = whole if keeps else fixed + reading
    most = ITERATIONS if keeps else size.max_passes - READS_BEFORE
    reads = min(_NOMINAL, most)
    multiply_adds = reads * n * p * (1.5 * k**2 + 4.5 * k + 2)
    seconds = size.seconds(multiply_adds, 2 * reads * n * p, size.precision(k**2))
    passes = 1 if keeps else READS_BEFORE + reads
    return SolverCost(ALS, passes, multiply_adds, peak, keeps, 0, reading, seconds, normals)


def solve_observed(runner: PassRunner, cost: SolverCost, size: FitSize, request: FitRequest, images: Images) -> Factors:
    """Components by alternating least squares on what is observed (see `linalg.observed`).

    One read finds the means, the next one components of images that are filled with these. Each further read solves
    for scores, and then for components and mean, until the squares that the model misses decrease by less than `tol`.
    """
    if cost.keeps_images:
        runner.keep()
    seen = _observed_mean(runner, images, size.k)
    dtype = size.precision(size.k**2)
    model = _Model(_first_components(runner, size, request, seen.mean), seen.mean, _exponent(seen.largest))
    most = ITERATIONS if cost.keeps_images else request.max_passes - READS_BEFORE
    before, n_iter = np.inf, 0
    while True:
        found = model.solve_images(runner, cost, dtype)
        all_explained = found.residual <= max(request.tol**2, _NOISE) * found.total
        converged = all_explained or before - found.residual <= request.tol * found.residual
        if converged or n_iter == most - 1:
            break
        before, n_iter = found.residual, n_iter + 1
        model.solve_pixels(runner, found)
    if not converged:
        change = (before - found.residual) / found.residual
        warn(
            f"missing='als': the squares that the components miss still changed by {change:.1g} of them in the last "
            f"of {runner.n_passes:.3g} reads, and tol={request.tol:g}. Raise max_passes={request.max_passes}, e.g. to "
            f"{2 * request.max_passes}, or set tol={1.5 * change:.1g}.",
            ConvergenceWarning,
        )
    if all_explained and found.total > 0:  # components beyond the rank can then explain single pixels
        warn(
            f"missing='als': {size.k} components explain all that is observed, up to rounding. If the images have "
            "fewer independent directions, what is missing is not determined. Ask for fewer components, until some "
            "variance is left.",
            RankWarning,
        )
    return _factors(model, found, size, n_iter, runner.weights)


def _project_filled(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scores (b, k) of a block of images whose missing pixels get the mean."""
    _check_images(block, 1)
    return project(filled(block, mean), axes, mean, scale)


def _project_observed(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scores (b, k) of a block of images, each by least squares over the pixels that it shows."""
    _check_images(block, len(axes))
    dtype, exponent = working_dtype(block.dtype), _exponent(_largest(block))
    scores = lin.least_squares_scores(block, axes, mean, dtype, exponent)
    return in_intensities(scores / scale, exponent, axes.dtype, "scores")


def _sums_of_filled(part: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Scores of a part of the images, whose missing pixels get the mean, and how many pixels each shows."""
    scores = scores_of_part(filled(part, mean), axes, mean)
    return np.concatenate([scores, _n_observed(part)[:, np.newaxis, np.newaxis]], axis=-1)


def _sums_of_observed(part: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Add up over the observed pixels of a part of the images, and how many pixels each shows."""
    loadings, exponent = axes.reshape(len(axes), mean.size), _exponent(_largest(part))
    sums = lin.sums_of_images(part, loadings, mean.ravel(), working_dtype(part.dtype), exponent)
    return np.column_stack([sums, _n_observed(part)])[:, np.newaxis]


def _scores_of_filled(sums: np.ndarray, scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    _check_counts(sums[:, -1], 1)
    return divided(sums[:, :-1], scale, dtype)


def _scores_of_observed(sums: np.ndarray, scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    _check_counts(sums[:, -1], len(scale))
    return divided(lin.scores_of_sums(sums[:, :-1], len(scale)), scale, dtype)


#: By the parameter `missing`, for images with missing pixels.
SCORINGS = {
    "mean": Scoring(_project_filled, _sums_of_filled, _scores_of_filled, lambda k: k + 1),
    "als": Scoring(_project_observed, _sums_of_observed, _scores_of_observed, lambda k: k * (k + 3) // 2 + 1),
}


def _largest(block: np.ndarray) -> np.ndarray:
    """Largest and smallest value of what is observed, (1, 2)."""
    return np.array([[np.fmax.reduce(block, axis=None), np.fmin.reduce(block, axis=None)]])


def _exponent(largest: np.ndarray) -> int:
    exponent = exponent_of([largest])
    return 0 if exponent == ALL_ZERO else exponent


class _Seen(NamedTuple):
    mean: np.ndarray
    largest: np.ndarray


def _observed_mean(runner: PassRunner, images: Images, least: int) -> _Seen:
    """Find the mean of what is observed, and the largest value; refuse images and pixels that show too little."""
    n_bytes = 24 * runner.n_pixels
    label = "observed pixels"
    seen: lin.Seen
    if runner.regions:
        fold = partial(lin.add_seen, weights=runner.weights)
        seen = runner.fold(Pass(lin.seen, lin.merge_seen, n_bytes, label, fold, partial(_joined, runner)))
    else:
        seen = runner.run(lin.seen, lin.merge_seen, shared=(runner.weights,), partial_bytes=n_bytes, label=label)
    try:
        _check_counts(np.concatenate(seen.in_images), least)
    except NonFiniteError as error:
        raise error.at(0, images.files) from None
    few = np.flatnonzero(seen.counts < least)
    if len(few):
        positions = few if images.positions is None else images.positions[few]
        place = tuple(int(i) for i in np.unravel_index(positions[0], images.image_shape))
        raise ValueError(
            f"The pixel {place} is observed in {seen.counts[few[0]]} of {len(images.data)} images, and {least} are "
            f"needed. Leave out all such pixels, here {len(few)}, by a mask: mask=numpy.isfinite(X).sum(axis=0) >= "
            f"{least}. Where a number or a masked array marks what is missing, take X != number, or "
            "~numpy.ma.getmaskarray(X), in place of numpy.isfinite(X)."
        )
    return _Seen(seen.sums / seen.weights, np.array([[seen.largest]]))


def _joined(runner: PassRunner, totals: list[lin.Seen], regions: Any) -> lin.Seen:
    """Join what is observed in all regions."""
    counts = runner.assembled(total.counts for total in totals)
    weights = runner.assembled(total.weights for total in totals)
    sums = runner.assembled(total.sums for total in totals)
    in_images: np.ndarray = np.add.reduce([np.concatenate(total.in_images) for total in totals])
    return lin.Seen(counts, weights, sums, [in_images], max(total.largest for total in totals))


def _check_images(block: np.ndarray, least: int) -> None:
    _check_counts(_n_observed(block), least)


def _n_observed(block: np.ndarray) -> np.ndarray:
    """Count the observed pixels of each image (b,)."""
    observed: np.ndarray = np.count_nonzero(~np.isnan(block), axis=tuple(range(1, block.ndim)))
    return observed


def _check_counts(counts: np.ndarray, least: int) -> None:
    few = np.flatnonzero(counts < least)
    if len(few):
        needed = "a pixel" if least == 1 else f"at least {least}, as many as components,"
        line = f"X[numpy.isfinite(X).reshape(len(X), -1).sum(axis=1) >= {least}]"
        reason = (
            f"shows {int(counts[few[0]])} pixels, and {needed} must be observed. Leave such images out, e.g. {line}."
        )
        raise NonFiniteError(int(few[0]), None, reason)


class _FilledRunner:
    """A runner whose steps get images filled with the mean."""

    def __init__(self, runner: PassRunner, mean: np.ndarray):
        self._runner, self._mean, self.n_images, self.weights = runner, mean, runner.n_images, runner.weights

    def run(self, step: Any, merge: Any, shared: tuple[Any, ...], **options: Any) -> Any:
        """Pass over the filled images."""
        return self._runner.run(partial(_on_filled, step), merge, shared=(self._mean, *shared), **options)


def _on_filled(step: Any, blocks: list[np.ndarray], start: int, mean: np.ndarray, *shared: Any) -> Any:
    return step([filled(block, mean) for block in blocks], start, *shared)


def _first_components(runner: PassRunner, size: FitSize, request: FitRequest, mean: np.ndarray) -> np.ndarray:
    counts = size.row_counts()._replace(batch_bytes=0)
    summary: Summary = first_look(_FilledRunner(runner, mean), size, counts, request.seed)[0]  # type: ignore[arg-type]
    s = summary.singular_values[: size.k]
    rank = int(np.count_nonzero(s > 0))
    rows = summary.rows[:rank] / s[:rank, None].astype(summary.rows.dtype)
    orthonormalise_rows(rows)
    return completed_rows(rows, size.k).astype(size.dtype, copy=False)


class _Model:
    """Loadings (k, p), orthonormal, and the mean (p,); scores are in units of 2^exponent."""

    def __init__(self, loadings: np.ndarray, mean: np.ndarray, exponent: int):
        self.loadings, self.mean, self.exponent = loadings, mean.copy(), exponent

    def solve_images(self, runner: PassRunner, cost: SolverCost, dtype: np.dtype) -> lin.Normals:
        """Solve all images for their scores, in one read."""
        found: lin.Normals = runner.run(
            partial(lin.normals, dtype=dtype, exponent=self.exponent),
            lin.merge_normals,
            shared=(self.loadings, self.mean, runner.weights),
            partial_bytes=cost.room,
            batch_bytes=cost.room,
            label="components",
        )
        return found

    def solve_pixels(self, runner: PassRunner, found: lin.Normals) -> None:
        """Solve all pixels for their loadings and means."""
        step = partial(lin.pixels_solved, loadings=self.loadings, mean=self.mean, exponent=self.exponent)
        runner.run_pixels(step, no_result, [found.matrices, found.right])
        orthonormalise_rows(self.loadings)


def _factors(
    model: _Model, found: lin.Normals, size: FitSize, n_iter: int, weights: np.ndarray | None = None
) -> Factors:
    """Turn the loadings to the principal axes of their scores.

    The total is an estimate: the squares of the scores, divided by the share of the observed squares about the mean
    that the model explains.
    """
    scores = np.concatenate(found.scores)
    middle = np.average(scores, axis=0, weights=weights)
    scores -= middle
    values, turn = np.linalg.eigh(scores.T @ (scores if weights is None else scores * weights[:, None]))
    values, turn = values[::-1].clip(0), turn[:, ::-1]
    rank = int(np.count_nonzero(values > _NOISE * len(scores) * values[0]))
    values[rank:] = 0
    components = np.ascontiguousarray(turn.T.astype(model.loadings.dtype) @ model.loadings)
    orthonormalise_rows(components)
    moved = middle @ model.loadings
    mean = model.mean + np.ldexp(moved, model.exponent)
    about_mean = float((found.squares - 2 * moved * found.right[-1] + moved**2 * found.counts).sum())
    explained = 1 - found.residual / about_mean if about_mean > 0 else 1.0
    total = float(values.sum()) / explained if explained > 0 else 0.0
    left = found.left(model.loadings) * size.degrees / np.maximum(found.counts - 1, min(1, size.degrees))
    return Factors(mean, components, np.sqrt(values), total, rank, scores @ turn, n_iter, None, model.exponent, left)
