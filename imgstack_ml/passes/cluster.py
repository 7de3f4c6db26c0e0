"""The scheduler in use, and waiting for results of a cluster, with an error if that loses all its workers.

Dask itself waits for new workers without end, and tells nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from time import monotonic
from typing import Any

import dask
from dask.base import get_scheduler, named_schedulers
from dask.core import flatten

from ..errors import ClusterLostError

__all__ = ["DataLostError", "client_of", "gather_unless_lost", "get_unless_lost", "scheduler_of"]

_POLL_SECONDS = 0.5
_PATIENCE = 30.0  # seconds without a worker; a worker that its nanny starts again is back by then


class DataLostError(CancelledError):
    """A worker was lost, and with it the only copy of data that had been sent to the cluster: it can be sent again."""

    def __init__(self, address: str):
        super().__init__(
            f"a worker of the cluster at {address} was lost, and with it data that nothing there can compute again. "
            "Call again."
        )


def scheduler_of(*collections: Any) -> Any:
    """Return the scheduler function that Dask uses for collections; None if the user has set none and there are none.

    Dask imports distributed to look for a client, which takes 15 MB. Before others import it, there is no client.
    """
    chosen = dask.config.get("scheduler", None)
    if isinstance(chosen, str) and chosen.lower() in named_schedulers:
        return named_schedulers[chosen.lower()]
    if chosen is None and "distributed" not in sys.modules:
        return collections[0].__dask_scheduler__ if collections else None
    return get_scheduler(collections=collections)


def client_of(scheduler: Any) -> Any:
    """Return the distributed client that a scheduler function belongs to, or None."""
    owner = getattr(scheduler, "__self__", None)
    return owner if hasattr(owner, "scatter") else None


def get_unless_lost(client: Any, dsk: Any, keys: Any, **options: Any) -> Any:
    """Compute keys of a graph as ``client.get`` does, but raise if all workers are lost.

    A cluster that has no worker at the beginning is waited for: it may be about to start some.

    Raises
    ------
    ClusterLostError
        There were workers, and then there was none for half a minute.
    """
    from distributed.worker import thread_state

    if getattr(thread_state, "key", None):  # called within a task: client.get frees the task's thread while it waits
        return client.get(dsk, keys, **options)
    packed = client.get(dsk, keys, sync=False, **options)
    return gather_unless_lost(client, list(flatten([packed])), packed)


def gather_unless_lost(client: Any, futures: list[Any], packed: Any, on_poll: Callable[[], None] = lambda: None) -> Any:
    """Wait for futures and return the values of `packed`, or raise if all workers are lost.

    The futures are released at the end, so that the cluster frees the results at once.

    Parameters
    ----------
    client : distributed.Client
    futures : list of Future
        All futures in `packed`.
    packed : Future, or lists of futures
        The values are returned in the same lists.
    on_poll : callable
        Called twice a second while the cluster works, and once at the end.

    Raises
    ------
    ClusterLostError
        There were workers, and then there was none for half a minute.
    DataLostError
        Data that had been sent to the workers is lost.
    """
    try:
        _wait(client, futures, on_poll)
        return client.gather(packed)
    except CancelledError as error:
        if client.status != "running" or "scheduler-restart" in str(error):  # so the user told Dask
            raise
        _wait_for_a_worker(client)
        raise DataLostError(client.scheduler.address) from error
    finally:
        for future in futures:
            future.release()


def _wait(client: Any, futures: list[Any], on_poll: Callable[[], None]) -> None:
    """Wait until all futures are done or one has failed."""
    from distributed import wait

    had_workers, last_seen = _has_workers(client), monotonic()
    while not any(future.status == "error" for future in futures):
        try:
            wait(futures, timeout=_POLL_SECONDS)
            on_poll()
            return
        except TimeoutError:
            on_poll()
            if _has_workers(client):
                had_workers, last_seen = True, monotonic()
        if had_workers and monotonic() - last_seen > _PATIENCE:
            client.cancel(futures)
            raise ClusterLostError(client.scheduler.address)


def _wait_for_a_worker(client: Any) -> None:
    """Wait for one worker, half a minute at most."""
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        raise ClusterLostError(client.scheduler.address) from error


def _has_workers(client: Any) -> bool:
    return bool(client.scheduler_info()["workers"])
