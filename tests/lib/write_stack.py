"""A stack that is stored slowly, and notes what it makes."""

import time

import dask
import dask.array as da
import numpy as np

from imgstack_ml import save_stack
from tests.lib.stacks import named

N_BLOCKS, ROWS, SHAPE = 24, 4, (64, 64)


def pixels(first, n):
    rng = np.random.default_rng(first)
    return rng.integers(1, 65536, (n, *SHAPE), dtype=np.uint16)


def everything():
    return np.concatenate([pixels(ROWS * i, ROWS) for i in range(N_BLOCKS)])


def make(block_id, log, seconds):
    """Make a block, note it, and take its time."""
    with open(log, "a") as file:
        file.write(f"{block_id[0]}\n")
    time.sleep(seconds)
    return pixels(ROWS * block_id[0], ROWS)


def stack(log, seconds):
    shape = ((ROWS,) * N_BLOCKS, *((n,) for n in SHAPE))
    array = da.map_blocks(
        lambda block_id: make(block_id, log, seconds),
        chunks=shape,
        dtype=np.uint16,
        meta=np.empty((0, 0, 0), np.uint16),
        name="the-same-stack",
    )
    return named(array, "the-same-stack")


def write(target, log, resume, seconds):
    with dask.config.set(scheduler="threads", num_workers=2):
        save_stack(stack(log, seconds), target, overwrite=True, resume=resume)
