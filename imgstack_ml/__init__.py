"""scikit-learn estimators over lazy stacks of images that do not fit in memory.

The public names below are imported on first use, so that ``import imgstack_ml`` costs next to nothing.
"""

from typing import Any

import lazy_loader

__version__ = "0.2.0"

# __init__.pyi, which type checkers read too, lists the names and the modules that define them.
_import_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name, or one that was public in an earlier version."""
    if name == "ImageFeatures":
        from . import features

        return features.ImageFeatures  # warns
    return _import_public(name)
