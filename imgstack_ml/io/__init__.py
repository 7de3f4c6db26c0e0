"""Lazy stacks of images on disk: opening them, reading them block by block, writing them."""

from .formats.base import ImageFormat, ImageSeries, OpenFile
from .formats.registry import register_format
from .open import imread, open_stack
from .stack import ImageStack
from .summary import StackSummary
from .write.save_stack import save_stack
from .write.write_images import write_images

__all__ = [
    "ImageFormat",
    "ImageSeries",
    "ImageStack",
    "OpenFile",
    "StackSummary",
    "imread",
    "open_stack",
    "register_format",
    "save_stack",
    "write_images",
]
