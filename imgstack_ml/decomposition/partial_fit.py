"""`ImagePCA.partial_fit`: a summary of all images so far, to which each call adds those of a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..base.mask import check_mask, is_finite_wanted
from ..base.validation import Images
from ..base.weights import check_total_weight
from ..linalg.incremental import Summary, merge_summaries
from ..linalg.scaling import ALL_ZERO, exponent_of, largest_value
from ..passes.blas import one_blas_thread
from ..passes.memory import allowance
from ..passes.runner import PassRunner
from .certificate import in_units
from .checks import check_n_components, check_parameters, fit_size, refusing_units, uncentred
from .fit import request_of
from .records import Factors, FitSize
from .streaming import PAD, factors_of_summary, first_look, share_reached

__all__ = ["learn_batch"]

_EXPECTED_IMAGES = 10**9  # sizes are chosen for a long stack: the number of images to come is unknown
_READ_BYTES = 2**28  # raw images and summaries in flight


def learn_batch(images: Images, model: Any) -> tuple[Factors, FitSize, Summary]:
    """Summarise a batch of images in one read, and merge it with what the model keeps of the images before.

    Parameters
    ----------
    images : Images
    model : ImagePCA
        Fitted to the images before, if there were any.

    Returns
    -------
    factors : Factors
        Of all images so far.
    size : FitSize
    summary : Summary
    """
    params, fitted = model.get_params(deep=False), getattr(model, "n_components_", None)
    if params["missing"] != "raise":
        raise ValueError(
            f"partial_fit takes no missing pixels, and missing={params['missing']!r}. Use fit; or set missing='raise'."
        )
    params["n_components"] = _components_of_batches(params, images, fitted)
    _check_mask_of_batches(params["mask"], images, fitted)
    request = request_of({**params, "n_components": model.n_components})
    so_far = None if fitted is None else getattr(model, "_summary", None) or _summary_of_model(model)
    source, shift = uncentred(images)
    size = replace(fit_size(source, params), n=_EXPECTED_IMAGES)
    if size.share:
        size = replace(size, k=size.p)
        if so_far is not None and not share_reached(so_far, request):
            most = allowance(params["memory_limit"]).limit // (16 * size.p * so_far.rows.itemsize)
            size = replace(size, n_oversamples=max(size.n_oversamples, min(2 * len(so_far.rows), most)))
    counts = size.row_counts()
    read_bytes = max(_READ_BYTES, 4 * counts.summary_bytes)
    runner = PassRunner(source, read_bytes=read_bytes, progress=params["progress"])
    n, total_weight = len(source.data), images.total_weight
    if so_far is not None:
        n, total_weight = n + model.n_samples_, so_far.n + (total_weight or n)
    if images.weights is not None:
        check_total_weight(total_weight)
    before = 0.0 if so_far is None else largest_value([so_far.mean])  # all that is known of them if they are constant
    with one_blas_thread(), refusing_units(runner, before):
        summary, _ = first_look(runner, size, counts, draws=0)
        summary = summary._replace(mean=summary.mean - shift)
        if so_far is not None:
            summary = merge_summaries(so_far, summary, size=counts.summary)
        size = replace(size, n=n, total_weight=0.0 if summary.n == n else float(summary.n))
        return factors_of_summary(summary, size, request).in_intensities(), size, summary


def _components_of_batches(params: dict[str, Any], images: Images, fitted: int | None) -> int | float:
    """Return the number of components that partial_fit looks for, or their share of the variance.

    Parameters
    ----------
    params : dict
        Parameters of the `ImagePCA`.
    images : Images
    fitted : int or None
        Components found in the batches before.

    Raises
    ------
    ValueError
        For parameters that are wrong, and more components than values in an image.
    """
    check_parameters(params)
    check_n_components(params["n_components"], None, images.n_pixels, inside=bool(images.values_read))
    if params["n_components"] is None:
        return min(len(images.data), images.n_pixels) if fitted is None else fitted
    n_components: int | float = params["n_components"]
    return n_components


def _check_mask_of_batches(mask: Any, images: Images, fitted: int | None) -> None:
    """Refuse masks that batches cannot have: of pixels finite in all images to come, and others than fitted."""
    if is_finite_wanted(mask):
        if fitted is None:
            raise ValueError(
                "partial_fit cannot know which pixels are finite in all images to come, as mask='finite' asks. Give "
                "these pixels, e.g. ImagePCA(mask=numpy.isfinite(X).all(axis=0))."
            )
        return
    given, before = (_all_or_mask(one) for one in (check_mask(mask, images.image_shape), images.mask))
    if not np.array_equal(given, before):
        raise ValueError(
            "mask is not the one of the images before. Leave it as it was: set_params(mask=mask_); or fit again."
        )


def _all_or_mask(mask: np.ndarray | None) -> np.ndarray:
    return np.ones(1, bool) if mask is None or mask.all() else mask


def _degrees(model: Any) -> float:
    # Version 0.1 has saved no weights.
    return max(model.n_samples_ - 1, 1) if not hasattr(model, "total_weight_") else model.total_weight_ - 1


def _summary_of_model(model: Any) -> Summary:
    """Summarise the images of a fitted `ImagePCA` by its components alone, after fit.

    In a basis of the components and the directions beyond, A'A is [diag(s^2), R'; R, Z], R holding the residuals and Z
    having the trace T - sum(s^2), and B'B is diag(s^2) alone. So A'A - B'B lies between -||R|| I and
    (||R|| + T - sum(s^2)) I.
    """
    # In units in which squares neither over- nor underflow.
    exponent = exponent_of([model.singular_values_[None]])
    exponent = 0 if exponent == ALL_ZERO else exponent
    singular = np.ldexp(model.singular_values_, -exponent)
    squares, ratio = singular**2, model.explained_variance_ratio_[0]
    total = float(squares[0] / ratio) if ratio > 0 else 0.0
    components, mean = model._inside(model.components_), model._inside(model.mean_)
    rows = components * singular[:, None].astype(components.dtype)
    no_draws = np.empty((0, rows.shape[1]), rows.dtype)
    drift = np.zeros(rows.shape[1])
    rounding = PAD * float(np.finfo(rows.dtype).eps) * float(squares[0])
    if model.certificate_ is not None:
        said, degrees = in_units(model.certificate_, exponent), _degrees(model)
        residuals = 0.0 if said.residual_norms is None else float(np.linalg.norm(said.residual_norms))
        slack = float((squares / degrees - said.explained_variance_bounds[0]).max())
        rounding += degrees * (residuals + slack)
    lost = max(total - float(squares.sum()), 0.0)
    squares = np.empty(0)  # not known of a model that version 0.1 has saved
    if hasattr(model, "residual_variance_image_"):
        squares = np.ldexp(model._inside(model.residual_variance_image_.ravel()) * _degrees(model), -2 * exponent)
        squares += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
    n = float(getattr(model, "total_weight_", model.n_samples_))
    return Summary(n, mean, drift, total, rows, lost, no_draws, np.empty(0), squares, rounding, exponent)
