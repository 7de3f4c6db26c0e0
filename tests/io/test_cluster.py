"""Reading and writing by the processes of a cluster."""

import pickle

import dask.array as da
import numpy as np
import pytest

from imgstack_ml import open_stack, save_stack, write_images
from imgstack_ml.errors import BadImageError, ImgstackError
from imgstack_ml.io.lazy import lazy_array
from imgstack_ml.io.readers import FileReader
from tests.lib.arrays import chunk_files, sources
from tests.lib.images import random_pixels, write_folder
from tests.lib.plugins import Dump, write_dump


@pytest.fixture(autouse=True)
def two_threads(client):
    """In place of the fixture of the other tests: the cluster is Dask's scheduler here."""


def test_files_are_read_by_processes(tmp_path, client):
    pixels = write_folder(tmp_path, 9)
    stack = open_stack(tmp_path, chunks=2)
    np.testing.assert_array_equal(client.compute(stack.data).result(), pixels)
    np.testing.assert_array_equal(client.submit(lambda s: s[1].compute(), stack).result(), pixels[1])
    (tmp_path / "img3.png").write_bytes(b"text")
    with pytest.raises(BadImageError, match=r"img3\.png"):
        client.compute(open_stack_unchecked(stack)).result()


def open_stack_unchecked(stack):
    """The same files, whatever their states, under another key, which the cluster has not kept."""
    return lazy_array(FileReader(stack.shape[1:], stack.dtype), stack.files, 2)


def test_stacks_are_stored_by_processes(tmp_path, client):
    pixels = np.zeros((9, 8, 6), dtype="uint8")
    pixels[7] = 1
    path = save_stack(da.from_array(pixels, chunks=(2, -1, -1)), tmp_path / "x.zarr")
    assert len(chunk_files(path)) == 5  # those of zeros too
    stack = open_stack(path)
    np.testing.assert_array_equal(client.compute(stack[::-1].data).result(), pixels[::-1])


def test_images_are_written_by_processes(tmp_path):
    pixels = random_pixels((9, 8, 6))
    paths = write_images(da.from_array(pixels, chunks=(2, -1, -1)), tmp_path / "out")
    np.testing.assert_array_equal(open_stack(paths).data.compute(), pixels)


def test_every_kind_on_a_cluster(tmp_path, client):
    pixels, found = sources(tmp_path)
    for source in found:
        for options in ({}, {"shape": (4, 4), "fit": "crop"}):
            stack = open_stack(source, chunks=5, **options)
            expected = pixels[:, 2:6, 1:5] if options else pixels
            np.testing.assert_array_equal(client.compute(stack[::-1].data).result(), expected[::-1])
            assert len(pickle.dumps(stack.reader)) < 1000, source
    assert open_stack(found[0]).verify().problems == ()


def test_a_format_that_was_registered_here_is_not_known_there(registered, tmp_path):
    registered(Dump)
    stack = open_stack(write_dump(tmp_path / "a.dump", random_pixels((2, 4, 4))))
    with pytest.raises(ImgstackError, match=r"'dump' was registered in another process.*entry point"):
        stack.data.compute()
