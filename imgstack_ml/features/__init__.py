"""Transformers from images to rows of features, and a union of several that reads the stack once."""

from typing import Any

from ..base.warn import warn
from .histogram import ImageHistogram
from .hog import HOGFeatures
from .statistics import ChannelStatistics
from .texture import TextureFeatures
from .union import ImageFeatureUnion

__all__ = ["ChannelStatistics", "HOGFeatures", "ImageFeatureUnion", "ImageHistogram", "TextureFeatures"]


def __getattr__(name: str) -> Any:
    """Return `ImageFeatureUnion` under the name that it had before 0.2."""
    if name == "ImageFeatures":
        warn("ImageFeatures is called ImageFeatureUnion now; the old name goes in 0.4", FutureWarning)
        return ImageFeatureUnion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
