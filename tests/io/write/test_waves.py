"""Waves of blocks: their graphs, and how many blocks live at once."""

import threading

import dask
import dask.array as da
import numpy as np
import pytest

from imgstack_ml import open_stack, save_stack
from tests.lib.images import random_pixels


def test_graphs_are_small_however_many_blocks(tmp_path, monkeypatch):
    sizes = []
    compute = dask.compute
    monkeypatch.setattr(
        dask, "compute", lambda *values, **kwargs: sizes.append(len(values)) or compute(*values, **kwargs)
    )
    stack = da.from_array(random_pixels((150, 4, 4)), chunks=(1, -1, -1))
    path = save_stack(stack, tmp_path / "x.zarr")
    assert sum(sizes) == 150
    assert max(sizes) == 64
    np.testing.assert_array_equal(open_stack(path).data.compute(), stack.compute())


@pytest.mark.parametrize("chunks", [(1, -1, -1), ((2, 3) * 12, (40,), (50,))], ids=["as stored", "regrouped"])
def test_blocks_live_until_they_are_written(tmp_path, chunks):
    """Blocks alive at once, counted as they come and go, are those of the threads at work."""
    alive, most, lock = [0], [0], threading.Lock()

    class Tracked(np.ndarray):
        def __del__(self):
            if self.base is None:
                with lock:
                    alive[0] -= len(self)

    def make(block):
        out = np.ndarray.__new__(Tracked, block.shape, block.dtype)
        out[...] = 1
        with lock:
            alive[0] += len(out)
            most[0] = max(most[0], alive[0])
        return out

    stack = da.zeros((60, 40, 50), chunks=chunks, dtype="u1").map_blocks(make, meta=np.empty((0, 0, 0), "u1"))
    with dask.config.set(scheduler="threads", num_workers=2):
        save_stack(stack, tmp_path / "x.zarr")
    assert 1 <= most[0] <= 6 * max(stack.chunks[0])
