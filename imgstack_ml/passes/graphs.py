"""Dask graphs of a pass: tasks that read blocks, the step on each batch, and the merging of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import dask
import dask.array as da
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from ..base.gate import Check, gated
from .batches import Batch, Group, Layout
from .steps import checked_step

__all__ = ["blocks_as_tasks", "wave_graph", "without_empty_blocks"]


def wave_graph(
    step: Callable[..., Any],
    merge: Callable[[Any, Any], Any],
    groups: Sequence[Group],
    sources: Sequence[Any],
    layout: Layout,
    shared: tuple[Any, ...],
    total: Any,
    check_of: Callable[[Batch], Check | None] = lambda batch: None,
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
        Blocks of the groups, as arrays or tasks.
    layout : Layout
    shared : tuple
        Further arguments of the step.
    total : object, or None
        Result of the groups before, to be merged with these.
    check_of : callable
        Returns the check of the blocks of a batch; None where they need none.

    Returns
    -------
    result : Delayed
    images_of : dict
        Number of images that each task handles, by the key of the task.
    """
    first = groups[0][0].first
    task, join = dask.delayed(checked_step, pure=False), dask.delayed(merge, pure=False)
    results = [] if total is None else [dask.delayed(total, pure=False, traverse=False)]
    images_of: dict[Any, int] = {}
    for group in groups:
        level = []
        for batch in group:
            blocks = sources[batch.first - first : batch.stop - first]
            level.append(task(step, blocks, check_of(batch), layout.starts[batch.first], shared))
            images_of[level[-1].key] = layout.n_images(batch)
        while len(level) > 1:
            pairs = [join(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
            level = pairs + level[2 * len(pairs) :]
        results += level
    return reduce(join, results), images_of


def blocks_as_tasks(data: da.Array, first: int, stop: int) -> list[Delayed]:
    """Give the row blocks `first` to `stop` of an array as tasks.

    ``data.blocks[first:stop].to_delayed()`` gives the same, with one more task a block on a cluster.
    """
    rest = (0,) * (data.ndim - 1)
    keys = [(data.name, i, *rest) for i in range(first, stop)]
    graph = data.__dask_optimize__(data.__dask_graph__(), keys)
    layer = f"delayed-{data.name}"
    graph = HighLevelGraph.from_collections(layer, graph, dependencies=())
    return [Delayed(key, graph, layer=layer) for key in keys]


def without_empty_blocks(data: da.Array) -> da.Array:
    """Join blocks of no image with their neighbours, after a check of all."""
    sizes = data.chunks[0]
    return data if all(sizes) else gated(data).rechunk({0: tuple(size for size in sizes if size)})
