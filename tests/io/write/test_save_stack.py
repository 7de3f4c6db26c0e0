"""Stacks stored as one zarr array."""

import errno
import json
import os
import pickle

import dask.array as da
import numpy as np
import pytest
import zarr

from imgstack_ml import open_stack, save_stack, write_images
from imgstack_ml.errors import BadImageError, StoreError
from imgstack_ml.io.formats.store import MARKER
from tests.lib.arrays import chunk_files
from tests.lib.images import count_decoded, random_pixels, write_folder, write_image


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((10, 8, 6), "uint8"), ((10, 8, 6, 3), "uint16"), ((10, 5), "float32"), ((10, 8, 6), "float64")],
)
def test_arrays(tmp_path, shape, dtype):
    pixels = random_pixels(shape, dtype)
    for name, stack in [("numpy", pixels), ("dask", da.from_array(pixels, chunks=3))]:
        path = save_stack(stack, tmp_path / name)
        assert path == str(tmp_path / name)
        stored = open_stack(path)
        assert (stored.shape, stored.dtype, stored.labels, stored.problems) == (shape, dtype, None, ())
        assert stored.files[7] == f"{path}[7]"
        np.testing.assert_array_equal(stored.data.compute(), pixels)
    assert sorted(os.listdir(tmp_path)) == ["dask", "numpy"]


def test_stack_of_files_keeps_names_and_labels(tmp_path):
    for i in range(6):
        write_image(tmp_path / "in" / f"class{i % 2}" / f"{i}.png", random_pixels((4, 4), seed=i))
    stack = open_stack(tmp_path / "in", recursive=True)
    stored = open_stack(save_stack(stack, tmp_path / "out.zarr"))
    assert stored.files == stack.files
    assert stored.labels.tolist() == stack.labels.tolist() == ["class0"] * 3 + ["class1"] * 3
    np.testing.assert_array_equal(stored.data.compute(), stack.data.compute())


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"\xff<1>.png")
    write_image(tmp_path / "a.png", random_pixels((4, 4)))
    os.rename(tmp_path / "a.png", tmp_path / name)
    stored = open_stack(save_stack(open_stack(tmp_path), tmp_path / "out.zarr"))
    assert stored.files == (str(tmp_path / name),)


def test_selection_reads_the_same_images(store):
    stack = open_stack(store)
    pixels = random_pixels((10, 8, 6))
    for key in (slice(3, 9), slice(None, None, -2), [9, 0, 4, 4], np.arange(10) > 6, []):
        selected = stack[key]
        np.testing.assert_array_equal(selected.data.compute(), pixels[key])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(selected)).data.compute(), pixels[key])
    np.testing.assert_array_equal(stack[-1].compute(), pixels[-1])


def test_blocks_are_whole_chunks(tmp_path):
    pixels = random_pixels((100, 4, 4))
    path = save_stack(da.from_array(pixels, chunks=(7, -1, -1)), tmp_path / "x.zarr")
    assert open_stack(path).data.chunks[0] == (14,) * 7 + (2,)
    assert open_stack(path, chunks=20).data.chunks[0] == (20,) * 5


@pytest.mark.parametrize(
    ("chunks", "stored"),
    [
        (((4, 4, 2), (8,), (6,)), (4, 8, 6)),
        (((2, 5, 3), (8,), (6,)), (5, 8, 6)),  # irregular: the largest block
        (((10,), (3, 5), (4, 2)), (10, 5, 4)),
    ],
)
def test_chunks_follow_the_blocks(tmp_path, chunks, stored):
    pixels = random_pixels((10, 8, 6))
    path = save_stack(da.from_array(pixels, chunks=chunks), tmp_path / "x.zarr")
    assert zarr.open_array(path, mode="r").chunks == stored
    np.testing.assert_array_equal(open_stack(path).data.compute(), pixels)


@pytest.mark.parametrize(
    ("shape", "rows", "per_chunk"),
    [
        ((5, 1000, 1000), 5, 1),  # one image is 1 MB
        ((60, 500, 400), 12, 4),  # at most 5, and 4 leaves the blocks as they are
        ((39, 500, 400), 13, 5),  # no such divisor
        ((40, 20, 20), 10, 10),
    ],
)
def test_chunks_are_about_a_megabyte(tmp_path, shape, rows, per_chunk):
    pixels = np.broadcast_to(np.arange(shape[0], dtype="uint8")[:, None, None], shape)
    path = save_stack(da.from_array(pixels, chunks=(rows, -1, -1)), tmp_path / "x.zarr")
    assert zarr.open_array(path, mode="r").chunks == (per_chunk, *shape[1:])
    np.testing.assert_array_equal(open_stack(path).data.compute(), pixels)


def test_chunks_of_zeros_are_written(tmp_path):
    path = save_stack(np.zeros((5, 4, 4)), tmp_path / "x.zarr")
    assert len(chunk_files(path)) == 1
    assert not open_stack(path).data.compute().any()


def test_images_are_decoded_once(tmp_path, monkeypatch):
    decoded = count_decoded(monkeypatch)
    write_folder(tmp_path / "in", 25)
    save_stack(open_stack(tmp_path / "in", chunks=4), tmp_path / "out.zarr")
    assert list(decoded.values()) == [1] * 25


def test_progress_bar(tmp_path, capsys):
    save_stack(np.ones((5, 4, 4)), tmp_path / "x.zarr", progress=True)
    bar = capsys.readouterr().err
    assert "save_stack: 100%" in bar
    assert "5/5" in bar
    assert "MB/s" in bar


@pytest.mark.parametrize(
    ("dtype", "chunks"),
    [
        ("uint8", (4, 8, 6)),
        (">u2", (3, 5, 4)),
        ("int32", ((2, 5, 3), (8,), (6,))),
        ("float16", (1, -1, -1)),
        ("float32", (3, 5, 4)),
        (">f8", (4, 8, 6)),
        ("bool", (3, 5, 4)),
        ("complex64", ((2, 5, 3), (8,), (6,))),
    ],
    ids=str,
)
def test_other_tools_read_it(tmp_path, dtype, chunks):
    pixels = (random_pixels((10, 8, 6), "uint16") % 7 - 1.0).astype(dtype)
    path = save_stack(da.from_array(pixels, chunks=chunks), tmp_path / "x.zarr")
    array = zarr.open_array(path, mode="r")
    assert (array.metadata.zarr_format, array.shape, array.dtype) == (3, pixels.shape, pixels.dtype.newbyteorder("="))
    np.testing.assert_array_equal(array[:], pixels)
    np.testing.assert_array_equal(da.from_zarr(path).compute(), pixels)


def test_chunks_are_those_that_zarr_writes(tmp_path):
    pixels = random_pixels((10, 8, 6), "uint16")
    path = save_stack(da.from_array(pixels, chunks=(4, 5, 6)), tmp_path / "x.zarr")
    like = zarr.open_array(path, mode="r")
    theirs = zarr.create_array(
        tmp_path / "y.zarr", shape=like.shape, chunks=like.chunks, dtype=like.dtype, compressors=like.compressors
    )
    theirs[:] = pixels
    for ours in chunk_files(path):
        with open(ours, "rb") as one, open(ours.replace("x.zarr", "y.zarr"), "rb") as other:
            assert one.read() == other.read()


def test_what_holds_no_numbers_is_refused(tmp_path):
    with pytest.raises(TypeError, match="only numbers of up to 64 bits are stored"):
        save_stack(np.array([["a", "b"]]), tmp_path / "x.zarr")


def test_overwrite_rules(store):
    with pytest.raises(StoreError, match="exists already; pass overwrite=True"):
        save_stack(np.ones((2, 4, 4)), store)
    assert len(open_stack(store)) == 10
    save_stack(np.ones((2, 4, 4)), store, overwrite=True)
    assert open_stack(store).shape == (2, 4, 4)
    os.remove(os.path.join(store, MARKER))  # an incomplete store may be replaced as well
    save_stack(np.ones((3, 4, 4)), store, overwrite=True)
    assert open_stack(store).shape == (3, 4, 4)


def test_only_a_zarr_array_is_replaced(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").touch()
    with pytest.raises(StoreError, match="holds no zarr array, so it is not replaced"):
        save_stack(np.ones((2, 4, 4)), folder, overwrite=True)
    with pytest.raises(StoreError, match="is a file"):
        save_stack(np.ones((2, 4, 4)), folder / "chapter1.tex", overwrite=True)
    assert os.listdir(folder) == ["chapter1.tex"]


def test_a_folder_with_the_suffix_of_a_file_is_refused(tmp_path):
    images = np.ones((2, 4, 4), np.uint8)
    with pytest.raises(StoreError, match=r"'all.ome.tif' has .*: save_stack\(stack, 'all.zarr'\). Files: write_images"):
        save_stack(images, tmp_path / "all.ome.tif")
    with pytest.raises(StoreError, match=r"'all.PNG' has .*: write_images\(stack, 'all', format='png'\)"):
        write_images(images, tmp_path / "all.PNG")
    assert not os.listdir(tmp_path)


def test_output_over_or_in_the_input_is_refused(store, tmp_path):
    stack = open_stack(store)
    inside = os.path.join(store, "inside.zarr")
    for target in (store, inside, tmp_path):
        with pytest.raises(StoreError, match="is, holds or lies in the input"):
            save_stack(stack[:3], target, overwrite=True)
    write_folder(tmp_path / "images", 2)
    stack = open_stack(tmp_path / "images")
    for target in (tmp_path / "images", stack.files[0]):
        with pytest.raises(StoreError, match="is, holds or lies in the input"):
            save_stack(stack, target, overwrite=True)
    assert len(open_stack(save_stack(stack, tmp_path / "images" / "beside.zarr"))) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_failing_block_leaves_nothing(tmp_path, store, overwrite):
    write_folder(tmp_path / "in", 6)
    stack = open_stack(tmp_path / "in", chunks=2)
    with open(stack.files[4], "r+b") as file:
        file.truncate(60)
    target = store if overwrite else tmp_path / "new.zarr"
    with pytest.raises(BadImageError, match=r"img4\.png"):
        save_stack(stack, target, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["in", "stack.zarr"]
    assert len(open_stack(store)) == 10


def test_full_disk(tmp_path):
    with pytest.raises(StoreError, match=r"needs 9,000,000,000,000,000 bytes, but only [\d,]+ bytes are free"):
        save_stack(da.zeros((1_000, 3_000_000, 3_000_000), dtype="u1", chunks=-1), tmp_path / "x.zarr")

    def fail(block):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    array = da.ones((4, 8, 8), chunks=(2, 8, 8)).map_blocks(fail, meta=np.empty((0, 0, 0)))
    with pytest.raises(StoreError, match=r"the disk is full: .*x\.zarr' needs up to 2,048 bytes"):
        save_stack(array, tmp_path / "x.zarr")
    assert os.listdir(tmp_path) == []


def test_what_is_not_a_stack(tmp_path):
    unknown = da.ones((4, 3, 3))
    unknown = unknown[unknown[:, 0, 0] > 0]
    with pytest.raises(ValueError, match=r"stack\.compute_chunk_sizes\(\)"):
        save_stack(unknown, tmp_path / "x.zarr")
    for stack in ([1, 2], np.float64(3)):
        with pytest.raises(TypeError, match="an ImageStack, a Dask array or an ndarray is needed"):
            save_stack(stack, tmp_path / "x.zarr")
    assert os.listdir(tmp_path) == []


def test_description_is_plain_json(store):
    with open(os.path.join(store, "zarr.json")) as file:
        assert json.load(file)["attributes"] == {"imgstack_ml": {"format": 1, "files": None, "labels": None}}
