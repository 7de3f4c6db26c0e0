"""One bar of images for whatever reads or writes them, moved as tasks end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import dask
import numpy as np
from dask.callbacks import Callback
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT
from tqdm.auto import tqdm  # a widget in notebooks that can show one, text elsewhere

from .cluster import gather_watched, get_watched

__all__ = ["ImageBar", "client_of", "compute_counted", "iterate_rows"]

_NARROW = 80  # columns below which there is no room for the bar itself beside its numbers
_BLOCKS_PER_THREAD = 16  # computed at once: memory is bounded, and threads seldom idle
_SHORT = "{percentage:.0f}% {remaining} {rate_noinv_fmt}{postfix} {desc}"  # what is cut off last comes first


class ImageBar(tqdm):
    """A bar of images that shows images and megabytes a second, and the time left.

    Parameters
    ----------
    image_bytes : int
        Bytes of an image in memory.
    **kwargs
        For tqdm, such as ``total`` (images), ``desc`` (what for) and ``disable``.
    """

    def __init__(self, image_bytes: int, **kwargs: Any):
        self._image_bytes = image_bytes
        super().__init__(**{"unit": " images", "dynamic_ncols": True, **kwargs})

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm draws; in a narrow terminal the numbers alone, which never wrap."""
        found = super().format_dict
        if isinstance(found["ncols"], int) and found["ncols"] < _NARROW:
            found["bar_format"] = _SHORT
        return found

    def advance(self, n_images: int) -> None:
        """Count images; does nothing when the bar is disabled."""
        if n_images and not self.disable:
            seconds = max(1e-9, self._time() - self.start_t)
            done = self.n + n_images - self.initial
            self.set_postfix_str(f"{done * self._image_bytes / seconds / 1e6:.0f} MB/s", refresh=False)
            self.update(n_images)


def client_of(scheduler: Any) -> Any:
    """Return the distributed client that a scheduler function belongs to, or None."""
    owner = getattr(scheduler, "__self__", None)
    return owner if hasattr(owner, "scatter") else None


def compute_counted(values: Sequence[Delayed], images_of: Mapping[Any, int], bar: ImageBar, scheduler: Any) -> tuple:
    """Compute delayed values while a bar counts images.

    Parameters
    ----------
    values : sequence of Delayed
    images_of : mapping
        From the key of a task to the images that are done when it is.
    bar : ImageBar
        Moved task by task.
    scheduler : callable
        As `dask.base.get_scheduler` returns it.

    Raises
    ------
    ClusterLostError
        A cluster lost all its workers.
    """
    client = client_of(scheduler)
    # Dask's callbacks are global, and those of overlapping computations can stay behind: none without a bar.
    if client is not None:  # callbacks are a matter of the local schedulers
        if bar.disable:
            return dask.compute(*values, scheduler=partial(get_watched, client))
        return _compute_on_cluster(values, images_of, bar, client)
    if bar.disable:
        return dask.compute(*values, scheduler=scheduler)
    with _Ticker(images_of, bar):
        return dask.compute(*values, scheduler=scheduler)


def iterate_rows(rows: Any, image_bytes: int, label: str, *, progress: bool) -> Iterator[np.ndarray]:
    """Compute lazy rows, one an image, some blocks after the other, under a bar.

    Parameters
    ----------
    rows : dask array of shape (n_images, ...)
    image_bytes : int
        Bytes of an image in memory.
    label : str
        What the images are read for.
    progress : bool
        Whether the bar is shown.

    Yields
    ------
    ndarray
        The rows of consecutive images.
    """
    rows = rows.rechunk(dict.fromkeys(range(1, rows.ndim), -1))
    scheduler = dask.base.get_scheduler(collections=[rows])
    step = _BLOCKS_PER_THREAD * CPU_COUNT
    with ImageBar(image_bytes, total=len(rows), desc=label, disable=not progress) as bar:
        for first in range(0, rows.numblocks[0], step):
            some = rows.blocks[first : first + step]
            blocks = some.to_delayed().ravel().tolist()
            images_of = dict(zip((block.key for block in blocks), some.chunks[0], strict=True))
            yield np.concatenate(compute_counted(blocks, images_of, bar, scheduler))


def _compute_on_cluster(values: Sequence[Delayed], images_of: Mapping[Any, int], bar: ImageBar, client: Any) -> tuple:
    """Ask for the tasks that count, too, and let go of each that is seen to be done: its result stays no longer."""
    graph = HighLevelGraph.merge(*(value.dask for value in values))
    wanted = {value.key for value in values}
    futures = client.compute([*values, *(Delayed(key, graph) for key in images_of if key not in wanted)])
    results = futures[: len(values)]
    steps = {future.key: future for future in futures if future.key in images_of}
    del futures

    def count() -> None:
        for key in [key for key, step in steps.items() if step.status == "finished"]:
            step = steps.pop(key)
            if key not in wanted:
                step.release()
            bar.advance(images_of[key])

    try:
        return tuple(gather_watched(client, results, results, count))
    finally:  # an error would hold on to them
        for step in steps.values():
            step.release()


class _Ticker(Callback):
    """Move the bar when a task is done."""

    def __init__(self, images_of: Mapping[Any, int], bar: ImageBar):
        super().__init__()
        self._images_of = images_of
        self._bar = bar

    def _posttask(self, key: Any, *_: Any) -> None:
        self._bar.advance(self._images_of.get(key, 0))
