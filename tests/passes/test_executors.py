"""Where the tasks of a pass run: in threads, one after the other, or on a cluster."""

import sys
import time

import dask
import dask.array as da
import numpy as np
import pytest
from dask.system import CPU_COUNT

from imgstack_ml.passes import memory as _memory
from imgstack_ml.passes.executors import ClusterExecutor, LocalExecutor, executor_for, local_scheduler, n_local_threads
from imgstack_ml.passes.memory import Allowance
from imgstack_ml.passes.progress import ImageBar

LAZY = da.zeros((4, 3), chunks=2)


def added(images, offset):
    return images.sum() + offset.sum()


def compute(executor, bar=None):
    """Sum two constants that were sent."""
    with executor.send((np.ones(3), np.full(2, 5.0))) as sent:
        task = dask.delayed(added, pure=False)(*sent)
        return executor.compute([task], {task.key: 4}, bar or ImageBar(1, disable=True))


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_local_schedulers(scheduler):
    with dask.config.set(scheduler=scheduler, num_workers=3):
        executor = executor_for(LAZY)
        n_threads = 3 if scheduler == "threads" else 1
        assert isinstance(executor, LocalExecutor)
        assert executor.keeps_total
        assert executor.scheduler is dask.base.get_scheduler(collections=[LAZY])
        assert executor.processes_and_threads() == (1, n_threads)
        assert executor_for(None).scheduler is local_scheduler() is dask.base.named_schedulers[scheduler]
        assert n_local_threads() == n_threads
        assert compute(executor) == (13.0,)


def test_threads_are_as_many_as_the_machine_has():
    with dask.config.set(scheduler=None, num_workers=None):
        assert (local_scheduler(), n_local_threads()) == (dask.threaded.get, CPU_COUNT)


def test_local_constants_are_neither_copied_nor_looked_into():
    constant = [np.ones(3)]
    with LocalExecutor("synchronous").send((constant,)) as (sent,):
        (found,) = dask.compute(sent, scheduler="synchronous")
    assert found is constant


def test_a_bar_counts_what_is_done(capsys):
    with ImageBar(1, total=4, desc="looking") as bar:
        compute(LocalExecutor(dask.local.get_sync), bar)
    assert "4/4" in capsys.readouterr().err


def test_allowance_of_this_process(monkeypatch):
    monkeypatch.setattr(_memory, "_available", lambda: 1000)
    assert LocalExecutor("threads").allowance("auto") == Allowance(500, 500)
    assert LocalExecutor("threads").allowance("2kB") == Allowance(2000, 2000)


def test_a_cluster(client):
    executor = executor_for(LAZY)
    assert isinstance(executor, ClusterExecutor)
    assert not executor.keeps_total
    assert executor.processes_and_threads() == (2, 1)
    assert executor.allowance("2kB") == Allowance(2000, 2000)
    assert executor.allowance("auto") == Allowance(sys.maxsize, sys.maxsize)
    with pytest.raises(ValueError, match="memory_limit=0"):
        executor.allowance(0)
    assert compute(executor) == (13.0,)
    assert isinstance(executor_for(None), LocalExecutor)
    with dask.config.set(scheduler="synchronous"):
        assert isinstance(executor_for(LAZY), LocalExecutor)


def test_a_cluster_has_constants_on_every_worker_and_forgets_them(client):
    executor = executor_for(LAZY)
    with executor.send((np.ones(3), np.zeros(2))) as sent:
        assert {len(workers) for workers in client.who_has(sent).values()} == {2}
        keys = {future.key for future in sent}
    deadline = time.monotonic() + 10
    while keys & set(client.futures) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not keys & set(client.futures)
