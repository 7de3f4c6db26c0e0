"""What the feature transformers share: from a stack to one row of features an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import dask.array as da
import numpy as np
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from ..base.lazy import map_images
from ..base.transformer import ImageTransformer, for_table
from ..base.validation import Images, StackLike, check_images, first_nonfinite
from ..errors import NonFiniteError
from ..passes.fit_together import PassLearner, fit_together
from ..passes.runner import Pass

__all__ = ["FeatureTransformer", "as_planes", "channel_names", "n_channels"]

_PIECE_BYTES = 2**18  # of images at a time, so that their float64 temporaries stay in cache


class FeatureTransformer(PassLearner, ImageTransformer):
    """Base of the transformers that give a row of features for every image.

    A subclass says what it does in `_kernel` and `_names`; in `_look` and `_learn`, what it checks and learns before.
    """

    def fit(self, X: StackLike, y: Any = None) -> Self:
        """Check the parameters and the images' shape, and learn what `fit` must learn, in one pass at most.

        Parameters
        ----------
        X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
            The images; rows of a 2-D input are images of one line.
        y : None
            Ignored.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            For parameters that have no meaning, alone or for these images.
        NonFiniteError
            Naming the image (and file) with a NaN or infinite pixel, of those that are read.
        """
        fit_together([self], X)
        return self

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Compute the features of every image.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, *image_shape_)
            The images.

        Returns
        -------
        features : ndarray or dask array of shape (n_images, n_features), float64
            Lazy for lazy input.

        Raises
        ------
        NonFiniteError
            Naming the image (and file) with a NaN or infinite pixel; for a lazy stack when it is computed.
        """
        images = check_images(self, X, reset=False)
        features = map_images(
            partial(features_of_block, kernel=self._kernel(), n_features=len(self._names())),
            images.data,
            image_shape=(len(self._names()),),
            dtype=np.dtype(np.float64),
            files=images.files,
        )
        return for_table(self, features)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features.

        Parameters
        ----------
        input_features : array-like of str, optional
            Compared with the names seen in `fit`.

        Returns
        -------
        names : ndarray of str, shape (n_features,)
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        return np.array(self._names(), dtype=object)

    def _look(self, images: Images) -> Pass | None:
        return None

    def _learn(self, found: Any, images: Images) -> None:
        pass

    def _kernel(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return a picklable function from some images (b, *image_shape_) to their features (b, n_features)."""
        raise NotImplementedError

    def _names(self) -> list[str]:
        raise NotImplementedError


def features_of_block(block: np.ndarray, *, kernel: Callable[[np.ndarray], np.ndarray], n_features: int) -> np.ndarray:
    """Features of a block, piece by piece; an image with NaN or infinity raises."""
    bad = first_nonfinite(block)
    if bad is not None:
        raise NonFiniteError(bad)
    out = np.empty((len(block), n_features))
    step = max(1, _PIECE_BYTES // max(1, block[:1].nbytes))
    for i in range(0, len(block), step):
        out[i : i + step] = kernel(block[i : i + step])
    return out


def n_channels(image_shape: tuple[int, ...]) -> int:
    """Channels of an image: the last of three axes."""
    return image_shape[2] if len(image_shape) == 3 else 1


def channel_names(image_shape: tuple[int, ...], features: list[str]) -> list[str]:
    """Names of the same features for every channel, channel by channel."""
    return [f"channel{c}_{feature}" for c in range(n_channels(image_shape)) for feature in features]


def as_planes(images: np.ndarray) -> np.ndarray:
    """Images as (b, n_channels, n_pixels), each channel on its own in memory; Booleans as 0 and 1.

    One plane is summed in the same order as a channel by itself, so that results are NumPy's to the last bit.
    """
    dtype = np.dtype(np.uint8) if images.dtype == bool else images.dtype.newbyteorder("=")
    images = images.astype(dtype, copy=False)
    channels = np.moveaxis(images, -1, 1) if images.ndim == 4 else images[:, None]
    return np.ascontiguousarray(channels).reshape(*channels.shape[:2], -1)
