"""Find the PCA in an estimator or a Pipeline, and how images become scores and back; by attributes, not by class."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import NotFittedError

from ..base.channels import are_known, channel_names_of
from ..base.mask import put_back
from ..base.validation import is_lazy

__all__ = [
    "Route",
    "estimator_steps",
    "find_channel_names",
    "find_eigenimages",
    "find_mask",
    "find_route",
    "hide_outside",
    "names_of_channels",
    "refuse_marks",
    "split_at_pca",
]


def estimator_steps(estimator: Any) -> list[Any]:
    """List the steps of a Pipeline; any other estimator is its own single step."""
    if not hasattr(estimator, "steps"):
        return [estimator]
    return [step for _, step in estimator.steps if step not in (None, "passthrough")]


def split_at_pca(estimator: Any) -> tuple[list[Any], Any]:
    """Return the steps before the fitted PCA, and the PCA.

    Raises
    ------
    NotFittedError
        If no step has ``explained_variance_ratio_``.
    """
    steps = estimator_steps(estimator)
    for position, step in enumerate(steps):
        if hasattr(step, "explained_variance_ratio_"):
            return steps[:position], step
    raise NotFittedError(
        f"{type(estimator).__name__} holds no fitted PCA (no explained_variance_ratio_). "
        "Give a fitted ImagePCA, or a Pipeline with one in it: call estimator.fit(X) first."
    )


def find_eigenimages(estimator: Any, n_components: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `n_components` eigenimages of a fitted estimator, or all of them, and its mean image.

    If masks leave pixels out, they are masked arrays, which hide these.

    Raises
    ------
    NotFittedError
        If there is no fitted PCA.
    ValueError
        If the shape of an image is not known.
    """
    steps, pca = split_at_pca(estimator)
    eigenimages = getattr(pca, "eigenimages_", pca.components_)[:n_components]
    # After a StackCenterer, the mean of the PCA is zero up to rounding; the mean of the images is the StackCenterer's.
    pca_mean = getattr(pca, "mean_image_", pca.mean_)
    mean = next((step.mean_ for step in steps if hasattr(step, "mean_")), pca_mean)
    inside = find_mask(estimator)
    images, (mean_image,) = _as_images(eigenimages, steps), _as_images(mean[np.newaxis], steps)
    return hide_outside(images, inside), hide_outside(mean_image[np.newaxis], inside)[0]


def find_channel_names(estimator: Any) -> tuple[str, ...]:
    """Return the names of the channels of the eigenimages; empty where no step knows them.

    A step that applies a function of the user's may change what a channel is: names from before it are not used.
    """
    steps, pca = split_at_pca(estimator)
    names: tuple[str, ...] = ()
    for step in (pca, *reversed(steps)):
        if hasattr(step, "func") and step is not pca:
            break
        own = getattr(step, "channel_names_", ())
        if are_known(own) and len(own) == len(names or own):
            return tuple(own)
        names = names or own
    return names


def names_of_channels(estimator: Any, X: Any) -> tuple[str, ...]:
    """Return the names of the channels of images that are the input of an estimator; of its own images without `X`."""
    if hasattr(X, "dtype"):
        return channel_names_of(X, X.shape[1:], X.dtype)
    return next((step.channel_names_ for step in estimator_steps(estimator) if hasattr(step, "channel_names_")), ())


def find_mask(estimator: Any) -> np.ndarray | None:
    """Return the pixels that the masks of a fitted PCA and of the steps before it use, or None for all.

    The mask has the shape of the images that come to the first step with a mask.
    """
    steps, pca = split_at_pca(estimator)
    inside: np.ndarray | None = None
    for step in (pca, *reversed(steps)):
        own, shape = getattr(step, "mask_", None), getattr(step, "image_shape_", ())
        if own is not None and inside is not None and inside.size == np.count_nonzero(own):
            whole = np.zeros_like(own)
            whole[own] = inside.ravel()
            inside = whole
        elif own is not None:
            inside = own
        elif inside is not None and inside.size == prod(shape):
            inside = inside.reshape(shape)
    return None if inside is None or inside.all() else inside


def hide_outside(images: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """Return images (b, *image_shape) as a masked array, which hides the pixels outside a mask of that shape."""
    if inside is None or images.shape[1:] != inside.shape:
        return images
    return np.ma.array(images, mask=np.broadcast_to(~inside, images.shape))


def _as_images(rows: np.ndarray, steps: list[Any]) -> np.ndarray:
    """Give flattened rows (k, p) the shape of the images that the last of the steps to see such images saw.

    Raises
    ------
    ValueError
        If no step has seen images of p values, so that their shape is not known.
    """
    if rows.ndim > 2:
        return rows
    for step in reversed(steps):
        image_shape, mask = getattr(step, "image_shape_", ()), getattr(step, "mask_", None)
        if mask is not None and np.count_nonzero(mask) == rows.shape[1]:
            rows = put_back(rows, mask)
        if len(image_shape) > 1 and prod(image_shape) == rows.shape[1]:
            return rows.reshape(len(rows), *image_shape)
    raise ValueError(
        f"the PCA was fitted on rows of {rows.shape[1]} features, and no ImageFlattener before it knows the "
        "shape of an image. Fit on images, or draw "
        "EigenimageDisplay(pca.components_.reshape(-1, height, width)).plot()"
    )


class Route(NamedTuple):
    """The steps of a fitted Pipeline that turn images into scores, and scores into images again.

    Attributes
    ----------
    before : list of estimators
        The first steps, up to the last one without ``inverse_transform``. Their output is what reconstructions are
        compared with.
    between : list of estimators
        The steps after those and before the PCA; all have ``inverse_transform``.
    pca : estimator
        The fitted PCA.
    """

    before: list[Any]
    between: list[Any]
    pca: Any

    def prepare(self, images: Any) -> Any:
        """Transform images by the steps `before`; here and below, lazy images stay lazy."""
        return _transform(self.before, images)

    def scores(self, prepared: Any) -> Any:
        """Project prepared images onto the components: (n_images, n_components)."""
        return _as_array(self.pca.transform(_transform(self.between, prepared)))

    def reconstruct(self, scores: Any, components: int | Sequence[int] | None = None) -> Any:
        """Make images, in the shape of prepared ones, from all scores; or from the first ones, or some positions."""
        if components is not None:
            chosen = range(components) if isinstance(components, int) else components
            scores = scores * np.isin(np.arange(scores.shape[1]), chosen).astype(scores.dtype)
        images = self.pca.inverse_transform(scores)
        for step in reversed(self.between):
            images = step.inverse_transform(images)
        return _as_array(images)


def find_route(estimator: Any) -> Route:
    """Split the steps of a fitted Pipeline after the last one that cannot be inverted.

    Raises
    ------
    NotFittedError
        If there is no fitted PCA.
    """
    steps, pca = split_at_pca(estimator)
    n_before = len(steps)
    while n_before and hasattr(steps[n_before - 1], "inverse_transform"):
        n_before -= 1
    return Route(steps[:n_before], steps[n_before:], pca)


def refuse_marks(caller: str, pca: Any) -> None:
    """Raise ValueError if a number marks missing pixels for a PCA: in images it would be taken for a value."""
    if getattr(pca, "missing", "raise") != "raise" and not np.isnan(pca.missing_values):
        raise ValueError(
            f"{caller} takes complete images, and missing_values={pca.missing_values!r} of the ImagePCA marks missing "
            "pixels. Fill these in the images, and set pca.set_params(missing_values=numpy.nan)."
        )


def _transform(steps: list[Any], images: Any) -> Any:
    for step in steps:
        images = step.transform(images)
    return _as_array(images)


def _as_array(values: Any) -> Any:
    """Make an array of a table, which steps return after ``set_output``; lazy arrays and stacks stay as they are."""
    return values if is_lazy(values) else np.asarray(values)
