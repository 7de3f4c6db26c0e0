"""Memory of the streaming solver: planned and measured, alone and on a cluster."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from imgstack_ml import ImagePCA, MemoryLimitError
from tests.decomposition.test_solvers import noise, traced_peak
from tests.lib.stacks import counted, stack_of_spectrum

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")


def streaming(k, **options):
    return ImagePCA(k, svd_solver="randomized", random_state=0, **options)


def tight(pca, stack):
    """The least memory that the estimator says it works with."""
    with pytest.raises(MemoryLimitError) as refusal:
        pca.set_params(memory_limit=1).plan(stack)
    return pca.set_params(memory_limit=re.search(r"memory_limit='(\w+)'", str(refusal.value))[1])


# plans


def test_what_cannot_fit_is_refused_with_what_would():
    """Components alone take 20 GB."""
    source = counted((np.zeros, (200, 10_000, 10_000), np.uint8), 1)
    pca = streaming(50, memory_limit="2GB")
    with pytest.raises(MemoryLimitError, match=r"100000000 values with 50 components.*Nothing was read") as refusal:
        pca.fit(source.data)
    assert not source.reads
    least = re.search(r"at least ([\d.]+) GiB", str(refusal.value))[1]
    assert float(least) * 2**30 > 50 * 4e8
    plan = tight(pca, source.data).plan(source.data)
    assert plan.solver == "randomized"
    assert plan.peak_bytes <= plan.memory_limit


# a process


WIDE = (200, (160, 160), 10)
LONG = (1_500, (128, 128), 30)  # does not fit beside the basis with the least memory
TRACED = {
    "kept": (WIDE, 8, {}),
    "read again": (LONG, 8, {"memory_limit": "least", "max_passes": 3}),
    "one image a block": ((120, (160, 160), 1), 8, {}),
    "one block": ((200, (160, 160), 200), 8, {}),
    "float64": ((100, (128, 128), 10, "float64"), 8, {}),
    "wide k": ((200, (96, 96), 20), 60, {}),
    "all components": ((60, (128, 128), 10), None, {}),
    "a share": ((100, (96, 96), 10), 0.5, {}),
    "many small images": ((6_000, (16, 16), 200), 8, {}),
    "one read": (LONG, 8, {"memory_limit": "least", "max_passes": 1}),
}


@pytest.mark.parametrize(("shape", "k", "options"), TRACED.values(), ids=TRACED.keys())
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_numpy_takes_no_more_than_planned(shape, k, options):
    stack, pca = noise(*shape), streaming(k, **options)
    if pca.memory_limit == "least":
        pca = tight(pca, stack)
        assert not pca.plan(stack).chosen.keeps_images
    planned = pca.plan(stack).peak_bytes
    streaming(1).fit(noise(8, (3, 2), 2))  # what is made once per process
    assert traced_peak(lambda: pca.fit(stack)) <= planned


@pytest.mark.parametrize(("shape", "k"), [(WIDE, 8), ((100, (128, 128), 10, "float64"), None)])
def test_images_in_memory_take_no_more_than_planned(shape, k):
    stack, pca = noise(*shape).compute(), streaming(k)
    planned = pca.plan(stack).peak_bytes
    assert traced_peak(lambda: pca.fit(stack)) <= planned


def test_squares_beyond_float32_take_no_more_than_planned():
    """The first read is made again in float64."""
    X = (stack_of_spectrum(1_600, (160, 160), 100 * 0.7 ** np.arange(12), seed=3) * 1e21).astype(np.float32)
    stack = da.from_array(X, chunks=(20, -1, -1))
    pca = tight(streaming(10, max_passes=1), stack)
    plan = pca.plan(stack)
    assert not plan.chosen.keeps_images
    assert traced_peak(lambda: pca.fit(stack)) <= plan.peak_bytes
    assert pca.n_passes_ == 2


PEAK = """
import re, sys, warnings
import dask, numpy as np
sys.path.append({tests!r})
from tests.decomposition.test_solvers import noise
from tests.decomposition.test_streaming_memory import planted, streaming

def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

warnings.simplefilter("ignore")
dask.config.set(num_workers={threads})
if {earlier}:  # then their threads have heaps of their own
    noise(400, (64, 64), 10).mean().compute()
streaming(2).fit(noise(40, (8, 8), 10))
stack = {stack}
pca = streaming({k!r}, **{options!r})
plan = pca.plan(stack)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
pca.fit(stack)
print(status("VmHWM") - before, plan.peak_bytes, pca.n_passes_)
"""


def fresh_process(tests, stack, k, options, threads, earlier=False):
    """Bytes above those held before a fit, bytes planned, and reads."""
    code = PEAK.format(tests=str(tests), stack=stack, k=k, options=options, threads=threads, earlier=earlier)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    print(stack, k, options, run.stdout)
    return map(float, run.stdout.split())


@linux
@pytest.mark.parametrize("earlier", [False, True])
def test_freed_memory_of_other_threads_stays_within_the_plan(earlier, request):
    """It took 470 MB where 189 MB were planned."""
    stack, options = "noise(1_000, (256, 256), 20, 'uint16')", {"memory_limit": "190MB", "max_passes": 3}
    measured, planned, passes = fresh_process(request.config.rootpath, stack, 10, options, 16, earlier)
    assert measured <= planned
    assert passes == 3


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("threads", "earlier"), [(2, False), (2, True), (16, True)])
@pytest.mark.parametrize(
    ("shape", "in_memory", "k", "options"),
    [
        ((40_000, (32, 32), 500), False, 10, {}),
        ((40_000, (32, 32), 500), True, 10, {}),
        ((40_000, (32, 32), 500), False, 10, {"memory_limit": "150MB", "max_passes": 3}),
        ((40, (1024, 1024), 4), False, 4, {}),
        ((600, (256, 256), 300), False, 10, {"memory_limit": "220MB"}),
        ((800, (256, 256, 3), 16), False, 10, {"memory_limit": "370MB", "max_passes": 3}),
        ((300, (256, 256, 3), 1), False, 10, {"memory_limit": "370MB", "max_passes": 2}),
        ((1_000, (256, 256), 20, "uint16"), False, 10, {"memory_limit": "190MB", "max_passes": 3}),
        ((500, (256, 256), 20, "float64"), False, 10, {"memory_limit": "290MB", "max_passes": 3}),
        ((500, (256, 256), 20, "float64"), True, 10, {}),
        ((600, (256, 256), 20), False, 200, {"max_passes": 3}),
        ((100, (256, 256), 10), False, None, {}),
        ((300, (128, 128), 10), False, 0.5, {}),
    ],
)
def test_a_fresh_process_takes_no_more_than_planned(shape, in_memory, k, options, threads, earlier, request):
    stack = f"noise(*{shape!r})" + ".compute()" * in_memory
    measured, planned, _ = fresh_process(request.config.rootpath, stack, k, options, threads, earlier)
    assert measured <= planned


def planted(n_images, chunk, modes=24):
    """A lazy stack (n_images, 256, 256, 3) of planted modes under noise, made on the fly; reads nothing shared."""

    def make(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        waves = np.random.default_rng(0).integers(0, 100, (modes, 3 * 256 * 256), dtype=np.uint8)
        rng = np.random.default_rng((1, start))
        out = np.frombuffer(rng.bytes((stop - start) * waves.shape[1]), np.uint8).reshape(stop - start, -1) >> 4
        for row in out:
            row += waves[min(int(rng.exponential(4)), modes - 1)] * (rng.random() < 0.8)
            row += waves[min(int(rng.exponential(4)), modes - 1)] * (rng.random() < 0.8)
        return out.reshape(-1, 256, 256, 3)

    shape = (n_images, 256, 256, 3)
    sizes = da.core.normalize_chunks((chunk, *shape[1:]), shape)
    return da.map_blocks(make, chunks=sizes, dtype=np.uint8, meta=np.empty((0,) * 4, np.uint8))


@pytest.mark.slow
@linux
@pytest.mark.parametrize("chunk", [16, 64])
def test_memory_does_not_grow_with_the_stack(chunk, request):
    sizes, peaks = np.array([1e9, 2e9, 4e9]), []
    options = {"memory_limit": "512MB", "max_passes": 3, "tol": 0.0}
    for size in sizes:
        stack = f"planted({int(size / 196_608)}, {chunk})"
        measured, planned, passes = fresh_process(request.config.rootpath, stack, 10, options, 2)
        assert passes == 3
        assert measured <= planned <= 512e6
        peaks.append(measured)
    slope = np.polyfit(sizes, peaks, 1)[0]
    print(f"peaks {np.round(np.array(peaks) / 1e6)} MB, slope {slope:.4f}")
    assert slope <= 0.05


# a cluster


def test_a_cluster_gives_what_threads_give():
    stack = noise(1_600, (160, 160), 50, distinct=60)
    here = tight(streaming(4, tol=1e-9), stack)
    assert not here.plan(stack).chosen.keeps_images
    here.fit(stack)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        there = clone(here).fit(stack)
    assert there.n_passes_ == here.n_passes_ > 1
    assert_allclose(there.explained_variance_, here.explained_variance_, rtol=1e-6)
    assert_allclose(np.abs(np.sum(there.components_ * here.components_, axis=1)), 1, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["512MB", "auto"])
def test_a_cluster_neither_spills_nor_restarts(limit):
    stack = planted(20_480, 64)
    pca = streaming(10, memory_limit=limit, max_passes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, memory_limit="1GB", dashboard_address=":0"
            ) as cluster,
            Client(cluster) as client,
        ):
            before = client.run(worker_pid)
            pca.fit(stack)
            assert client.run(worker_pid) == before
            peaks, spilled = client.run(worker_peak), client.run(bytes_spilled)
        print(limit, "peaks", peaks, "spilled", spilled, "read", pca.n_passes_)
        assert not any(spilled.values())
        here = streaming(10, memory_limit=limit, max_passes=3).fit(stack)
    assert_allclose(pca.explained_variance_, here.explained_variance_, rtol=1e-6)


def worker_pid():
    return os.getpid()


def worker_peak():
    """Megabytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024


def bytes_spilled(dask_worker):
    """Ever written to disk for want of memory."""
    return dask_worker.data.cumulative_metrics.get(("disk-write", "bytes"), 0)
