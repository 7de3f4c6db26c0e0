"""Images drawn from chosen components, what the components leave of them, and statistics of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt

from ..base.gate import first_nonfinite
from ..base.lazy import map_images
from ..base.mask import put_back
from ..base.validation import Images, StackLike
from ..errors import NonFiniteError
from ..linalg.orthonormal import inner_products
from ..linalg.scaling import largest_value
from .checks import complete_images
from .projection import project, reconstruct, residual_squares, residuals, rounded

__all__ = ["OutlierStatistics", "ResidualsMixin", "chosen_components", "hotelling", "of_components"]


class OutlierStatistics(NamedTuple):
    """How unlike the images fitted each of n images is. Made by `ImagePCA.outlier_statistics`.

    Attributes
    ----------
    q : ndarray or dask array of shape (n,), float64
        Squared residual: the sum of squares of what the components leave of an image.
    t2 : ndarray or dask array of shape (n,), float64
        Hotelling's T squared: the sum of squares of the scores, each divided by the variance of its component.
    """

    q: np.ndarray | da.Array
    t2: np.ndarray | da.Array


class ResidualsMixin:
    """Methods of `ImagePCA` that compare images with what the components make of them."""

    components_: np.ndarray
    mean_: np.ndarray
    explained_variance_: np.ndarray
    _inside: Callable[[np.ndarray], np.ndarray]

    def reconstruct(
        self, X: StackLike, components: Sequence[int] | None = None, dtype: npt.DTypeLike | None = None
    ) -> np.ndarray | da.Array:
        """Draw images from chosen components: the mean image, and the parts of `X` along these components.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.
        components : sequence of int, optional
            Positions in `components_`, from 0, in any order; negative ones count from the end. All by default; none
            for an empty list, which gives the mean.
        dtype : dtype, optional
            Of the result; by default that of `components_`. An integer dtype rounds, half to even as `numpy.rint`, and
            clips what is beyond it.

        Returns
        -------
        images : ndarray or dask array of the shape of `X`
            In the intensity units of the stack, and 0 outside a mask; lazy for lazy input. That of an ImageStack goes
            straight into `save_stack` and `write_images`, with the names and labels of its images.

        Raises
        ------
        IndexError
            There is no component of that position.
        TypeError
            `components` has something else than integers, such as Booleans; `dtype` is neither of integers nor of
            floats of up to 64 bits.
        ValueError
            A component occurs twice; a number is beyond a floating-point `dtype`.

        Examples
        --------
        >>> import numpy as np
        >>> from imgstack_ml import ImagePCA
        >>> stack = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype="uint8")
        >>> pca = ImagePCA(n_components=4).fit(stack)
        >>> pca.reconstruct(stack, components=[0, 2], dtype="uint8").dtype
        dtype('uint8')
        """
        images = complete_images(self, X, "reconstruct")
        wanted = self.components_.dtype if dtype is None else _image_dtype(dtype)
        return of_components(self, partial(_drawn, wanted), images, components, wanted)

    def residuals(self, X: StackLike, components: Sequence[int] | None = None) -> np.ndarray | da.Array:
        """Return what chosen components leave of images: ``X - reconstruct(X, components)``, signed.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.
        components : sequence of int, optional
            As for `reconstruct`. An empty list leaves the images less their mean.

        Returns
        -------
        images : ndarray or dask array of the shape of `X`
            In the dtype of `components_`, formed pixel by pixel from the centred images; lazy for lazy input.

        Raises
        ------
        IndexError, TypeError, ValueError
            As from `reconstruct`.
        """
        images = complete_images(self, X, "residuals")
        return of_components(self, residuals, images, components, self.components_.dtype)

    def outlier_statistics(self, X: StackLike) -> OutlierStatistics:
        """Tell how unlike the images fitted each image is: beside the components, and along them.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.

        Returns
        -------
        statistics : OutlierStatistics
            With the arrays `q` and `t2`, (n_images,) each; lazy for lazy input, and ``dask.compute(*statistics)`` reads
            it once.

        Raises
        ------
        NonFiniteError
            Naming the image (and file) with NaN or infinity, or so far from the images fitted that float64 does not
            hold its statistics.

        Notes
        -----
        Both are computed in float64, `q` from the residuals themselves. `t2` is the sum of squares of whitened scores.
        Components of variance 0 have arbitrary directions. They are left out: what an image has along them counts in
        `q`.

        References
        ----------
        Jackson & Mudholkar (1979), "Control procedures for residuals associated with principal component analysis".

        Examples
        --------
        >>> import numpy as np
        >>> from imgstack_ml import ImagePCA
        >>> stack = np.random.default_rng(0).normal(size=(60, 16, 16))
        >>> pca = ImagePCA(n_components=4).fit(stack)
        >>> stack[7] += 5  # brighter than any image fitted
        >>> int(pca.outlier_statistics(stack).q.argmax())
        7
        """
        images = complete_images(self, X, "outlier_statistics")
        real = self.explained_variance_ > 0
        axes = self._inside(self.components_ if real.all() else self.components_[real])
        both = map_images(
            outlier_values,
            images.data,
            image_shape=(2,),
            dtype=np.dtype(np.float64),
            files=images.files,
            positions=images.positions,
            axes=axes,
            mean=self._inside(self.mean_),
            variance=self.explained_variance_[real],
            inner=inner_products(axes),
        )
        return OutlierStatistics(both[:, 0], both[:, 1])


def chosen_components(components: Any, k: int, name: str = "components") -> np.ndarray:
    """Return positions of components of k, as integers from 0; all for None. `name` is the parameter's.

    Raises
    ------
    IndexError, TypeError, ValueError
        See `ResidualsMixin.reconstruct`.
    """
    if components is None:
        return np.arange(k)
    if not isinstance(components, Sequence | np.ndarray) or isinstance(components, str | bytes):
        raise TypeError(
            f"{name}={components!r} is no list of components. Give their positions, e.g. [0, 2], or range(3) for "
            "the first three."
        )
    for position in components:
        if isinstance(position, bool) or not isinstance(position, int | np.integer):
            raise TypeError(
                f"{name} has {position!r}, and positions of components are integers from 0 to {k - 1}. Of Booleans "
                f"give numpy.flatnonzero({name})."
            )
        if not -k <= position < k:
            raise IndexError(f"{name}: there is no component {position} of {k}: positions go from 0 to {k - 1}.")
    positions = np.array([int(position) % k for position in components], dtype=np.intp)
    counts = np.bincount(positions, minlength=1)
    if counts.max() > 1:
        raise ValueError(f"{name}={components!r} has component {counts.argmax()} twice. Give each once.")
    return positions


def _image_dtype(dtype: npt.DTypeLike) -> np.dtype:
    """Return the dtype of images that are asked for, or raise."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype={dtype!r} is none of NumPy's. Give e.g. 'uint8' or 'float32'.") from error
    if found.kind not in "iuf" or found.itemsize > 8:
        line = "of Booleans, compare the result with a threshold: pca.reconstruct(X) > 0.5" if found.kind == "b" else ""
        raise TypeError(
            f"dtype={found} is none of images: integers, or floats of up to 64 bits, e.g. 'uint8' or 'float32'"
            f"{line and f'; {line}'}."
        )
    return found


def of_components(
    pca: Any, func: Callable[..., np.ndarray], images: Images, components: Sequence[int] | None, dtype: np.dtype
) -> np.ndarray | da.Array:
    """Make other images by ``func(block, axes, mean)``, which returns rows (b, p), and some components of a PCA."""
    chosen = chosen_components(components, len(pca.components_))
    return map_images(
        partial(_as_images, func, images.image_shape, images.mask if images.values_read else None),
        images.data,
        image_shape=images.image_shape,
        dtype=dtype,
        files=images.files,
        positions=images.positions,
        axes=pca._inside(pca.components_ if components is None else pca.components_[chosen]),
        mean=pca._inside(pca.mean_),
    )


def _as_images(
    func: Callable[..., np.ndarray],
    image_shape: tuple[int, ...],
    mask: np.ndarray | None,
    block: np.ndarray,
    axes: np.ndarray,
    mean: np.ndarray,
) -> np.ndarray:
    return put_back(func(block, axes, mean), mask).reshape(len(block), *image_shape)


def _drawn(dtype: np.dtype, block: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows (b, p) from the axes, in `dtype`."""
    ones = np.ones(len(axes))
    return rounded(reconstruct(mean.shape, project(block, axes, mean, ones), axes, mean, ones), dtype)


def hotelling(scores: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Hotelling's T squared (n,) of scores (n, k), from the components whose variance is not 0."""
    real = variance > 0
    t2: np.ndarray = (scores[:, real] ** 2 / variance[real]).sum(axis=1)
    return t2


def outlier_values(
    block: np.ndarray, axes: np.ndarray, mean: np.ndarray, variance: np.ndarray, inner: np.ndarray
) -> np.ndarray:
    """Squared residual and Hotelling's T squared (b, 2) of a block of images."""
    scores, squares = residual_squares([block], axes, mean, inner)
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.stack([squares, hotelling(scores, variance)], axis=1)
    bad = first_nonfinite(found)
    if bad is not None:
        reason = (
            f"has values of up to {largest_value([block[bad]]):.3g}, so far from the images fitted that its statistics "
            "are beyond float64. Give it the units of the images fitted."
        )
        raise NonFiniteError(bad, None, reason)
    return found
