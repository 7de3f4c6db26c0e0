"""A process that stores or fails to: ``python write_stack.py TARGET RESUME [SECONDS_A_BLOCK] [BALLAST]``."""

import os
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np

from imgstack_ml import save_stack

sys.path.append(str(Path(__file__).parents[2]))  # for `tests`, where this runs as a script

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


if __name__ == "__main__":
    target, log = sys.argv[1:3]
    with dask.config.set(scheduler="threads", num_workers=2):
        save_stack(stack(log, float(sys.argv[4])), target, overwrite=True, resume=sys.argv[3] == "resume")
    print(os.listdir(os.path.dirname(target)))
