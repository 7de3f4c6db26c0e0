"""Find what a Display needs in an estimator or a Pipeline, by attributes and not by class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from ..base.validation import FileStack, Images, check_images, data_and_files, is_lazy


def check_stack(asker: str, X: Any) -> Images:
    """Check a stack for what is no estimator, e.g. a Display, by whose name errors begin; as `check_images` does."""
    return check_images(type(asker, (BaseEstimator,), {})(), X, reset=True)


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


def rows_to_images(rows: np.ndarray, steps: list[Any]) -> np.ndarray:
    """Turn flattened rows (k, p) back into images (k, H, W[, C]) of the shape that the last such step has seen.

    Raises
    ------
    ValueError
        If no step has seen images of p values, so that their shape is not known.
    """
    for step in reversed(steps):
        image_shape = getattr(step, "image_shape_", ())
        if len(image_shape) > 1 and prod(image_shape) == rows.shape[1]:
            return rows.reshape(len(rows), *image_shape)
    raise ValueError(
        f"the PCA was fitted on rows of {rows.shape[1]} features, and no ImageFlattener before it knows the "
        "shape of an image. Fit on images, or draw "
        "EigenimageDisplay(pca.components_.reshape(-1, height, width)).plot()"
    )


class Route(NamedTuple):
    """The way of images through the steps before a PCA, into scores and back.

    Attributes
    ----------
    before : list of estimators
        Steps up to the last one that cannot be undone. Images as they leave it are what a reconstruction is compared
        with.
    between : list of estimators
        Steps from there to the PCA, all of which have ``inverse_transform``.
    pca : estimator
    """

    before: list[Any]
    between: list[Any]
    pca: Any

    def prepare(self, images: Any) -> Any:
        """Take images to where reconstructions end; lazy ones stay lazy here and below."""
        return _through(self.before, images)

    def scores(self, prepared: Any) -> Any:
        """Project prepared images: (n, k)."""
        return _as_array(self.pca.transform(_through(self.between, prepared)))

    def reconstruct(self, scores: Any, n_components: int | None = None) -> Any:
        """Images from the first so many scores of each, or from all of them, in the shape of prepared ones."""
        if n_components is not None:
            scores = scores * (np.arange(scores.shape[1]) < n_components).astype(scores.dtype)
        images = self.pca.inverse_transform(scores)
        for step in reversed(self.between):
            images = step.inverse_transform(images)
        return _as_array(images)


def find_route(estimator: Any) -> Route:
    """Split the steps of a fitted Pipeline where reconstructions end.

    Raises
    ------
    NotFittedError
        If there is no fitted PCA.
    """
    steps, pca = split_at_pca(estimator)
    cut = len(steps)
    while cut and hasattr(steps[cut - 1], "inverse_transform"):
        cut -= 1
    return Route(steps[:cut], steps[cut:], pca)


def take_images(asker: str, X: Any, indices: Sequence[int]) -> np.ndarray:
    """Read some images of a stack; of an ImageStack those files only, of a Dask array the blocks that hold them.

    Raises
    ------
    IndexError
        For an index beyond the stack.
    """
    indices = [int(index) for index in indices]
    if isinstance(X, FileStack):
        return np.asarray(X[indices].data)
    return np.asarray(check_stack(asker, X).data[indices])


def evenly_spaced(n_images: int, n_chosen: int) -> list[int]:
    """Choose images from all over a stack, the first and the last among them."""
    return np.unique(np.linspace(0, n_images - 1, min(n_chosen, n_images)).round().astype(int)).tolist()


def names_of(X: Any, n_images: int) -> list[str]:
    """Names of images for people: files below the folder that all share, where known, else numbers."""
    _, files = data_and_files(X)
    if files is None:
        return [f"image {index}" for index in range(n_images)]
    folders = {os.path.dirname(file) for file in files}
    root = os.path.commonpath(folders) if len(folders) > 1 else next(iter(folders), "")
    names = (os.path.relpath(file, root or os.curdir).replace(os.sep, "/") for file in files)
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def short_name(name: str, length: int = 24) -> str:
    """Shorten a long name in the middle: its ends tell files apart."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2) :]}"


def _through(steps: list[Any], images: Any) -> Any:
    for step in steps:
        images = step.transform(images)
    return _as_array(images)


def _as_array(values: Any) -> Any:
    """Make an array of a table that ``set_output`` asked for; lazy arrays and stacks are left alone."""
    return values if is_lazy(values) else np.asarray(values)
