"""The checkpoint of a fit of `ImagePCA`: what its results depend on, and resuming with the plan it began with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import Any

import dask.array as da
import numpy as np

from .. import __version__
from ..base.validation import Images
from ..base.warn import warn
from ..passes.checkpoint import Checkpoint, open_checkpoint
from ..passes.memory import Allowance, format_bytes
from .plan import Plan
from .records import FitRequest

__all__ = ["fit_checkpoint", "resumed"]

_DECISIVE = ("n_components", "svd_solver", "n_oversamples", "tol", "max_passes", "memory_limit")  # for the result


def fit_checkpoint(
    params: Mapping[str, Any], images: Images, allowed: Allowance, request: FitRequest
) -> AbstractContextManager[Checkpoint | None]:
    """Open the checkpoint of a fit; None if none is asked for, or the images are in memory."""
    folder: str | os.PathLike[str] | None = params["checkpoint"]
    if folder is None or not isinstance(images.data, da.Array):
        return nullcontext()
    fit = {name: repr(params[name]) for name in _DECISIVE}
    fit["random_state"] = repr(params["random_state"]) if isinstance(params["random_state"], Integral) else "no int"
    fit["mask"] = _mask_text(params["mask"], images)
    fit["sample_weight"] = "None" if images.weights is None else f"weights ({_digest_of(images.weights)})"
    fit["the stack (its files, their sizes and times of change, and the blocks)"] = images.data.name
    fit["the version of imgstack_ml"] = __version__
    return open_checkpoint(folder, fit, {**allowed._asdict(), "seed": request.seed})


def _mask_text(mask: Any, images: Images) -> str:
    """Describe the parameter `mask`, so that another mask has another description."""
    if images.mask is None:
        return repr(mask)
    return f"{images.n_pixels} pixels ({_digest_of(np.packbits(images.mask))})"


def _digest_of(values: np.ndarray) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()


def resumed(
    checkpoint: Checkpoint | None, plan_within: Callable[[Allowance], Plan], plan: Plan, request: FitRequest
) -> tuple[Plan, FitRequest]:
    """Return plan and request with the memory and the seed that the fit in the checkpoint began with.

    Parameters
    ----------
    checkpoint : Checkpoint or None
        Discarded with a warning, if the memory that is left now is too small for its plan.
    plan_within : callable
        Plans the fit within other memory.
    plan : Plan
        Plan within the memory that is left now.
    request : FitRequest
    """
    if checkpoint is None:
        return plan, request
    begun = checkpoint.begun
    before = plan_within(Allowance(begun["limit"], begun["keep"]))
    if before.peak_bytes > plan.memory_limit:
        checkpoint.discard(
            f"it takes {format_bytes(before.peak_bytes)} of memory, and {format_bytes(plan.memory_limit)} are left"
        )
        return plan, request
    if before.solver == "tsqr" and not before.chosen.keeps_images:
        warn("svd_solver='tsqr' runs in one piece, and nothing can be saved of it: checkpoint is not used.")
    return before, request._replace(seed=begun["seed"])
