"""Base class of the feature transformers, which return one row of features for each image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import dask.array as da
import numpy as np
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from ..base.channels import numbered_names
from ..base.gate import first_nonfinite
from ..base.lazy import map_images, note_files
from ..base.parts import map_parts, nonempty_parts
from ..base.transformer import ImageTransformer, for_table
from ..base.validation import Images, StackLike, check_images
from ..errors import ImageError, NonFiniteError
from ..linalg.scaling import largest_value
from ..passes.fit_together import PassLearner, fit_together
from ..passes.runner import Pass

__all__ = ["FeatureTransformer", "OverParts", "as_planes", "channel_names", "distinct", "n_channels"]

_PIECE_BYTES = 2**18  # bytes of images at a time, so that temporary float64 arrays stay in cache


class OverParts(NamedTuple):
    """How features are made of parts of images: picklable functions.

    Attributes
    ----------
    of_part : callable
        Numbers (b, 1, *shape), float64, of a part of some images (b, height, width[, n_channels]).
    joined : callable
        Features (b, n_features) from the numbers (b, n_parts, *shape) of all parts.
    shape : tuple of int
    """

    of_part: Callable[[np.ndarray], np.ndarray]
    joined: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]


class FeatureTransformer(PassLearner, ImageTransformer):
    """Base class of the transformers that return a row of features for every image.

    A subclass implements `_kernel` and `_names`. If it has parameters to check it overrides `_needed_pass`, and if it
    learns from a pass `_learn`, too; see `PassLearner`.
    """

    def fit(self, X: StackLike, y: Any = None) -> Self:
        """Check the parameters and the images' shape; read the images, once, only if a parameter is ``"stack"``.

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
            If parameters are invalid, or do not suit these images.
        NonFiniteError
            If an image that is read holds NaN or infinity; names the image (and file).
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
            If an image holds NaN or infinity, or a feature of it is beyond float64; names the image (and file). For a
            lazy stack this happens when the result is computed.
        """
        images = check_images(self, X, reset=False)
        n_features, data, kernel, check = len(self._names()), images.data, self._kernel(), self._check()
        over_parts = None if check is not None else self._over_parts(images.data.dtype)
        stored = nonempty_parts(images.data, all_channels=True)
        if over_parts is not None and stored is not None:
            data, kernel = map_parts(over_parts.of_part, images, stored, shape=over_parts.shape), over_parts.joined
        features = map_images(
            partial(features_of_block, kernel=kernel, n_features=n_features, check=check),
            data,
            image_shape=(n_features,),
            dtype=np.dtype(np.float64),
            files=images.files,
        )
        if isinstance(features, da.Array) and isinstance(images.data, da.Array):
            note_files(features, images.files, images.data)
        return for_table(self, features)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features; a name that occurs again gets a number.

        Parameters
        ----------
        input_features : array-like of str, optional
            Must equal the names in `fit`, if given.

        Returns
        -------
        names : ndarray of str, shape (n_features,)
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        return distinct(self._names())

    def _needed_pass(self, images: Images) -> Pass | None:
        return None

    def _learn(self, found: Any, images: Images) -> None:
        pass

    def _kernel(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return a picklable function of some images (b, *image_shape_) that returns their features (b, n_features)."""
        raise NotImplementedError

    def _over_parts(self, dtype: np.dtype) -> OverParts | None:
        """Return how features of images of a dtype are made of sums over parts of them; None if they need whole images.

        Only asked if there is no `_check`, which needs whole images.
        """
        return None

    def _names(self) -> list[str]:
        """Return the names of the features of an image, after `fit`."""
        raise NotImplementedError

    def _check(self) -> Callable[[np.ndarray], None] | None:
        """Return a picklable function that refuses blocks of images, or warns of them; None if all will do."""
        return None


def features_of_block(
    block: np.ndarray,
    *,
    kernel: Callable[[np.ndarray], np.ndarray],
    n_features: int,
    check: Callable[[np.ndarray], None] | None = None,
) -> np.ndarray:
    """Compute the features of a block (b, n_features), a few images at a time."""
    if check is not None:
        check(block)
    out = np.empty((len(block), n_features))
    step = max(1, _PIECE_BYTES // max(1, block[:1].nbytes))
    for i in range(0, len(block), step):
        images = block[i : i + step]
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
                features = kernel(images)
            _refuse_nonfinite(features, images)
        except ImageError as error:
            raise error.at(i, None) from error.__cause__
        if features.shape != (len(images), n_features):
            raise ValueError(
                f"a kernel returned features of shape {features.shape}, and ({len(images)}, {n_features}) is needed: a "
                "row for each image, with a number for each of the names"
            )
        out[i : i + step] = features
    return out


def _refuse_nonfinite(features: np.ndarray, images: np.ndarray) -> None:
    bad = first_nonfinite(features) if images.dtype.kind == "f" else None
    if bad is not None:
        largest = largest_value([images[bad]])
        reason = f"has values of up to {largest:.3g}, and a feature of it is beyond float64."
        raise NonFiniteError(bad, None, f"{reason} Divide all images, e.g. X / {largest:.1g}.")


def n_channels(image_shape: tuple[int, ...]) -> int:
    """Return the number of channels: the length of the last of three axes, 1 for images of fewer axes."""
    return image_shape[2] if len(image_shape) == 3 else 1


def channel_names(estimator: Any, features: list[str]) -> list[str]:
    """Return names for the same `features` of each channel of a fitted estimator's images, channel by channel."""
    channels = getattr(estimator, "channel_names_", None) or numbered_names(n_channels(estimator.image_shape_))
    return [f"{channel}_{feature}" for channel in channels for feature in features]


def distinct(names: list[str]) -> np.ndarray:
    """Return names of columns, a number added to those that occur again: ``"a", "b", "a"`` give ``"a", "b", "a_2"``."""
    found: dict[str, None] = {}
    for name in names:
        new, number = name, 2
        while new in found:
            new, number = f"{name}_{number}", number + 1
        found[new] = None
    return np.array(list(found), dtype=object)


def as_planes(images: np.ndarray) -> np.ndarray:
    """Return images as (b, n_channels, n_pixels), with each channel contiguous in memory; Booleans as 0 and 1.

    NumPy then sums a channel in the same order as if it were an array of its own: results are equal to the last bit.
    """
    dtype = np.dtype(np.uint8) if images.dtype == bool else images.dtype.newbyteorder("=")
    images = images.astype(dtype, copy=False)
    channels = np.moveaxis(images, -1, 1) if images.ndim == 4 else images[:, None]
    return np.ascontiguousarray(channels).reshape(*channels.shape[:2], -1)
