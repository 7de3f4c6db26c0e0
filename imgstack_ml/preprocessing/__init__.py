"""Transformers from images to images, and between images and rows."""

from .center import StackCenterer
from .flatten import ImageFlattener
from .map import ImageMap
from .rescale import IntensityRescaler

__all__ = ["ImageFlattener", "ImageMap", "IntensityRescaler", "StackCenterer"]
