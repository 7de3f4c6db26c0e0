"""Where the tasks of a pass run: in threads of this process, or on a cluster. The runner does not ask which."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import dask.array as da
import dask.threaded
from dask.delayed import Delayed
from dask.system import CPU_COUNT

from .cluster import client_of, scheduler_of
from .memory import Allowance, allowance
from .progress import ImageBar, compute_with_bar

__all__ = ["Executor", "executor_for", "local_scheduler", "n_local_threads"]


class Executor(Protocol):
    """What a pass needs of the place where its tasks run."""

    @property
    def scheduler(self) -> Any:
        """Scheduler, as Dask takes it."""
        ...

    @property
    def keeps_total(self) -> bool:
        """Whether the result so far can be an argument of a task at no cost. It would have to be sent to a cluster."""
        ...

    @property
    def shares_memory(self) -> bool:
        """Whether tasks are threads of this process, so that one may write into an array that others have read."""
        ...

    def processes_and_threads(self) -> tuple[int, int]:
        """Count the processes, and the threads of one."""
        ...

    def allowance(self, memory_limit: str | int | float) -> Allowance:
        """Bytes that a pass may hold in each process."""
        ...

    def send(self, shared: tuple[Any, ...]) -> AbstractContextManager[tuple[Any, ...]]:
        """Give what stands for large constants in tasks; processes forget them at the end of the block."""
        ...

    def compute(self, values: Sequence[Delayed], images_of: Mapping[Any, int], bar: ImageBar) -> tuple[Any, ...]:
        """Compute values; `images_of` counts the images that are done with the task of each key."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Threads of this process, or whatever local scheduler the user has set."""

    scheduler: Any
    keeps_total: bool = True

    @property
    def shares_memory(self) -> bool:
        """Whether Dask's own threads run the tasks: what else a user has set may be processes."""
        return self.scheduler in ("threads", "synchronous", dask.threaded.get, dask.local.get_sync)

    def processes_and_threads(self) -> tuple[int, int]:
        """Count one process, and its threads."""
        return 1, n_local_threads()

    def allowance(self, memory_limit: str | int | float) -> Allowance:
        """Bytes that this process may hold."""
        return allowance(memory_limit)

    @contextmanager
    def send(self, shared: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """Wrap constants, so that Dask neither copies them nor looks into them."""
        yield tuple(dask.delayed(item, pure=False, traverse=False) for item in shared)

    def compute(self, values: Sequence[Delayed], images_of: Mapping[Any, int], bar: ImageBar) -> tuple[Any, ...]:
        """Compute in threads."""
        return compute_with_bar(values, images_of, bar, self.scheduler)


@dataclass(frozen=True)
class ClusterExecutor:
    """Workers of a Dask cluster."""

    scheduler: Any
    client: Any
    keeps_total: bool = False
    shares_memory: bool = False

    def processes_and_threads(self) -> tuple[int, int]:
        """Count the workers, and the most threads of one."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return max(1, len(workers)), max((worker["nthreads"] for worker in workers), default=1)

    def allowance(self, memory_limit: str | int | float) -> Allowance:
        """Bytes that a worker may hold. This process does not know what ``"auto"`` would be there: no limit."""
        allowed = allowance(memory_limit)
        return Allowance(sys.maxsize, sys.maxsize) if memory_limit == "auto" else allowed

    @contextmanager
    def send(self, shared: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """Send constants to every worker once, not with every task."""
        futures = tuple(self.client.scatter([item], broadcast=True, hash=False)[0] for item in shared)
        try:
            yield futures
        finally:
            for future in futures:
                future.release()

    def compute(self, values: Sequence[Delayed], images_of: Mapping[Any, int], bar: ImageBar) -> tuple[Any, ...]:
        """Compute on the workers; an error is raised if all of them are lost."""
        return compute_with_bar(values, images_of, bar, self.scheduler)


def executor_for(lazy: da.Array | None) -> Executor:
    """Return the place that Dask is set to for a lazy array; images in memory stay in this process."""
    if lazy is None:
        return LocalExecutor(local_scheduler())
    scheduler = scheduler_of(lazy)
    client = client_of(scheduler)
    return LocalExecutor(scheduler) if client is None else ClusterExecutor(scheduler, client)


def local_scheduler() -> Any:
    """Scheduler function for work in this process: threads, unless the user asks for none."""
    return dask.local.get_sync if scheduler_of() is dask.local.get_sync else dask.threaded.get


def n_local_threads() -> int:
    """Threads for work in this process."""
    if local_scheduler() is dask.local.get_sync:
        return 1
    return dask.config.get("num_workers", None) or CPU_COUNT
