"""Reconstructions of images from a saved model. NumPy and Dask are imported here: commands import it late."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from sklearn.exceptions import NotFittedError

from ... import ImageStack, save_stack
from ...base.lazy import note_samples
from ...base.validation import data_and_files
from ...files.atomic import atomic_folder
from ...inspection.pipelines import find_route
from ...io.write.one_tiff import is_tiff_name
from ...io.write.write_images import write_images, write_in_folders
from .model import ModelError

__all__ = ["Reconstruction", "reconstruct_images", "write_reconstruction"]


class Reconstruction(NamedTuple):
    """Lazy images drawn from, or residuals without, the components of these numbers; and the dtype of the images."""

    images: da.Array
    numbers: list[int]
    original_dtype: np.dtype
    is_signed: bool


def reconstruct_images(
    model: Any, path: str, stack: ImageStack, numbers: list[int] | None, *, residuals: bool, option: str
) -> Reconstruction:
    """Reconstruct images lazily from components of the model in the file `path`, or what these leave.

    Parameters
    ----------
    model : estimator
    path : str
    stack : ImageStack
    numbers : list of int, or None
        Of the components, from 1 on, as `option` of the command line gives them; None for all.
    residuals : bool
        Whether to return the images less their reconstructions.
    option : str

    Raises
    ------
    ModelError
        If the model has no components, or not all of these, or if it is fitted to rows, not to images.
    """
    try:
        route = find_route(model)
    except NotFittedError:
        raise ModelError(
            f"{path!r} holds no principal components to reconstruct from; give a model of imgstack-ml pca or demo"
        ) from None
    most = len(route.pca.components_)
    if numbers is not None and max(numbers) > most:
        last = f"-k {most} or less" if option == "-k" else f"numbers from 1 to {most}"
        raise ModelError(f"{option} {max(numbers)} is beyond the {most} components of {path!r}; give {last}")
    prepared = route.prepare(stack)
    if prepared.ndim < 3:
        raise ModelError(f"{path!r} is fitted to rows of numbers, so that its components give no images")
    positions = None if numbers is None else [number - 1 for number in numbers]
    if residuals and not route.between and hasattr(route.pca, "residuals"):
        images = route.pca.residuals(prepared, positions)
    else:
        images = route.reconstruct(route.scores(prepared), positions)
        if residuals:
            images = da.subtract(data_and_files(prepared)[0], images, dtype=images.dtype)
    note_samples(images, stack)  # their files and labels
    return Reconstruction(images, numbers or list(range(1, most + 1)), prepared.dtype, residuals)


def write_reconstruction(
    out: str,
    drawn: Reconstruction,
    stack: ImageStack,
    names: Sequence[str],
    *,
    kind: str | None,
    overwrite: bool,
    progress: bool,
) -> np.dtype:
    """Write reconstructions, as one array (``.zarr``), one TIFF (``.tif``), or files in a folder; return their dtype.

    `kind` is the format of files: "png", "tiff", or None for PNG where it can hold the dtype of the images. Files are
    named after the images in `stack`, in folders after those in their `names` relative to the source.

    Raises
    ------
    ModelError
        If the format cannot hold the images.
    """
    images = drawn.images
    if out.lower().endswith(".zarr"):
        save_stack(images, out, overwrite=overwrite, progress=progress)
        return images.dtype
    if is_tiff_name(out):
        write_images(images, out, overwrite=overwrite, progress=progress)
        return images.dtype
    kind = _file_format(kind, drawn)
    if kind == "png":
        largest = np.iinfo(drawn.original_dtype).max
        images = da.rint(images).clip(0, largest).astype(drawn.original_dtype)
        note_samples(images, stack)
    # A new folder appears when all of its images are written; in a folder that exists they appear one by one.
    with nullcontext(out) if os.path.lexists(out) else atomic_folder(out) as folder:
        folders = [name.rpartition("/")[0] for name in names]
        write_in_folders(images, folder, folders, format=kind, overwrite=overwrite, progress=progress)
    return images.dtype


def _file_format(kind: str | None, drawn: Reconstruction) -> str:
    """Choose the format of files, or refuse a format that cannot hold the images."""
    ndim, shape, dtype = drawn.images.ndim, drawn.images.shape, drawn.original_dtype
    if ndim == 4 and shape[3] not in (3, 4):
        raise ModelError(f"no image file holds {shape[3]} channels; give a name that ends in .zarr")
    if kind == "png" and drawn.is_signed:
        raise ModelError("PNG holds no negative numbers; give --format tiff, or a name that ends in .zarr")
    fits_png = not drawn.is_signed and (dtype == "uint8" or (dtype == "uint16" and ndim == 3))
    if kind == "png" and not fits_png:
        colour = "" if ndim == 3 else " in colour"
        raise ModelError(f"PNG does not take {dtype}{colour}; give --format tiff, or a name that ends in .zarr")
    return kind or ("png" if fits_png else "tiff")
