"""Cost of the streaming solver: peak memory, phase by phase, reads and multiply-adds."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

from ..linalg.incremental import group_size
from ..linalg.tiles import tile_width
from ..passes.batches import MOST_IN_FLIGHT, threads_of_batch
from ..passes.memory import Allowance
from .records import FitSize, RowCounts, SolverCost

__all__ = ["StreamingMemory", "randomized_cost", "streaming_cost"]

_NOMINAL_READS = 3  # assumed reads; the solver stops when its certificate allows
_SUMMARY = 2.4  # time of a multiply-add of a summary, in thin products: that of one in a square product is 1
_KEPT_BLOCKS = 6  # blocks of the basis for images in memory, before it restarts with the best vectors


def randomized_cost(size: FitSize, allowed: Allowance, threads: int) -> SolverCost:
    """Cost of the randomized solver, with the images kept in memory if the limit allows that."""
    if size.in_memory:
        return streaming_cost(size, allowed.limit, threads, kept=True)
    again = streaming_cost(size, allowed.limit, threads, kept=False)
    # Inner products take little memory over chunks that hold parts of images, whatever this solver would take.
    room = allowed.keep if size.chunk else allowed.room_to_keep(again.peak_bytes)
    kept = streaming_cost(size, room - size.kept_bytes, threads, kept=True)
    return kept if kept.peak_bytes <= room else again


def streaming_cost(size: FitSize, limit: int, threads: int, kept: bool) -> SolverCost:
    """Cost with images kept or read in each iteration.

    Chooses the most and largest batches in flight that fit the limit, then the largest basis. Raw images that are
    kept come on top of `limit`.
    """
    n, p, counts = size.n, size.p, size.row_counts(kept)
    blocks = _KEPT_BLOCKS if kept else size.max_passes  # the last one holds products
    full = min(blocks * counts.block, min(n - 1, p) + counts.block)
    if size.share and kept:
        full = min(n - 1, p) + counts.block  # the number of components is unknown
    lowest = min(4 * counts.block, full)
    rooms = (*range(full, lowest, -counts.block), lowest)
    block = size.block * size.image_bytes
    large = max(block, min(counts.batch_bytes, size.raw_bytes))
    # Enough batches for every thread, as far as a batch has one thread alone.
    waves = [(max(6, min(threads, MOST_IN_FLIGHT)), large), (6, large)]
    waves += [(4, large), (3, large), (2, large), (2, large // 2), (2, large // 4), (2, block)]
    options = (
        StreamingMemory(size, counts, wave, max(block, batch), room, threads, kept)
        for wave, batch in waves
        for room in rooms
    )
    least = StreamingMemory(size, counts, 2, block, lowest, threads, kept)
    memory = next((option for option in options if option.peak_bytes <= limit), least)
    peak = memory.peak_bytes + (size.kept_bytes if kept else 0)
    reads = 1 if kept else min(_NOMINAL_READS, size.max_passes)
    later = _NOMINAL_READS - 1 if kept else reads - 1
    # First read: inner products, rows and merging. Later reads: blocks, and orthonormalising the basis.
    images = memory.batch / size.image_bytes
    merging = (counts.summary + min(images, counts.summary)) ** 2 / images
    first = _SUMMARY * n * p * (1.5 * counts.summary + counts.summary + counts.draws + merging)
    product = 2 * counts.block * n * p + 90 * counts.block**2 * p
    dense = _dense(min(n, p), counts.block, later)
    product_seconds = size.seconds(product, 2 * n * p, counts.dtype)
    return SolverCost(
        "randomized",
        reads,
        first + later * product + dense,
        peak,
        kept,
        0,
        memory.reading_bytes,
        size.seconds(first, 3 * n * p, counts.dtype) + later * product_seconds + size.seconds(dense, 0, size.dtype),
        memory.room,
        counts,
        product_seconds,
        later,
    )


def _dense(most: int, block: int, products: int) -> float:
    """Multiply-adds on small matrices: Ritz vectors and Nystrom values after each product, at last the certificate."""
    sizes = [min(i * block, most) for i in range(1, products + 1)]
    return sum(7.0 * size**3 for size in sizes) + (max(sizes, default=0) + block) ** 3


class StreamingMemory(NamedTuple):
    """Memory of the randomized solver, phase by phase, without images that are kept.

    Attributes
    ----------
    size : FitSize
    counts : RowCounts
    wave : int
        Batches in flight.
    batch : int
        Bytes of raw images in a batch.
    room : int
        Rows of the basis.
    threads : int
    kept : bool
        Whether images stay in memory.
    """

    size: FitSize
    counts: RowCounts
    wave: int
    batch: int
    room: int
    threads: int
    kept: bool

    @property
    def peak_bytes(self) -> int:
        """Peak memory: the largest phase, and six float64 images (mean, shift, drift, squares, temporary ones)."""
        phases = self._summing, self._beginning, self._multiplying, self._finishing, self._single_look
        return max(phases) + 48 * self.size.p + self.size.embedding_bytes

    @property
    def reading_bytes(self) -> int:
        """Bytes of raw images and summaries in flight."""
        return self.wave * (self.batch + self.counts.summary_bytes)

    def _tasks(self, partial_bytes: int) -> int:
        """Batches in flight at once, if each result takes `partial_bytes`."""
        if self.size.raw_bytes <= self.batch:
            return 1
        return 2 if self.wave == 2 else self.reading_bytes // (self.batch + partial_bytes)

    def _threads_of(self, tasks: int) -> int:
        """Threads of a task."""
        return threads_of_batch(self.threads, tasks)

    def _merging(self, tasks: int) -> int:
        """Results of merges, besides those of the tasks; includes the merged result so far."""
        return 0 if tasks == 1 else min(self.threads, (tasks + 1) // 2) + 1

    @property
    def _summing(self) -> int:
        size, counts = self.size, self.counts
        tasks = self._tasks(counts.summary_bytes)
        running, merging = min(self.threads, tasks), self._merging(tasks)
        images = min(size.n, ceil(self.batch / size.image_bytes))
        group = group_size(counts.summary, size.in_bytes)
        if images > group:  # a task makes several summaries and merges them
            merging = max(merging, 2 * running + 1)
        if not size.integers and counts.dtype == np.float32:  # a second read in float64, if squares overflow
            merging += 2
        height = max(min(images, group), 2 * counts.summary + 1)
        raw = 0 if self.kept else tasks * self.batch
        tiles = running * self._threads_of(tasks) * 2 * self._tile(height)
        factoring = 6 * 8 * height**2  # inner products, and their eigh
        return raw + (tasks + merging) * counts.summary_bytes + tiles + running * (factoring + 36 * size.p)

    @property
    def _beginning(self) -> int:
        """The summary, the first block and the basis are alive together."""
        counts, p = self.counts, self.size.p
        return counts.summary_bytes + 2 * counts.block * p * counts.dtype.itemsize + self._basis

    @property
    def _multiplying(self) -> int:
        n, counts = self.size.n, self.counts
        products = counts.block * self.size.p * self.size.dtype.itemsize
        scores = 8 * n * counts.block
        if self.kept:
            return self._basis + (self.threads + 3) * scores
        tasks = self._tasks(products)
        reading = self.batch + products if tasks == 1 else self.reading_bytes
        walking = min(self.threads, tasks) * self._threads_of(tasks) * 2 * self._tile(min(n, 512))
        # The products are made orthogonal to the basis after the read: its images and results are gone then.
        return self._stored + 4 * scores + max(reading + self._merging(tasks) * products + walking, self._sweeping)

    @property
    def _finishing(self) -> int:
        """Components and a copy of them, and what they leave of each pixel; scores, padded, and with signs."""
        k = min(self.size.k, self.room)
        return self._basis + (2 * k * self.size.dtype.itemsize + 8) * self.size.p + 3 * 8 * self.size.n * k

    @property
    def _single_look(self) -> int:
        """Components from the summary alone."""
        return self.counts.summary_bytes + 3 * self.size.k * self.size.p * self.counts.dtype.itemsize

    @property
    def _basis(self) -> int:
        """What is stored, and tiles for orthonormalising."""
        return self._stored + self._sweeping

    @property
    def _stored(self) -> int:
        """The rows, the scores, and ten matrices of inner products."""
        rows = self.room * self.size.p * self.size.dtype.itemsize
        return rows + 8 * self.size.n * self.room + 10 * 8 * self.room**2

    @property
    def _sweeping(self) -> int:
        """Tiles of all rows, for orthonormalising."""
        return self.threads * 3 * self._tile(self.room)

    def _tile(self, rows: int) -> int:
        """Bytes of a tile of float64."""
        return 8 * rows * min(self.size.p, tile_width(rows, np.dtype(np.float64)))
