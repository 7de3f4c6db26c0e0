"""Checks of the parameters of `ImagePCA`, and the record of what its fit is about."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import floor, log10
from numbers import Integral, Real
from typing import Any

import dask.array as da
import numpy as np

from ..base.gate import first_nonfinite
from ..base.lazy import map_images, source_of, stored_parts
from ..base.mask import is_finite_wanted, pixels_at
from ..base.missing import check_missing
from ..base.validation import FileStack, Images, StackLike, check_images, rows_are_views
from ..base.warn import warn
from ..errors import NonFiniteError, RankWarning
from ..files.names import refuse_url
from ..linalg.scaling import largest_value
from ..passes.batches import batch_rows
from ..passes.runner import PassRunner
from .plan import COSTS
from .records import FitSize

__all__ = [
    "SOLVER_NAMES",
    "check_n_components",
    "check_parameters",
    "complete_images",
    "fit_size",
    "refusing_units",
    "uncentred",
    "warn_of_rank",
]

SOLVER_NAMES = ("auto", *COSTS)


def check_parameters(params: Mapping[str, Any]) -> None:
    """Refuse parameters of `ImagePCA` that are wrong for any images.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what is needed.
    StoreError
        The checkpoint is a URL.
    """
    if params["svd_solver"] not in SOLVER_NAMES:
        raise ValueError(f"svd_solver={params['svd_solver']!r} must be one of {SOLVER_NAMES}.")
    for name, least in (("n_oversamples", 0), ("max_passes", 1)):
        value: Any = params[name]
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} must be an int of at least {least}.")
    folder = params["checkpoint"]
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise ValueError(f"checkpoint={folder!r} must be None or a folder, e.g. checkpoint='unfinished'.")
    if folder is not None:
        refuse_url(folder)
    check_missing(params["missing"], params["missing_values"])
    if params["missing"] != "raise":
        _check_with_missing(params)
    if not isinstance(params["tol"], Real) or not float(params["tol"]) >= 0:
        raise ValueError(f"tol={params['tol']!r} must be a number of at least 0, e.g. tol=1e-4.")


def complete_images(pca: Any, X: StackLike, what: str, sample_weight: Any = None) -> Images:
    """Check images of the shape that a PCA was fitted on, for what takes no missing pixels.

    Raises
    ------
    NonFiniteError
        Naming the image (and file), and the line that fills its missing pixels; for lazy images when they are computed.
    """
    images = check_images(pca, X, reset=False, missing_values=pca._marks_missing(), sample_weight=sample_weight)
    if not images.missing:
        return images
    reason = f"has missing pixels, and {what} takes none. Fill them, or leave it out: {_filling(X, pca.missing_values)}"
    options = dict[str, Any](image_shape=images.image_shape, dtype=images.data.dtype, files=images.files)
    if images.positions is not None:
        options["inside"] = images.positions
    whole = map_images(partial(_complete, reason), images.data, finite=False, **options)
    return images._replace(data=whole, missing=False)


def _complete(reason: str, block: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    bad = first_nonfinite(block if inside is None else pixels_at(block, inside))
    if bad is not None:
        raise NonFiniteError(bad, None, reason if np.isnan(block[bad]).any() else None)
    return block


def _filling(X: Any, missing_values: float) -> str:
    """Return the line that fills missing pixels of images by the model."""
    X, name = (X.data, "X.data") if isinstance(X, FileStack) else (X, "X")
    library = "dask.array" if isinstance(X, da.Array) else "numpy"
    values, hidden = name, f"numpy.isnan({name})" if np.isnan(missing_values) else f"{name} == {missing_values:g}"
    if isinstance(X._meta if isinstance(X, da.Array) else X, np.ma.MaskedArray):
        values, hidden = f"{library}.ma.getdata({name})", f"{library}.ma.getmaskarray({name})"
    return f"X = {library}.where({hidden}, pca.inverse_transform(pca.transform(X)), {values})"


def _check_with_missing(params: Mapping[str, Any]) -> None:
    """Refuse parameters that do not go together with missing pixels."""
    missing = params["missing"]
    if is_finite_wanted(params["mask"]):
        raise ValueError(
            f"mask='finite' leaves out pixels with NaN, and missing={missing!r} uses them. Set one of the two, e.g. "
            "missing='raise'."
        )
    if params["checkpoint"] is not None:
        raise ValueError(f"A fit with missing={missing!r} cannot be resumed. Set checkpoint=None.")
    if missing == "als" and params["svd_solver"] != "auto":
        raise ValueError(
            f"missing='als' is a solver of its own, and svd_solver={params['svd_solver']!r} another. Set "
            "svd_solver='auto'; or missing='mean', with which every solver works."
        )
    if missing == "als" and not isinstance(params["n_components"], Integral):
        raise ValueError(
            f"missing='als' needs a number of components, and n_components={params['n_components']!r}. Set e.g. "
            "n_components=10."
        )


def check_n_components(n_components: Any, n: int | None, p: int, inside: bool = False) -> None:
    """Refuse what is no number of components of (n, p) data, and no share of their variance; `n` is None if unknown.

    `inside` says that the values are those inside a mask.

    Raises
    ------
    ValueError
        Naming the numbers that are possible.
    """
    if n_components is None:
        return
    most = p if n is None else min(n, p)
    if isinstance(n_components, Integral) and not isinstance(n_components, bool):
        if not 1 <= int(n_components) <= most:
            raise ValueError(
                f"n_components={n_components} must be between 1 and n_features={p}."
                if n is None
                else f"n_components={n_components} must be between 1 and min(n_samples, n_features)={most} "
                f"for {n} images of {p} values{' inside the mask' * inside}."
            )
    elif not (isinstance(n_components, Real) and 0 < float(n_components) < 1):
        raise ValueError(
            f"n_components={n_components!r} must be None, an int from 1 to {most}, or a share of the variance "
            f"between 0 and 1, e.g. ImagePCA(0.95)."
        )


def fit_size(images: Images, params: Mapping[str, Any]) -> FitSize:
    """Describe the size of a fit to `images` with these parameters."""
    n = len(images.data)
    if isinstance(images.data, da.Array):
        block = max(images.data.chunks[0])
    else:
        in_memory = rows_are_views(images.data) and not images.values_read
        block = None if in_memory else min(n, batch_rows(images))
    return FitSize.of(
        (n, images.n_pixels),
        images.data.dtype,
        params["n_components"],
        block,
        chunk=_chunk_of_part(images.data),
        n_oversamples=params["n_oversamples"],
        max_passes=params["max_passes"],
        values_read=images.values_read,
        total_weight=images.total_weight,
    )


def _chunk_of_part(data: Any) -> tuple[int, ...]:
    """Shape of the largest chunk of a lazy stack if it holds parts of images, else ()."""
    stored = stored_parts(data)
    return () if stored is None else tuple(map(max, stored.chunks))


@contextmanager
def refusing_units(runner: PassRunner, before: float = 0.0) -> Iterator[None]:
    """Name the largest value, in one more read, if float64 does not hold the squares of the images.

    Parameters
    ----------
    runner : PassRunner
    before : float
        Largest value of the images that earlier batches had.

    Raises
    ------
    ValueError
        Instead of an OverflowError.
    """
    try:
        yield
    except OverflowError:
        largest = max(before, runner.run(_largest_observed, max, label="largest value", save=False))
        factor = 10.0 ** floor(log10(largest))
        raise ValueError(
            f"The images have values of up to {largest:.3g}, whose squares float64 does not hold. Divide the images by "
            f"{factor:.0e}, e.g. X / {factor:.0e}."
        ) from None


def _largest_observed(blocks: list[np.ndarray], start: int) -> float:
    return largest_value([np.nan_to_num(block) for block in blocks])


def uncentred(images: Images) -> tuple[Images, Any]:
    """Return lazy images as they were before a constant image was subtracted, and that image, or 0.

    The components of both are the same, and a centred stack takes four times the memory of its 8-bit source.
    """
    if not isinstance(images.data, da.Array):
        return images, 0.0
    data, shift = source_of(images.data)
    if images.positions is not None and np.ndim(shift):
        shift = np.asarray(shift)[images.positions]
    # The mask has the shape of the images given; those before may have been flattened to them.
    mask = None if images.mask is None else images.mask.reshape(data.shape[1:])
    return images._replace(data=data, mask=mask), shift


def warn_of_rank(rank: int, k: int, n: int) -> None:
    """Warn if n images have variance along `rank` of k components only, and n allows more."""
    if rank < min(k, n - 1):
        warn(
            f"The {n} images have {rank} independent direction(s) above rounding about their mean, and {k} components "
            f"were asked for: the last {k - rank} have variance 0 and arbitrary directions.",
            RankWarning,
        )
