import itertools
import json
import os
import pickle

import dask
import numpy as np
import pytest
import zarr

from imgstack_ml import BadImageError, ImagePCA
from imgstack_ml.io import open_stack, save_stack
from tests.lib.images import random_pixels


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


def write_zarr(folder, pixels, zarr_format):
    path = folder / f"v{zarr_format}.zarr"
    array = zarr.create_array(
        path, shape=pixels.shape, chunks=(4, *pixels.shape[1:]), dtype=pixels.dtype, zarr_format=zarr_format
    )
    array[...] = pixels
    return str(path)


def write_npy(folder, pixels, order):
    path = folder / "stack.npy"
    np.save(path, np.asarray(pixels, order=order))
    return str(path)


def write_hdf5(folder, pixels, chunks):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "stack.h5", "w") as file:
        file.create_dataset("run/images", data=pixels, chunks=chunks and (3, *pixels.shape[1:]))
    return f"{folder}/stack.h5::run/images"


WRITERS = [
    (write_zarr, 2),
    (write_zarr, 3),
    (write_npy, "C"),
    (write_npy, "F"),
    (write_hdf5, True),
    (write_hdf5, None),
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", ">u2"])
@pytest.mark.parametrize("shape", [(17, 8, 6), (17, 8, 6, 3)])
@pytest.mark.parametrize(("write", "option"), WRITERS)
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


def write_ome_zarr(path, pixels, axes, version):
    """Write the metadata as the specification of each version has them."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    levels = {"full": pixels, "half": pixels[..., ::2, ::2]}
    for name, level in levels.items():
        group.create_array(
            name, shape=level.shape, chunks=(*(min(n, 2) for n in level.shape[:-2]), 4, 4), dtype=level.dtype
        )[...] = level
    image = {"version": version, "datasets": [{"path": name} for name in levels]}
    if version == "0.3":
        image["axes"] = list(axes)
    elif version != "0.1":
        image["axes"] = [{"name": axis, "type": "space"} for axis in axes]
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [image]}} if version == "0.5" else {"multiscales": [image]}
    )


@pytest.mark.parametrize("version", ["0.1", "0.3", "0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "tzyx", "tcyx", "cyx", "yx", "zyx"])
def test_ome_zarr(tmp_path, axes, version):
    if version == "0.1":
        axes = "tczyx"  # the only axes there were
    sizes = {"t": 3, "c": 2, "z": 5, "y": 9, "x": 7}
    pixels = random_pixels(tuple(sizes[axis] for axis in axes), "uint16")
    write_ome_zarr(tmp_path / "a.zarr", pixels, axes, version)
    images = [i for i, axis in enumerate(axes) if axis not in "cyx"]
    order = [*images, axes.index("y"), axes.index("x"), *([axes.index("c")] if "c" in axes else [])]
    expected = pixels.transpose(order)
    expected = expected.reshape(-1, *expected.shape[len(images) :])
    stack = open_stack(tmp_path / "a.zarr", chunks=4)
    np.testing.assert_array_equal(stack.data.compute(), expected)
    order = np.random.default_rng(1).permutation(len(stack))
    np.testing.assert_array_equal(stack[order].data.compute(), expected[order])


def test_named_dimensions_of_a_zarr_array(tmp_path):
    pixels = random_pixels((2, 5, 9, 7))
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=pixels.shape, dtype="u1", dimension_names=["channel", "time", "y", "x"]
    )
    array[...] = pixels
    np.testing.assert_array_equal(open_stack(tmp_path / "a.zarr").data.compute(), pixels.transpose(1, 2, 3, 0))


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


def test_data_sets_are_named(tmp_path):
    source = write_hdf5(tmp_path, random_pixels((4, 3, 2)), None)
    path = source.split("::")[0]
    with pytest.raises(
        BadImageError, match=rf"not said which .* has 'run/images'\. Give one: open_stack\('{source}'\)"
    ):
        open_stack(path)
    with pytest.raises(BadImageError, match="holds no data set 'run'; it has 'run/images'"):
        open_stack(f"{path}::run")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(BadImageError, match=r"text\.h5"):
        open_stack(f"{tmp_path}/text.h5::images")


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


def test_cut_npy_is_named(tmp_path):
    path = write_npy(tmp_path, random_pixels((9, 4, 4)), "C")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)
    with pytest.raises(BadImageError, match=r"stack\.npy"):
        open_stack(path)


@pytest.mark.parametrize(("write", "option"), WRITERS)
def test_policies_apply_to_arrays(tmp_path, write, option):
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


def test_names_of_the_images_of_an_array_are_made_when_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((300, 2, 3), np.uint8))
    stack = open_stack(tmp_path / "x.npy")
    expected = tuple(f"{tmp_path / 'x.npy'}[{i}]" for i in range(300))
    assert stack.files == expected
    assert hash(stack.files) == hash(expected)
    assert stack.files[-1] == expected[-1]
    assert stack.files[3:5] == expected[3:5]
    assert stack.files.index(expected[200]) == 200
    assert stack[[7, 2, -1]].files == tuple(expected[i] for i in (7, 2, -1)) != stack.files
    assert stack[::2][::2].files == stack[::4].files == expected[::4]
    assert repr(stack[:2].files) == repr(expected[:2])
    assert pickle.loads(pickle.dumps(stack)).files == expected
    assert len(pickle.dumps(stack.files)) < 400
