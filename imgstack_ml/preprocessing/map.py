"""Apply any function of one image to all images of a stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import dask
import dask.array as da
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin

from ..base.gate import gated
from ..base.lazy import map_images, note_new_channels
from ..base.state import unchanged_if_it_fails
from ..base.transformer import ImageTransformer, for_table
from ..base.validation import FileStack, Images, StackLike, check_images
from ..errors import ImageFunctionError
from ..passes.cluster import client_of, scheduler_of

__all__ = ["ImageMap"]


class ImageMap(ClassNamePrefixFeaturesOutMixin, ImageTransformer):
    """Apply a function to every image of a stack: one of scikit-image's, or your own.

    The function returns a number, a vector or an image, which becomes one entry of the result. Lazy stacks stay lazy:
    their blocks are processed in parallel, by threads or on a cluster, when the result is computed or stored. A NumPy
    stack is processed immediately by one thread; ``dask.array.from_array(X, chunks=(16, -1, -1))`` makes it lazy.

    Parameters
    ----------
    func : callable
        Called as ``func(image, **kw_args)`` with an image (height, width[, n_channels]) in the dtype of the stack, or
        with a vector for 2-D input. The image is a copy, which `func` may change. Several threads call it at a time.
    output_shape : tuple of int, optional
        Shape of what `func` returns for an image; ``()`` for a number.
    output_dtype : dtype, optional
        Dtype of what `func` returns, or a wider one. A result that cannot be cast to it safely raises.
    kw_args : dict, optional
        Further arguments of `func`.
    batch : bool, default=False
        Call `func` with many images at once: a read-only array (n, height, width[, n_channels]) of any number n, for
        which it returns an array of n results. Faster for functions that are vectorized over images.

    Attributes
    ----------
    output_shape_ : tuple of int
        Shape of one result; ``(1,)`` for numbers: the result is then a column (n_images, 1), which estimators accept.
    output_dtype_ : numpy.dtype
        Dtype of the result.
    image_shape_ : tuple of int
        Shape of one image.
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
    n_features_in_ : int
        Values in one image.
    feature_names_in_ : ndarray of str
        Column names, if `fit` got a data frame.

    See Also
    --------
    sklearn.preprocessing.FunctionTransformer : A function of a whole array in memory.

    Notes
    -----
    `fit` calls `func` on the first image, in this process, to learn the shape and dtype of a result. It reads one
    image of an ImageStack or NumPy array, one block of another lazy stack, and nothing if `output_shape` and
    `output_dtype` are both given. The results for all images must have that shape, and a dtype that casts to it safely;
    otherwise `transform`, or the computation of its lazy result, raises and names the image. Images with NaN are
    passed to `func` like others.

    On a cluster and with Dask's processes, `func` and `kw_args` are pickled and sent to other processes. This works
    for functions, lambdas and closures, but not for open files, locks and connections: let `func` open what it needs.

    Examples
    --------
    >>> import dask.array as da
    >>> from skimage.transform import resize
    >>> from imgstack_ml import ImageMap
    >>> stack = da.random.default_rng(0).integers(0, 256, (60, 32, 32), dtype="uint8", chunks=(20, 32, 32))
    >>> ImageMap(resize, kw_args={"output_shape": (8, 8)}).fit_transform(stack)
    dask.array<resize, shape=(60, 8, 8), dtype=float64, chunksize=(20, 8, 8), chunktype=numpy.ndarray>
    """

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        output_shape: tuple[int, ...] | None = None,
        output_dtype: Any = None,
        kw_args: dict[str, Any] | None = None,
        batch: bool = False,
    ):
        self.func = func
        self.output_shape = output_shape
        self.output_dtype = output_dtype
        self.kw_args = kw_args
        self.batch = batch

    def fit(self, X: StackLike, y: Any = None) -> ImageMap:
        """Learn shape and dtype of a result by calling the function on the first image, unless both are given.

        Parameters
        ----------
        X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
            The images; rows of a 2-D input are images of one line.
        y : None
            Ignored.

        Returns
        -------
        self : ImageMap

        Raises
        ------
        ImageFunctionError
            If `func` raises, or returns another shape or dtype than given; names the image (and file).
        TypeError
            If `func` is not callable, or cannot be sent to the processes that would run it.
        """
        with unchanged_if_it_fails(self):
            images = check_images(self, X, reset=True, finite=False)
            func = self._block_function()
            _refuse_unpicklable(func, images.data)
            shape, dtype = func.shape, func.dtype
            if shape is None or dtype is None:
                try:
                    first = func(_first_image(X, images))
                except ImageFunctionError as error:
                    raise error.at(0, images.files) from error.__cause__
                shape, dtype = first.shape[1:], first.dtype
            self.output_shape_, self.output_dtype_ = shape, dtype
        return self

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Apply the function to every image.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, *image_shape_)
            The images.

        Returns
        -------
        ndarray or dask array of shape (n_images, *output_shape_)
            In `output_dtype_`; lazy for lazy input.

        Raises
        ------
        ImageFunctionError
            If `func` raises, or returns another shape or dtype than for the first image; names the image (and file).
            For a lazy stack this happens when the result is computed.
        TypeError
            If `func` cannot be sent to the processes that would run it.
        """
        images = check_images(self, X, reset=False, finite=False)
        func = replace(self._block_function(), shape=self.output_shape_, dtype=self.output_dtype_)
        _refuse_unpicklable(func, images.data)
        results = map_images(
            func,
            images.data,
            image_shape=self.output_shape_,
            dtype=self.output_dtype_,
            files=images.files,
            finite=False,
        )
        return note_new_channels(results) if self._returns_stack(X) else for_table(self, results)

    def _block_function(self) -> _BlockFunction:
        if not callable(self.func):
            raise TypeError(f"func={self.func!r} cannot be called; ImageMap needs a function of an image, e.g. np.max.")
        shape = None if self.output_shape is None else tuple(self.output_shape) or (1,)
        dtype = None if self.output_dtype is None else np.dtype(self.output_dtype)
        return _BlockFunction(self.func, self.kw_args or {}, bool(self.batch), shape, dtype)

    @property
    def _n_features_out(self) -> int:
        return prod(self.output_shape_)

    def _returns_stack(self, X: Any) -> bool:
        return len(getattr(self, "output_shape_", ())) > 1

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


@dataclass(frozen=True)
class _BlockFunction:
    """Applies `func` to the images of a block; a `shape` or `dtype` of None means that of the first result."""

    func: Callable[..., Any]
    kw_args: dict[str, Any]
    batch: bool
    shape: tuple[int, ...] | None
    dtype: np.dtype | None

    @property
    def __name__(self) -> str:  # becomes the name of the Dask layer
        return dask.utils.funcname(self.func)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Results (b, *shape) for images (b, *image_shape)."""
        if len(block) == 0:  # Dask has empty blocks, which functions need not handle
            return np.empty((0, *(self.shape or ())), self.dtype)
        return self._of_batch(block) if self.batch else self._of_each(block)

    def _of_each(self, block: np.ndarray) -> np.ndarray:
        first = self._as_column(self._call(block[0].copy(), 0, 1), 0)
        out = np.empty((len(block), *(self.shape or first.shape)), first.dtype if self.dtype is None else self.dtype)
        for i, image in enumerate(block):
            result = first if i == 0 else self._as_column(self._call(image.copy(), i, 1), 0)
            self._check(result, out.shape[1:], out.dtype, i, 1)
            out[i] = result
        return out

    def _of_batch(self, block: np.ndarray) -> np.ndarray:
        images = block.view()
        images.setflags(write=False)
        results = self._as_column(self._call(images, 0, len(block)), 1)
        if results.ndim == 0 or len(results) != len(block):
            raise ImageFunctionError(
                0,
                None,
                f"{self.__name__} returned shape {results.shape} for a batch of {len(block)} images; with batch=True "
                f"it must return one result for each image along the first axis",
                len(block),
            )
        dtype = results.dtype if self.dtype is None else self.dtype
        self._check(results[0], self.shape or results.shape[1:], dtype, 0, len(block))
        return results.astype(dtype, copy=np.may_share_memory(results, block))

    def _call(self, images: np.ndarray, index: int, n_images: int) -> np.ndarray:
        try:
            return np.asarray(self.func(images, **self.kw_args))
        except Exception as error:
            reason = f"{self.__name__} raised {type(error).__name__}: {error}"
            raise ImageFunctionError(index, None, reason, n_images) from error

    @staticmethod
    def _as_column(results: np.ndarray, n_axes: int) -> np.ndarray:
        """Return single numbers, which have `n_axes` axes, with one more axis; other results as they are."""
        return results[..., None] if results.ndim == n_axes else results

    def _check(self, result: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, index: int, n_images: int) -> None:
        if result.shape != shape:
            reason = (
                f"{self.__name__} returned shape {result.shape}, and {shape} is needed, as for the first image or in "
                f"output_shape"
            )
        elif dtype.kind not in "biufc":
            reason = f"{self.__name__} returned {dtype} values; ImageMap needs numbers"
        elif result.dtype != dtype and not np.can_cast(result.dtype, dtype):
            reason = (
                f"{self.__name__} returned {result.dtype}, which does not fit {dtype}, as for the first image or in "
                f"output_dtype. Set output_dtype={str(np.result_type(result.dtype, dtype))!r}"
            )
        else:
            return
        raise ImageFunctionError(index, None, reason, n_images)


def _first_image(X: Any, images: Images) -> np.ndarray:
    """Read the first image, (1, *image_shape): one file of an ImageStack, the first block of another lazy stack."""
    if isinstance(images.data, np.ndarray):
        return images.data[:1]
    first = X[:1].data if isinstance(X, FileStack) else images.data
    return gated(first, images.files)[:1].compute()


def _refuse_unpicklable(func: _BlockFunction, data: np.ndarray | da.Array) -> None:
    """Raise if other processes would run `func` and it cannot be pickled; Dask's own error comes late and is long."""
    if not isinstance(data, da.Array):
        return
    scheduler = scheduler_of(data)
    if client_of(scheduler) is None and scheduler is not dask.base.named_schedulers["processes"]:
        return
    from distributed.protocol import serialize

    for name, value in (("func", func.func), ("kw_args", func.kw_args)):
        try:
            serialize(value, serializers=["pickle"], on_error="raise")
        except Exception as error:
            raise TypeError(
                f"{name}={value!r} cannot be sent to other processes, as open files, locks and connections cannot. Let "
                f"the function open what it needs, or compute with threads: "
                f"dask.config.set(scheduler='threads')."
            ) from error
