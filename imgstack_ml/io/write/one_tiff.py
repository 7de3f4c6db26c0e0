"""All images of a stack as one OME-TIFF, written an image at a time."""

import functools
import math
import os
from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import tifffile

from ...base.channels import are_colours, channel_names_of
from ...base.lazy import whole_images
from ...files.atomic import atomic_path
from ...files.locks import lock_output
from ...files.space import explain_full_disk
from ...passes.progress import iterate_rows
from .waves import BLOCK_BYTES

__all__ = ["is_tiff_name", "write_one_tiff"]

_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")  # of OME
_LARGE = 2**32 - 2**26  # bytes of pixels: more take the offsets of BigTIFF


def is_tiff_name(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the name of one TIFF, and of no folder that exists."""
    return os.fspath(path).lower().endswith((".tif", ".tiff")) and not os.path.isdir(path)


def write_one_tiff(stack: Any, data: da.Array, path: str, *, overwrite: bool, progress: bool) -> None:
    """Write all images, in their order, as the time points of one OME-TIFF.

    Parameters
    ----------
    stack : object
        What knows the names of the channels: red, green and blue are stored as colours, others as planes.
    data : dask.array.Array of shape (n_images, height, width[, n_channels])
    path : str
    overwrite, progress
        As in `write_images`.

    Raises
    ------
    ValueError
        OME has no name for the dtype.
    """
    if data.dtype.name not in _DTYPES:
        raise ValueError(
            f"an OME-TIFF takes no {data.dtype.name}, only {', '.join(_DTYPES)}; give the name of a folder, or "
            "save_stack(stack, path)"
        )
    names = channel_names_of(stack, data.shape[1:], data.dtype)
    metadata: dict[str, Any] = {"axes": "TYXS" if are_colours(names) else "TCYX"}
    if names and not are_colours(names):
        metadata["Channel"] = {"Name": list(names)}
    images = functools.partial(_images, whole_images(data), progress)
    options = {"dtype": data.dtype.newbyteorder("="), "metadata": metadata}
    with (
        lock_output(path),
        explain_full_disk(path, int(data.nbytes)),
        atomic_path(path, overwrite=overwrite) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=data.nbytes > _LARGE, ome=True) as file,
    ):
        if are_colours(names):
            file.write(images(), shape=data.shape, photometric="rgb", **options)
        else:
            shape = (len(data), math.prod(data.shape[3:]), *data.shape[1:3])
            file.write(_planes(images()), shape=shape, photometric="minisblack", **options)


def _images(data: da.Array, progress: bool) -> Iterator[np.ndarray]:
    image_bytes = math.prod(data.shape[1:]) * data.dtype.itemsize
    rows = min(max(data.chunks[0]), max(1, BLOCK_BYTES // image_bytes))
    blocks = iterate_rows(data.rechunk({0: rows}), image_bytes, "write_images", progress=progress)
    return (np.ascontiguousarray(image, image.dtype.newbyteorder("=")) for block in blocks for image in block)


def _planes(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for image in images:
        yield from [image] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, 2, 0))
