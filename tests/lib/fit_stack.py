"""Fits that stop and are resumed."""

import time
import warnings
from functools import cache, partial
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np

from imgstack_ml import ImagePCA
from imgstack_ml.passes import batches as _batches
from imgstack_ml.passes import checkpoint as _checkpoint
from tests.lib.stacks import named


class Case(NamedTuple):
    """A stack too large for a memory limit, so that a solver reads it block by block."""

    shape: tuple
    dtype: str
    rows: int
    memory_limit: str


CASES = {
    "randomized": Case((600, 64, 64), "float64", 30, "34MB"),
    "covariance_eigh": Case((10_000, 16, 16), "uint8", 400, "43MB"),
    "gram": Case((160, 120, 160), "float64", 10, "44MB"),
}
# Blocks that a stop costs at most: those of a wave, and for "gram" those of the panel in memory, too.
READ_AGAIN = {"randomized": 8, "covariance_eigh": 6, "gram": 5 + 3}


def save_every_wave(setattr=setattr):
    """Save whatever that costs, and make waves as short as they can be; `setattr` may be that of a monkeypatch."""
    setattr(_checkpoint, "_SHARE", float("inf"))
    setattr(_batches, "_LONG_WAVE", 1)


@cache
def pixels(case, number):
    rng = np.random.default_rng(number)
    n = int(np.prod(case.shape[1:]))
    images = (rng.random((case.rows, n)) + 0.2 * rng.random((case.rows, 1))) * (1 + np.arange(n) // (n // 5)) * 20
    images = images.astype(case.dtype).reshape(case.rows, *case.shape[1:])
    images.setflags(write=False)
    return images


def make(block_id, case, log, seconds):
    """Note a block, and take its time."""
    if log:
        with open(log, "a") as file:
            file.write(f"{block_id[0]}\n")
    if seconds:
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


class StopError(Exception):
    """What a read was told to raise."""


class Reads:
    """Counts the blocks that are read, and lets read `fail_at` fail."""

    def __init__(self, fail_at=None):
        self.blocks = []
        self.fail_at = fail_at

    def make(self, block_id, case, log, seconds):
        self.blocks.append(block_id[0])
        if len(self.blocks) == self.fail_at:
            raise StopError
        return pixels(case, block_id[0])


def fit(solver, reads, folder=None, **params):
    """Fit the stack of a solver, with reads that are counted and may fail."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "After . products")  # tol=0, so that all passes are made
        return estimator(solver, folder, **params).fit(stack(solver, reads.make))


def assert_same_fit(found, expected):
    """All that was learned is equal to the last bit."""
    assert learned(found).keys() == learned(expected).keys()
    for name, value in learned(expected).items():
        np.testing.assert_array_equal(learned(found)[name], value, err_msg=name, strict=True)


def learned(pca):
    values = {name: value for name, value in vars(pca).items() if name.endswith("_")}
    certificate = values.pop("certificate_")
    return values | ({} if certificate is None else {f"certificate.{k}": v for k, v in vars(certificate).items()})


def fit_slowly(solver, checkpoint, log, seconds):
    """Fit in a process of its own, which may be killed."""
    save_every_wave()
    with dask.config.set(scheduler="threads", num_workers=2):
        estimator(solver, checkpoint).fit(stack(solver, log=log, seconds=seconds))
