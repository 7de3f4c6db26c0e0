"""Flatten images to rows, and turn rows back into images."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..base.lazy import map_images, note_source
from ..base.transformer import StackTransformer
from ..base.validation import Images, StackLike, check_images, check_rows

__all__ = ["ImageFlattener"]


class ImageFlattener(StackTransformer):
    """Turn a stack of images into a matrix with one row an image, and rows back into images.

    Lazy stacks stay lazy and keep their row chunks. `fit` learns the shape of an image only, and reads nothing. NaN and
    infinity pass, so that an imputer of scikit-learn can follow.

    Attributes
    ----------
    image_shape_ : tuple of int
        (height, width[, n_channels]), or (n_features,) after fitting on a 2-D array.
    n_features_in_ : int
        Values in one image: height x width x channels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if `fit` got a data frame.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImageFlattener
    >>> stack = np.zeros((10, 4, 6, 3), np.uint8)
    >>> flattener = ImageFlattener().fit(stack)
    >>> rows = flattener.transform(stack)
    >>> rows.shape, flattener.inverse_transform(rows).shape
    ((10, 72), (10, 4, 6, 3))
    """

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
        """
        check_images(self, X, reset=True, finite=False)
        return self

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Flatten images.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.

        Returns
        -------
        rows : ndarray or dask array of shape (n_images, n_features_in_)
            In the dtype of `X`; for a NumPy stack a view if its memory layout allows.
        """
        images = check_images(self, X, reset=False, finite=False)
        return _reshaped(images, (images.n_pixels,))

    def inverse_transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Turn rows back into images: flattened images, components, or one mean as ``mean[None]``.

        Parameters
        ----------
        X : ndarray or dask array of shape (n_rows, n_features_in_)
            The rows.

        Returns
        -------
        images : ndarray or dask array of shape (n_rows, *image_shape_)
            In the dtype of `X`.

        Raises
        ------
        ValueError
            If a row has not as many values as an image.
        """
        check_is_fitted(self)
        rows = check_rows("ImageFlattener.inverse_transform", X, self.n_features_in_, finite=False)
        return _reshaped(rows, self.image_shape_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _reshaped(images: Images, image_shape: tuple[int, ...]) -> np.ndarray | da.Array:
    data, files = images
    if isinstance(data, np.ndarray):
        return data.reshape(len(data), *image_shape)
    func = partial(_reshaped_block, image_shape)
    rows = map_images(func, data, image_shape=image_shape, dtype=data.dtype, files=files, finite=False)
    return note_source(rows, data)


def _reshaped_block(image_shape: tuple[int, ...], block: np.ndarray) -> np.ndarray:
    return block.reshape(len(block), *image_shape)
