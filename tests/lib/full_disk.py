"""Fill a disk of 4 MB at some points of a write: ``python full_disk.py FOLDER N_POINTS``; FOLDER is that disk."""

import contextlib
import errno
import os
import shutil
import sys
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest

from imgstack_ml import ImageFlattener, StackCenterer, load_model, open_stack, save_model, save_stack, write_images
from imgstack_ml.errors import StoreError
from imgstack_ml.passes.checkpoint import open_checkpoint
from imgstack_ml.report import Report

N_BLOCKS = 20
BYTES_NEEDED = f"needs up to {N_BLOCKS * 2 * 64 * 64:,} bytes"
FILE_BYTES = 1_000_000  # of each model, report and checkpoint


def fill(folder, leave=0):
    """Take what is left of the disk, to the last byte, but for `leave` bytes."""

    def write(size):
        while file.write(bytes(size)):
            pass

    with open(os.path.join(folder, "ballast"), "wb", buffering=0) as file:
        for size in (4096, 1):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                write(size)
    os.truncate(file.name, os.path.getsize(file.name) - leave)


def remove_ballast(folder):
    os.remove(os.path.join(folder, "ballast"))


def stack_that_fills(folder, point):
    """Blocks of incompressible images; making block `point` fills the disk."""

    def make(block_id):
        if block_id[0] == point:
            fill(folder)
        return np.random.default_rng(block_id[0]).integers(0, 256, (2, 64, 64), dtype=np.uint8)

    chunks = ((2,) * N_BLOCKS, (64,), (64,))
    return da.map_blocks(make, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8), name="one-stack")


def check(write, folder, old):
    with pytest.raises(StoreError, match=BYTES_NEEDED):
        write()
    remove_ballast(folder)
    assert sorted(os.listdir(folder)) == ["old.zarr"], os.listdir(folder)
    np.testing.assert_array_equal(open_stack(os.path.join(folder, "old.zarr")).data.compute(), old)


def check_stacks(folder, n_points):
    old = np.random.default_rng(99).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    target = save_stack(old, os.path.join(folder, "old.zarr"))
    for point in np.linspace(0, N_BLOCKS - 1, n_points).astype(int).tolist():
        stack = stack_that_fills(folder, point)
        check(lambda stack=stack: save_stack(stack, target, overwrite=True), folder, old)
    new = os.path.join(folder, "new.zarr")
    with pytest.raises(StoreError, match=BYTES_NEEDED):
        save_stack(stack_that_fills(folder, 7), new, resume=True)
    remove_ballast(folder)
    save_stack(stack_that_fills(folder, None), new, resume=True)
    np.testing.assert_array_equal(open_stack(new).data.compute(), stack_that_fills(folder, None).compute())
    shutil.rmtree(new)
    shutil.rmtree(target)


def check_images(folder, n_points):
    for point in np.linspace(0, N_BLOCKS - 4, -(-n_points // 4)).astype(int).tolist():
        with pytest.raises(StoreError, match=BYTES_NEEDED):
            write_images(stack_that_fills(folder, point), os.path.join(folder, "images"))
        remove_ballast(folder)
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
    os.rmdir(os.path.join(folder, "images"))


def check_file(folder, n_points, name, write, is_old):
    """Write a file of some more than FILE_BYTES over an old one, with less and less missing; then with room."""
    for point in range(n_points):
        fill(folder, leave=point * FILE_BYTES // n_points)
        with pytest.raises(StoreError, match=rf"the disk is full: '.*{name}' needs up to 1,0\d\d,\d{{3}} bytes"):
            write()
        remove_ballast(folder)
        assert os.listdir(folder) == [name]
        assert is_old()
    write()
    assert not is_old()
    os.remove(os.path.join(folder, name))


def check_models(folder, n_points):
    path, model = os.path.join(folder, "model.safetensors"), StackCenterer()
    model.mean_ = np.ones(FILE_BYTES // 8)
    save_model(ImageFlattener(), path)
    check_file(
        folder,
        n_points,
        "model.safetensors",
        lambda: save_model(model, path, overwrite=True),
        lambda: isinstance(load_model(path), ImageFlattener),
    )


def check_reports(folder, n_points):
    path = Path(folder, "report.html")
    Report({}, "old").save_as_html(path)
    new = Report({}, "é" * (FILE_BYTES // 2 + 1000))
    check_file(
        folder,
        n_points,
        "report.html",
        lambda: new.save_as_html(path, overwrite=True),
        lambda: path.read_text("utf-8") == "old",
    )


def check_checkpoints(folder, n_points):
    """What was saved before stays, and the work that is saved goes on."""
    path, values = os.path.join(folder, "unfinished"), np.ones(FILE_BYTES // 8)
    for point in range(n_points):
        with contextlib.suppress(ZeroDivisionError), open_checkpoint(path, {}, {}) as checkpoint:
            record = checkpoint.begin_pass("read")
            checkpoint._rate = float("inf")  # whatever that takes
            assert record.save(1, 1, -values)
            checkpoint._rate = float("inf")
            fill(folder, leave=point * FILE_BYTES // n_points)
            with pytest.warns(UserWarning, match=r"could not be written: it needs 1,000,000 bytes .*No space left"):
                assert not record.save(2, 2, values)
            raise ZeroDivisionError
        remove_ballast(folder)
        assert sorted(os.listdir(path)) == ["fit.json", "pass-0000.safetensors"]
        with open_checkpoint(path, {}, {}) as checkpoint:
            saved = checkpoint.begin_pass("read").load()
        assert saved.n_done == 1
        np.testing.assert_array_equal(saved.value, -values)
        assert os.listdir(folder) == []


def main(folder, n_points):
    with dask.config.set(scheduler="synchronous"):
        for check_kind in (check_stacks, check_images, check_models, check_reports, check_checkpoints):
            check_kind(folder, n_points)
    print(f"{n_points} points: old stacks, models, reports and checkpoints intact, bytes named")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
