"""Principal components of image stacks."""

from .image_pca import ImagePCA

__all__ = ["ImagePCA"]
