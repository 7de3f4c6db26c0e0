"""Missing pixels: NaN marks them, whether the images have NaN, a number for what is missing, or a mask of their own."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any

import dask.array as da
import numpy as np

from ..linalg.large_integers import refuse_inexact
from .lazy import note_samples, note_stored, samples_of, stored_parts, whole_images

__all__ = ["HOW", "check_missing", "filled", "marked", "without_mask"]

HOW = ("raise", "mean", "als")


def check_missing(missing: Any, missing_values: Any) -> None:
    """Refuse what is no way to treat missing pixels, and no value that marks them.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what is needed.
    """
    if not isinstance(missing, str) or missing not in HOW:
        raise ValueError(f"missing={missing!r} must be one of {HOW}.")
    if not isinstance(missing_values, Real) or isinstance(missing_values, bool | np.bool_) or _is_huge(missing_values):
        raise ValueError(f"missing_values={missing_values!r} must be NaN or a number, e.g. missing_values=0.")
    if missing == "raise" and not np.isnan(float(missing_values)):
        raise ValueError(
            f"missing_values={missing_values!r} marks missing pixels, and missing='raise' takes none, so that these "
            "would be values. Set missing='als' or missing='mean'; or missing_values=numpy.nan."
        )


def _is_huge(number: Any) -> bool:
    try:
        float(number)
    except OverflowError:
        return True
    return False


def without_mask(X: Any) -> Any:
    """Return a masked NumPy array as floats, NaN where it is masked; anything else as it is."""
    return _unmasked(X, _float_of(X.dtype)) if isinstance(X, np.ma.MaskedArray) else X


def marked(data: np.ndarray | da.Array, missing_values: Any) -> np.ndarray | da.Array:
    """Images in floats whose missing pixels are NaN: what is masked, and what equals `missing_values`.

    NumPy images of floats are returned as they are where `missing_values` is NaN, and otherwise copied.
    """
    dtype = _float_of(data.dtype)
    mark = partial(_marked_block, missing_values=float(missing_values), dtype=dtype)
    if not isinstance(data, da.Array):
        return mark(data)
    meta = np.empty((0,) * data.ndim, dtype)
    stored = stored_parts(data)
    lazy = da.map_blocks(mark, data if stored is None else stored, dtype=dtype, meta=meta)
    if stored is not None and stored is not data:
        lazy = note_stored(whole_images(lazy), lazy)
    return note_samples(lazy, samples_of(data))


def filled(images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Images with the mean image in place of what is missing."""
    return np.where(np.isnan(images), mean.reshape(images.shape[1:]).astype(images.dtype), images)


def _float_of(dtype: np.dtype) -> np.dtype:
    """Return the float dtype that holds the values; those of 64-bit integers are searched for larger ones."""
    return np.dtype(np.float32 if dtype.kind in "biu" and dtype.itemsize <= 2 else np.result_type(dtype, np.float32))


def _marked_block(block: Any, missing_values: float, dtype: np.dtype) -> np.ndarray:
    masked = isinstance(block, np.ma.MaskedArray)
    values = _unmasked(block, dtype) if masked else np.asarray(block).astype(dtype, copy=False)
    missing = np.ma.getdata(block) == missing_values
    _refuse_inexact(block, missing)
    if not missing.any():
        return values
    if not masked and values.dtype == block.dtype:  # the input is never changed
        values = values.copy()
    values[missing] = np.nan
    return values


def _unmasked(block: np.ma.MaskedArray, dtype: np.dtype) -> np.ndarray:
    values: np.ndarray = np.ma.getdata(block).astype(dtype)
    masked = np.ma.getmaskarray(block)
    _refuse_inexact(block, masked)
    values[masked] = np.nan
    return values


def _refuse_inexact(block: np.ndarray, missing: np.ndarray) -> None:
    """Refuse integers that float64 does not hold, but for what is missing."""
    if block.dtype.kind in "iu" and block.dtype.itemsize == 8:
        refuse_inexact(np.ma.getdata(block)[~(missing | np.ma.getmaskarray(block))])
