"""Fill a disk of 4 MB at twenty points of a write: ``python _full_disk.py FOLDER``, FOLDER being all of that disk."""

import errno
import os
import shutil
import sys

import dask
import dask.array as da
import numpy as np
import pytest

from imgstack_ml import open_stack, save_stack, write_images
from imgstack_ml._errors import StoreError

N_POINTS = 20
BYTES_NEEDED = f"needs up to {N_POINTS * 2 * 64 * 64:,} bytes"


def fill(folder):
    """Take what is left of the disk, to the last byte."""

    def write(size):
        while file.write(bytes(size)):
            pass

    with open(os.path.join(folder, "ballast"), "wb", buffering=0) as file:
        for size in (4096, 1):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                write(size)


def stack_that_fills(folder, point):
    """Blocks of incompressible images; making block `point` fills the disk."""

    def make(block_id):
        if block_id[0] == point:
            fill(folder)
        return np.random.default_rng(block_id[0]).integers(0, 256, (2, 64, 64), dtype=np.uint8)

    chunks = ((2,) * N_POINTS, (64,), (64,))
    return da.map_blocks(make, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8), name="one-stack")


def check(write, folder, old):
    with pytest.raises(StoreError, match=BYTES_NEEDED):
        write()
    os.remove(os.path.join(folder, "ballast"))
    assert sorted(os.listdir(folder)) == ["old.zarr"], os.listdir(folder)
    np.testing.assert_array_equal(open_stack(os.path.join(folder, "old.zarr")).data.compute(), old)


def main(folder):
    old = np.random.default_rng(99).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    target = save_stack(old, os.path.join(folder, "old.zarr"))
    with dask.config.set(scheduler="synchronous"):
        for point in range(N_POINTS):
            stack = stack_that_fills(folder, point)
            check(lambda stack=stack: save_stack(stack, target, overwrite=True), folder, old)
        new = os.path.join(folder, "new.zarr")
        with pytest.raises(StoreError, match=BYTES_NEEDED):
            save_stack(stack_that_fills(folder, 7), new, resume=True)
        os.remove(os.path.join(folder, "ballast"))
        save_stack(stack_that_fills(folder, None), new, resume=True)
        np.testing.assert_array_equal(open_stack(new).data.compute(), stack_that_fills(folder, None).compute())
        shutil.rmtree(new)
        for point in range(0, N_POINTS, 4):
            with pytest.raises(StoreError, match=BYTES_NEEDED):
                write_images(stack_that_fills(folder, point), os.path.join(folder, "images"))
            os.remove(os.path.join(folder, "ballast"))
            written = os.listdir(os.path.join(folder, "images"))
            assert all(name.endswith(".png") and name[0] != "." for name in written), written
            assert len(written) >= 2 * point, (point, written)
            if written:
                paths = [os.path.join(folder, "images", name) for name in sorted(written)]
                found = open_stack(paths).data.compute()
                whole = stack_that_fills(folder, None).compute()
                np.testing.assert_array_equal(found, whole[: len(found)])
            for name in written:
                os.remove(os.path.join(folder, "images", name))
    print(f"{N_POINTS} points: old store intact, bytes named")


if __name__ == "__main__":
    main(sys.argv[1])
