"""Processes that start fast, those of clusters and others: copies of one that has imported what they need."""

import asyncio
import multiprocessing
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

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


def run_code(code, *arguments):
    """Run Python code as ``python -c`` does, in a process that has imported the package before.

    Returns
    -------
    CompletedProcess
        With what it wrote to stdout and stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = start(_run, code, [str(argument) for argument in arguments], folder)
        process.join()
        written = [Path(folder, name) for name in ("1", "2")]
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in written)
    return CompletedProcess(["python", "-c", code, *arguments], process.exitcode, out, err)


def run_script(path, *arguments):
    """Run a file of Python so."""
    return run_code(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')", *arguments)


def _run(code, arguments, folder):
    for descriptor in (1, 2):
        os.dup2(os.open(f"{folder}/{descriptor}", os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def start_server(part, **options):
    """Start a scheduler or a worker, without a nanny, in a process of its own."""
    return start(_serve, part, options)


def _serve(part, options):
    async def run():
        async with part(**options) as server:
            await server.finished()

    asyncio.run(run())
