"""Waiting for a cluster: results come back, futures are released, and lost workers end the wait."""

import asyncio
from types import SimpleNamespace

import dask
import pytest

from imgstack_ml.errors import ClusterLostError
from imgstack_ml.passes import cluster


def test_only_schedulers_of_a_cluster_have_a_client(client):
    assert cluster.client_of(client.get) is client
    for scheduler in (dask.threaded.get, dask.local.get_sync, {}.get, None):
        assert cluster.client_of(scheduler) is None


def test_results_come_as_they_were_packed_and_futures_are_released(client):
    assert cluster.get_unless_lost(client, {"a": 1, "b": (lambda x: x + 1, "a")}, [["b"], "a"]) == [[2], 1]
    futures, polls = client.map(lambda x: x * x, range(3)), []
    assert cluster.gather_unless_lost(client, futures, futures[::-1], lambda: polls.append(1)) == [4, 1, 0]
    assert polls
    client.sync(asyncio.sleep, 0)  # its event loop does what it was told
    assert not client.futures


def test_errors_of_tasks_are_raised(client):
    futures = client.map(lambda x: 1 / x, [0, 1])
    with pytest.raises(ZeroDivisionError):
        cluster.gather_unless_lost(client, futures, futures)


@pytest.mark.parametrize("seen_first", [True, False])
def test_a_cluster_that_had_workers_is_waited_for_so_long(monkeypatch, seen_first):
    """Without one from the beginning, it may be about to start some."""
    monkeypatch.setattr(cluster, "_PATIENCE", 0.0)
    there = iter([seen_first, False, False, False])

    def wait(futures, timeout):
        raise TimeoutError

    monkeypatch.setattr("distributed.wait", wait)
    cancelled, future = [], SimpleNamespace(status="pending")
    client = SimpleNamespace(
        scheduler_info=lambda: {"workers": [1] if next(there) else []},
        scheduler=SimpleNamespace(address="tcp://here"),
        cancel=cancelled.extend,
    )

    polls = []

    def poll():
        polls.append(1)
        if len(polls) == 3:
            future.status = "error"

    if seen_first:
        with pytest.raises(ClusterLostError, match="tcp://here has lost all its workers"):
            cluster._wait(client, [future], poll)
        assert cancelled == [future]
    else:
        cluster._wait(client, [future], poll)
        assert not cancelled
