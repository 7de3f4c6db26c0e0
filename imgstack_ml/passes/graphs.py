"""Dask graphs of a pass: tasks that read blocks, the step on each batch, and the merging of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import dask
import dask.array as da
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.optimization import cull
from dask.utils import ensure_dict

from ..base.gate import Check, gated
from .batches import Batch, Group, Layout
from .steps import checked_step

__all__ = ["batches_as_tasks", "regions_as_tasks", "wave_graph", "without_empty_blocks"]


def wave_graph(
    step: Callable[..., Any],
    merge: Callable[[Any, Any], Any],
    groups: Sequence[Group],
    sources: Sequence[Any],
    layout: Layout,
    shared: tuple[Any, ...],
    total: Any,
    check_of: Callable[[Batch], Check | None] = lambda batch: None,
    n_merged: int = 2,
    inside: tuple[Any, ...] = (),
) -> tuple[Delayed, dict[Any, int]]:
    """Make the graph of some groups of batches, and count the images of each task.

    Batches of a group are merged in a tree, groups one after the other. So the result does not depend on how
    many groups are in a wave.

    Parameters
    ----------
    step, merge : callable
        See `PassRunner.run`.
    groups : sequence of Group
    sources : sequence
        The blocks of each batch, in the order of the batches: lists of arrays, or tasks that give lists.
    layout : Layout
    shared : tuple
        Further arguments of the step.
    total : object, or None
        Result of the groups before, to be merged with these.
    check_of : callable
        Returns the check of the blocks of a batch; None where they need none.
    n_merged : int
        Results that `merge` joins at once, at most.
    inside : tuple
        Further arguments of the checks: positions of the pixels inside a mask, if there is one.

    Returns
    -------
    result : Delayed
    images_of : dict
        Number of images that each task handles, by the key of the task.
    """
    task, join = dask.delayed(checked_step, pure=False), dask.delayed(merge, pure=False)
    results = [] if total is None else [dask.delayed(total, pure=False, traverse=False)]
    images_of: dict[Any, int] = {}
    blocks = iter(sources)
    for group in groups:
        level = []
        for batch in group:
            level.append(task(step, next(blocks), check_of(batch), layout.starts[batch.first], shared, inside))
            images_of[level[-1].key] = layout.n_images(batch)
        while len(level) > 1:
            parts = [level[i : i + n_merged] for i in range(0, len(level), n_merged)]
            level = [join(*part) if len(part) > 1 else part[0] for part in parts]
        results += level
    return reduce(join, results), images_of


def batches_as_tasks(data: da.Array, batches: Sequence[Batch], place: tuple[int, ...] | None = None) -> list[Delayed]:
    """Give the blocks of each batch, as tasks whose results are lists of arrays.

    `place` numbers the blocks along the axes of an image: 0 along each by default, for blocks of whole images.

    Dask handles each argument of a task for itself. With a task for a batch instead of one for each block, and a graph
    of its own for each batch, its time grows with the number of blocks, and not with its square.
    """
    rest = (0,) * (data.ndim - 1) if place is None else place
    return _as_tasks(data, [[(data.name, i, *rest) for i in range(batch.first, batch.stop)] for batch in batches])


def regions_as_tasks(data: da.Array, batches: Sequence[Batch], places: Sequence[tuple[int, ...]]) -> list[Delayed]:
    """Give the chunks of some regions in each batch, as tasks whose results are lists of lists of arrays.

    Batches are of regions: those at consecutive `places`, which are numbers of chunks along the axes of an image.
    """
    along = range(data.numblocks[0])
    keys = [[[(data.name, i, *place) for i in along] for place in places[first:stop]] for first, stop in batches]
    return _as_tasks(data, keys)


def _as_tasks(data: da.Array, keys: list[Any]) -> list[Delayed]:
    """Give a task for each of some nested lists of keys of blocks."""
    graph = ensure_dict(data.__dask_optimize__(data.__dask_graph__(), list(flatten(keys))))
    tasks = []
    for blocks in keys:
        some = list(flatten(blocks))
        layer = f"batch-{'-'.join(map(str, some[0][1:]))}-{len(some)}-{data.name}"
        own = {**cull(graph, some)[0], layer: (list, blocks)}
        tasks.append(Delayed(layer, HighLevelGraph.from_collections(layer, own, dependencies=()), layer=layer))
    return tasks


def without_empty_blocks(data: da.Array) -> da.Array:
    """Join blocks of no image with their neighbours, after a check of all."""
    sizes = data.chunks[0]
    return data if all(sizes) else gated(data).rechunk({0: tuple(size for size in sizes if size)})
