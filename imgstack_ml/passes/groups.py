"""Running the groups of a pass, wave by wave, and saving the result so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..base.gate import Check
from .batches import Batch, Group, Groups, Layout
from .blas import one_blas_thread
from .checkpoint import PassRecord
from .cluster import DataLostError
from .executors import Executor
from .graphs import wave_graph
from .progress import ImageBar

__all__ = ["Source", "Work", "run_groups"]

_MOST_LOSSES = 3  # of data that was sent to the workers, while no wave is finished


class Source(NamedTuple):
    """What a pass reads: blocks of a layout, a task for each batch of them, and how they are checked."""

    layout: Layout
    tasks: Callable[[Sequence[Batch]], list[Any]]
    check: Callable[[Batch], Check | None]


class Work(NamedTuple):
    """What a pass does, as `PassRunner.run` has it; `inside` are further arguments of the checks."""

    step: Callable[..., Any]
    merge: Callable[..., Any]
    shared: tuple[Any, ...]
    inside: tuple[Any, ...]
    n_merged: int


def run_groups(
    executor: Executor, source: Source, work: Work, plan: Groups, bar: ImageBar, record: PassRecord | None
) -> Any:
    """Run the groups that the record does not hold yet, wave by wave, and save the result so far after each.

    Waves are as long with a checkpoint as without: threads wait at the end of each, and on a cluster the last
    digits depend on their length.
    """
    groups, layout = plan.groups, source.layout
    longest = plan.per_wave(*executor.processes_and_threads())
    n_done, _, _, total = (0, 0, 0, None) if record is None else record.load()
    n_images = sum(layout.n_images(*group) for group in groups[:n_done])
    bar.initial = n_images
    bar.advance(n_images)
    waves = [groups[first : first + longest] for first in range(n_done, len(groups), longest)]
    times_lost = 0
    while waves:
        try:
            with executor.send((*work.inside, *work.shared)) as sent:
                n_inside = len(work.inside)
                sent_work = work._replace(inside=sent[:n_inside], shared=sent[n_inside:])
                while waves:
                    total = _run_wave(executor, source, sent_work, waves[0], bar, total)
                    wave, times_lost = waves.pop(0), 0
                    n_done += len(wave)
                    n_images += sum(layout.n_images(*group) for group in wave)
                    if record is not None:
                        record.save(n_done, n_images, total)
        except DataLostError:  # with a worker: the other copies may have been dropped, as Dask does to save memory
            times_lost += 1
            if times_lost == _MOST_LOSSES:
                raise
            bar.advance(n_images - bar.n)
    return total


def _run_wave(
    executor: Executor, source: Source, work: Work, groups: Sequence[Group], bar: ImageBar, total: Any
) -> Any:
    """Run some groups of batches and merge them with the result so far, if there is one."""
    step, merge, shared, inside, n_merged = work
    tasks = source.tasks([batch for group in groups for batch in group])
    within, before = (total, None) if executor.keeps_total else (None, total)
    graph, images_of = wave_graph(
        step, merge, groups, tasks, source.layout, shared, within, source.check, n_merged, inside
    )
    with one_blas_thread():
        (result,) = executor.compute([graph], images_of, bar)
    return result if before is None else merge(before, result)
