"""Work on stacks larger than what the process may hold: ``python capped.py SCALE CASE...``, SCALE small or large.

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
    ImageFeatureUnion,
    ImageFlattener,
    ImageHistogram,
    ImagePCA,
    IntensityRescaler,
    StackCenterer,
    open_stack,
    save_stack,
)

THREADS = 2


class Case(NamedTuple):
    """Shape of a stack, its images a block, the estimator's memory limit, and what the process may take more (MB)."""

    shape: tuple
    rows: int
    limit: int
    headroom: int


WARM = Case((8, 16, 16), 4, 100, 0)
SMALL = {
    "stack": Case((6_400, 128, 128), 100, 85, 90),
    "wide": Case((320, 500, 500), 2, 90, 75),
    "pipeline": Case((4_600, 96, 96, 3), 20, 85, 120),
    "features": Case((4_500, 64, 64, 3), 50, 0, 50),
    "save": Case((4_500, 64, 64, 3), 50, 0, 50),
}
LARGE = {
    "stack": Case((40_704, 256, 256, 3), 64, 400, 0),
    "wide": Case((500, 2000, 2000), 2, 550, 0),
    "pipeline": Case((40_704, 256, 256, 3), 32, 400, 0),
    "features": Case((40_704, 256, 256, 3), 32, 0, 0),
    "save": Case((40_704, 256, 256, 3), 64, 0, 0),
}
CAP = 2**30  # of the whole process, imports included, for the large ones


def pixels(shape, rows, number):
    """Make a block of images: noise, a right half that is more or less bright, and a weaker mode."""
    rng = np.random.default_rng(number)
    p = int(np.prod(shape[1:]))
    images = np.frombuffer(rng.bytes(rows * p), np.uint8).reshape(rows, p) >> 3
    images[:, p // 2 :] += rng.integers(0, 120, (rows, 1), dtype=np.uint8)
    images[:, p // 4 : 3 * p // 4] += rng.integers(0, 60, (rows, 1), dtype=np.uint8)
    return images.reshape(rows, *shape[1:])


def lazy(shape, rows):
    """Stack the blocks; nothing of them is shared or kept."""
    assert shape[0] % rows == 0
    make = partial(lambda shape, rows, block_id: pixels(shape, rows, block_id[0]), shape, rows)
    chunks = ((rows,) * (shape[0] // rows), *((n,) for n in shape[1:]))
    return da.map_blocks(make, chunks=chunks, dtype=np.uint8, meta=np.empty((0,) * len(shape), np.uint8))


# What is done: each returns nothing, and looks at its result


def make_pca(case, solver):
    return ImagePCA(4, svd_solver=solver, random_state=0, max_passes=2, tol=1.0, memory_limit=f"{case.limit}MB")


def fit_stack(case, folder):
    check_pca(make_pca(case, "randomized").fit(lazy(case.shape, case.rows)), case)


def fit_wide(case, folder):
    check_pca(make_pca(case, "gram").set_params(n_components=2).fit(lazy(case.shape, case.rows)), case)


def fit_pipeline(case, folder):
    pca = make_pca(case, "randomized")
    steps = make_pipeline(IntensityRescaler(), StackCenterer(), ImageFlattener(), pca)
    steps.fit(lazy(case.shape, case.rows))
    check_pca(pca, case)


def check_pca(pca, case):
    """Modes are constant in each quarter of an image."""
    if case is not WARM:
        first = pca.components_[0]
        means = first.reshape(4, -1).mean(axis=1)
        assert (means**2).sum() * len(first) / 4 > 0.95, means
        assert pca.explained_variance_ratio_[0] > 0.3, pca.explained_variance_ratio_


def make_features(case, folder):
    stack = lazy(case.shape, case.rows)
    features = ImageFeatureUnion(
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
        np.empty(cap, np.uint8)
    room = cap - status("VmData")
    with tempfile.TemporaryDirectory() as folder:
        WORK[name](case, folder)
    peak = status("VmHWM") - before
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    sizes = {"stack": np.prod(case.shape, dtype=float), "room": room, "peak": peak, "baseline": before}
    print(json.dumps({"case": name, **{key: round(size / 1e6) for key, size in sizes.items()}}), flush=True)


def main(scale, names):
    dask.config.set(scheduler="threads", num_workers=THREADS)
    for name in names:  # imports, and the threads of BLAS
        WORK[name](WARM, tempfile.mkdtemp())
    for name in names:
        case = {"small": SMALL, "large": LARGE}[scale][name]
        ctypes.CDLL(None).malloc_trim(0)
        run_capped(name, case, CAP if scale == "large" else status("VmData") + case.headroom * 10**6)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(WORK))
