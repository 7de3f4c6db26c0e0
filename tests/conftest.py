import gc
import os
import threading

import pytest

# What takes seconds to import is imported where it is used: the process that waits for xdist's workers reads this, too.

os.environ["MPLBACKEND"] = "Agg"
gc.disable()  # until the tests are collected: what they import and their parameters stay


def pytest_collection_finish():
    """Collections of garbage need not look at half a million objects that stay."""
    gc.freeze()
    gc.enable()
    if "PYTEST_XDIST_WORKER" in os.environ:
        set_blas_threads(1)  # there is a worker for each core: the threads of NumPy would wait for each other


def set_blas_threads(n):
    """Set them for good, in a thread that ends: while it lives, threadpoolctl lets no other thread set them."""
    from threadpoolctl import threadpool_limits

    thread = threading.Thread(target=threadpool_limits, kwargs={"limits": n, "user_api": "blas"})
    thread.start()
    thread.join()


@pytest.fixture
def two_blas_threads():
    """What limits BLAS to one thread, and lifts the limit, is seen to do so on any machine."""
    from threadpoolctl import threadpool_info

    before = max((library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"), default=1)
    set_blas_threads(2)
    yield
    set_blas_threads(before)


@pytest.fixture
def no_arrays(monkeypatch):
    """Any attempt to draw a lazy stack into memory behind the user's back fails."""
    import dask.array as da

    def refuse(self, *args, **kwargs):
        raise AssertionError("a lazy stack was materialised")

    monkeypatch.setattr(da.Array, "__array__", refuse)


@pytest.fixture(scope="session")
def _cluster():
    """Two worker processes that all tests share: they start once. Tests that stop workers start their own."""
    import dask
    from distributed import LocalCluster

    from tests.lib.workers import fast_workers

    with fast_workers(), dask.config.set({"distributed.worker.daemon": False}):
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster:
        yield cluster


@pytest.fixture
def client(_cluster):
    """A client of the shared cluster. While it is open, Dask computes there."""
    from distributed import Client

    with Client(_cluster) as client:
        yield client
