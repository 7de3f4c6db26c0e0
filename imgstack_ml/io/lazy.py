"""Dask arrays whose blocks are read by a reader, one task a block."""

import functools
import hashlib
import itertools
import math
import string
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.blockwise import BlockwiseDepDict, blockwise
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.system import CPU_COUNT

from ..base.gate import first_nonfinite
from ..base.lazy import note_stored
from ..errors import BadImageError, StoreError
from .keys import FileKeys

__all__ = ["Reader", "check_block_size", "find_faults", "images_per_block", "lazy_array"]

_BLOCK_BYTES = 64_000_000
_PART_BYTES = 2**22  # of the smallest parts of blocks that a task reads
_BLOCKS_PER_THREAD = 8
# With fewer images in a block, the cost of a task would be noticeable beside that of reading them.
_MIN_IMAGES = 16


class Reader(Protocol):
    """Reads blocks of images, which it is given by their keys; it is small and can be pickled."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype of an image."""

    @property
    def images_per_chunk(self) -> int:
        """Number of neighbouring images that are stored, and so decoded, together."""

    def read(self, keys: Any) -> np.ndarray:
        """Read the images that `keys` name into one block."""


def lazy_array(reader: Reader, keys: Sequence[Any] | np.ndarray, chunks: str | int) -> da.Array:
    """Make a Dask array whose blocks are read by a reader.

    Each task holds the keys of its own images only, so that the graph stays small.

    Parameters
    ----------
    reader : object
        With `shape` and `dtype` of an image, `images_per_chunk`, and ``read(keys)``.
    keys : sequence
        One for each image.
    chunks : "auto" or int
        Images in a block; see `open_stack`.

    Returns
    -------
    dask.array.Array of shape (len(keys), *reader.shape)
    """
    array = _lazy(reader.read, "images", reader, keys, chunks, reader.shape, reader.dtype)
    parts: tuple[int, ...] = getattr(reader, "pixel_chunks", ())
    image_bytes = math.prod(reader.shape) * reader.dtype.itemsize
    if not parts or reader.images_per_chunk * image_bytes <= _BLOCK_BYTES:  # blocks of whole images can be small
        return array
    return note_stored(array, _in_parts(reader, keys, array, parts))


def _in_parts(reader: Any, keys: Sequence[Any] | np.ndarray, array: da.Array, parts: tuple[int, ...]) -> da.Array:
    """Make the same array in chunks as they are stored, several where they are small, each read by one task."""
    rows, dtype = array.chunks[0], reader.dtype
    sizes = list(parts)
    for axis in reversed(range(len(sizes))):
        block = max(rows) * math.prod(sizes) * dtype.itemsize
        sizes[axis] = min(reader.shape[axis], sizes[axis] * max(1, _PART_BYTES // block))
    pixels = da.core.normalize_chunks(tuple(sizes), reader.shape)
    starts = [0, *itertools.accumulate(rows)]
    edges = [list(itertools.pairwise([0, *itertools.accumulate(one)])) for one in pixels]
    axes = string.ascii_letters[: array.ndim]
    places = itertools.product(*(range(len(one)) for one in edges))
    regions = {i: tuple(slice(*edge[j]) for edge, j in zip(edges, i, strict=True)) for i in places}
    name = f"parts-{tokenize(array.name, sizes)}"
    layer = blockwise(
        functools.partial(_read_part, reader),
        name,
        axes,
        BlockwiseDepDict({(i,): keys[a:b] for i, (a, b) in enumerate(itertools.pairwise(starts))}),
        axes[0],
        BlockwiseDepDict(regions, tuple(map(len, edges))),
        axes[1:],
        numblocks={},
    )
    return da.Array(HighLevelGraph.from_collections(name, layer), name, (rows, *pixels), dtype=dtype)


def _read_part(reader: Any, keys: Any, region: tuple[slice, ...]) -> np.ndarray:
    part: np.ndarray = reader.read(keys, region)
    return part


def find_faults(
    reader: Reader, keys: Sequence[Any] | np.ndarray, chunks: str | int, *, finite: bool = False
) -> da.Array:
    """Make a Dask array that reads every image and holds what is wrong with it; with `finite`, that it has NaN.

    Returns
    -------
    dask.array.Array of shape (len(keys),), of objects
        The reason why an image cannot be read; an empty text where it can.
    """
    return _lazy(functools.partial(_faults, reader, finite), "faults", reader, keys, chunks, (), np.dtype(object))


def _faults(reader: Reader, finite: bool, keys: Any) -> np.ndarray:
    reasons = np.full(len(keys), "", dtype=object)

    def read(keys: Any) -> None:
        block = reader.read(keys)
        if finite and first_nonfinite(block) is not None:
            raise StoreError("it contains NaN or infinity")

    try:
        read(keys)
    except (BadImageError, StoreError):
        # Only a block with a fault is read image by image: images that share a chunk are decoded again for each.
        for i in range(len(keys)):
            try:
                read(keys[i : i + 1])
            except (BadImageError, StoreError) as error:
                reasons[i] = getattr(error, "reason", str(error))
    return reasons


def _lazy(
    read: Callable[[Any], np.ndarray],
    prefix: str,
    reader: Reader,
    keys: Sequence[Any] | np.ndarray,
    chunks: str | int,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> da.Array:
    starts = _block_starts(reader, keys, chunks)
    groups = [keys[start:stop] for start, stop in pairwise(starts)]
    name = f"{prefix}-{tokenize(reader, _digest(keys), np.array(starts))}"
    axes = string.ascii_letters[: 1 + len(shape)]
    runs = getattr(keys, "runs", None)
    layers: dict[str, Any] = {}
    if runs is not None and any(runs[start - 1] == runs[start] for start in starts[1:-1]):
        layers[f"order-{name}"] = MaterializedLayer(_tasks_in_order(f"order-{name}", len(groups)))
        read = functools.partial(_read_after, read)
    # As da.from_array does it, with keys in place of slices: one task a block, with which later layers are fused.
    layer = blockwise(
        read,
        name,
        axes,
        BlockwiseDepDict({(i,): group for i, group in enumerate(groups)}),
        axes[0],
        *(argument for order in layers for argument in (order, axes[0])),
        numblocks={order: (len(groups),) for order in layers},
        new_axes=dict.fromkeys(axes[1:], 1),
    )
    sizes = (tuple(map(len, groups)), *((n,) for n in shape))
    dependencies: dict[str, set[str]] = {name: set(layers)} | {order: set() for order in layers}
    graph = HighLevelGraph({name: layer, **layers}, dependencies)
    return da.Array(graph, name, sizes, dtype=dtype)


def _tasks_in_order(name: str, n_blocks: int) -> dict[Any, Any]:
    """Make tasks that do nothing, on one of which each block depends, so that Dask reads the first blocks first.

    Without a reason for another order, `dask.order` begins with the last block, and a film would be decoded up to each.
    Here later blocks depend on more tasks, and each on one of its own: then it begins with what is ready soonest.
    """
    own = f"own-{name}"
    tasks: dict[Any, Any] = {(own, -1): (_nothing,)}  # of two tasks, as all: Dask would make one of a single one
    for i in range(n_blocks):
        tasks[own, i] = (_nothing,)
        tasks[name, i] = (_nothing, (own, i), (name, i - 1) if i else (own, -1))
    return tasks


def _nothing(*_: None) -> None:
    """Do nothing."""


def _read_after(read: Callable[[Any], np.ndarray], keys: Any, _: None) -> np.ndarray:
    return read(keys)


def _block_starts(reader: Reader, keys: Sequence[Any] | np.ndarray, chunks: str | int) -> list[int]:
    """Choose where blocks begin, and where the last one ends.

    Of films, blocks are large, and begin where decoding does: what stands in front of a block is decoded for it again.
    """
    n_images, runs = len(keys), getattr(keys, "runs", None)
    size = images_per_block(reader, n_images) if chunks == "auto" else int(chunks)
    if runs is None or chunks != "auto":
        return [*range(0, n_images or 1, size), n_images]
    begins = np.array([0, *(np.flatnonzero(np.diff(runs)) + 1), n_images])
    starts, most = [0], max(size, _most_images(reader))
    while (start := starts[-1]) + size < n_images:
        first, last = np.searchsorted(begins, [start + size, start + most + 1]) - (0, 1)
        if begins[last] <= start:  # up to where decoding begins again, in equal parts
            left = int(begins[last + 1]) - start
            starts.append(start - -left // -(-left // most))
        elif (stop := int(begins[min(first, last)])) < n_images:
            starts.append(stop)
        else:
            break
    return [*starts, n_images]


def _digest(keys: Sequence[Any] | np.ndarray) -> str:
    """Hash many keys at once; Dask would hash them one by one, which takes long."""
    if isinstance(keys, np.ndarray | FileKeys):
        content = keys.tobytes()
    else:
        content = repr(keys).encode("utf-8", "surrogateescape")
    return hashlib.sha256(content).hexdigest()


def images_per_block(reader: Reader, n_images: int) -> int:
    """Choose the number of images in a block, as `open_stack` describes it for ``chunks="auto"``.

    Parameters
    ----------
    reader : object
    n_images : int

    Returns
    -------
    int
        A multiple of the reader's `images_per_chunk`.
    """
    n_threads = dask.config.get("num_workers", None) or CPU_COUNT
    by_threads = max(_MIN_IMAGES, n_images // (_BLOCKS_PER_THREAD * n_threads))
    size = min(by_threads, _most_images(reader))
    return max(1, size // reader.images_per_chunk) * reader.images_per_chunk


def _most_images(reader: Reader) -> int:
    return max(1, _BLOCK_BYTES // max(1, math.prod(reader.shape) * reader.dtype.itemsize))


def check_block_size(chunks: str | int) -> None:
    """Raise unless `chunks` is "auto" or a positive number of images."""
    if chunks == "auto" or (isinstance(chunks, int) and not isinstance(chunks, bool) and chunks > 0):
        return
    raise ValueError(f'chunks={chunks!r} is not a number of images in a block; give "auto" or a positive int')
