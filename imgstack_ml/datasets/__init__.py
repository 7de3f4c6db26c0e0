"""Sample images: real ones that scikit-image and scikit-learn ship, and generated ones in any number.

Nothing is downloaded. ``write_sample`` puts any of them on disk as a folder of image files.

>>> from imgstack_ml import datasets
>>> sorted(datasets.SAMPLES)
['cells', 'digits', 'faces', 'textures', 'tissue']
"""

from .cells import cell_image, make_cells
from .planted import PlantedStack, make_planted
from .real import load_digits, load_faces, load_textures, load_tissue
from .samples import SAMPLES, SampleImage, write_sample

__all__ = [
    "SAMPLES",
    "PlantedStack",
    "SampleImage",
    "cell_image",
    "load_digits",
    "load_faces",
    "load_textures",
    "load_tissue",
    "make_cells",
    "make_planted",
    "write_sample",
]
