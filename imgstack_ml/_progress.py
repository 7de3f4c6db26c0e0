"""One bar of images for whatever reads or writes them, moved as tasks end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import dask
from dask.callbacks import Callback
from tqdm import tqdm

from ._cluster import get_watched

__all__ = ["ImageBar", "client_of", "compute_counted"]


class ImageBar(tqdm):
    """A bar of images that shows megabytes a second beside images a second."""

    def __init__(self, image_bytes: int, **kwargs: Any):
        self._image_bytes = image_bytes
        super().__init__(**kwargs)

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


def compute_counted(values: Sequence[Any], images_of: dict[str, int], bar: ImageBar, scheduler: Any) -> tuple:
    """Compute delayed values while a bar counts images.

    Parameters
    ----------
    values : sequence of Delayed
    images_of : dict
        From the key of a task to the images that are done when it is.
    bar : ImageBar
        Moved task by task; on a cluster, once at the end.
    scheduler : callable
        As `dask.base.get_scheduler` returns it.

    Raises
    ------
    ClusterLostError
        A cluster lost all its workers.
    """
    client = client_of(scheduler)
    # Dask's callbacks are global, and those of overlapping computations can stay behind: none without a bar.
    with nullcontext() if bar.disable else _Ticker(images_of, bar):
        results = dask.compute(*values, scheduler=scheduler if client is None else partial(get_watched, client))
    if client is not None:  # callbacks are a matter of the local schedulers
        bar.advance(sum(images_of.values()))
    return results


class _Ticker(Callback):
    """Move the bar when a task is done."""

    def __init__(self, images_of: dict[str, int], bar: ImageBar):
        super().__init__()
        self._images_of = images_of
        self._bar = bar

    def _posttask(self, key: Any, *_: Any) -> None:
        self._bar.advance(self._images_of.get(key, 0))
