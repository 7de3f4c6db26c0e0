"""Processes that start fast, those of clusters and others: copies of one that has imported what they need."""

import asyncio
import multiprocessing
from contextlib import contextmanager

import dask
from distributed.utils import get_mp_context

MODULES = ["distributed", "imgstack_ml.decomposition.image_pca", "imgstack_ml.io", "zarr", "tests.lib.fit_stack"]


@contextmanager
def fast_workers():
    """Let clusters start their processes so, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(MODULES)
        yield


def start(function, *args, **options):
    """Call a function of a module in a process of its own."""
    with fast_workers():
        process = get_mp_context().Process(target=function, args=args, kwargs=options, daemon=True)
        process.start()
    return process


def start_server(part, **options):
    """Start a scheduler or a worker, without a nanny, in a process of its own."""
    return start(_serve, part, options)


def _serve(part, options):
    async def run():
        async with part(**options) as server:
            await server.finished()

    asyncio.run(run())
