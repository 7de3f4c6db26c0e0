"""Pictures of fitted estimators, by scikit-learn's rules for Displays."""

from .eigenimages import EigenimageDisplay
from .scree import ScreeDisplay

__all__ = ["EigenimageDisplay", "ScreeDisplay"]
