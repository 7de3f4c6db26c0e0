"""Work on stacks larger than what the process may hold: ``python _capped.py SCALE CASE...``, SCALE small or large.

The cap is the system's own, RLIMIT_DATA: memory that the process takes beyond it is a MemoryError, whoever asks. For
each case a line of JSON: megabytes of the stack, the cap above what the process held before, and the peak.
"""

import ctypes
import json
import re
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    ChannelStatistics,
    ImageFeatures,
    ImageFlattener,
    ImageHistogram,
    ImagePCA,
    IntensityRescaler,
    MemoryLimitError,
    StackCenterer,
    open_stack,
    save_stack,
)

THREADS = 2


class Case(NamedTuple):
    """Shape of a stack, its images a block, and megabytes that the process may take beyond what it holds."""

    shape: tuple
    rows: int
    headroom: int


SMALL = {
    "stack": Case((100_000, 64, 64), 400, 110),
    "wide": Case((360, 1000, 1000), 2, 110),
    "pipeline": Case((30_000, 64, 64, 3), 100, 110),
    "features": Case((30_000, 64, 64, 3), 200, 90),
    "save": Case((30_000, 64, 64, 3), 200, 90),
}
LARGE = {
    "stack": Case((40_704, 256, 256, 3), 64, 560),
    "wide": Case((500, 2000, 2000), 2, 400),
    "pipeline": Case((40_704, 256, 256, 3), 32, 560),
    "features": Case((40_704, 256, 256, 3), 32, 250),
    "save": Case((40_704, 256, 256, 3), 64, 250),
}
CAP = 2**30  # of the whole process, imports included, for the large ones


def pixels(shape, rows, number):
    """Make a block of images: three modes of the position, and noise."""
    rng = np.random.default_rng(number)
    p = int(np.prod(shape[1:]))
    noise = np.frombuffer(rng.bytes(rows * p), np.uint8).reshape(rows, p) >> 3
    waves = np.arange(p, dtype=np.uint32)
    for mode, share in ((2, 60), (3, 30), (5, 15)):
        noise += rng.integers(0, share, (rows, 1), dtype=np.uint8) * ((waves * mode // p) % 2).astype(np.uint8)
    return noise.reshape(rows, *shape[1:])


def lazy(shape, rows):
    """Stack the blocks; nothing of them is shared or kept."""
    assert shape[0] % rows == 0
    make = partial(lambda shape, rows, block_id: pixels(shape, rows, block_id[0]), shape, rows)
    chunks = ((rows,) * (shape[0] // rows), *((n,) for n in shape[1:]))
    return da.map_blocks(make, chunks=chunks, dtype=np.uint8, meta=np.empty((0,) * len(shape), np.uint8))


# What is done: each returns nothing, and looks at its result


def least_memory(pca, stack):
    """Give the estimator the least memory that it says it works with."""
    with pytest.raises(MemoryLimitError) as refusal:
        pca.set_params(memory_limit=1).plan(stack)
    return pca.set_params(memory_limit=re.search(r"memory_limit='(\w+)'", str(refusal.value))[1])


def fit_stack(case, folder):
    stack = lazy(case.shape, case.rows)
    pca = least_memory(ImagePCA(4, svd_solver="randomized", random_state=0, max_passes=2, tol=1.0), stack)
    check_pca(pca.fit(stack), case)


def fit_wide(case, folder):
    stack = lazy(case.shape, case.rows)
    pca = least_memory(ImagePCA(2, svd_solver="randomized", random_state=0, max_passes=2, tol=1.0), stack)
    check_pca(pca.fit(stack), case)


def fit_pipeline(case, folder):
    stack = lazy(case.shape, case.rows)
    pca = ImagePCA(4, svd_solver="randomized", random_state=0, max_passes=2, tol=1.0)
    steps = make_pipeline(IntensityRescaler(in_range=(0, 255)), StackCenterer(), ImageFlattener(), pca)
    centred = steps[:-1].fit_transform(stack[: 4 * case.rows])
    least_memory(pca, lazy(case.shape, case.rows).reshape(case.shape[0], -1).astype(centred.dtype))
    steps.fit(stack)
    check_pca(pca, case)


def check_pca(pca, case):
    first = pixels(case.shape, case.rows, 0).reshape(case.rows, -1)
    assert abs(pca.mean_.mean() / first.mean() - 1) < 0.05
    assert pca.explained_variance_ratio_[0] > 0.3
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(len(pca.components_)), atol=1e-4)


def make_features(case, folder):
    stack = lazy(case.shape, case.rows)
    features = ImageFeatures(
        [
            ("statistics", ChannelStatistics()),
            ("histogram", ImageHistogram(16, range="stack")),
        ]
    )
    rows = features.fit_transform(stack).compute()
    first = features.transform(pixels(case.shape, case.rows, 0))
    np.testing.assert_array_equal(rows[: case.rows], first)


def save(case, folder):
    target = save_stack(lazy(case.shape, case.rows), Path(folder) / "stack.zarr")
    stored, last = open_stack(target).data, case.shape[0] // case.rows - 1
    assert stored.shape == case.shape
    np.testing.assert_array_equal(stored[-case.rows :].compute(), pixels(case.shape, case.rows, last))


WORK = {"stack": fit_stack, "wide": fit_wide, "pipeline": fit_pipeline, "features": make_features, "save": save}


def status(key):
    """Bytes, as /proc knows them."""
    return 1024 * int(re.search(key + r":\s+(\d+)", Path("/proc/self/status").read_text())[1])


def run_capped(name, case, cap):
    """Run a case with at most `cap` bytes of data in the process; print sizes."""
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (cap, hard))
    with pytest.raises(MemoryError):
        np.empty(case.shape, np.uint8)
    room = cap - status("VmData")
    with tempfile.TemporaryDirectory() as folder:
        WORK[name](case, folder)
    peak = status("VmHWM") - before
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    sizes = {"stack": np.prod(case.shape, dtype=float), "room": room, "peak": peak, "baseline": before}
    print(json.dumps({"case": name, **{key: round(size / 1e6) for key, size in sizes.items()}}), flush=True)


def main(scale, names):
    dask.config.set(scheduler="threads", num_workers=THREADS)
    warm = Case((8, 16, 16), 4, 0)
    for name in names:  # imports, and the threads of BLAS
        WORK[name](warm, tempfile.mkdtemp())
    for name in names:
        case = {"small": SMALL, "large": LARGE}[scale][name]
        ctypes.CDLL(None).malloc_trim(0)
        run_capped(name, case, CAP if scale == "large" else status("VmData") + case.headroom * 10**6)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(WORK))
