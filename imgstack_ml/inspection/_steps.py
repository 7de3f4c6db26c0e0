"""Find what a Display needs in an estimator or a Pipeline, by attributes and not by class."""

from math import prod
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError


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
