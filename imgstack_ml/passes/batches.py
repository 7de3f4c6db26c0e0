"""Planning of a pass: which blocks one task takes, and which tasks stand in one graph. Pure functions of sizes.

Consecutive blocks make a *batch*, which one task reads. Consecutive batches make a *group*: as many as fit the memory
for reading at once. Consecutive groups make a *wave*, which is one Dask graph.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import NamedTuple

from ..base.validation import Images
from ..errors import MemoryLimitError
from .memory import Allowance, format_bytes

__all__ = [
    "BATCH_BYTES",
    "MOST_IN_FLIGHT",
    "READ_BYTES",
    "SELECT_BYTES",
    "Batch",
    "Group",
    "Layout",
    "batch_rows",
    "folds_pay",
    "plan_groups",
    "read_bytes_within",
    "threads_of_batch",
]

BATCH_BYTES = 2**25  # raw images handed to one task; larger batches pass 2 threads no faster
MOST_IN_FLIGHT = 8  # batches whose steps can use several threads each
READ_BYTES = 2**28  # of raw images and partial results in flight, unless a plan says otherwise
SELECT_BYTES = 2**27  # of images in flight, of which only the pixels inside a mask stay in memory
_WORK_BYTES = 2**23  # a step on one thread: tiles of float values, and temporary arrays of NumPy
_BATCH_BLOCKS = 1024  # at most; a block takes 2 kB of a graph, which is more than some images
_WAVE_BLOCKS = 4 * _BATCH_BLOCKS
_LONG_WAVE = 16  # groups in a wave. At the end of each wave threads wait for the last of them.


class Batch(NamedTuple):
    """Blocks from `first` up to `stop`, which is one past the last."""

    first: int
    stop: int


Group = list[Batch]


class Layout(NamedTuple):
    """Blocks of a stack.

    Attributes
    ----------
    starts : list of int
        Position of the first image of each block, and the number of images.
    image_bytes : int
        Bytes of a raw image, and of its pixels inside a mask if there is one.
    """

    starts: list[int]
    image_bytes: int

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1

    @property
    def largest(self) -> int:
        """Images in the largest block."""
        return max(stop - start for start, stop in pairwise(self.starts))

    def n_images(self, *batches: Batch) -> int:
        """Count the images of some batches."""
        return sum(self.starts[batch.stop] - self.starts[batch.first] for batch in batches)

    def n_bytes(self, batch: Batch) -> int:
        """Bytes of the raw images of a batch."""
        return self.image_bytes * self.n_images(batch)

    def batches(self, span: Batch, n_bytes: int) -> list[Batch]:
        """Join up to 1024 consecutive blocks of `span`, up to `n_bytes`; a larger block is a batch of its own."""
        batches = [Batch(span.first, span.first + 1)]
        for block in range(span.first + 1, span.stop):
            longer = Batch(batches[-1].first, block + 1)
            if self.n_bytes(longer) <= n_bytes and longer.stop - longer.first <= _BATCH_BLOCKS:
                batches[-1] = longer
            else:
                batches.append(Batch(block, block + 1))
        return batches


class Groups(NamedTuple):
    """Batches of a pass, and how many of them may be in flight together in one process."""

    groups: list[Group]
    together: int

    def per_wave(self, n_processes: int, n_threads: int) -> int:
        """Count the groups of a wave, for processes of `n_threads` threads each.

        Threads take batches in order, and each holds one at a time together with the results that wait for a
        neighbour. With at least two batches a thread in a group, a wave of many groups therefore holds no more than one
        group does, and threads seldom wait for its end. With fewer, a process gets one group at a time. The graph of a
        wave has 4096 blocks for each process, or one group.
        """
        blocks = max((group[-1].stop - group[0].first for group in self.groups), default=1)
        longest = max(1, min(_LONG_WAVE, _WAVE_BLOCKS // blocks))
        return n_processes * (longest if self.together >= 2 * n_threads else 1)


def plan_groups(layout: Layout, span: Batch, read_bytes: int, partial_bytes: int = 0, batch_bytes: int = 0) -> Groups:
    """Group the blocks of `span` into batches, and the batches into groups.

    Parameters
    ----------
    layout : Layout
    span : Batch
        Blocks to be read.
    read_bytes : int
        Raw images and partial results that may be alive at once.
    partial_bytes : int
        Bytes of a partial result.
    batch_bytes : int
        Raw images that make a partial result worth merging, as far as `read_bytes` allows.
    """
    aim = max(1, min(max(BATCH_BYTES, batch_bytes), read_bytes // 2 - partial_bytes))
    batches = layout.batches(span, aim)
    widest = max(map(layout.n_bytes, batches)) + partial_bytes
    if batch_bytes:  # no more results than planned, even if blocks make the batches smaller
        widest = max(widest, aim + partial_bytes)
    blocks = max(batch.stop - batch.first for batch in batches)
    together = max(1, min(read_bytes // widest, _WAVE_BLOCKS // blocks))
    return Groups([batches[i : i + together] for i in range(0, len(batches), together)], together)


def threads_of_batch(n_threads: int, together: int) -> int:
    """Count the threads that work on one batch, with `together` of them in flight.

    On many cores a batch for each thread would take too much memory: a few batches have several threads each. Where
    memory is scarce, each has one, since each thread has temporary arrays.
    """
    return max(1, n_threads // together) if n_threads > MOST_IN_FLIGHT <= 2 * together else 1


def batch_rows(images: Images) -> int:
    """Images in a batch of a NumPy stack."""
    return max(1, BATCH_BYTES // images.image_bytes)


def folds_pay(partial_bytes: int) -> bool:
    """Tell whether results of batches are so large that one total for all, cut into regions, takes less time."""
    return 4 * partial_bytes > BATCH_BYTES


def read_bytes_within(
    allowed: Allowance,
    layout: Layout,
    partial_bytes: int,
    n_threads: int,
    *,
    reads: bool,
    folds: bool = False,
    chunk: tuple[int, ...] = (),
) -> int:
    """Bytes of raw images and results in flight, so that a pass stays within a memory limit.

    Parameters
    ----------
    allowed : Allowance
    layout : Layout
    partial_bytes : int
        Bytes of a partial result.
    n_threads : int
        Each works with temporary arrays and a partial result of its own.
    reads : bool
        Whether blocks are read, or in memory already.
    folds : bool
        Whether all images are added to one total; the result is made of it.
    chunk : tuple of int
        Shape of the largest chunk, if chunks hold parts of images.

    Raises
    ------
    MemoryLimitError
        If one block does not fit.
    """
    working = n_threads * (_WORK_BYTES + (0 if folds else partial_bytes)) + (1 + folds) * partial_bytes
    rows = layout.largest
    block = rows * layout.image_bytes if reads else 0
    least = working + block + (0 if folds else partial_bytes)
    if least > allowed.limit:
        smaller = f"Open the stack in smaller blocks, e.g. open_stack(..., chunks={ceil(rows / 2)}), or give"
        if chunk:
            smaller = (
                f"Chunks of shape {chunk} hold parts of {rows} images. Store the stack in chunks of whole images once: "
                "save_stack(X, 'whole.zarr', chunks=1); X = open_stack('whole.zarr'). Or give"
            )
        raise MemoryLimitError(
            f"A pass over blocks of {rows} images needs at least {format_bytes(least)}, and the memory limit is "
            f"{format_bytes(allowed.limit)}. Nothing was read. {smaller if block and rows > 1 else 'Give'} "
            f"fit_together([...], X, memory_limit='{ceil(least / 1e6)}MB')."
        )
    return min(READ_BYTES, allowed.limit - working)
