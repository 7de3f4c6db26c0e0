"""A fit of `ImagePCA` as a plain function: mask, plan, solve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..base.mask import is_finite_wanted
from ..base.validation import Images
from ..base.weights import check_total_weight
from ..errors import MemoryLimitError
from ..passes.blas import one_blas_thread
from ..passes.finite import finite_pixels
from ..passes.memory import Allowance, allowance, format_bytes, within_plan
from ..passes.runner import PassRunner
from .checks import check_n_components, check_parameters, fit_size, refusing_units, uncentred
from .missing import READS_BEFORE, als_cost, filled_images, solve_observed
from .plan import Plan, plan_fit
from .records import ALS, Factors, FitRequest, FitSize
from .resume import fit_checkpoint, resumed
from .solvers import solve

__all__ = ["Fit", "fit_images", "plan_images", "request_of"]

_CENTRED = "the StackCenterer before ImagePCA took a read; ImagePCA centres without one, so leave it out"
_FILLED = "missing='mean' takes the first read, for the mean of the pixels that are observed"
_SEARCHED = "mask='finite' takes the first read; all else is planned for all pixels, and takes less without some"


class Fit(NamedTuple):
    """What a fit found: factors of the pixels inside `mask` (None: of all), and how."""

    factors: Factors
    size: FitSize
    mask: np.ndarray | None
    solver: str
    n_passes: float


def plan_images(images: Images, params: Mapping[str, Any]) -> Plan:
    """Plan a fit with these parameters of `ImagePCA`, with notes for the user."""
    source, shift = uncentred(images)
    plan = _plan(source, params, allowance(params["memory_limit"]))
    notes = (_CENTRED,) if np.any(shift) else ()
    if _is_searched(source, params):
        plan, notes = plan.with_one_read_more(), (*notes, _SEARCHED)
    if params["missing"] == "mean":
        plan, notes = plan.with_one_read_more(), (*notes, _FILLED)
    return replace(plan, notes=notes)


def fit_images(images: Images, params: Mapping[str, Any]) -> Fit:
    """Find the pixels inside the mask, plan, and run the solver of the plan, or of the plan that was begun before."""
    if params["missing"] == "als":
        return _fit_observed(images, params)
    if params["missing"] == "mean":
        return _fit_filled(images, params)
    source = uncentred(images)[0]
    allowed = allowance(params["memory_limit"])
    plan = _plan(source, params, allowed)
    n_passes, searched = 0.0, _is_searched(source, params)
    request = request_of(params, draws=searched or plan.solver == "randomized")
    # Passes run in as many threads as there are cores. The work between them gains little from BLAS threads of its
    # own, and loses a lot when others use the machine: eigh of 844 x 844 takes 0.09 s with one thread, and with
    # two 0.1 s on an idle machine and 2 s on a busy one.
    with one_blas_thread(), fit_checkpoint(params, source, allowed, request) as checkpoint:
        options = dict[str, Any](progress=params["progress"], checkpoint=checkpoint)
        if is_finite_wanted(params["mask"]):
            # Planned for all pixels above: what does not fit is refused before anything is read.
            mask, n_passes = finite_pixels(source, read_bytes=plan.chosen.reading_bytes, **options)
            images = images._replace(mask=mask.reshape(images.image_shape))
        source, shift = uncentred(images)
        plan = _plan(source, params, allowed)
        plan, request = resumed(checkpoint, partial(_plan, source, params), plan, request)
        cost, size = plan.chosen, fit_size(source, params)
        runner = PassRunner(source, read_bytes=cost.reading_bytes, **options)
        with within_plan(cost.peak_bytes), refusing_units(runner):
            solver, factors = solve(runner, cost, size, request)
            factors = factors.in_intensities()
    if np.any(shift):
        factors = factors._replace(mean=factors.mean - shift)
    return Fit(factors, size, images.mask, solver, n_passes + runner.n_passes)


def _fit_observed(images: Images, params: Mapping[str, Any]) -> Fit:
    """Fit by alternating least squares on what is observed."""
    plan, size = _plan(images, params, allowance(params["memory_limit"])), fit_size(images, params)
    runner = PassRunner(images, read_bytes=plan.chosen.reading_bytes, progress=params["progress"])
    with one_blas_thread(), within_plan(plan.peak_bytes), refusing_units(runner):
        factors = solve_observed(runner, plan.chosen, size, request_of(params, draws=True), images).in_intensities()
    return Fit(factors, size, images.mask, ALS, runner.n_passes)


def _fit_filled(images: Images, params: Mapping[str, Any]) -> Fit:
    """Fit to images filled with the mean of what is observed."""
    reading = _plan(images, params, allowance(params["memory_limit"])).chosen.reading_bytes
    runner = PassRunner(images, read_bytes=reading, progress=params["progress"])
    with one_blas_thread():
        filled = filled_images(images, runner)
    found = fit_images(filled, {**params, "missing": "raise", "missing_values": np.nan})
    return found._replace(n_passes=found.n_passes + (runner.n_passes if runner.reads else 0.0))


def request_of(params: Mapping[str, Any], draws: bool = False) -> FitRequest:
    """Return what a solver is asked for by these parameters."""
    random_state = params["random_state"] if draws else 0
    return FitRequest.of(params["n_components"], params["tol"], params["max_passes"], random_state)


def _is_searched(images: Images, params: Mapping[str, Any]) -> bool:
    """Whether the fit looks for the pixels that are finite in all images. Integers are."""
    return is_finite_wanted(params["mask"]) and images.data.dtype.kind == "f"


def _plan(images: Images, params: Mapping[str, Any], allowed: Allowance) -> Plan:
    """Choose a solver from metadata alone."""
    n, p = len(images.data), images.n_pixels
    if n < 2:
        weighted = " of a weight above 0" if images.absent else ""
        raise ValueError(f"ImagePCA needs at least 2 images{weighted} to see any variance, and got n_samples={n}.")
    check_total_weight(images.total_weight)
    check_n_components(params["n_components"], n, p, inside=bool(images.values_read))
    check_parameters(params)
    size = fit_size(images, params)
    if images.absent and isinstance(images.data, np.ndarray):
        allowed = _beside_copy(allowed, images.data.nbytes)
    if params["missing"] == "als":
        _check_reads(plan := plan_fit(size, "auto", allowed, {ALS: als_cost}), params)
        return plan
    return plan_fit(size, params["svd_solver"], allowed)


def _beside_copy(allowed: Allowance, n_bytes: int) -> Allowance:
    """Return what a copy of the images that have a weight above 0 leaves of the memory."""
    left = allowed.limit - n_bytes
    if left <= 0:
        raise MemoryLimitError(
            f"The images of a weight above 0 were copied, which takes {format_bytes(n_bytes)}, and the memory limit is "
            f"{format_bytes(allowed.limit)}. Leave the others out before the fit, X = X[sample_weight > 0]; or pass "
            "dask.array.from_array(X), which is not copied."
        )
    return Allowance(left, min(allowed.keep, left))


def _check_reads(plan: Plan, params: Mapping[str, Any]) -> None:
    if params["max_passes"] <= READS_BEFORE and not plan.chosen.keeps_images:
        raise ValueError(
            f"missing='als' reads images that memory_limit does not keep at least {READS_BEFORE + 1} times, and "
            f"max_passes={params['max_passes']}. Set max_passes=6."
        )
