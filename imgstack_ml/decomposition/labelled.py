"""The fitted parts of `ImagePCA` as images, and as a Dataset of xarray, whose axes have names and coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from sklearn.utils.validation import check_is_fitted

from .. import __version__
from ..base.lazy import samples_of
from ..base.validation import FileStack, StackLike, check_rows

if TYPE_CHECKING:
    import xarray

__all__ = ["LabelledMixin"]

_ATTRIBUTES = ("svd_solver_", "n_samples_", "n_passes_", "n_iter_", "noise_variance_")
_OF_COMPONENTS = ("explained_variance", "explained_variance_ratio", "singular_values")


class LabelledMixin:
    """Parts of a fitted `ImagePCA` as images, and with names for their axes."""

    components_: np.ndarray
    mean_: np.ndarray
    n_components_: int
    n_features_in_: int
    image_shape_: tuple[int, ...]
    transform: Callable[..., Any]

    @property
    def eigenimages_(self) -> np.ndarray:
        """Components as images (n_components_, height, width[, n_channels]); a view."""
        return self.components_.reshape(-1, *self.image_shape_)

    @property
    def mean_image_(self) -> np.ndarray:
        """Mean as an image (height, width[, n_channels]); a view."""
        return self.mean_.reshape(self.image_shape_)

    def to_xarray(self, scores: Any = None, *, stack: StackLike | None = None) -> xarray.Dataset:
        """Put the fitted arrays, and scores if given, into a Dataset of xarray; needs xarray.

        Parameters
        ----------
        scores : ndarray, dask array, data frame or DataArray of shape (n_images, n_components_), optional
            As from `transform`. Lazy ones stay lazy.
        stack : ImageStack, DataArray or another stack, optional
            The images that the scores are of: names and coordinates of the samples are its own. Without `scores`,
            those of these images are computed, lazily for a lazy stack.

        Returns
        -------
        dataset : xarray.Dataset
            ``components`` (component, y, x[, channel]), or (component, feature) after a fit to rows;
            ``explained_variance``, ``explained_variance_ratio`` and ``singular_values`` (component); ``mean_image`` and
            ``residual_variance_image`` of each pixel; ``scores`` (sample, component). The coordinate of ``component``
            is its position, from 0; those of ``channel`` are `channel_names_`. Those of the samples are the files,
            labels and further axes of an ImageStack, or what a DataArray has along its first axis, whose name stays.
            They come with `stack`, or with lazy scores that are the result of a transform of one; the estimator keeps
            none. Attributes are strings and numbers, so that ``dataset.to_zarr(path)`` works.

        Raises
        ------
        ImportError
            xarray is not installed.
        ValueError
            `scores` has another shape, or not as many rows as `stack` has images.

        Examples
        --------
        >>> from imgstack_ml import ImagePCA
        >>> from imgstack_ml.datasets import load_faces
        >>> faces = load_faces()[0]
        >>> dataset = ImagePCA(n_components=4).fit(faces).to_xarray(stack=faces)
        >>> dict(dataset.sizes)
        {'component': 4, 'y': 25, 'x': 25, 'sample': 200}
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray needs the package xarray: pip install 'imgstack_ml[xarray]'") from error
        check_is_fitted(self)
        pixel = ("y", "x", "channel")[: len(self.image_shape_)] if len(self.image_shape_) > 1 else ("feature",)
        arrays: dict[str, Any] = {"components": (("component", *pixel), self.eigenimages_)}
        arrays |= {name: ("component", getattr(self, f"{name}_")) for name in _OF_COMPONENTS}
        arrays["mean_image"] = (pixel, self.mean_image_)
        if hasattr(self, "residual_variance_image_"):
            arrays["residual_variance_image"] = (pixel, self.residual_variance_image_)
        coords: dict[str, Any] = {"component": np.arange(self.n_components_)}
        if hasattr(self, "feature_names_in_"):
            coords["feature"] = self.feature_names_in_
        if names := getattr(self, "channel_names_", ()):  # of a single one, a coordinate without an axis
            coords["channel"] = (
                ("channel", np.array(names, object)) if "channel" in pixel else np.array(names[0], object)
            )
        attrs = {name.rstrip("_"): getattr(self, name) for name in _ATTRIBUTES if hasattr(self, name)}
        attrs = {name: value.item() if isinstance(value, np.generic) else value for name, value in attrs.items()}
        dataset = xarray.Dataset(arrays, coords, {"imgstack_ml": __version__, **attrs})
        if scores is None and stack is None:
            return dataset
        labelled = _labelled_scores(xarray, self, self.transform(stack) if scores is None else scores, stack)
        return dataset.assign(scores=labelled)


def _labelled_scores(xarray: Any, pca: Any, scores: Any, stack: Any) -> xarray.DataArray:
    """Return scores as a DataArray with the name and coordinates of the samples, if they are known."""
    found = scores.to_numpy() if hasattr(scores, "columns") and hasattr(scores, "to_numpy") else scores
    rows: Any = check_rows("ImagePCA.to_xarray", found, pca.n_components_).data
    samples = _samples_in(scores) if stack is None else _samples_in(stack)
    if stack is not None and len(rows) != len(stack):
        raise ValueError(f"scores has {len(rows)} rows, and stack has {len(stack)} images. Give those of these images.")
    if isinstance(rows, da.Array):  # zarr has chunks of one size
        rows = rows.rechunk({0: max(rows.chunks[0]), 1: -1})
    dim, coords = _coordinates(samples)
    if samples is None and hasattr(scores, "index") and hasattr(scores.index, "to_numpy"):
        coords[dim] = scores.index.to_numpy()
    return xarray.DataArray(rows, dims=(dim, "component"), coords=coords)


def _samples_in(named: Any) -> Any:
    """Return what names the rows of an ImageStack, of an array of xarray, or of a lazy array."""
    if isinstance(named, FileStack) or not hasattr(named, "coords"):
        return named if isinstance(named, FileStack) else samples_of(named)
    return named.coords.to_dataset().assign_attrs(sample=named.dims[0])


def _coordinates(samples: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of the axis of the samples, and the coordinates along it."""
    if samples is None:
        return "sample", {}
    if isinstance(samples, FileStack):
        stack: Any = samples  # an ImageStack
        found, axis = stack.to_xarray().coords, "sample"
    else:
        found, axis = samples.coords, samples.attrs["sample"]
    taken = ("component", "feature", "y", "x", "channel")
    name = "sample" if axis in taken else axis
    along = {key: one for key, one in found.items() if one.dims == (axis,) and key not in taken}
    return name, {name if key == axis else key: (name, _for_zarr(one.values)) for key, one in along.items()}


def _for_zarr(values: np.ndarray) -> np.ndarray:
    """Return strings as objects: version 3 of zarr knows no strings of fixed length, and warns of them."""
    return values.astype(object) if values.dtype.kind == "U" else values
