"""scikit-learn estimators over lazy stacks of images that do not fit in memory.

The public names below are imported on first use, so that ``import imgstack_ml`` costs next to nothing.
"""

import lazy_loader

__version__ = "0.2.0.dev0"

# The names and the modules they live in stand in __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
