"""Fits of ImagePCA: by a solver alone, within a planned peak of memory, in a process of its own."""

import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from imgstack_ml import ImagePCA, MemoryLimitError
from imgstack_ml.base.validation import Images
from imgstack_ml.decomposition.plan import plan_fit
from imgstack_ml.decomposition.records import FitRequest, FitSize
from imgstack_ml.decomposition.solvers import SOLVERS
from imgstack_ml.decomposition.streaming_plan import streaming_cost
from imgstack_ml.passes.blas import one_blas_thread
from imgstack_ml.passes.memory import Allowance
from imgstack_ml.passes.runner import PassRunner
from tests.lib.stacks import counted

EXACT = ["gram", "covariance_eigh", "tsqr"]
ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")


# Solvers without the estimator, in one thread of BLAS as it calls them


def solved(solver, stack, k, panel=0, mask=None):
    """Run an exact solver on a lazy stack as if that did not fit; "gram" on panels of `panel` images.

    Returns factors and the runner.
    """
    images = Images(stack, None, mask)
    values = {"values_read": images.values_read}
    size = FitSize.of((len(stack), images.n_pixels), stack.dtype, k, max(stack.chunks[0]), **values)
    roomy = plan_fit(size, solver, Allowance(2**40, 2**40)).chosen
    cost = roomy._replace(keeps_images=False, panel=panel, reading_bytes=2**16)
    runner = PassRunner(images, read_bytes=cost.reading_bytes)
    with one_blas_thread():
        return SOLVERS[solver](runner, cost, size, FitRequest(k)), runner


def unkept(solver, X, k, chunks, panel=0):
    """Run an exact solver on an array; return factors, the runner, and the source with its counts."""
    source = counted(X, chunks)
    return *solved(solver, source.data, k, panel), source


def by_panels(X, panel, chunks, k):
    """Run "gram" on panels of `panel` images."""
    return unkept("gram", X, k, chunks, panel)


def streamed(stack, k, *, tol=1e-4, max_passes=6, seed=0, mask=None):
    """Run the streaming solver on a lazy stack that is read again for every product; return factors and the runner."""
    images = Images(stack, None, mask)
    values = {"max_passes": max_passes, "values_read": images.values_read}
    size = FitSize.of((len(stack), images.n_pixels), stack.dtype, k, max(stack.chunks[0]), **values)
    cost = streaming_cost(size, 2**40, 4, kept=False)
    runner = PassRunner(images, read_bytes=cost.reading_bytes)
    with one_blas_thread():
        return SOLVERS["randomized"](runner, cost, size, FitRequest(k, tol, max_passes, seed)), runner


# Peak memory


def noise(n_images, image_shape, chunk, dtype="uint8", distinct=None):
    """A lazy stack of n_images images, `distinct` of them different at most."""

    def make(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        out, rng = np.empty((stop - start, *image_shape), dtype), np.random.default_rng(start)
        for row in range(stop - start):  # in pieces, to take no more memory than the block
            rng = rng if distinct is None else np.random.default_rng((start + row) % distinct)
            out[row] = rng.integers(0, 256, image_shape, dtype=np.uint8)
        return out

    return made_in_blocks(make, (n_images, *image_shape), chunk, dtype)


def planted(n_images, chunk, modes=24):
    """A lazy stack (n_images, 256, 256, 3) of planted modes under noise. Blocks share nothing."""

    def make(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        waves = np.random.default_rng(0).integers(0, 100, (modes, 3 * 256 * 256), dtype=np.uint8)
        rng = np.random.default_rng((1, start))
        out = np.frombuffer(rng.bytes((stop - start) * waves.shape[1]), np.uint8).reshape(stop - start, -1) >> 4
        for row in out:
            row += waves[min(int(rng.exponential(4)), modes - 1)] * (rng.random() < 0.8)
            row += waves[min(int(rng.exponential(4)), modes - 1)] * (rng.random() < 0.8)
        return out.reshape(-1, 256, 256, 3)

    return made_in_blocks(make, (n_images, 256, 256, 3), chunk, "uint8")


def made_in_blocks(make, shape, chunk, dtype):
    sizes = da.core.normalize_chunks((chunk, *shape[1:]), shape)
    return da.map_blocks(make, chunks=sizes, dtype=dtype, meta=np.empty((0,) * len(shape), dtype))


def streaming(k, **options):
    return ImagePCA(k, svd_solver="randomized", random_state=0, **options)


def tight(pca, stack):
    """Set the least memory that the estimator says it works with."""
    with pytest.raises(MemoryLimitError) as refusal:
        pca.set_params(memory_limit=1).plan(stack)
    return pca.set_params(memory_limit=re.search(r"memory_limit='(\w+)'", str(refusal.value))[1])


def traced_peak(call):
    """Peak of the bytes that Python and NumPy take during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


FRESH = """
import re, sys, warnings
import dask
sys.path.append({root!r})
from imgstack_ml import ImagePCA
from tests.lib.fits import noise, planted

def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

warnings.simplefilter("ignore")
dask.config.set(num_workers={threads})
if {earlier}:  # then their threads have heaps of their own
    noise(400, (64, 64), 10).mean().compute()
pca, stack = {pca!r}, {stack}
ImagePCA(2, svd_solver=pca.svd_solver).fit(noise(40, (8, 8), 10))
plan = pca.plan(stack)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
pca.fit(stack)
print(status("VmHWM") - before, plan.peak_bytes, pca.n_passes_, plan.n_passes)
"""


def fresh_process(pca, stack, threads=2, earlier=False):
    """Fit in a fresh process: bytes above those held before, bytes planned, reads, and reads planned."""
    code = FRESH.format(root=str(ROOT), pca=pca, stack=stack, threads=threads, earlier=earlier)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(pca, stack, done.stdout)
    return map(float, done.stdout.split())
