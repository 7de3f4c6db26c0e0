"""The probabilistic model of a fitted PCA: likelihoods and the covariance.

Tipping & Bishop (1999), "Mixtures of probabilistic principal component analyzers": the variances along the components,
and equal noise in all other directions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from ..base.gate import first_nonfinite
from ..base.lazy import map_images
from ..base.mask import positions_inside
from ..base.validation import Images, StackLike
from ..errors import NonFiniteError
from ..linalg.orthonormal import inner_products
from ..linalg.scaling import largest_value
from .checks import complete_images
from .projection import residual_squares

__all__ = ["LikelihoodMixin"]

_COVARIANCE_VALUES = 10_000  # a square of this many values a side is made, at most (800 MB)


class LikelihoodMixin:
    """Methods of `ImagePCA` that rest on its probabilistic model."""

    components_: np.ndarray
    mean_: np.ndarray
    mask_: np.ndarray | None
    explained_variance_: np.ndarray
    noise_variance_: float
    n_components_: int
    n_features_in_: int

    def score_samples(self, X: StackLike) -> np.ndarray | da.Array:
        """Log-likelihood of each image under the probabilistic PCA model.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.

        Returns
        -------
        log_likelihood : ndarray or dask array of shape (n_images,), float64

        Raises
        ------
        ValueError
            If no variance is left to stand for noise, so that the model has no density.
        NonFiniteError
            Naming the image (and file) with NaN or infinity, or so far from the images fitted that float64 does not
            hold its likelihood.

        References
        ----------
        Tipping & Bishop (1999), "Mixtures of probabilistic principal component analyzers", eq. 5; evaluated in the
        basis of the components, without a matrix of pixels x pixels.
        """
        return self._likelihoods(complete_images(self, X, "the likelihood"))

    def _likelihoods(self, images: Images) -> np.ndarray | da.Array:
        axes, mean = self._inside(self.components_), self._inside(self.mean_)
        k, p, noise = self.n_components_, len(mean), self.noise_variance_
        self._refuse_without_noise("no likelihood")
        noise = noise or 1.0  # all of k == p directions are components: no residual to weigh
        log_det = np.log(self.explained_variance_).sum() + (p - k) * np.log(noise)
        return map_images(
            partial(log_likelihood, noise, p * np.log(2 * np.pi) + log_det),
            images.data,
            image_shape=(),
            dtype=np.dtype(np.float64),
            files=images.files,
            positions=images.positions,
            axes=axes,
            mean=mean,
            variance=self.explained_variance_,
            inner=inner_products(axes),
        )

    def score(self, X: StackLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean log-likelihood of the images; reads a lazy stack once.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.
        y : ignored
        sample_weight : array-like of shape (n_images,), optional
            How often each image counts, at least 0. One of weight 0 is not looked at.

        Returns
        -------
        log_likelihood : float
        """
        images = complete_images(self, X, "the likelihood", sample_weight)
        return float(np.average(np.asarray(self._likelihoods(images)), weights=images.weights))

    def get_covariance(self) -> np.ndarray:
        """Covariance of the values of an image under the model: components and equal noise in all directions.

        Returns
        -------
        covariance : ndarray of shape (n_features_in_, n_features_in_), float64
            0 for pixels outside the mask.

        Raises
        ------
        ValueError
            If an image has more than 10,000 values: the square of them would not fit in memory.
        """
        check_is_fitted(self)
        p = self.n_features_in_
        _refuse_large(p, "get_covariance")
        axes = self.components_.astype(np.float64)
        covariance: np.ndarray = (axes.T * np.maximum(self.explained_variance_ - self.noise_variance_, 0)) @ axes
        covariance.flat[:: p + 1] += self.noise_variance_ * self._ones_inside()
        return covariance

    def get_precision(self) -> np.ndarray:
        """Inverse of the covariance under the model, by the inverse of a matrix of n_components_ x n_components_.

        Returns
        -------
        precision : ndarray of shape (n_features_in_, n_features_in_), float64
            It takes 8 bytes x n_features_in_**2 of memory, and as much again while it is made. The inverse of the
            covariance inside the mask, and 0 outside.

        Raises
        ------
        ValueError
            If an image has more than 10,000 values: the square of them would not fit in memory. If the covariance has
            no inverse, because no variance is left to stand for noise.
        """
        check_is_fitted(self)
        k, p, noise = self.n_components_, self.n_features_in_, float(self.noise_variance_)
        _refuse_large(p, "get_precision")
        self._refuse_without_noise("no inverse of the covariance")
        axes, variance = self.components_.astype(np.float64), self.explained_variance_.astype(np.float64)
        precision: np.ndarray
        if noise == 0:  # all of k == p directions are components
            precision = (axes.T / variance) @ axes
            return precision
        axes *= np.sqrt(np.maximum(variance - noise, 0))[:, None]
        inner = axes @ axes.T
        inner.flat[:: k + 1] += noise
        precision = axes.T @ np.linalg.solve(inner, axes)  # Woodbury's identity
        precision /= -noise
        precision.flat[:: p + 1] += self._ones_inside() / noise
        return precision

    def _inside(self, rows: np.ndarray) -> np.ndarray:
        """Return values (..., n_features_in_) of the pixels inside the mask, if there is one that leaves some out."""
        positions = positions_inside(self.mask_)
        return rows if positions is None else np.take(rows, positions, axis=-1)

    def _ones_inside(self) -> np.ndarray | float:
        return 1.0 if self.mask_ is None else self.mask_.ravel().astype(np.float64)

    def _refuse_without_noise(self, lacks: str) -> None:
        k = self.n_components_
        if (self.noise_variance_ == 0 and k < len(self._inside(self.mean_))) or self.explained_variance_[-1] <= 0:
            raise ValueError(
                f"The components explain all the variance, so that the model has no noise and {lacks}. "
                f"Fit fewer components, e.g. ImagePCA({max(1, k // 2)})."
            )


def _refuse_large(p: int, method: str) -> None:
    """Refuse a square matrix of the values of an image that takes too much memory."""
    if p > _COVARIANCE_VALUES:
        raise ValueError(
            f"The covariance of {p} values is a matrix of {p} x {p}, {8 * p * p / 2**30:.3g} GiB; {method} "
            f"makes up to {_COVARIANCE_VALUES} x {_COVARIANCE_VALUES}. Use components_, explained_variance_ and "
            "noise_variance_, which hold the same."
        )


def log_likelihood(
    noise: float,
    constant: float,
    block: np.ndarray,
    axes: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    inner: np.ndarray,
) -> np.ndarray:
    """Log-likelihood (b,) of a block of images: Tipping & Bishop (1999), eq. 5, in the basis of the components.

    `residual_squares` says how residuals are formed.
    """
    scores, squares = residual_squares([block], axes, mean, inner)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        likelihood: np.ndarray = -0.5 * (constant + (scores**2 / variance).sum(axis=1) + squares / noise)
    bad = first_nonfinite(likelihood)
    if bad is not None:
        largest = largest_value([block[bad]])
        reason = (
            f"has values of up to {largest:.3g}, so far from the images fitted that its likelihood is beyond float64."
        )
        raise NonFiniteError(bad, None, f"{reason} Give it the units of the images fitted.")
    return likelihood
