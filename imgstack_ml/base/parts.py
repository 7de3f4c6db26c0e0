"""Stacks whose chunks hold parts of images: what needs no whole images runs over these chunks, each read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise, product
from math import prod
from typing import Any, TypeAlias

import dask
import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from .gate import Place, Places, checked_block, gated
from .images import Images
from .lazy import counting_from, map_images, note_files, stored_parts

__all__ = ["Region", "inside_regions", "map_parts", "map_pixels", "n_values", "nonempty_parts", "stored_regions"]

#: A slice for each axis of an image. Dask does not look into it.
Region: TypeAlias = tuple[slice, ...]


def stored_regions(data: da.Array) -> dict[tuple[int, ...], Region]:
    """Regions of the chunks of a stack, by the numbers of the chunks along the axes of an image."""
    axes = [list(pairwise([0, *accumulate(sizes)])) for sizes in data.chunks[1:]]
    numbers = product(*(range(len(axis)) for axis in axes))
    found = {n: tuple(slice(*axis[i]) for axis, i in zip(axes, n, strict=True)) for n in numbers}
    return {number: region for number, region in found.items() if n_values(region)}


def n_values(region: Region) -> int:
    """Count the values of an image in a region."""
    return prod(axis.stop - axis.start for axis in region)


def inside_regions(regions: dict[tuple[int, ...], Region], mask: np.ndarray | None) -> dict[tuple[int, ...], Region]:
    """Regions in which a mask leaves pixels."""
    return regions if mask is None else {number: region for number, region in regions.items() if mask[region].any()}


def nonempty_parts(data: Any, all_channels: bool = False) -> da.Array | None:
    """Return a lazy stack in chunks as they are stored, each of some pixels, if these are parts of images; else None.

    With `all_channels` a chunk has all channels of its pixels.
    """
    stored = stored_parts(data)
    if stored is None:
        return None
    sizes = {axis: tuple(filter(None, stored.chunks[axis])) for axis in range(1, stored.ndim)}
    if all_channels and stored.ndim == 4:
        sizes[3] = (stored.shape[3],)
    if all(sizes[axis] == stored.chunks[axis] for axis in sizes):
        return stored
    joined: da.Array = gated(stored).rechunk(sizes)
    return joined


def map_pixels(
    func: Callable[..., np.ndarray],
    images: Images,
    *,
    dtype: np.dtype,
    fills: bool = True,
    finite: bool = True,
    all_channels: bool = False,
    **arrays: np.ndarray,
) -> np.ndarray | da.Array:
    """Apply ``func(block, **arrays) -> block`` to images, or to parts of them where lazy ones are stored in parts.

    Parameters
    ----------
    func, fills, finite
        As `map_images` has them. Each pixel of the result depends on this pixel alone.
    images : Images
    dtype : dtype
        Of the result.
    all_channels : bool
        Whether `func` needs all channels of a pixel.
    **arrays
        Arrays of the shape of an image; `func` gets the same part of them.

    Returns
    -------
    ndarray or dask array of the shape of the images
        Lazy for lazy images, in the chunks in which these are stored.
    """
    data, files = images.data, images.files
    stored = nonempty_parts(data, all_channels)
    options = dict[str, Any](dtype=dtype, files=files, finite=finite, missing=images.missing)
    if stored is None:
        options |= arrays
        return map_images(func, data, image_shape=images.image_shape, fills=fills, **options)
    assert isinstance(data, da.Array)
    index, pixels = tuple(range(stored.ndim)), tuple(range(1, stored.ndim))
    of_parts = [
        (da.from_array(array.reshape(stored.shape[1:]), stored.chunks[1:]), pixels) for array in arrays.values()
    ]
    mapped: da.Array = da.blockwise(
        partial(_on_part, func, tuple(arrays), stored.dtype, finite, images.missing),
        index,
        *(stored, index, Places(stored.chunks, files), index),
        *(item for pair in of_parts for item in pair),
        name=f"{dask.utils.funcname(func).strip('_')}-{dask.base.tokenize(func, stored.name, options, arrays)}",
        dtype=dtype,
        meta=np.empty((0,) * stored.ndim, dtype),
        align_arrays=False,
    )
    return note_files(mapped, files, data)


def _on_part(
    func: Callable[..., np.ndarray],
    names: tuple[str, ...],
    dtype: np.dtype,
    finite: bool,
    missing: bool,
    block: Any,
    place: Place,
    *arrays: np.ndarray,
) -> np.ndarray:
    part = checked_block(dtype, finite, block, place, missing=missing)
    with counting_from(place.start, place.files):
        return func(part, **dict(zip(names, arrays, strict=True)))


def map_parts(
    func: Callable[..., np.ndarray],
    images: Images,
    stored: da.Array,
    *,
    shape: tuple[int, ...],
    arrays: Sequence[np.ndarray] = (),
) -> da.Array:
    """Apply ``func(part, *arrays) -> (b, 1, *shape)`` to the parts of images in chunks that are stored in parts.

    Parameters
    ----------
    func : callable
        Gets chunks (b, *region), or rows of the pixels inside the mask (b, n_inside), after a check.
    images : Images
    stored : dask array
        The images as `nonempty_parts` returns them.
    shape : tuple of int
    arrays : sequence of ndarray
        Arrays (..., n_pixels) of the pixels inside the mask. `func` gets their part: (..., *region), or (..., n_inside)
        if a mask leaves pixels out.

    Returns
    -------
    dask array of shape (n_images, n_parts, *shape), float64
        Parts outside the mask are not read.
    """
    mask = None if images.positions is None else images.mask
    parts = gated(stored, images.files, finite=True, mask=mask, missing=images.missing)
    regions = inside_regions(stored_regions(stored), mask)
    inside = None if mask is None else (np.cumsum(mask) - 1).reshape(mask.shape)  # numbers of the pixels inside
    name = f"{dask.utils.funcname(func).strip('_')}-{dask.base.tokenize(func, parts.name, arrays)}"
    layer: dict[Any, Any] = {}
    for j, (number, region) in enumerate(regions.items()):
        keys = [(f"{name}-array-{i}", j) for i in range(len(arrays))]
        for key, array in zip(keys, arrays, strict=True):
            if mask is None or inside is None:
                index: Any = (..., *region)
                layer[key] = array.reshape(*array.shape[:-1], *images.image_shape)[index]
            else:
                layer[key] = array[..., inside[region][mask[region]]]
        for i in range(parts.numblocks[0]):
            layer[(name, i, j, *(0,) * len(shape))] = (func, (parts.name, i, *number), *keys)
    chunks = (parts.chunks[0], (1,) * len(regions), *((size,) for size in shape))
    sources: Any = [parts]
    graph = HighLevelGraph.from_collections(name, layer, dependencies=sources)
    return da.Array(graph, name, chunks, meta=np.empty((0,) * len(chunks)))
