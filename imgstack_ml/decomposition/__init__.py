"""Principal components of image stacks."""

from .certificate import Certificate
from .image_pca import ImagePCA

__all__ = ["Certificate", "ImagePCA"]
