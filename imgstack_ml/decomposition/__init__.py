"""Principal components of image stacks."""

from .certificate import Certificate
from .image_pca import ImagePCA
from .plan import Plan

__all__ = ["Certificate", "ImagePCA", "Plan"]
