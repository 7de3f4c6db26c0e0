"""Principal components of image stacks."""

from .certificate import Certificate
from .component_filter import ComponentFilter
from .image_pca import ImagePCA
from .plan import Plan

__all__ = ["Certificate", "ComponentFilter", "ImagePCA", "Plan"]
