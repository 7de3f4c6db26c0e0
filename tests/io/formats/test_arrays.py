"""Stacks in one array: zarr, HDF5, NumPy files."""

import itertools
import json
import os
import pickle
import time
import warnings

import numpy as np
import pytest
import zarr

from imgstack_ml import ImagePCA, open_stack, save_stack
from imgstack_ml.errors import BadImageError
from tests.lib.arrays import write_hdf5, write_npy, write_zarr
from tests.lib.images import random_pixels

WRITERS = [
    (write_zarr, 2),
    (write_zarr, 3),
    (write_npy, "C"),
    (write_npy, "F"),
    (write_hdf5, True),
    (write_hdf5, None),
]


DTYPES = ["uint8", "uint16", "int32", "float32", "float64", ">u2"]


# Each writer with two dtypes and both shapes, each dtype with two writers; each kind of file with the other byte order.
@pytest.mark.parametrize(
    ("write", "option", "shape", "dtype"),
    [
        *((*writer, (17, 8, 6), dtype) for writer, dtype in zip(WRITERS, DTYPES, strict=True)),
        *((*writer, (17, 8, 6, 3), dtype) for writer, dtype in zip(WRITERS, reversed(DTYPES), strict=True)),
        (write_npy, "C", (17, 8, 6), ">u2"),
        (write_zarr, 3, (17, 8, 6), ">u2"),
    ],
)
def test_arrays_of_others(tmp_path, write, option, shape, dtype):
    pixels = random_pixels(shape, np.dtype(dtype).newbyteorder("=")).astype(dtype)
    source = write(tmp_path, pixels, option)
    path = source.split("::")[0]
    for chunks, scheduler in itertools.product(["auto", 5], ["synchronous", "threads"]):
        stack = open_stack(source, chunks=chunks)
        assert (stack.shape, stack.dtype) == (pixels.shape, pixels.dtype.newbyteorder("="))
        assert (stack.files[3], stack.inputs, stack.labels) == (f"{source}[3]", (path,), None)
        computed = stack.data.compute(scheduler=scheduler)
        np.testing.assert_array_equal(computed, pixels)
        assert computed.dtype == stack.data.dtype
        order = np.random.default_rng(0).permutation(17)[:11]
        np.testing.assert_array_equal(stack[order].data.compute(), pixels[order])
        np.testing.assert_array_equal(stack[3].compute(), pixels[3])
    assert len(pickle.dumps(stack.reader)) < 1000


@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": (4, 8, 8), "chunks": (2, 8, 8)}], ids=str)
def test_zarr_without_a_chunk_is_refused(tmp_path, options):
    """All its pixels would be the fill value."""
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8, 8), dtype="u1", **options)
    (tmp_path / "a.zarr" / ".DS_Store").touch()
    with pytest.raises(BadImageError, match=r"a\.zarr.*it has no chunk"):
        open_stack(tmp_path / "a.zarr")
    array[5] = 7
    np.testing.assert_array_equal(open_stack(tmp_path / "a.zarr").data[5].compute(), np.full((8, 8), 7))


def test_zarr_is_not_read_through_links_that_lead_out(tmp_path):
    pixels = random_pixels((4, 8, 8))
    for name in ("secret.zarr", "a.zarr", "whole.zarr"):
        zarr.create_array(tmp_path / name, data=pixels, chunks=(2, 8, 8))
    save_stack(pixels, tmp_path / "own.zarr")
    (tmp_path / "link.zarr").symlink_to("a.zarr")  # what the user names may be a link
    np.testing.assert_array_equal(open_stack(tmp_path / "link.zarr").data.compute(), pixels)
    chunk, inside, other = (tmp_path / name / "c" for name in ("a.zarr", "whole.zarr", "own.zarr"))
    for path, target in (
        (chunk / "1" / "0" / "0", tmp_path / "secret.zarr" / "c" / "1" / "0" / "0"),
        (chunk / "1", "../../secret.zarr/c/1"),
        (chunk, "../secret.zarr/c"),
        (tmp_path / "a.zarr" / "zarr.json", "../secret.zarr/zarr.json"),
        (other, "../secret.zarr/c"),
    ):
        root = next(parent for parent in path.parents if parent.suffix == ".zarr")
        kept = path.rename(tmp_path / "kept")
        path.symlink_to(target)
        with pytest.raises(OSError, match=rf"{root.name}.*leads out of .* by a link"):
            open_stack(root)
        path.unlink()
        kept.rename(path)
    (inside / "1").rename(inside / "2")
    (inside / "1").symlink_to("2")
    np.testing.assert_array_equal(open_stack(tmp_path / "whole.zarr").data.compute(), pixels)


def test_groups_and_shapes_that_are_no_stack(tmp_path):
    zarr.create_group(tmp_path / "g.zarr").create_array("cells", shape=(2, 3, 4), dtype="u1")[...] = 1
    with pytest.raises(BadImageError, match=r"without an OME-Zarr image; it holds \['cells'\]. .*g\.zarr/cells"):
        open_stack(tmp_path / "g.zarr")
    assert open_stack(tmp_path / "g.zarr" / "cells").shape == (2, 3, 4)
    for shape in ((4, 4), (2, 3, 4, 5, 6)):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        with pytest.raises(BadImageError, match=r"a stack is of shape \(n_images, height, width\) or"):
            open_stack(tmp_path / "a.npy")
    for bad in (np.zeros((2, 3, 4), complex), np.zeros((2, 3, 4), "U3"), np.zeros((2, 3, 4), bool)):
        np.save(tmp_path / "a.npy", bad)
        with pytest.raises(BadImageError, match="it is of dtype"):
            open_stack(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.full((2, 3, 4), None), allow_pickle=True)
    with pytest.raises(BadImageError, match="Python objects"):
        open_stack(tmp_path / "a.npy")


@pytest.mark.parametrize(("write", "option"), WRITERS[::2])
def test_arrays_that_change_are_named(tmp_path, write, option):
    stack = open_stack(write(tmp_path, random_pixels((9, 4, 4)), option))
    name = stack.data.name
    path = stack.inputs[0]
    if os.path.isdir(path):
        (tmp_path / "v2.zarr" / ".zarray").write_text(json.dumps({"broken": True}))
    else:
        os.remove(path)
    with pytest.raises(BadImageError, match=r"v2\.zarr|stack\."):
        stack.data.compute()
    if not os.path.isdir(path):
        write(tmp_path, random_pixels((8, 4, 4)), option)
        with pytest.raises(BadImageError, match="it has changed since the stack was opened"):
            stack.data.compute()
        assert open_stack(stack.files[0].rsplit("[", 1)[0]).data.name != name


@pytest.mark.parametrize(("write", "option"), WRITERS)
def test_arrays_are_converted(tmp_path, write, option):
    pixels = random_pixels((9, 8, 6))
    source = write(tmp_path, pixels, option)
    stack = open_stack(source, dtype="float32", shape=(4, 4), fit="crop")
    assert (stack.shape, stack.dtype) == ((9, 4, 4), np.float32)
    np.testing.assert_array_equal(stack.data.compute(), pixels[:, 2:6, 1:5])
    with pytest.raises(BadImageError, match="cannot hold all values of uint8"):
        open_stack(source, dtype="int8")


def test_own_stores_and_estimators_take_them_too(tmp_path):
    pixels = random_pixels((12, 5, 4)).astype("float64")
    source = write_npy(tmp_path, pixels, "C")
    pca = ImagePCA(2).fit(open_stack(source))
    expected = ImagePCA(2).fit(pixels)
    np.testing.assert_allclose(pca.singular_values_, expected.singular_values_)
    stored = save_stack(open_stack(source), tmp_path / "out.zarr")
    np.testing.assert_array_equal(open_stack(stored, shape=(3, 3), fit="crop").data.compute(), pixels[:, 1:4, 0:3])


def test_summary_of_an_array(tmp_path):
    summary = open_stack(write_npy(tmp_path, random_pixels((9, 4, 4, 3)), "C")).summary()
    ((header, count),) = summary.counts
    assert (header.shape, header.dtype, header.format, header.mode, count) == ((4, 4, 3), np.uint8, "npy", "RGB", 9)


def test_chunks_far_beyond_an_array_are_refused(tmp_path):
    """Each would be decoded whole: 100 GB for four small images."""
    array = zarr.create_array(tmp_path / "a.zarr", shape=(4, 8, 8), chunks=(4, 8, 8), dtype="u1")
    array[...] = 1
    about = tmp_path / "a.zarr" / "zarr.json"
    told = json.loads(about.read_text())
    told["chunk_grid"]["configuration"]["chunk_shape"] = [100_000, 1000, 1000]
    about.write_text(json.dumps(told))
    with pytest.raises(BadImageError, match=r"a\.zarr.*chunks.*reach far beyond its shape.*100,000,000,000 bytes"):
        open_stack(tmp_path / "a.zarr")


@pytest.mark.parametrize("codec", [None, "zstd", "gzip"])
def test_chunks_of_other_zarrs_that_were_cut(tmp_path, codec):
    codecs = {None: None, "zstd": zarr.codecs.ZstdCodec(), "gzip": zarr.codecs.GzipCodec()}[codec]
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 30, 30), chunks=(4, 30, 30), dtype="u1", compressors=codecs, fill_value=0
    )
    array[...] = random_pixels((4, 30, 30))
    (chunk,) = (path for path in (tmp_path / "a.zarr" / "c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    for end in np.linspace(0, len(whole) - 1, 20).astype(int).tolist():
        chunk.write_bytes(whole[:end])
        with pytest.raises(BadImageError, match=r"a\.zarr"):
            open_stack(tmp_path / "a.zarr").data.compute()


@pytest.mark.parametrize(("zarr_format", "n", "name"), [(2, 2100, "{}.0.0"), (3, 700, "c/{}/0/0")])
def test_chunks_of_large_arrays_are_looked_at_when_they_are_read(tmp_path, zarr_format, n, name):
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=(n, 1, 1), chunks=(1, 1, 1), dtype="u1", zarr_format=zarr_format, compressors=None)
    chunks = [path / name.format(i) for i in range(n)]
    for chunk in chunks:
        chunk.parent.mkdir(parents=True, exist_ok=True)
        chunk.write_bytes(b"7")
    stack = open_stack(path, chunks=1)
    assert stack.data.name == open_stack(path, chunks=1).data.name  # so that writes can be resumed
    time.sleep(0.01)  # a file system's clock may be that late
    replaced, linked, whole = 0, n // 2, n - 1  # wherever the first look ended
    chunks[linked].rename(tmp_path / "outside")
    chunks[linked].symlink_to(tmp_path / "outside")
    chunks[replaced].write_bytes(b"9")
    for i, said in ((replaced, "has changed"), (linked, "leads out of")):
        with pytest.raises(OSError, match=said):
            stack[i].compute()
    assert stack[whole].compute() == ord("7")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        (
            {"scale_factor": 0.5, "add_offset": 10.0, "dtype": "i2", "_FillValue": -9},
            "scale_factor=0.5, add_offset=10.0",
        ),
        ({"_FillValue": -9999.0}, "_FillValue="),
        ({"_FillValue": float("nan")}, None),
        ({}, None),
    ],
)
def test_numbers_that_stand_for_others_are_refused(tmp_path, zarr_format, encoding, said):
    xarray = pytest.importorskip("xarray")
    pixels = random_pixels((6, 5, 4)).astype("float32")
    stack = xarray.DataArray(pixels, dims=("t", "y", "x"), name="run")
    group = str(tmp_path / "a.zarr")
    stack.to_dataset().to_zarr(group, encoding={"run": encoding}, zarr_format=zarr_format, consolidated=False)
    if said is None:
        np.testing.assert_array_equal(open_stack(f"{group}/run").data.compute(), pixels)
        return
    with pytest.raises(BadImageError, match=said) as caught:
        open_stack(f"{group}/run")
    line = str(caught.value).partition("Give an estimator ")[2].partition(", where")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that are not consolidated
        X = eval(line)
    np.testing.assert_allclose(ImagePCA(1).fit(X).mean_, pixels.mean(axis=0).ravel(), rtol=1e-6)


@pytest.mark.parametrize(("attributes", "is_read"), [({"scale_factor": 2.0}, False), ({"scale_factor": 1.0}, True)])
def test_numbers_that_stand_for_others_in_hdf5(tmp_path, attributes, is_read):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("run", data=np.ones((3, 4, 5))).attrs.update(attributes)
    if is_read:
        assert len(open_stack(f"{tmp_path}/a.h5::run")) == 3
        return
    with pytest.raises(BadImageError, match=r"scale_factor=2\.0.*h5py\.File\(.*\)\['run'\]"):
        open_stack(f"{tmp_path}/a.h5::run")
