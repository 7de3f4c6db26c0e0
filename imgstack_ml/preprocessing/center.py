"""Centring: subtract the mean image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike

from ..base.gate import first_nonfinite
from ..base.lazy import note_source
from ..base.parts import Region, map_pixels
from ..base.state import unchanged_if_it_fails
from ..base.transformer import StackTransformer
from ..base.validation import Images, StackLike, check_images, working_dtype
from ..errors import NonFiniteError
from ..linalg.moments import (
    Moments,
    Sums,
    add_moments,
    add_weighted_moments,
    merge_sums_or_moments,
    sums_or_moments,
    weighted_moments,
)
from ..passes.fit_together import PassLearner, learn_in_one_pass
from ..passes.regions import assembled
from ..passes.steps import Pass

__all__ = ["StackCenterer"]


class StackCenterer(PassLearner, StackTransformer):
    """Subtract the mean image of the stack, and divide by the standard deviation of each pixel if asked.

    `ImagePCA` centres by itself without an extra pass; this transformer is for other uses of centred images. Before
    `ImagePCA` in a Pipeline over a lazy stack it costs its own pass in `fit` and nothing more: `ImagePCA` then reads
    the images as they were before centring.

    Parameters
    ----------
    with_std : bool, default=False
        Also scale every pixel to unit standard deviation over the stack.

    Attributes
    ----------
    mean_ : ndarray of shape (height, width[, n_channels]), float64
        Mean image, in the intensity units of the stack.
    scale_ : ndarray of the same shape, or None
        Standard deviation of each pixel over the stack (ddof=0); 1 where a pixel is constant. None without `with_std`.
    image_shape_ : tuple of int
        Shape of an image.
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
    n_features_in_ : int
        Values in one image.
    n_samples_ : int
        Images seen in fit, without those of weight 0.
    n_passes_ : float
        Reads of the stack in fit: 1.

    Notes
    -----
    One pass. Sums are in float64; those of blocks are combined by eq. 2.1 of Chan, Golub & LeVeque (1983).

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import StackCenterer
    >>> stack = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    >>> StackCenterer().fit(stack).mean_
    array([[ 9., 10., 11.],
           [12., 13., 14.]])
    """

    def __init__(self, with_std: bool = False):
        self.with_std = with_std

    def fit(self, X: StackLike, y: Any = None, sample_weight: ArrayLike | None = None) -> StackCenterer:
        """Learn the mean image in one pass.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            The images; a 2-D array holds one image a row.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_images,), optional
            How often each image counts, at least 0. One of weight 0 is not looked at.

        Returns
        -------
        self : StackCenterer

        Raises
        ------
        NonFiniteError
            Naming the image (and file) with a NaN or infinite pixel.
        ValueError
            If differences of images are beyond float64, or integers beyond 2**53; for weights that are negative, not
            finite, or all 0.
        """
        with unchanged_if_it_fails(self):
            learn_in_one_pass([self], X, sample_weight=sample_weight)
        return self

    def _needed_pass(self, images: Images) -> Pass:
        norms = bool(self.with_std)
        if images.weights is not None:
            weighted = partial(weighted_moments, with_norms=norms)
            add = partial(add_weighted_moments, weights=images.weights, with_norms=norms)
            return Pass(weighted, merge_sums_or_moments, 24 * images.n_pixels, "mean image", add, _joined)
        given: dict[str, Any] = {"n_images": len(images.data), "with_norms": norms}
        step, fold = partial(sums_or_moments, **given), partial(add_moments, **given)
        return Pass(step, merge_sums_or_moments, 24 * images.n_pixels, "mean image", fold, _joined)

    def _learn(self, found: Sums | Moments, images: Images) -> None:
        mean, norms = found.means(), found.deviations() if found[-1] is not None else None
        if not np.isfinite(mean).all() or not (norms is None or np.isfinite(norms).all()):
            raise ValueError(
                "Differences of images are beyond float64. Divide the stack, e.g. StackCenterer().fit(X / 1e4)."
            )
        self.n_samples_ = len(images.data)
        self.mean_ = mean.reshape(images.image_shape)
        self.scale_ = None if norms is None else _scale(norms, found.n).reshape(images.image_shape)

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Subtract the mean image (and divide by the scale).

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.

        Returns
        -------
        centred : ndarray or dask array of the shape of `X`
            float32 for integers of up to 16 bits and float32, float64 otherwise.

        Raises
        ------
        NonFiniteError
            Naming the image (and file) with NaN or infinity, or whose result is beyond the dtype. For a lazy stack this
            happens when the result is computed.
        """
        images = check_images(self, X, reset=False)
        centred = self._map(_centred, images)
        return centred if self.scale_ is not None else note_source(centred, images.data, self.mean_.ravel())

    def inverse_transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Undo `transform`: multiply by the scale and add the mean image.

        Parameters
        ----------
        X : ndarray or dask array of shape (n_images, height, width[, n_channels])
            Centred images.

        Returns
        -------
        images : ndarray or dask array of the shape of `X`, float32 or float64
        """
        return self._map(_restored, check_images(self, X, reset=False))

    def _map(self, func: Any, images: Images) -> np.ndarray | da.Array:
        learned: dict[str, Any] = {"mean": self.mean_}
        if self.scale_ is not None:
            learned["scale"] = self.scale_
        return map_pixels(func, images, dtype=working_dtype(images.data.dtype), **learned)


def _joined(totals: list[Any], regions: Sequence[Region]) -> Moments:
    """Join the moments of regions, or of weighted images in regions."""
    totals = [getattr(total, "moments", total) for total in totals]
    # One array for all regions: to touch new memory for each would take longer than what is computed.
    work = np.empty(max(total[1].size for total in totals))
    mean = assembled((total.means(out=work[: total[1].size]) for total in totals), regions)
    norms = None
    if totals[0][-1] is not None:
        norms = assembled((total.deviations(out=work[: total[1].size]) for total in totals), regions)
    return Moments(totals[0].n, mean, np.zeros_like(mean), norms)


def _scale(norms: np.ndarray, n: float) -> np.ndarray:
    """Turn norms into standard deviations, in place; 1 where a pixel is constant."""
    norms /= n**0.5
    norms[norms == 0] = 1  # exactly 0 there: differences from the first image are
    return norms


def _centred(
    block: np.ndarray, mean: np.ndarray, scale: np.ndarray | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    return _within_dtype(_subtract, block, mean, scale, out)


def _restored(
    block: np.ndarray, mean: np.ndarray, scale: np.ndarray | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    return _within_dtype(_add, block, mean, scale, out)


def _within_dtype(
    compute: Callable[..., None],
    block: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray | None,
    out: np.ndarray | None,
) -> np.ndarray:
    """Return ``compute(block, mean, scale, out)``; an image whose result is too large for the dtype raises."""
    out = np.empty(block.shape, working_dtype(block.dtype)) if out is None else out
    try:
        with np.errstate(over="raise"):
            compute(block, mean, scale, out)
    except FloatingPointError as error:
        with np.errstate(over="ignore", invalid="ignore"):
            compute(block, mean, scale, out)
        bad = first_nonfinite(out) or 0
        largest = max(np.abs(block[bad]).max(), np.abs(mean).max())
        reason = (
            f"or the mean has values up to {largest:.3g}, and the result is beyond {out.dtype}. Fit X / {largest:.1g}."
        )
        raise NonFiniteError(bad, None, reason) from error
    return out


def _subtract(block: np.ndarray, mean: np.ndarray, scale: np.ndarray | None, out: np.ndarray) -> None:
    if scale is None:
        np.subtract(block, mean, out=out, casting="same_kind")  # computed in float64, rounded once
    else:
        work = np.subtract(block, mean, out=out if out.dtype == np.float64 else None)
        np.divide(work, scale, out=out, casting="same_kind")


def _add(block: np.ndarray, mean: np.ndarray, scale: np.ndarray | None, out: np.ndarray) -> None:
    work = out if out.dtype == np.float64 else None  # for float32 results a float64 temporary, so that they round once
    restored = np.multiply(block, 1 if scale is None else scale, out=work, dtype=np.float64)
    np.add(restored, mean, out=out, casting="same_kind")
