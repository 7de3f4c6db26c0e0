"""Images on disk and lazy stacks: reading files, grouping them into blocks, storing a stack."""

from .opening import imread, open_stack
from .save import save_stack
from .stack import ImageStack
from .write import write_images

__all__ = ["ImageStack", "imread", "open_stack", "save_stack", "write_images"]
