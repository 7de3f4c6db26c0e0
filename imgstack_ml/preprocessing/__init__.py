"""Transformers from images to images, and between images and rows."""

from .center import StackCenterer
from .flatten import ImageFlattener
from .rescale import IntensityRescaler

__all__ = ["ImageFlattener", "IntensityRescaler", "StackCenterer"]
