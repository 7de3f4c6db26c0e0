"""The lazy side: one function over images, block by block. Nothing here reads a pixel of a lazy stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np

__all__ = ["Source", "map_images", "note_source", "source_of", "whole_images"]

_IN_MEMORY_BYTES = 2**22  # images of a NumPy stack handled at a time, so that temporaries stay small


class Source(NamedTuple):
    """Where a lazy array comes from: ``data``, less ``shift`` (n_pixels,), image by image and perhaps reshaped."""

    data: da.Array
    shift: np.ndarray | float


def note_source(
    array: np.ndarray | da.Array, data: np.ndarray | da.Array, shift: np.ndarray | float = 0.0
) -> np.ndarray | da.Array:
    """Note on a lazy `array` that it is `data` less a constant image, for those who do not mind a constant image."""
    if isinstance(array, da.Array) and isinstance(data, da.Array):
        array._imgstack_source = (array.name, Source(data, shift))  # type: ignore[attr-defined]
    return array


def source_of(array: da.Array) -> Source:
    """Go back to where a lazy array comes from by constant shifts and reshaping alone; itself, where nothing is noted.

    The name guards the note: assigning to items of a Dask array changes it in place, and gives it a new name.
    """
    shift: np.ndarray | float = 0.0
    name, source = getattr(array, "_imgstack_source", (None, None))
    while source is not None and name == array.name:
        array, shift = source.data, shift + source.shift
        name, source = getattr(array, "_imgstack_source", (None, None))
    return Source(array, shift)


def whole_images(data: da.Array) -> da.Array:
    """Rechunk so that every block holds whole images; row chunks stay as they are."""
    return data.rechunk(dict.fromkeys(range(1, data.ndim), -1)) if max(data.numblocks[1:]) > 1 else data


def map_images(
    func: Callable[..., np.ndarray],
    data: np.ndarray | da.Array,
    *,
    image_shape: tuple[int, ...],
    dtype: np.dtype,
    **arrays: np.ndarray,
) -> np.ndarray | da.Array:
    """Apply ``func(block, **arrays) -> block`` to blocks of whole images.

    Parameters
    ----------
    func : callable
        Top-level function, or a `functools.partial` of one, of a block (b, *shape) that returns
        (b, *image_shape) of `dtype` and leaves its input alone.
    data : ndarray or dask array of shape (n, *shape)
        NumPy in, NumPy out; Dask in, Dask out, one layer added and nothing read.
    image_shape, dtype
        Of the result.
    **arrays
        Arrays that `func` needs for every block; each goes into the graph once, however many blocks there are.
    """
    if isinstance(data, da.Array):
        return _map_lazily(func, whole_images(data), image_shape, np.dtype(dtype), arrays)
    out = np.empty((len(data), *image_shape), dtype)
    step = max(1, _IN_MEMORY_BYTES // max(1, data[:1].nbytes))
    for i in range(0, len(data), step):
        out[i : i + step] = func(data[i : i + step], **arrays)
    return out


def _map_lazily(
    func: Callable[..., np.ndarray],
    data: da.Array,
    image_shape: tuple[int, ...],
    dtype: np.dtype,
    arrays: dict[str, np.ndarray],
) -> da.Array:
    token = dask.base.tokenize(func, data.name, image_shape, dtype, arrays)
    return da.map_blocks(
        func,
        data,
        name=f"{dask.utils.funcname(func).strip('_')}-{token}",
        dtype=dtype,
        meta=np.empty((0,) * (1 + len(image_shape)), dtype),
        chunks=(data.chunks[0], *((size,) for size in image_shape)),
        drop_axis=list(range(1, data.ndim)),
        new_axis=list(range(1, 1 + len(image_shape))) or None,
        **{key: dask.delayed(array, pure=True) for key, array in arrays.items()},
    )
