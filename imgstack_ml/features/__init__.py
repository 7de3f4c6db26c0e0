"""Transformers from images to rows of features, and several of them over one stack."""

from .histogram import ImageHistogram
from .hog import HOGFeatures
from .statistics import ChannelStatistics
from .texture import TextureFeatures
from .union import ImageFeatures

__all__ = ["ChannelStatistics", "HOGFeatures", "ImageFeatures", "ImageHistogram", "TextureFeatures"]
