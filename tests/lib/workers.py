"""Processes of a cluster that start fast: copies of one process that has imported what they need."""

import asyncio
import multiprocessing
from contextlib import contextmanager

import dask
from distributed.utils import get_mp_context

MODULES = ["distributed", "imgstack_ml.decomposition.image_pca", "imgstack_ml.io", "tests.lib.fit_stack"]


@contextmanager
def fast_workers():
    """Let clusters start their processes so, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(MODULES)
        yield


def start(part, *args, **options):
    """Start a scheduler or a worker in a process of its own, without a nanny."""
    with fast_workers():
        process = get_mp_context().Process(target=_serve, args=(part, args, options), daemon=True)
        process.start()
    return process


def _serve(part, args, options):
    async def run():
        async with part(*args, **options) as server:
            await server.finished()

    asyncio.run(run())
