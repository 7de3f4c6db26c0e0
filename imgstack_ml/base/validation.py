"""Checks of input. They look at the metadata of lazy input, never at its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import dask
import dask.array as da
import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..errors import NonFiniteError

__all__ = [
    "FileStack",
    "Images",
    "StackLike",
    "check_images",
    "data_and_files",
    "first_nonfinite",
    "is_lazy",
    "is_pair",
    "rows_are_views",
    "working_dtype",
]

_SINGLE = (np.uint8, np.uint16, np.int8, np.int16, np.bool_, np.float16, np.float32)


class Images(NamedTuple):
    """Checked input: ``data`` of shape (n_images, *image_shape), and the files of the images if they are known."""

    data: np.ndarray | da.Array
    files: Sequence[str] | None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, or ``(n_features,)`` if the input has one row for each image."""
        return self.data.shape[1:]

    @property
    def n_pixels(self) -> int:
        """Values in one image: height x width x channels."""
        return prod(self.image_shape)


def working_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype to compute in: float32 if it holds every value of `dtype` exactly, else float64."""
    return np.dtype(np.float32 if dtype.type in _SINGLE else np.float64)


class FileStack:
    """Base class of `ImageStack`: lazy images and the file of each. Packages below `io` know a stack by this class."""

    files: Sequence[str]

    @property
    def data(self) -> da.Array:
        """The pixels, lazy."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Any:
        """Select images."""
        raise NotImplementedError


#: Input of estimators: an ImageStack, a Dask array, a zarr array, or anything from which NumPy makes an array.
StackLike: TypeAlias = FileStack | da.Array | ArrayLike


def data_and_files(X: Any) -> tuple[Any, Sequence[str] | None]:
    """Split an ImageStack into its lazy array and its files; anything else has no files."""
    return (X.data, X.files) if isinstance(X, FileStack) else (X, None)


def is_lazy(X: Any) -> bool:
    """Whether the pixels of `X` are not in memory: a Dask array, an ImageStack, or a chunked array on disk."""
    X = data_and_files(X)[0]
    return dask.is_dask_collection(X) or _is_chunked_store(X)


def check_images(estimator: Any, X: Any, *, reset: bool, finite: bool = True) -> Images:
    """Check a stack or a 2-D array for `estimator`. Lazy input stays lazy, and no pixel of it is read.

    Parameters
    ----------
    estimator : estimator
        If `reset`, its ``n_features_in_``, ``image_shape_`` (and ``feature_names_in_``) are set.
    X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
        The images. Each row of a 2-D input is an image of one line.
    reset : bool
        True in ``fit``. If False, the images must have the shape of those that the estimator was fitted on.
    finite : bool
        Whether images in memory must be free of NaN and infinity.

    Returns
    -------
    images : Images

    Raises
    ------
    NotFittedError
        `reset` is False, and the estimator is not fitted.
    TypeError
        `X` is a lazy collection other than a Dask array, or a masked array.
    NonFiniteError
        An image in memory has NaN or infinity, and `finite` is True.
    ValueError
        `X` has a wrong number of axes, unknown chunk sizes, complex values, or images of another shape than fitted.
    """
    if not reset:
        check_is_fitted(estimator)
        _refuse_one_image(estimator, X)
    X, files = data_and_files(X)
    lazy = is_lazy(X)
    data = _check_lazy(estimator, X) if lazy else _check_in_memory(estimator, X, reset, finite)
    images = Images(data, files)
    if reset:
        if lazy:
            validate_data(estimator, X, reset=True, skip_check_array=True)  # removes feature names of an earlier fit
        estimator.image_shape_ = images.image_shape
        estimator.n_features_in_ = images.n_pixels
    else:
        _compare_with_fitted(estimator, images)
    return images


def first_nonfinite(rows: np.ndarray) -> int | None:
    """Index of the first image with a NaN or infinite value, or None if all values are finite."""
    if rows.dtype.kind != "f":
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.sum(dtype=np.float64)):  # fast, and true for nearly every block
            return None
    bad = ~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
    return int(bad.argmax()) if bad.any() else None


def rows_are_views(data: np.ndarray) -> bool:
    """Whether the images of a NumPy stack can be flattened to rows without a copy."""
    return np.may_share_memory(data[:2].reshape(len(data[:2]), -1), data)


def is_pair(value: Any) -> bool:
    """Whether the value of a parameter is a tuple or list of two finite numbers."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(end, Real) and isfinite(end) for end in value)
    )


def _is_chunked_store(X: Any) -> bool:
    """Whether `X` is a chunked array on disk, such as a zarr array or an h5py dataset."""
    return not isinstance(X, np.ndarray) and all(hasattr(X, a) for a in ("chunks", "shape", "dtype", "ndim"))


def _check_lazy(estimator: Any, X: Any) -> da.Array:
    """Return lazy input as a Dask array, or raise if its chunks, dtype or shape cannot be used."""
    name = type(estimator).__name__
    if not dask.is_dask_collection(X):
        X = da.from_array(X, chunks=X.chunks or "auto")
    if not isinstance(X, da.Array):
        hint = "X.to_dask_array(lengths=True)" if hasattr(X, "to_dask_array") else "X.data"
        raise TypeError(f"X is a lazy {type(X).__name__}; {name} needs a Dask array. Pass {hint} instead.")
    if any(np.isnan(size) for sizes in X.chunks for size in sizes):
        raise ValueError(
            f"X has unknown chunk sizes {X.chunks}; {name} needs them. Call X.compute_chunk_sizes() first."
        )
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X has dtype {X.dtype}; {name} needs integers or real floats, e.g. X.astype('float32').")
    _check_shape(name, X.shape)
    return X


def _check_in_memory(estimator: Any, X: Any, reset: bool, finite: bool) -> np.ndarray:
    """Return input in memory as a NumPy array, or raise if its values or shape cannot be used."""
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(
            "X is a masked array, whose mask would be ignored. Pass X.filled(value), or X.data to ignore it on purpose."
        )
    if isinstance(X, tuple) and X and isinstance(X[0], str):
        name = type(estimator).__name__
        raise TypeError(
            f"X is {X}, the key of a block in place of the block: dask-ml's Incremental computes blocks of 2-D arrays "
            f"only. Flatten the images first: make_pipeline(ImageFlattener(), Incremental({estimator!r})); or give "
            f"{name}().partial_fit the blocks one by one."
        )
    if isinstance(X, list | tuple) and np.ndim(X) > 2:
        X = np.asarray(X)
    if getattr(X, "ndim", 2) <= 2:
        X = validate_data(estimator, X, reset=reset, dtype="numeric", ensure_all_finite=False)
    else:
        X = check_array(X, dtype="numeric", allow_nd=True, ensure_all_finite=False, estimator=estimator)
        if reset:
            validate_data(estimator, X, reset=True, skip_check_array=True)
    checked: np.ndarray = X
    _check_shape(type(estimator).__name__, checked.shape)
    bad = first_nonfinite(checked) if finite else None
    if bad is not None:
        raise NonFiniteError(bad)
    return checked


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Raise if an array of this shape is not a stack or a table, or has no values. `name` is the estimator's."""
    if not 2 <= len(shape) <= 4:
        raise ValueError(
            f"{name} got an array of shape {shape} and needs (n_images, height, width[, n_channels]) or "
            f"(n_samples, n_features). Pass a single image as X[None]."
        )
    if 0 in shape:
        raise ValueError(f"{name} got an empty array of shape {shape}: 0 sample(s) or 0 feature(s).")


def _refuse_one_image(estimator: Any, X: Any) -> None:
    """Raise if `X` is one image and not a stack: its rows would be taken for images otherwise."""
    shape = tuple(estimator.image_shape_)
    if len(shape) > 1 and getattr(X, "shape", None) == shape:
        raise ValueError(
            f"X has the shape {shape} of one image; {type(estimator).__name__} needs a stack of images. Pass a single "
            "image as X[None]."
        )


def _compare_with_fitted(estimator: Any, images: Images) -> None:
    """Raise if the images have another shape than those that the estimator was fitted on."""
    if images.image_shape == estimator.image_shape_:
        return
    name = type(estimator).__name__
    if len(images.image_shape) == len(estimator.image_shape_) == 1:
        raise ValueError(
            f"X has {images.n_pixels} features, but {name} is expecting {estimator.n_features_in_} features as input"
        )
    raise ValueError(
        f"X has images of shape {images.image_shape}, but {name} was fitted on images of shape "
        f"{tuple(estimator.image_shape_)}. Resize or crop them to that shape, or fit {name} on images of this shape."
    )
