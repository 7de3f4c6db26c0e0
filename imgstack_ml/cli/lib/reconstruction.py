"""Reconstructions of images from a saved model. NumPy and Dask are imported here: commands import it late."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from sklearn.exceptions import NotFittedError

from ... import ImageStack, save_stack, write_images
from ...base.validation import FileStack
from ...files.atomic import atomic_folder
from ...inspection.pipelines import find_route
from .model import ModelError

__all__ = ["Reconstruction", "reconstruct_images", "write_reconstruction"]


class Reconstruction(NamedTuple):
    """Lazy images drawn from `n_components` components, and the dtype of the images that they approximate."""

    images: da.Array
    n_components: int
    original_dtype: np.dtype


class _NamedImages(FileStack):
    """Lazy images with the files, labels and inputs of the stack that they are computed from."""

    def __init__(self, images: da.Array, stack: ImageStack):
        self.files, self.labels, self.inputs = stack.files, stack.labels, stack.inputs
        self._images = images

    @property
    def data(self) -> da.Array:
        return self._images


def reconstruct_images(model: Any, path: str, stack: ImageStack, n_components: int | None) -> Reconstruction:
    """Reconstruct images lazily from the first `n_components` of the model in the file `path`; None for all.

    Raises
    ------
    ModelError
        If the model has no components, or fewer than `n_components`, or if it is fitted to rows, not to images.
    """
    try:
        route = find_route(model)
    except NotFittedError:
        raise ModelError(
            f"{path!r} holds no principal components to draw from; give a model of imgstack-ml pca or demo"
        ) from None
    most = len(route.pca.components_)
    if n_components is not None and n_components > most:
        raise ModelError(f"-k {n_components} is more components than the {most} of {path!r}; give -k {most} or less")
    prepared = route.prepare(stack)
    if prepared.ndim < 3:
        raise ModelError(f"{path!r} is fitted to rows of numbers, so that its components give no images")
    images = route.reconstruct(route.scores(prepared), n_components)
    return Reconstruction(images, n_components or most, prepared.dtype)


def write_reconstruction(
    out: str, drawn: Reconstruction, stack: ImageStack, *, kind: str | None, overwrite: bool, progress: bool
) -> np.dtype:
    """Write reconstructions, as an array if `out` ends in ``.zarr``, else as files in a folder, and return their dtype.

    `kind` is the format of files: "png", "tiff", or None for PNG where it can hold the dtype of the images. Results
    are named after the images in `stack`.

    Raises
    ------
    ModelError
        If the format cannot hold the images.
    """
    images = drawn.images
    if out.lower().endswith(".zarr"):
        save_stack(_NamedImages(images, stack), out, overwrite=overwrite, progress=progress)
        return images.dtype
    kind = _file_format(kind, drawn)
    if kind == "png":
        largest = np.iinfo(drawn.original_dtype).max
        images = da.rint(images).clip(0, largest).astype(drawn.original_dtype)
    # A new folder appears when all of its images are written; in a folder that exists they appear one by one.
    with nullcontext(out) if os.path.lexists(out) else atomic_folder(out) as folder:
        write_images(_NamedImages(images, stack), folder, format=kind, overwrite=overwrite, progress=progress)
    return images.dtype


def _file_format(kind: str | None, drawn: Reconstruction) -> str:
    """Choose the format of files, or refuse a format that cannot hold the images."""
    ndim, shape, dtype = drawn.images.ndim, drawn.images.shape, drawn.original_dtype
    if ndim == 4 and shape[3] not in (3, 4):
        raise ModelError(f"no image file holds {shape[3]} channels; give a name that ends in .zarr")
    fits_png = dtype == "uint8" or (dtype == "uint16" and ndim == 3)
    if kind == "png" and not fits_png:
        colour = "" if ndim == 3 else " in colour"
        raise ModelError(f"PNG does not take {dtype}{colour}; give --format tiff, or a name that ends in .zarr")
    return kind or ("png" if fits_png else "tiff")
