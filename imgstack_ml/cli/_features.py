"""Features by the names that commands give them, in sizes that suit the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .. import HOGFeatures, ImageFeatureUnion, ImageStack

__all__ = ["FEATURES", "features_option", "make_features", "n_components_option"]

FEATURES = ("stats", "hist", "texture", "hog", "pca")  # pca last: all others depend on one image alone
_N_COMPONENTS = 16
_HOG_CELLS = 8  # down and across: the length of the vector does not grow with the images
_SMALLEST_CELL = 4  # pixels a side


def features_option(*default: str) -> Callable:
    """Make the option that chooses features.

    Parameters
    ----------
    *default : str
        Those taken where the user names none.
    """
    return click.option(
        "-f",
        "--features",
        type=click.Choice([*FEATURES, "all"]),
        multiple=True,
        default=default,
        show_default=True,
        callback=lambda ctx, param, names: tuple(n for n in FEATURES if n in names or "all" in names),
        help="What describes an image; give it several times to put several side by side. stats: mean, deviation, "
        "extremes and percentiles of each channel; hist: histogram of each channel; texture: local binary patterns "
        "and co-occurrence; hog: oriented gradients; pca: scores on the principal components; all: the five together.",
    )


n_components_option = click.option(
    "-k",
    "n_components",
    metavar="N",
    type=click.IntRange(min=1),
    help=f"Number of components of pca.  [default: {_N_COMPONENTS}, less for few images]",
)


def make_features(
    names: Sequence[str], stack: ImageStack, *, n_components: int | None, n_fitted: int, memory_limit: str = "auto"
) -> ImageFeatureUnion:
    """Make the transformer, not fitted, that puts the features named side by side.

    Parameters
    ----------
    names : sequence of str
        Out of `FEATURES`.
    stack : ImageStack
    n_components : int or None
        Of pca; None for as many as the images allow, up to 16.
    n_fitted : int
        Images in the smallest fit to come.
    memory_limit : str, default="auto"
        Of pca.

    Returns
    -------
    ImageFeatureUnion

    Raises
    ------
    ValueError
        For more components than there are images to fit, or values in an image.
    """
    from .. import ChannelStatistics, ImageFeatureUnion, ImageHistogram, ImagePCA, TextureFeatures

    # A float has no natural range: that of all images is found, in a read more.
    span = "stack" if stack.dtype.kind == "f" else "dtype"
    most = min(n_fitted, prod(stack.shape[1:]))
    if "pca" in names and n_components and n_components > most:
        raise ValueError(
            f"-k {n_components} is more components than {n_fitted:,} images, the fewest that are fitted here, of "
            f"{prod(stack.shape[1:]):,} values have; give -k {most} or less"
        )
    k = n_components or max(1, min(_N_COMPONENTS, n_fitted - 1, most))
    makers: dict[str, Callable[[], Any]] = {
        "stats": lambda: ChannelStatistics(percentiles=(5, 25, 50, 75, 95)),
        "hist": lambda: ImageHistogram(32, span, density=True),
        "texture": lambda: TextureFeatures(range=span),
        "hog": lambda: _gradients(stack.shape[1:]),
        # The same command gives the same result.
        "pca": lambda: ImagePCA(k, memory_limit=memory_limit, random_state=0),
    }
    return ImageFeatureUnion([(name, makers[name]()) for name in FEATURES if name in names])


def _gradients(image_shape: tuple[int, ...]) -> HOGFeatures:
    """Make a grid of about 8 by 8 cells, in blocks of 2 by 2: up to 1,764 values whatever the images' size."""
    from .. import HOGFeatures

    height, width = image_shape[:2]
    down, across = (min(side, max(_SMALLEST_CELL, ceil(side / _HOG_CELLS))) for side in (height, width))
    return HOGFeatures(
        pixels_per_cell=(down, across), cells_per_block=(min(2, height // down), min(2, width // across))
    )
