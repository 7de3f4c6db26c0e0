"""Chunks of zarr that are not compressed: their files are read straight into place, without copies by zarr."""

import os
import sys
from collections.abc import Sequence

import numpy as np
import zarr
from zarr.codecs import BytesCodec
from zarr.core.metadata import ArrayV2Metadata

__all__ = ["read_uncompressed"]


def read_uncompressed(folder: str, array: zarr.Array, region: Sequence[slice], dtype: np.dtype) -> np.ndarray | None:
    """Read a part of an array, if its chunks are the bytes of that part.

    Parameters
    ----------
    folder : str
        Of the array.
    region : sequence of slice
        With ends, a part of each axis.
    dtype : numpy.dtype
        That of the result.

    Returns
    -------
    ndarray or None
        None where zarr has to read: chunks are encoded, missing, damaged, or parts of what the other axes hold.
    """
    rows, *others = region
    whole = all((part.start, part.stop) == (0, size) for part, size in zip(others, array.shape[1:], strict=True))
    if not whole or array.chunks[1:] != array.shape[1:] or array.dtype != dtype or not _are_bytes(array):
        return None
    out, height = np.empty((rows.stop - rows.start, *array.shape[1:]), dtype), array.chunks[0]
    for i in range(rows.start // height, -(-rows.stop // height)):
        first, stop = max(rows.start, i * height), min(rows.stop, (i + 1) * height)
        name = array.metadata.encode_chunk_key((i, *[0] * len(others)))
        image_bytes = out[:1].nbytes
        place = out[first - rows.start : stop - rows.start].reshape(-1).view(np.uint8).data
        try:
            with open(os.path.join(folder, name), "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != height * image_bytes:
                    return None
                file.seek((first - i * height) * image_bytes)
                while len(place):
                    n_bytes = file.readinto(place)
                    if not n_bytes:
                        return None
                    place = place[n_bytes:]
        except FileNotFoundError:
            return None
    return out


def _are_bytes(array: zarr.Array) -> bool:
    """Tell whether chunks are the pixels as NumPy has them."""
    metadata = array.metadata
    if isinstance(metadata, ArrayV2Metadata):
        return metadata.compressor is None and not metadata.filters and metadata.order == "C"
    if len(metadata.codecs) != 1 or not isinstance(codec := metadata.codecs[0], BytesCodec):
        return False
    endian = getattr(codec.endian, "value", codec.endian)  # before zarr 3.3 a member of an Enum
    return array.dtype.itemsize == 1 or endian == sys.byteorder
