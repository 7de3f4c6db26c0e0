"""Flatten images to rows, and turn rows back into images."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..base.lazy import map_images, note_source
from ..base.mask import is_finite_wanted, put_back
from ..base.state import unchanged_if_it_fails
from ..base.transformer import StackTransformer
from ..base.validation import Images, StackLike, check_images, check_rows
from ..passes.finite import finite_pixels

__all__ = ["ImageFlattener"]


class ImageFlattener(StackTransformer):
    """Turn a stack of images into a matrix with one row an image, and rows back into images.

    Lazy stacks stay lazy and keep their row chunks. `fit` learns the shape of an image only, and reads nothing, but for
    ``mask="finite"``. NaN and infinity pass, so that an imputer of scikit-learn can follow.

    Parameters
    ----------
    mask : array-like of bool, "finite" or None, default=None
        True for the pixels to take, False for those to leave out: of shape (height, width), for all channels, or of
        that of an image; (n_features,) for rows. In masked arrays of NumPy, True means the opposite. ``"finite"`` takes
        the pixels that are finite in all images, which takes a read of the stack. None takes all.
    fill_value : number, default=0
        Value of the pixels outside the mask in images of `inverse_transform`.

    Attributes
    ----------
    mask_ : ndarray of bool of the shape of an image, or None
        True for the pixels that rows have, in the order of flattened images. None if there is no mask.
    image_shape_ : tuple of int
        (height, width[, n_channels]), or (n_features,) after fitting on a 2-D array.
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
    n_features_in_ : int
        Values in one image: height x width x channels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if `fit` got a data frame.
    n_passes_ : float
        Reads of a lazy stack in `fit`, for ``mask="finite"`` only.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImageFlattener
    >>> stack = np.zeros((10, 4, 6, 3), np.uint8)
    >>> flattener = ImageFlattener().fit(stack)
    >>> rows = flattener.transform(stack)
    >>> rows.shape, flattener.inverse_transform(rows).shape
    ((10, 72), (10, 4, 6, 3))
    >>> mask = np.eye(4, 6, dtype=bool)
    >>> ImageFlattener(mask).fit_transform(stack).shape
    (10, 12)
    """

    def __init__(self, mask: Any = None, fill_value: Any = 0):
        self.mask = mask
        self.fill_value = fill_value

    def fit(self, X: StackLike, y: Any = None) -> ImageFlattener:
        """Learn the shape of an image.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            The images, or rows of shape (n_samples, n_features), which stay rows.
        y : None
            Ignored.

        Returns
        -------
        self : ImageFlattener

        Raises
        ------
        ValueError
            If the mask is not Boolean, is of another shape than the images, or leaves no pixel.
        """
        with unchanged_if_it_fails(self):
            images = check_images(self, X, reset=True, finite=False, mask=self.mask)
            self.mask_ = images.mask
            self.__dict__.pop("n_passes_", None)
            if is_finite_wanted(self.mask):
                self.mask_, self.n_passes_ = finite_pixels(images)
        return self

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Flatten images.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.

        Returns
        -------
        rows : ndarray or dask array of shape (n_images, n_features_in_), or (n_images, n_inside) with a mask
            In the dtype of `X`; for a NumPy stack without a mask a view if its memory layout allows.
        """
        images = check_images(self, X, reset=False, finite=False)
        if images.positions is None:
            return _reshaped(images, (images.n_pixels,))
        return map_images(
            _rows,
            images.data,
            image_shape=(images.n_pixels,),
            dtype=images.data.dtype,
            files=images.files,
            finite=False,
            positions=images.positions,
        )

    def inverse_transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Turn rows back into images: flattened images, components, or one mean as ``mean[None]``.

        Parameters
        ----------
        X : ndarray or dask array of shape (n_rows, n_features_in_), or (n_rows, n_inside) with a mask
            The rows.

        Returns
        -------
        images : ndarray or dask array of shape (n_rows, *image_shape_)
            In the dtype of `X`; `fill_value` outside the mask.

        Raises
        ------
        ValueError
            If a row has not as many values as an image, or the dtype does not hold `fill_value`.
        """
        check_is_fitted(self)
        mask = self.mask_
        n_columns = self.n_features_in_ if mask is None else int(mask.sum())
        rows = check_rows("ImageFlattener.inverse_transform", X, n_columns, finite=False)
        if mask is None or mask.all():
            return _reshaped(rows, self.image_shape_)
        dtype = rows.data.dtype
        return map_images(
            partial(_images, self.image_shape_),
            rows.data,
            image_shape=self.image_shape_,
            dtype=dtype,
            files=rows.files,
            finite=False,
            mask=mask,
            fill_value=_fill_value(self.fill_value, dtype),
        )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of rows: those of the pixels inside the mask.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features_in_,), optional
            Names of all values of an image; by default those of the data frame fitted, or "x0", "x1", ...

        Returns
        -------
        names : ndarray of str
        """
        names: np.ndarray = super().get_feature_names_out(input_features)
        return names if self.mask_ is None else names[self.mask_.ravel()]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _reshaped(images: Images, image_shape: tuple[int, ...]) -> np.ndarray | da.Array:
    data, files = images.data, images.files
    if isinstance(data, np.ndarray):
        return data.reshape(len(data), *image_shape)
    func = partial(_reshaped_block, image_shape)
    rows = map_images(func, data, image_shape=image_shape, dtype=data.dtype, files=files, finite=False)
    return note_source(rows, data)


def _reshaped_block(image_shape: tuple[int, ...], block: np.ndarray) -> np.ndarray:
    return block.reshape(len(block), *image_shape)


def _rows(rows: np.ndarray) -> np.ndarray:
    """Rows of the pixels inside the mask, as `map_images` gives them."""
    return rows


def _images(image_shape: tuple[int, ...], rows: np.ndarray, mask: np.ndarray, fill_value: np.ndarray) -> np.ndarray:
    return put_back(rows, mask, fill_value).reshape(len(rows), *image_shape)


def _fill_value(value: Any, dtype: np.dtype) -> np.ndarray:
    """Return a number in `dtype`, or raise if that is another number."""
    number = np.asarray(value)
    if number.ndim == 0 and number.dtype.kind in "biuf":
        with np.errstate(all="ignore"):
            converted = number.astype(dtype)
        held = np.isfinite(converted) or not np.isfinite(number) if dtype.kind == "f" else converted == number
        if held:
            return converted
    raise ValueError(
        f"fill_value={value!r} is no number that the rows can hold, which are {dtype}. Set "
        "ImageFlattener(fill_value=0), or give rows of floats: X.astype('float64')."
    )
