"""Features by the names that the command line gives them, in sizes that suit the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import click

from .options import DEFAULT_COMPONENTS

if TYPE_CHECKING:
    from ... import HOGFeatures, ImageFeatureUnion, ImageStack

__all__ = ["FEATURES", "count_features", "features_option", "make_features"]

FEATURES = ("stats", "hist", "texture", "hog", "pca")  # pca last: the others depend on one image alone
_HOG_CELLS = 8  # down and across: the number of features does not grow with the size of the images
_SMALLEST_CELL = 4  # pixels a side


def features_option(*default: str) -> Callable:
    """Make the option that chooses features; without it, those in `default` are used."""
    return click.option(
        "-f",
        "--features",
        type=click.Choice([*FEATURES, "all"]),
        multiple=True,
        default=default,
        show_default=True,
        callback=lambda ctx, param, names: tuple(n for n in FEATURES if n in names or "all" in names),
        help="What describes an image; give the option several times to combine several. stats: mean, deviation, "
        "extremes and percentiles of each channel; hist: histogram of each channel; texture: local binary patterns "
        "and co-occurrence; hog: oriented gradients; pca: scores on the principal components; all: the five together.",
    )


def make_features(
    names: Sequence[str], stack: ImageStack, *, n_components: int | None, n_fitted: int, memory_limit: str = "auto"
) -> ImageFeatureUnion:
    """Make the transformer, not fitted, that gives the named features side by side.

    Parameters
    ----------
    names : sequence of str
        Some of `FEATURES`.
    stack : ImageStack
    n_components : int or None
        Of pca; None for 16, or as many as the images allow.
    n_fitted : int
        Number of images in the smallest fit to come.
    memory_limit : str, default="auto"
        Of pca.

    Returns
    -------
    ImageFeatureUnion

    Raises
    ------
    ValueError
        For more components than images in that fit, or values in an image.
    """
    from ... import ChannelStatistics, ImageFeatureUnion, ImageHistogram, ImagePCA, TextureFeatures

    most = min(n_fitted, prod(stack.shape[1:]))
    if "pca" in names and n_components and n_components > most:
        raise ValueError(
            f"-k {n_components} is too many components: the smallest fit here is to {n_fitted:,} images of "
            f"{prod(stack.shape[1:]):,} values; give -k {most} or less"
        )
    k = n_components or max(1, min(DEFAULT_COMPONENTS, n_fitted - 1, most))
    makers: dict[str, Callable[[], Any]] = {
        "stats": lambda: ChannelStatistics(percentiles=(5, 25, 50, 75, 95)),
        "hist": lambda: ImageHistogram(32, density=True),
        "texture": TextureFeatures,
        "hog": lambda: _hog_features(stack.shape[1:]),
        # A fixed seed: the same command gives the same result.
        "pca": lambda: ImagePCA(k, memory_limit=memory_limit, random_state=0),
    }
    return ImageFeatureUnion([(name, makers[name]()) for name in FEATURES if name in names])


def count_features(features: ImageFeatureUnion, stack: ImageStack) -> int:
    """Count the features that `make_features` gives for an image of the stack, without reading one."""
    import numpy as np
    from sklearn.base import clone

    from ... import ImageFeatureUnion

    members = dict(features.transformer_list)
    n_components = members.pop("pca").n_components if "pca" in members else 0
    if not members:
        return n_components
    blank = np.broadcast_to(np.zeros((), stack.dtype), (1, *stack.shape[1:]))
    others = ImageFeatureUnion([(name, clone(member)) for name, member in members.items()]).fit(blank)
    return n_components + len(others.get_feature_names_out())


def _hog_features(image_shape: tuple[int, ...]) -> HOGFeatures:
    """Make a grid of about 8 by 8 cells, in blocks of 2 by 2: at most 1,764 values for images of any size."""
    from ... import HOGFeatures

    height, width = image_shape[:2]
    down, across = (min(side, max(_SMALLEST_CELL, ceil(side / _HOG_CELLS))) for side in (height, width))
    return HOGFeatures(
        pixels_per_cell=(down, across), cells_per_block=(min(2, height // down), min(2, width // across))
    )
