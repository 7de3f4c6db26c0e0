"""Graphs of passes that add images to the totals of regions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import dask
import dask.array as da
import numpy as np

from ..base.gate import Check
from .batches import BATCH_BYTES, Batch, Group, Layout
from .blas import one_blas_thread
from .executors import Executor
from .graphs import batches_as_tasks
from .progress import ImageBar
from .regions import Region, n_values, shares_of, stored_regions
from .steps import Pass, checked_blocks, checked_step

__all__ = ["Addition", "fold_waves", "layout_of_chunks", "waves_of_chunks", "waves_of_lines"]


class Addition(NamedTuple):
    """Some images, to be added to the total of a region.

    Attributes
    ----------
    number : int
        Of the region.
    region : Region or None
        What to take of the images; None if they are chunks that hold the region alone.
    batches : list
        Consecutive images: tasks, or arrays, as lists of blocks.
    n_images : int
        By how many images a bar moves when they are added.
    """

    number: int
    region: Region | None
    batches: list[Any]
    n_images: int = 0


Waves: TypeAlias = Iterator[tuple[list[Addition], dict[Any, int]]]


def fold_waves(one: Pass, waves: Waves, regions: Sequence[Region], executor: Executor, bar: ImageBar) -> Any:
    """Compute waves of additions, one after the other, and return the result of a pass."""
    assert one.fold is not None
    totals: list[Any] = list(map(one.begin, regions))
    for wave, images_of in waves:
        _fold_wave(one.fold, wave, totals, executor, images_of, bar)
    return one.join(totals, regions)


def _fold_wave(
    fold: Callable[[Any, list[np.ndarray]], Any],
    wave: Sequence[Addition],
    totals: list[Any],
    executor: Executor,
    images_of: dict[Any, int],
    bar: ImageBar,
) -> None:
    """Compute some additions in one graph, those to one region in their order, and put the new totals into `totals`.

    Only tasks that share memory write into a total: a worker of a cluster can be asked to do a task again.
    """
    task, own = dask.delayed(_add, pure=False), executor.shares_memory
    found = {one.number: dask.delayed(totals[one.number], pure=False, traverse=False) for one in wave}
    for number in found:
        totals[number] = None  # the tasks have the only copy
    for one in wave:
        found[one.number] = task(fold, found[one.number], one.batches, one.region, own)
        images_of[found[one.number].key] = one.n_images
    with one_blas_thread():
        for number, total in zip(found, executor.compute(list(found.values()), images_of, bar), strict=True):
            totals[number] = total


def _add(
    fold: Callable[[Any, list[np.ndarray]], Any],
    total: Any,
    batches: Sequence[Sequence[np.ndarray]],
    region: Region | None,
    own: bool,
) -> Any:
    parts = [block[(slice(None), *(region or ()))] for blocks in batches for block in blocks]
    with one_blas_thread():
        return fold(total if own else copy.deepcopy(total), parts)


class Blocks(Protocol):
    """What gives blocks of whole images: see `PassRunner`."""

    layout: Layout

    def sources(self, batches: Sequence[Batch]) -> list[Any]:
        """Return the blocks of each batch."""

    def check(self, span: Batch) -> Check | None:
        """Return the check of some blocks."""


def waves_of_lines(groups: Sequence[Group], regions: Sequence[Region], blocks: Blocks) -> Waves:
    """Yield groups of whole images to be added to all regions, each with the images of the tasks that read them."""
    task = dask.delayed(checked_step, pure=False)
    for group in groups:
        batches: list[Any] = []
        images_of = {}
        for batch, some in zip(group, blocks.sources(group), strict=True):
            batches.append(task(checked_blocks, some, blocks.check(batch), 0, []))
            images_of[batches[-1].key] = blocks.layout.n_images(batch)
        yield [Addition(i, region, batches) for i, region in enumerate(regions)], images_of


def layout_of_chunks(layout: Layout, stored: da.Array) -> Layout:
    """Layout of the largest region: its part of an image in place of the image."""
    return Layout(layout.starts, stored.dtype.itemsize * max(map(n_values, stored_regions(stored).values())))


def waves_of_chunks(stored: da.Array, regions: dict[tuple[int, ...], Region], whole: Layout, read_bytes: int) -> Waves:
    """Yield chunks to be added to their regions, one region after the other, as many as may be read at a time."""
    wave: list[Addition] = []
    n_bytes, shares = 0, shares_of(list(regions.values()), len(stored))
    for i, (place, region) in enumerate(regions.items()):
        layout = Layout(whole.starts, stored.dtype.itemsize * n_values(region))
        batches = layout.batches(Batch(0, layout.n_blocks), min(BATCH_BYTES, read_bytes // 2))
        for batch in batches:
            if wave and n_bytes + layout.n_bytes(batch) > read_bytes:
                yield wave, {}
                wave, n_bytes = [], 0
            chunks = batches_as_tasks(stored, [batch], place)
            wave.append(Addition(i, None, chunks, shares[i] if batch is batches[-1] else 0))
            n_bytes += layout.n_bytes(batch)
    yield wave, {}
