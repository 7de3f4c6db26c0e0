"""Blocks and graphs."""

import os
import pickle

import dask
import numpy as np
import pytest
import tifffile

from imgstack_ml import StackCenterer, open_stack
from imgstack_ml.io.keys import FileKeys
from imgstack_ml.io.lazy import images_per_block, lazy_array
from imgstack_ml.io.readers import FileReader
from tests.lib.images import write_folder


def fake_array(n_images, shape=(256, 256, 3), chunks="auto"):
    files = tuple(f"/data/some/folder/image_{i:06d}.jpg" for i in range(n_images))
    return lazy_array(FileReader(shape, np.dtype("uint8")), files, chunks)


@pytest.mark.parametrize(
    ("shape", "n_images", "size"),
    [
        ((256, 256, 3), 844, 52),  # 8 blocks for each of two threads
        ((256, 256, 3), 50_000, 325),  # 64 MB
        ((256, 256, 3), 100, 16),
        ((4000, 4000, 3), 100, 1),  # 16 images would be far above 64 MB
        ((10_000, 10_000, 3), 100, 1),
    ],
)
def test_auto_block_size(shape, n_images, size):
    assert images_per_block(FileReader(shape, np.dtype("uint8")), n_images) == size


def test_given_block_size(tmp_path):
    write_folder(tmp_path, 10)
    assert open_stack(tmp_path, chunks=4).data.chunks[0] == (4, 4, 2)
    assert open_stack(tmp_path, chunks=4)[:7].data.chunks[0] == (4, 3)


@pytest.mark.parametrize(
    ("runs", "chunks", "sizes"),
    [
        (np.arange(1000) // 30, "auto", (90,) * 11 + (10,)),  # the next keyframe from 62 images on
        (np.arange(1000) // 500, "auto", (250,) * 4),  # at most 325 are 64 MB: in equal parts
        (np.zeros(100), "auto", (100,)),  # an animation
        (np.random.default_rng(0).permutation(100), "auto", (16,) * 6 + (4,)),  # frames in any order
        (np.zeros(100), 30, (30, 30, 30, 10)),
        (np.zeros(0), "auto", (0,)),
    ],
)
def test_blocks_of_films_begin_where_decoding_does(runs, chunks, sizes):
    keys = FileKeys([f"film[{i}]" for i in range(len(runs))], np.zeros((len(runs), 2), np.int64), runs)
    assert lazy_array(FileReader((256, 256, 3), np.dtype("uint8")), keys, chunks).chunks[0] == sizes


class Watched:
    """A reader that notes the order in which blocks are read."""

    shape, dtype, images_per_chunk = (4, 5), np.dtype("uint8"), 1

    def __init__(self):
        self.read_first = []

    def __dask_tokenize__(self):
        return "watched"

    def read(self, keys):
        self.read_first.append(keys[0])
        return np.ones((len(keys), *self.shape), self.dtype)


@pytest.mark.parametrize("compute", ["whole", "pixel", "mean", "some", "fit"])
def test_blocks_of_a_film_are_read_in_order(compute):
    n, watched = 24, Watched()
    data = lazy_array(watched, FileKeys(range(n), np.zeros((n, 2), np.int64), np.zeros(n)), 2)
    with dask.config.set(scheduler="synchronous"):
        {
            "whole": lambda: data.compute(),
            "pixel": lambda: data[:, 0, 0].compute(),
            "mean": lambda: data.mean(axis=0).compute(),
            "some": lambda: data[6:20].map_blocks(np.negative).compute(),
            "fit": lambda: StackCenterer().fit(data),
        }[compute]()
    assert watched.read_first == (list(range(6, 20, 2)) if compute == "some" else list(range(0, n, 2)))


def test_graph_is_one_task_a_block_and_small():
    data = fake_array(50_000)
    for array in (data, data.astype("float32") / 255):
        (optimized,) = dask.optimize(array)
        assert len(optimized.__dask_graph__()) == array.npartitions == 154
        assert len(pickle.dumps(optimized)) < 10_000_000
    tasks = dict(dask.optimize(data)[0].__dask_graph__())
    # Each names its own files, not all of them.
    assert max(len(pickle.dumps(task)) for task in tasks.values()) < 20_000


def test_names_follow_files_selection_and_state(tmp_path):
    write_folder(tmp_path, 4)
    stack = open_stack(tmp_path)
    again = open_stack(tmp_path)
    assert stack.data.name == again.data.name
    assert stack.data.name != stack[::-1].data.name
    os.utime(stack.files[0], (1, 1))
    assert open_stack(tmp_path).data.name != stack.data.name


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers_agree(tmp_path, scheduler):
    pixels = write_folder(tmp_path, 20)
    stack = open_stack(tmp_path, chunks=3)
    np.testing.assert_array_equal(stack.data.compute(scheduler=scheduler), pixels)


def test_graph_of_many_pages_is_small(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2000, 2, 2), "u1"), photometric="minisblack", metadata=None)
    stack = open_stack(tmp_path / "a.tif")
    assert len(stack) == 2000
    assert len(pickle.dumps(dask.optimize(stack.data)[0])) < 50 * 2000
