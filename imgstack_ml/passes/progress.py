"""Progress in images: the bar, and computing that moves a bar whenever a task has finished."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import dask
import numpy as np
from dask.callbacks import Callback
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT
from tqdm import TqdmWarning

from .cluster import client_of, gather_unless_lost, get_unless_lost, scheduler_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # that a notebook has no ipywidgets, when this package is imported
    from tqdm.auto import tqdm  # a widget in notebooks that can show one, text elsewhere

__all__ = ["ImageBar", "compute_with_bar", "iterate_rows", "tqdm"]

_NARROW = 80  # columns; in fewer, there is no room for the bar itself beside its numbers
_SHORT = "{percentage:.0f}% {remaining} {rate_noinv_fmt}{postfix} {desc}"  # a terminal cuts off the end
_BLOCKS_PER_THREAD = 16  # computed at a time: few enough to bound memory, enough to keep all threads busy
_WAVE_BYTES = 2**24  # of rows that are computed at a time


class ImageBar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A progress bar that counts images, and shows images and megabytes a second and the time left.

    Parameters
    ----------
    image_bytes : int
        Bytes of one image in memory.
    **kwargs
        Arguments of tqdm, such as ``total`` (images), ``desc`` (purpose) and ``disable``.
    """

    def __init__(self, image_bytes: int, **kwargs: Any):
        self._image_bytes = image_bytes
        super().__init__(**{"unit": " images", "dynamic_ncols": True, **kwargs})

    @property
    def format_dict(self) -> dict[str, Any]:
        """Settings that tqdm draws by. A narrow terminal gets the numbers without the bar, which would wrap."""
        settings: dict[str, Any] = super().format_dict
        if isinstance(settings["ncols"], int) and settings["ncols"] < _NARROW:
            settings["bar_format"] = _SHORT
        return settings

    def advance(self, n_images: int) -> None:
        """Move the bar by some images. A disabled bar does nothing."""
        if n_images and not self.disable:
            seconds = max(1e-9, self._time() - self.start_t)
            done = self.n + n_images - self.initial
            self.set_postfix_str(f"{done * self._image_bytes / seconds / 1e6:.0f} MB/s", refresh=False)
            self.update(n_images)


def compute_with_bar(
    values: Sequence[Delayed], images_of: Mapping[Any, int], bar: ImageBar, scheduler: Any
) -> tuple[Any, ...]:
    """Compute delayed values on threads or a cluster, and move a bar whenever a task has finished.

    Parameters
    ----------
    values : sequence of Delayed
    images_of : mapping
        For the key of a task, by how many images the task moves the bar. Tasks without a key here do not move it.
    bar : ImageBar
    scheduler : callable
        As `scheduler_of` returns it.

    Raises
    ------
    ClusterLostError
        The cluster lost all its workers.
    """
    client = client_of(scheduler)
    if client is not None and not bar.disable:
        return _compute_on_cluster(values, images_of, bar, client)
    if client is not None:
        scheduler = partial(get_unless_lost, client)
    if bar.disable:
        return tuple(dask.compute(*values, scheduler=scheduler))
    # Not as Dask's global callback, which computations in other threads would take away, or leave behind.
    callbacks = {*Callback.active, _BarCallback(images_of, bar)._callback}
    return tuple(dask.compute(*values, scheduler=scheduler, callbacks=callbacks))


def iterate_rows(
    rows: Any, image_bytes: int, label: str, *, progress: bool, row_bytes: int | None = None
) -> Iterator[np.ndarray]:
    """Compute lazy rows, one for each image, a few blocks at a time with a bar.

    At most 16 MiB of rows are computed at a time, or one block for each thread where that is more.

    Parameters
    ----------
    rows : dask array of shape (n_images, ...)
    image_bytes : int
        Bytes of one image in memory.
    label : str
        Purpose of the read, shown by the bar.
    progress : bool
        Whether to show the bar.
    row_bytes : int, optional
        Bytes of one row, if its dtype does not say.

    Yields
    ------
    ndarray
        Rows of consecutive images.
    """
    rows = rows.rechunk(dict.fromkeys(range(1, rows.ndim), -1))
    scheduler = scheduler_of(rows)
    row_bytes = row_bytes or rows.dtype.itemsize * prod(rows.shape[1:])
    by_memory = _WAVE_BYTES // max(1, max(rows.chunks[0]) * row_bytes)
    step = max(CPU_COUNT, min(_BLOCKS_PER_THREAD * CPU_COUNT, by_memory))
    with ImageBar(image_bytes, total=len(rows), desc=label, disable=not progress) as bar:
        for first in range(0, rows.numblocks[0], step):
            some = rows.blocks[first : first + step]
            blocks = some.to_delayed().ravel().tolist()
            images_of = dict(zip((block.key for block in blocks), some.chunks[0], strict=True))
            yield np.concatenate(compute_with_bar(blocks, images_of, bar, scheduler))


def _compute_on_cluster(
    values: Sequence[Delayed], images_of: Mapping[Any, int], bar: ImageBar, client: Any
) -> tuple[Any, ...]:
    """Compute on a cluster, where Dask's callbacks do not work: request a future of each task that moves the bar.

    The future of a task is released as soon as the bar has moved. Else the cluster would keep the result.
    """
    graph = HighLevelGraph.merge(*(value.dask for value in values))
    wanted = {value.key for value in values}
    futures = client.compute([*values, *(Delayed(key, graph) for key in images_of if key not in wanted)])
    results = futures[: len(values)]
    unfinished = {future.key: future for future in futures if future.key in images_of}
    del futures

    def move_bar() -> None:
        for key in [key for key, future in unfinished.items() if future.status == "finished"]:
            future = unfinished.pop(key)
            if key not in wanted:
                future.release()
            bar.advance(images_of[key])

    try:
        return tuple(gather_unless_lost(client, results, results, move_bar))
    finally:  # after an error, its traceback would keep the futures alive
        for future in unfinished.values():
            future.release()


class _BarCallback(Callback):
    """Moves a bar whenever a task of a local scheduler has finished."""

    def __init__(self, images_of: Mapping[Any, int], bar: ImageBar):
        super().__init__()  # type: ignore[no-untyped-call]  # `untyped_calls_exclude` does not know `super`
        self._images_of = images_of
        self._bar = bar

    def _posttask(self, key: Any, *_: Any) -> None:
        self._bar.advance(self._images_of.get(key, 0))
