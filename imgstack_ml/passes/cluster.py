"""Waiting for a cluster, which does not say when it has lost all its workers: its tasks wait for new ones, for ever."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from time import monotonic
from typing import Any

from dask.core import flatten

from ..errors import ClusterLostError

__all__ = ["gather_watched", "get_watched"]

_LOOK = 0.5  # seconds between two looks at the cluster
_PATIENCE = 30.0  # seconds without a worker: one that its nanny starts again is back by then


def get_watched(client: Any, dsk: Any, keys: Any, **options: Any) -> Any:
    """Do what a distributed client's `get` does, and raise where every worker is lost.

    A cluster that has no worker to begin with may be about to start some, and is waited for.

    Raises
    ------
    ClusterLostError
        There were workers, and for half a minute there was none.
    """
    from distributed.worker import thread_state

    if getattr(thread_state, "key", None):  # within a task, whose thread the client lends to others meanwhile
        return client.get(dsk, keys, **options)
    packed = client.get(dsk, keys, sync=False, **options)
    return gather_watched(client, list(flatten([packed])), packed)


def gather_watched(client: Any, futures: list[Any], packed: Any, look: Callable[[], None] = lambda: None) -> Any:
    """Wait for futures and return the values of what they are packed in, calling `look` twice a second meanwhile.

    The futures are let go of: nothing waits on the cluster for Python to collect them.

    Raises
    ------
    ClusterLostError
        See `get_watched`.
    """
    try:
        _wait(client, futures, look)
        return client.gather(packed)
    except CancelledError as error:  # what the client had sent to the workers is lost with them
        if client.status == "running" and not _has_workers(client):
            raise ClusterLostError(client.scheduler.address) from error
        raise
    finally:
        for future in futures:
            future.release()


def _wait(client: Any, futures: list[Any], look: Callable[[], None]) -> None:
    """Wait until all are done, or one has failed."""
    from distributed import wait

    seen, last = _has_workers(client), monotonic()
    while not any(future.status == "error" for future in futures):
        try:
            wait(futures, timeout=_LOOK)
            look()
            return
        except TimeoutError:
            look()
            there = _has_workers(client)
            seen = seen or there
            last = monotonic() if there else last
        if seen and monotonic() - last > _PATIENCE:
            client.cancel(futures)
            raise ClusterLostError(client.scheduler.address)


def _has_workers(client: Any) -> bool:
    return bool(client.scheduler_info()["workers"])
