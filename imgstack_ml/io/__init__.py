"""Images on disk and lazy stacks: reading files, grouping them into blocks, storing a stack."""

from .open import imread, open_stack
from .stack import ImageStack
from .summary import StackSummary
from .write.save_stack import save_stack
from .write.write_images import write_images

__all__ = ["ImageStack", "StackSummary", "imread", "open_stack", "save_stack", "write_images"]
