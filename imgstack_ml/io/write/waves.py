"""Writing a stack block by block, in waves: each wave is a small graph in place of one for the whole stack."""

import itertools
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.system import CPU_COUNT

from ...base.gate import gated
from ...base.lazy import samples_of, stored_parts
from ...base.validation import FileStack, data_and_files, refuse_unreadable
from ...passes.cluster import client_of, scheduler_of
from ...passes.progress import ImageBar, compute_with_bar

__all__ = ["BLOCK_BYTES", "Region", "as_dask", "named_stack", "regions_of", "run_on_blocks", "run_on_regions"]

Region = tuple[slice, ...]

_BLOCKS_PER_THREAD = 16  # in a wave; threads idle about 3 % of the time, while they wait for its last block
_MIN_BLOCKS = 64
BLOCK_BYTES = 64_000_000


def as_dask(stack: Any, *, as_stored: bool = False) -> da.Array:
    """Return an ImageStack, a Dask array or an ndarray as a Dask array, whose blocks are checked.

    With `as_stored` these are chunks of parts of images, if the images of an ImageStack are stored so.
    """
    given = type(stack).__name__
    stack, files = data_and_files(stack)
    stack = refuse_unreadable("writing", stack)
    if isinstance(stack, np.ndarray) and stack.ndim:
        rows = max(1, BLOCK_BYTES // max(1, stack[:1].nbytes))
        stack = da.from_array(stack, chunks=(rows, *stack.shape[1:]), name=False)
    if not isinstance(stack, da.Array) or not stack.ndim:
        raise TypeError(f"stack is a {given}; an ImageStack, a Dask array or an ndarray is needed")
    if any(map(math.isnan, stack.shape)):
        raise ValueError("stack has unknown chunk sizes; call stack.compute_chunk_sizes() first")
    stored = stored_parts(stack) if as_stored else None
    return gated(stack if stored is None else stored, files)


def named_stack(X: Any) -> FileStack | None:
    """Return the ImageStack that `X` is, or that names the images of a lazy array computed from one; or None."""
    named = X if isinstance(X, FileStack) else samples_of(X)
    return named if isinstance(named, FileStack) else None


def regions_of(shape: Sequence[int], sizes: Sequence[int]) -> Iterator[Region]:
    """Cut `shape` into blocks of shape `sizes`, in C order; the last ones may be smaller."""
    axes = [
        [slice(start, min(start + size, length)) for start in range(0, length, size)]
        for length, size in zip(shape, sizes, strict=True)
    ]
    return itertools.product(*axes)


def run_on_blocks(
    write: Callable[..., Any],
    data: da.Array,
    sizes: tuple[int, ...],
    regions: Iterable[Region],
    arguments: Callable[[Region], tuple],
    bar: ImageBar,
) -> None:
    """Call ``write(block, *arguments(region))`` for blocks of a lazy stack.

    A block is released once it is written, and each graph is that of one wave of blocks, so that neither the memory nor
    the graph grows with the stack.

    Parameters
    ----------
    write : callable
        Top-level function, or a `functools.partial` of one.
    data : dask.array.Array
        Rechunked to the blocks, where its own chunks differ.
    sizes : tuple of int
        Shape of a block.
    regions : iterable of tuple of slice
        Some of ``regions_of(data.shape, sizes)``, in that order.
    arguments : callable
        Makes the further arguments of a block.
    bar : ImageBar
        Counts images. Where images are cut into several blocks, an image counts when its first block is written.
    """
    scheduler = scheduler_of(data)
    task = dask.delayed(write, pure=False, traverse=False)
    per_row = math.prod(-(-length // size) for length, size in zip(data.shape[1:], sizes[1:], strict=True))
    height = max(1, _blocks_per_wave(scheduler) // max(1, per_row)) * sizes[0]
    for wave, group in itertools.groupby(regions, key=lambda region: region[0].start // height):
        first = wave * height
        # Sliced before it is rechunked: otherwise the graph would hold the rechunking of the whole stack.
        blocks = data[first : first + height].rechunk(sizes).to_delayed()
        calls: list[Any] = []
        images_of: dict[str, int] = {}
        token = uuid.uuid4().hex
        for region in group:
            place = (region[0].start - first, *(part.start for part in region[1:]))
            block = blocks[tuple(start // size for start, size in zip(place, sizes, strict=True))]
            # Dask begins with the last name, where all else is equal: names count down, so that files are read in
            # order.
            name = f"write-{token}-{999_999 - len(calls):06}"
            calls.append(task(block, *arguments(region), dask_key_name=name))
            images_of[calls[-1].key] = 0 if any(place[1:]) else region[0].stop - region[0].start
        compute_with_bar(calls, images_of, bar, scheduler)


def run_on_regions(check: Callable[[Region], bool], data: da.Array, regions: Sequence[Region]) -> list[bool]:
    """Call ``check(region)`` for blocks that are stored already, by the scheduler of the stack."""
    scheduler = scheduler_of(data)
    task = dask.delayed(check, pure=False, traverse=False)
    size = _blocks_per_wave(scheduler)
    found: list[bool] = []
    for i in range(0, len(regions), size):
        found.extend(dask.compute(*map(task, regions[i : i + size]), scheduler=scheduler))
    return found


def _blocks_per_wave(scheduler: Any) -> int:
    client = client_of(scheduler)
    threads = sum(client.nthreads().values()) if client else dask.config.get("num_workers", None) or CPU_COUNT
    return max(_MIN_BLOCKS, _BLOCKS_PER_THREAD * threads)
