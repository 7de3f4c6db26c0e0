"""Pictures of fitted estimators and of stacks, by scikit-learn's rules for Displays."""

from .eigenimages import EigenimageDisplay
from .intensity import IntensityDisplay
from .reconstruction import ReconstructionDisplay
from .scores import ScoresDisplay
from .scree import ScreeDisplay

__all__ = ["EigenimageDisplay", "IntensityDisplay", "ReconstructionDisplay", "ScoresDisplay", "ScreeDisplay"]
