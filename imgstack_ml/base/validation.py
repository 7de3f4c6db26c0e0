"""Checks of input. They look at the metadata of lazy input, never at its pixels, which `base/gate.py` checks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from math import isfinite
from numbers import Number, Real
from typing import Any, TypeAlias

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..errors import NonFiniteError
from .axes import axis_names_of, order_of_axes
from .channels import channel_names_of
from .gate import first_nonfinite
from .images import Images, working_dtype
from .lazy import files_of, note_samples, with_coordinates
from .mask import check_mask, is_finite_wanted
from .missing import marked, without_mask
from .state import unchanged_if_it_fails
from .weights import check_weights, present

__all__ = [
    "FileStack",
    "Images",
    "StackLike",
    "check_images",
    "check_rows",
    "data_and_files",
    "is_lazy",
    "is_pair",
    "refuse_unreadable",
    "rows_are_views",
    "working_dtype",
]

_FROM_DELAYED = "dask.array.from_delayed({}, shape, dtype)"


class FileStack:
    """Base class of `ImageStack`: lazy images and the file of each. Packages below `io` know a stack by this class."""

    files: Sequence[str]
    #: Names of the channels, where files or colour modes tell them.
    known_channels: tuple[str, ...] = ()

    @property
    def data(self) -> da.Array:
        """The pixels, lazy."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Any:
        """Select images."""
        raise NotImplementedError


#: Input of estimators: an ImageStack, a Dask array, a zarr array, xarray's DataArray, or what NumPy makes an array of.
StackLike: TypeAlias = FileStack | da.Array | ArrayLike


def data_and_files(X: Any) -> tuple[Any, Sequence[str] | None]:
    """Split an ImageStack into its lazy array and its files; anything else has no files."""
    return (note_samples(X.data, X), X.files) if isinstance(X, FileStack) else (X, None)


def is_lazy(X: Any) -> bool:
    """Whether the pixels of `X` are not in memory: a Dask array, an ImageStack, or a chunked array on disk."""
    X = data_and_files(X)[0]
    return dask.is_dask_collection(X) or _is_chunked_store(X.data if _has_axis_names(X) else X)


def check_images(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    finite: bool = True,
    mask: Any = None,
    missing_values: Any = None,
    sample_weight: Any = None,
) -> Images:
    """Check a stack or a 2-D array for `estimator`. Lazy input stays lazy, and no pixel of it is read.

    Parameters
    ----------
    estimator : estimator
        If `reset`, its ``n_features_in_``, ``image_shape_`` (and ``channel_names_``, ``feature_names_in_``) are set.
    X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
        The images. Each row of a 2-D input is an image of one line.
    reset : bool
        True in ``fit``. If False, the images must have the shape of those that the estimator was fitted on.
    finite : bool
        Whether images in memory must be free of NaN and infinity. Lazy ones are searched when they are computed, and
        so are those of which a mask leaves pixels out.
    mask : array-like of bool, "finite" or None
        The parameter of the estimator, if `reset`. If not, the images get its ``mask_``, if it has one.
    missing_values : float or None
        What marks missing pixels. They become NaN, and so do those that are masked. None: NaN and masks are errors.
    sample_weight : array-like of shape (n_images,), or None
        How often each image counts. Images of weight 0 are left out.

    Returns
    -------
    images : Images

    Raises
    ------
    NotFittedError
        `reset` is False, and the estimator is not fitted.
    TypeError
        `X` is a lazy collection other than a Dask array, a masked or sparse array, a list of lazy arrays, or has names
        of axes in another order than that of a stack.
    NonFiniteError
        An image in memory has NaN or infinity, and `finite` is True.
    ValueError
        `X` has a wrong number of axes, unknown chunk sizes, values that are no real numbers, or images of another shape
        than fitted.
    """
    if not reset:
        check_is_fitted(estimator)
        _refuse_one_image(estimator, X)
    with unchanged_if_it_fails(*([estimator] if reset else [])):
        mask = mask if reset else getattr(estimator, "mask_", None)
        return _check_images(estimator, X, reset, finite, mask, missing_values, sample_weight)


def check_rows(caller: str, X: Any, n_columns: int, *, finite: bool = True) -> Images:
    """Check rows of numbers, such as scores or flattened images. Lazy rows stay lazy.

    Parameters
    ----------
    caller : str
        Begins error messages, e.g. ``"ImagePCA.inverse_transform"``.
    X : dask array or array-like of shape (n_rows, n_columns)
    n_columns : int
    finite : bool
        Whether rows in memory must be free of NaN and infinity.

    Raises
    ------
    TypeError, NonFiniteError, ValueError
        As from `check_images`.
    """
    X, files = data_and_files(X)
    X = refuse_unreadable(caller, X)
    rows: np.ndarray | da.Array = _check_lazy(caller, X) if is_lazy(X) else np.asarray(X)
    if isinstance(rows, da.Array):
        files = files_of(rows) if files is None else files
    else:
        _check_numbers(caller, rows, finite)
    if rows.ndim != 2 or rows.shape[1] != n_columns:
        raise ValueError(f"X has shape {rows.shape}; {caller} needs rows of {n_columns} values, (n_rows, {n_columns}).")
    return Images(rows, files)


def refuse_unreadable(caller: str, X: Any, masked: bool = False) -> Any:
    """Return `X` without the names of its axes; raise for what would be read with a loss, or where nobody asked for it.

    A lazy array with `masked` blocks is taken if these are read as missing.

    Raises
    ------
    TypeError
        `X` is masked or sparse, a list that holds lazy arrays, or has names of axes in another order than a stack.
    """
    if isinstance(X, Delayed):  # it claims to have any attribute
        raise TypeError(f"X is a Delayed; {caller} needs a Dask array. Pass {_FROM_DELAYED.format('X')}.")
    _refuse_no_array(caller, X)
    if hasattr(X, "data_vars"):
        raise TypeError(f"X is a {type(X).__name__}; {caller} needs one of its arrays, e.g. X[{next(iter(X), '')!r}].")
    if _has_axis_names(X):
        X = _without_axis_names(caller, X)
    elif _is_chunked_store(X) and X.ndim > 2:
        _check_axes_of_store(caller, X)
    if isinstance(X, list | tuple):
        _refuse_arrays_in_lists(caller, X)
    elif hasattr(X, "__array__") and not (isinstance(X, np.ndarray) or hasattr(X, "columns") or is_lazy(X)):
        X = np.asanyarray(X)  # a variable of netCDF4 may become a masked array
    kind = X._meta if isinstance(X, da.Array) else X
    if isinstance(kind, np.ma.MaskedArray) and not masked:
        lazy = "dask.array.ma.filled(X, value), or dask.array.ma.getdata(X)"
        line = lazy if isinstance(X, da.Array) else "X.filled(value), or X.data"
        way = "; or set ImagePCA(missing='als'), for which masked pixels are missing" * (caller == "ImagePCA")
        raise TypeError(f"X is a masked array, whose mask would be ignored. Pass {line} to ignore it on purpose{way}.")
    name = type(kind).__name__
    if hasattr(kind, "todense"):
        line = "X.map_blocks(lambda block: block.todense())" if isinstance(X, da.Array) else "X.todense()"
        raise TypeError(f"X is sparse ({name}); {caller} needs dense arrays of NumPy. Pass {line}.")
    if isinstance(X, da.Array) and not isinstance(kind, np.ndarray):
        raise TypeError(f"X is a Dask array of {name}; {caller} needs one of NumPy arrays: X.map_blocks(np.asarray).")
    return X


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


def _has_axis_names(X: Any) -> bool:
    """Whether `X` is an array of xarray, or one like it."""
    return isinstance(getattr(X, "dims", None), tuple) and hasattr(X, "data")


def _without_axis_names(caller: str, X: Any) -> Any:
    """Return the array inside one of xarray, if its axes are those of a stack or of rows, in that order."""
    first, *pixels = X.dims or [""]
    unnamed = all(name == f"dim_{i}" for i, name in enumerate(X.dims))
    rows = len(pixels) == 1 and not {"y", "x"} & {first, *pixels}
    if unnamed or rows or (first not in ("y", "x") and pixels in (["y", "x"], ["y", "x", "channel"])):
        return with_coordinates(X)
    raise TypeError(
        f"X has the axes {X.dims}; {caller} needs a first axis for the images, then 'y', 'x', and 'channel' if there "
        "are channels. Pass e.g. X.rename(height='y', width='x').transpose('time', 'y', 'x'), or X.data, an array "
        "without names, if its axes are in this order."
    )


def _check_axes_of_store(caller: str, X: Any) -> None:
    """Raise if an array of zarr or HDF5 names its axes in another order than that of a stack."""
    names = None if dask.is_dask_collection(X) else axis_names_of(X)
    n_counting, axes = order_of_axes(X.shape, names) if names else (1, tuple(range(X.ndim)))
    if (n_counting, axes) != (1, tuple(range(X.ndim))):
        raise TypeError(
            f"X has the axes {tuple(names or ())}; {caller} needs one axis that counts images, then y, x and channels. "
            f"Pass open_stack(...) of its file, which orders them; or dask.array.from_array(X).transpose(...)."
        )


def _refuse_no_array(caller: str, X: Any) -> None:
    """Raise for paths, which `open_stack` opens, and for what is no array at all."""
    items = X.tolist() if _is_column(X) else X if isinstance(X, list | tuple | set) else []
    if isinstance(X, str | os.PathLike):
        raise TypeError(f"X is the path {os.fspath(X)!r}; {caller} needs images. Pass open_stack({os.fspath(X)!r}).")
    if len(items) and all(isinstance(item, str | os.PathLike) for item in items):
        line = "open_stack(X)" if isinstance(X, list | tuple) else "open_stack(list(X))"
        raise TypeError(f"X holds {len(items)} paths or texts; {caller} needs images. Pass {line} for paths.")
    if isinstance(X, bytes | bytearray):
        line = "np.asarray(PIL.Image.open(io.BytesIO(X)))[None], if they are of an image file"
    elif isinstance(X, Mapping) and not any(
        hasattr(X, name) for name in ("data_vars", "nnz")
    ):  # sparse, before SciPy 1.15
        line = f"one of its values: X[{next(iter(X), '')!r}]"
    elif isinstance(X, Iterator | Set):
        line = "np.stack(list(X))"
    elif X is None:
        line = "open_stack(folder), or an array of NumPy or Dask"
    else:
        return
    name = "None" if X is None else f"of type {type(X).__name__}"
    raise TypeError(f"X is {name}; {caller} needs an array of images. Pass {line}.")


def _is_column(X: Any) -> bool:
    """Whether `X` is an array or a column of texts or objects."""
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    return getattr(X, "ndim", 0) == 1 and kind in ("O", "U", "T") and hasattr(X, "tolist")


def _refuse_arrays_in_lists(caller: str, X: Sequence[Any]) -> None:
    for item in _items(X):
        if isinstance(item, Delayed):
            line = f"dask.array.stack([{_FROM_DELAYED.format('one')} for one in X])"
            raise TypeError(f"X is a list that holds a Delayed; {caller} needs one array. Pass {line} for images.")
        if isinstance(item, np.ma.MaskedArray):
            raise TypeError(f"X is a list that holds a masked array; {caller} needs one array: numpy.ma.stack(X).")
        if isinstance(item, FileStack) or is_lazy(item) or _has_axis_names(item):
            kind = f"{type(item).__module__.partition('.')[0]}.{type(item).__name__}"
            raise TypeError(
                f"X is a list that holds a {kind}; {caller} needs one array. Pass dask.array.stack(X) for a list of "
                "images, dask.array.concatenate(X) for one of stacks; of an ImageStack take its .data, of xarray .data."
            )
        refuse_unreadable(caller, item)


def _refuse_ragged(caller: str, X: Sequence[Any]) -> None:
    shapes = [getattr(item, "shape", None) or (len(item),) for item in X if isinstance(item, np.ndarray | list | tuple)]
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        raise ValueError(
            f"X is a list of images of different shapes: image 0 has {shapes[0]}, image {other} has {shapes[other]}. "
            f"{caller} needs images of one shape: resize or crop them."
        )


def _items(X: Sequence[Any]) -> Iterator[Any]:
    """Yield what nested lists hold, apart from numbers."""
    for item in X:
        if isinstance(item, Number):
            return
        if isinstance(item, list | tuple):
            yield from _items(item)
        else:
            yield item


def _check_images(
    estimator: Any, X: Any, reset: bool, finite: bool, mask: Any, missing_values: Any, sample_weight: Any
) -> Images:
    caller = type(estimator).__name__
    named = X
    X, files = data_and_files(X)
    if isinstance(X, tuple) and X and isinstance(X[0], str):
        raise TypeError(
            f"X is {X}, the key of a block in place of the block: dask-ml's Incremental computes blocks of 2-D arrays "
            f"only. Flatten the images first: make_pipeline(ImageFlattener(), Incremental({estimator!r})); or give "
            f"{caller}().partial_fit the blocks one by one."
        )
    missing = missing_values is not None
    X = refuse_unreadable(caller, without_mask(X) if missing else X, masked=missing)
    data: np.ndarray | da.Array
    if is_lazy(X):
        data = lazy = _check_lazy(caller, X)
        files = files_of(lazy) if files is None else files
        if reset:
            validate_data(estimator, X, reset=True, skip_check_array=True)  # removes feature names of an earlier fit
    else:
        now = finite and mask is None and not missing and sample_weight is None
        data = _check_in_memory(estimator, X, reset, now)
    if missing:
        data = marked(data, missing_values)
        if isinstance(data, np.ndarray) and mask is None and sample_weight is None:
            bad = first_nonfinite(data, missing=True)
            if bad is not None:
                raise NonFiniteError(bad)
    _check_shape(caller, data.shape)
    images, weights = Images(data, files), check_weights(sample_weight, len(data))
    finite = finite and not is_finite_wanted(mask)
    if reset:
        mask = check_mask(mask, images.image_shape)
        estimator.image_shape_ = images.image_shape
        estimator.n_features_in_ = images.n_pixels
        vars(estimator).pop("channel_names_", None)
        if names := channel_names_of(named, images.image_shape, data.dtype):
            estimator.channel_names_ = names
    else:
        _compare_with_fitted(estimator, images)
    images = images._replace(mask=mask, missing=missing)
    unsearched = mask is not None or sample_weight is not None
    if unsearched and finite and weights is None and isinstance(data, np.ndarray) and not images.values_read:
        bad = first_nonfinite(data, missing)  # all pixels are inside
        if bad is not None:
            raise NonFiniteError(bad)
    return present(images, weights, finite=finite)


def _check_lazy(caller: str, X: Any) -> da.Array:
    """Return lazy input as a Dask array, or raise if its chunks or dtype cannot be used."""
    if not dask.is_dask_collection(X):
        X = da.from_array(X, chunks=X.chunks or "auto")
    if not isinstance(X, da.Array):
        hint = "X.to_dask_array(lengths=True)" if hasattr(X, "to_dask_array") else "X.compute()"
        raise TypeError(f"X is a lazy {type(X).__name__}; {caller} needs a Dask array. Pass {hint} instead.")
    if any(np.isnan(size) for sizes in X.chunks for size in sizes):
        raise ValueError(
            f"X has unknown chunk sizes {X.chunks}; {caller} needs them. Call X.compute_chunk_sizes() first."
        )
    _check_dtype(caller, X.dtype)
    return X


def _check_in_memory(estimator: Any, X: Any, reset: bool, finite: bool) -> np.ndarray:
    """Return input in memory as a NumPy array, or raise if its values cannot be used."""
    if isinstance(X, list | tuple):
        _refuse_ragged(type(estimator).__name__, X)
        X = np.asarray(X) if np.ndim(X) > 2 else X
    if getattr(X, "ndim", 2) <= 2:
        X = validate_data(estimator, X, reset=reset, dtype="numeric", ensure_all_finite=False)
    else:
        X = check_array(X, dtype="numeric", allow_nd=True, ensure_all_finite=False, estimator=estimator)
        if reset:
            validate_data(estimator, X, reset=True, skip_check_array=True)
    checked: np.ndarray = X
    _check_numbers(type(estimator).__name__, checked, finite)
    return checked


def _check_numbers(caller: str, X: np.ndarray, finite: bool) -> None:
    _check_dtype(caller, X.dtype)
    bad = first_nonfinite(X) if finite else None
    if bad is not None:
        raise NonFiniteError(bad)


def _check_dtype(caller: str, dtype: np.dtype) -> None:
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        line = "abs(X), or X.real" if dtype.kind == "c" else f"X.astype('float{64 if dtype.kind == 'f' else 32}')"
        raise ValueError(f"X has dtype {dtype}; {caller} needs integers or real floats of up to 64 bits, e.g. {line}.")


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
    if len(shape) > 1 and not isinstance(X, Delayed) and getattr(X, "shape", None) == shape:
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
