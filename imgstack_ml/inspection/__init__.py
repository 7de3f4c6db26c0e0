"""Pictures of fitted estimators, by scikit-learn's rules for Displays."""

from ._steps import Route, find_route
from .eigenimages import EigenimageDisplay
from .intensity import IntensityDisplay
from .reconstruction import ReconstructionDisplay
from .scores import ScoresDisplay
from .scree import ScreeDisplay

__all__ = [
    "EigenimageDisplay",
    "IntensityDisplay",
    "ReconstructionDisplay",
    "Route",
    "ScoresDisplay",
    "ScreeDisplay",
    "find_route",
]
