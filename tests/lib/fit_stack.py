"""A process that fits or fails to: ``python fit_stack.py SOLVER CHECKPOINT LOG SECONDS_A_BLOCK``."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np

from imgstack_ml import ImagePCA
from imgstack_ml.passes import batches as _batches
from imgstack_ml.passes import checkpoint as _checkpoint

sys.path.append(str(Path(__file__).parents[2]))  # for `tests`, where this runs as a script

from tests.lib.stacks import named


class Case(NamedTuple):
    """A stack too large for a memory limit, so that a solver reads it block by block."""

    shape: tuple
    dtype: str
    rows: int
    memory_limit: str


CASES = {
    "randomized": Case((600, 64, 64), "float64", 15, "50MB"),
    "covariance_eigh": Case((20_000, 16, 16), "uint8", 200, "43MB"),
    "gram": Case((200, 120, 160), "float64", 5, "43MB"),
}


def save_every_wave():
    """Save whatever that costs, and make waves as short as they can be."""
    _checkpoint._SHARE, _batches._LONG_WAVE = float("inf"), 1


def pixels(case, number):
    rng = np.random.default_rng(number)
    n = int(np.prod(case.shape[1:]))
    images = (rng.random((case.rows, n)) + 0.2 * rng.random((case.rows, 1))) * (1 + np.arange(n) // (n // 5)) * 20
    return images.astype(case.dtype).reshape(case.rows, *case.shape[1:])


def make(block_id, case, log, seconds):
    """Note a block, and take its time."""
    if log:
        with open(log, "a") as file:
            file.write(f"{block_id[0]}\n")
    time.sleep(seconds)
    return pixels(case, block_id[0])


def stack(solver, make=make, log=None, seconds=0.0):
    case = CASES[solver]
    chunks = ((case.rows,) * (case.shape[0] // case.rows), *((n,) for n in case.shape[1:]))
    read = partial(make, case=case, log=log, seconds=seconds)
    meta = np.empty((0,) * len(case.shape), case.dtype)
    name = f"the-same-{solver}"
    return named(da.map_blocks(read, chunks=chunks, dtype=case.dtype, meta=meta, name=name), name)


def estimator(solver, checkpoint=None, **params):
    params = {"max_passes": 3, "tol": 0.0, "random_state": 0, "memory_limit": CASES[solver].memory_limit} | params
    return ImagePCA(4, svd_solver=solver, checkpoint=checkpoint, **params)


if __name__ == "__main__":
    solver, checkpoint, log, seconds = sys.argv[1:]
    save_every_wave()
    with dask.config.set(scheduler="threads", num_workers=2):
        estimator(solver, checkpoint).fit(stack(solver, log=log, seconds=float(seconds)))
