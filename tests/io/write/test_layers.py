"""Whole images stored from chunks that hold parts of many: each chunk read once, in the memory of a few images."""

import os

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from imgstack_ml import open_stack, save_stack
from imgstack_ml.errors import StoreError
from imgstack_ml.io import lazy as lazy_module
from imgstack_ml.io.write import layers
from imgstack_ml.io.write import save_stack as module
from tests.lib.arrays import chunk_files
from tests.lib.faults import every_fault
from tests.lib.fits import traced_peak
from tests.lib.images import random_pixels

IRREGULAR = ((20, 5, 28), (16, 14, 30), (50, 20))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "_WHOLE_BYTES", 20_000)


def lazy(pixels, chunks, made=None):
    """The pixels in chunks, each of which is noted where it is made; one of them can be told to fail."""

    def note(block, block_id):
        if made is not None:
            made.append(block_id)
            if block_id == made[0]:
                raise OSError(5, "a fault")
        return block

    meta = np.empty((0,) * pixels.ndim, pixels.dtype)
    return da.from_array(pixels, chunks, name="pixels").map_blocks(note, meta=meta, name="noted", dtype=pixels.dtype)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize(
    ("shape", "chunks", "images", "dtype", "reads"),
    [
        ((53, 64, 64), (20, 16, 16), 1, "uint16", 1),
        ((53, 60, 70), (20, 16, 16), 7, ">u2", 1),
        ((53, 40, 50, 3), (11, 16, 17, 2), 3, "float32", 1),
        ((53, 40, 50, 3), (60, 16, 17, 2), 1, "bool", 1),
        ((9, 200, 200), (3, 64, 64), 2, "complex64", 1),
        ((53, 60, 70), IRREGULAR, 4, "int64", 2),  # chunks of other sizes are regrouped first
    ],
)
def test_pixels_are_those_of_the_stack_and_chunks_read_once(
    tmp_path, small_blocks, scheduler, shape, chunks, images, dtype, reads
):
    pixels, made = random_pixels(shape).astype(dtype), [None]
    stack = lazy(pixels, chunks, made)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        path = save_stack(stack, tmp_path / "x.zarr", chunks=images)
    stored = zarr.open_array(path)
    assert stored.chunks == (images, *shape[1:])
    np.testing.assert_array_equal(stored[:], pixels)
    np.testing.assert_array_equal(open_stack(path).data.compute(), pixels)
    assert sorted(os.listdir(path)) == [".imgstack-complete", "c", "zarr.json"]
    assert max(made[1:].count(one) for one in made[1:]) <= reads
    assert len(set(made[1:])) == stack.npartitions


def test_memory_is_that_of_few_images(tmp_path, monkeypatch):
    """5 MB in chunks of all images: as Dask joins them, they would be in memory together."""
    monkeypatch.setattr(module, "_WHOLE_BYTES", 250_000)
    pixels = random_pixels((300, 128, 128))
    source = zarr.create_array(tmp_path / "in.zarr", shape=pixels.shape, chunks=(300, 32, 32), dtype=pixels.dtype)
    source[:] = pixels
    stack = da.from_zarr(source)
    assert stack.chunksize == (300, 32, 32)
    with dask.config.set(scheduler="threads", num_workers=2):
        peak = traced_peak(lambda: save_stack(stack, tmp_path / "x.zarr", chunks=1))
    assert peak < 2.5e6
    np.testing.assert_array_equal(open_stack(tmp_path / "x.zarr").data.compute(), pixels)


def test_a_stack_of_an_array_in_parts_is_read_in_its_chunks(tmp_path, small_blocks, monkeypatch):
    pixels = random_pixels((300, 128, 128))
    source = zarr.create_array(tmp_path / "in.zarr", shape=pixels.shape, chunks=(100, 64, 64), dtype=pixels.dtype)
    source[:] = pixels
    monkeypatch.setattr(lazy_module, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(lazy_module, "_PART_BYTES", 1)
    shapes = []
    put = layers._put
    monkeypatch.setattr(layers, "_put", lambda *args: shapes.append(args[2].shape) or put(*args))
    for chunks, n_images in ((1, 1), (None, 50)):
        path = save_stack(open_stack(tmp_path / "in.zarr"), tmp_path / f"{chunks}.zarr", chunks=chunks)
        assert zarr.open_array(path).chunks == (n_images, 128, 128)
        np.testing.assert_array_equal(zarr.open_array(path)[:], pixels)
        assert shapes == [(100, 64, 64)] * 12
        shapes.clear()


def test_a_failed_write_goes_on_with_the_images_that_are_missing(tmp_path, small_blocks):
    pixels, fails = random_pixels((53, 64, 64)), [(1, 2, 0)]
    with pytest.raises(OSError, match="a fault"):
        save_stack(lazy(pixels, (20, 16, 16), fails), tmp_path / "x.zarr", chunks=1, resume=True)
    (unfinished,) = tmp_path.iterdir()
    assert len(chunk_files(unfinished)) == 20
    assert "layers" not in os.listdir(unfinished)
    (unfinished / "layers").mkdir()
    (unfinished / "layers" / "0").touch()  # what a killed call leaves
    made = [None]
    path = save_stack(lazy(pixels, (20, 16, 16), made), tmp_path / "x.zarr", chunks=1, resume=True)
    assert {first for first, *_ in made[1:]} == {1, 2}
    np.testing.assert_array_equal(open_stack(path).data.compute(), pixels)
    assert sorted(os.listdir(path)) == [".imgstack-complete", "c", "zarr.json"]


def test_every_fault_leaves_nothing_or_all(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WHOLE_BYTES", 150)
    pixels, target, seen = random_pixels((4, 8, 8)), tmp_path / "x.zarr", set()
    stack = lazy(pixels, (2, 4, 8))
    for failed in every_fault(monkeypatch, tmp_path, lambda: save_stack(stack, target, overwrite=True, chunks=1)):
        seen.add(failed)
        assert os.listdir(tmp_path) in ([], ["x.zarr"])
        if target.exists():
            np.testing.assert_array_equal(open_stack(target).data.compute(), pixels)
    assert {"open", "write", "mkdir", "replace"} <= seen
    np.testing.assert_array_equal(open_stack(target).data.compute(), pixels)


def test_room_for_the_files_between_is_asked_for(tmp_path):
    huge = da.zeros((1_000, 10_000_000, 1_000_000), dtype="u1", chunks=(500, 5_000_000, 500_000))
    with pytest.raises(StoreError, match=r"needs 20,000,000,000,000,000 bytes"):
        save_stack(huge, tmp_path / "x.zarr", chunks=1)
