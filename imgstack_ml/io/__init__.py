"""Images on disk and lazy stacks: reading files, grouping them into blocks, storing a stack."""

from .opening import imread, open_stack
from .stack import ImageStack
from .store import save_stack

__all__ = ["ImageStack", "imread", "open_stack", "save_stack"]
