"""Images without some components, or drawn from some: a fitted PCA as a step of a Pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _raise_for_params, process_routing
from sklearn.utils.validation import check_is_fitted

from ..base.state import unchanged_if_it_fails
from ..base.transformer import StackTransformer
from ..base.validation import StackLike, check_images
from .checks import complete_images
from .image_pca import ImagePCA
from .projection import residuals
from .residuals import chosen_components, of_components

__all__ = ["ComponentFilter"]


class ComponentFilter(MetaEstimatorMixin, StackTransformer):
    """Keep or remove components of images: images in, images out, lazily.

    With `keep`, images are drawn from these components alone, which removes noise. With `remove`, these components are
    taken out of the images, and all else stays: a background that flickers, stripes, the light of a day.

    Parameters
    ----------
    estimator : ImagePCA or FrozenEstimator
        Fitted in `fit`, as a copy. ``FrozenEstimator(pca)`` of scikit-learn is used as it was fitted: then `fit` reads
        nothing.
    keep : sequence of int, optional
        Positions of the components to draw from, from 0; negative ones count from the end. All if `remove` is None too.
    remove : sequence of int, optional
        Positions of the components to take out. Not together with `keep`.

    Attributes
    ----------
    estimator_ : ImagePCA or FrozenEstimator
        The fitted estimator.
    image_shape_ : tuple of int
        Shape of an image.
    n_features_in_ : int
        Values in one image.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of a data frame, where one was given.

    See Also
    --------
    ImagePCA.reconstruct : Images from chosen components.
    ImagePCA.residuals : What chosen components leave, without the mean.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn.frozen import FrozenEstimator
    >>> from imgstack_ml import ComponentFilter, ImagePCA
    >>> stack = da.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype="uint8", chunks=(20, 16, 16))
    >>> pca = ImagePCA(n_components=4).fit(stack)
    >>> ComponentFilter(FrozenEstimator(pca), remove=[0]).fit_transform(stack)
    dask.array<as_images, shape=(60, 16, 16), dtype=float32, chunksize=(20, 16, 16), chunktype=numpy.ndarray>
    """

    def __init__(self, estimator: Any, *, keep: Sequence[int] | None = None, remove: Sequence[int] | None = None):
        self.estimator = estimator
        self.keep = keep
        self.remove = remove

    def fit(self, X: StackLike, y: Any = None, **fit_params: Any) -> ComponentFilter:
        """Fit a copy of the estimator; a frozen one is only compared with the shape of the images.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            The images, as for `ImagePCA.fit`; or rows of shape (n_samples, n_features).
        y : ignored
        **fit_params
            Metadata for the `fit` of the estimator, by scikit-learn's metadata routing.

        Returns
        -------
        self : ComponentFilter

        Raises
        ------
        ValueError
            Both `keep` and `remove` are given, or one has a component twice; images have another shape than those that
            a frozen estimator was fitted on.
        IndexError
            There is no component of that position.
        TypeError
            `estimator` is no ImagePCA, nor a frozen one; a position is no integer.
        NotFittedError
            A frozen estimator is not fitted.
        """
        with unchanged_if_it_fails(self):
            _pca_of(self.estimator)
            if self.keep is not None and self.remove is not None:
                raise ValueError(f"keep={self.keep!r} and remove={self.remove!r} are both given. Give one of them.")
            _raise_for_params(fit_params, self, "fit")
            if isinstance(getattr(self.estimator, "n_components", None), int):  # not after a fit of many images
                self._check_positions(self.estimator.n_components)
            check_images(self, _unmasked(self.estimator, X), reset=True, finite=False)  # the estimator looks for NaN
            routed = process_routing(self, "fit", **fit_params)
            self.estimator_ = clone(self.estimator).fit(X, y, **routed.estimator.fit)
            pca = _pca_of(self.estimator_)
            check_is_fitted(pca)
            if pca.image_shape_ != self.image_shape_:
                raise ValueError(
                    f"X has images of shape {self.image_shape_}, and {self.estimator!r} was fitted on images of shape "
                    f"{tuple(pca.image_shape_)}. Resize or crop them to that shape, or fit an ImagePCA on images of "
                    "this shape."
                )
            self._check_positions(pca.n_components_)
        return self

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Draw images from the components kept, or take those out that are removed.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.

        Returns
        -------
        images : ndarray or dask array of the shape of `X`
            In the dtype of the components and the intensity units of the images; lazy for lazy input.
        """
        check_is_fitted(self)
        check_images(self, _unmasked(self.estimator_, X), reset=False, finite=False)
        pca = _pca_of(self.estimator_)
        if self.remove is None:
            return pca.reconstruct(X, self.keep)
        images = complete_images(pca, X, "ComponentFilter")
        return of_components(pca, partial(residuals, with_mean=True), images, self.remove, pca.components_.dtype)

    def _check_positions(self, k: int) -> None:
        name = "keep" if self.remove is None else "remove"
        chosen_components(getattr(self, name), k, name)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the routing of metadata: what `fit` gets is for the estimator.

        Returns
        -------
        routing : MetadataRouter
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add(estimator=self.estimator, method_mapping=mapping)


def _unmasked(estimator: Any, X: Any) -> Any:
    """Return images without a mask of their own, for checks of their shape, if the PCA takes masked pixels."""
    if _pca_of(estimator).missing == "raise":
        return X
    if isinstance(X, da.Array):
        return da.ma.getdata(X)
    return np.ma.getdata(X) if isinstance(X, np.ma.MaskedArray) else X


def _pca_of(estimator: Any) -> ImagePCA:
    """Return the ImagePCA that is given, frozen or not."""
    pca = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if not isinstance(pca, ImagePCA):
        raise TypeError(
            f"estimator={estimator!r} is no ImagePCA. Give ComponentFilter(ImagePCA(16), ...), or FrozenEstimator(pca) "
            "of a fitted one; steps before it go before the ComponentFilter, into a Pipeline."
        )
    return pca
