"""Transformers that return images: centred, rescaled, mapped by a function, or flattened to rows."""

from .center import StackCenterer
from .flatten import ImageFlattener
from .map import ImageMap
from .rescale import IntensityRescaler

__all__ = ["ImageFlattener", "ImageMap", "IntensityRescaler", "StackCenterer"]
