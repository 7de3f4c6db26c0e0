"""Axes of stored arrays: by name in every kind of store, by position only where no name contradicts."""

import contextlib

import numpy as np
import pytest
import zarr

from imgstack_ml import StackCenterer, open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import random_pixels

SIZES = {
    "time": 5,
    "z": 2,
    "channel": 4,
    "y": 9,
    "x": 7,
    "lat": 9,
    "lon": 7,
    "row": 9,
    "col": 7,
    "rgb": 3,
    "X": 7,
    "Y": 9,
}


def write_zarr2(folder, pixels, names):
    array = zarr.create_array(folder / "a.zarr", data=pixels, zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = list(names)
    return folder / "a.zarr"


def write_zarr3(folder, pixels, names):
    zarr.create_array(folder / "a.zarr", data=pixels, dimension_names=names)
    return folder / "a.zarr"


def write_xarray(folder, pixels, names, zarr_format):
    xarray = pytest.importorskip("xarray")
    data = xarray.DataArray(pixels, dims=names, coords={names[0]: np.arange(len(pixels))}, name="run")
    data.to_dataset().to_zarr(folder / "a.zarr", zarr_format=zarr_format, consolidated=False)
    with pytest.raises(BadImageError, match=r"without an OME-Zarr image; .*open_stack\('.*a\.zarr/run'\)"):
        open_stack(folder / "a.zarr")
    return folder / "a.zarr" / "run"


def write_labels(folder, pixels, names):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        data_set = file.create_dataset("run", data=pixels)
        for axis, name in zip(data_set.dims, names, strict=True):
            axis.label = name or ""
    return f"{folder}/a.h5::run"


def write_scales(folder, pixels, names):
    """As netCDF and xarray name the axes of HDF5."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        data_set = file.create_dataset("run", data=pixels)
        for axis, name, size in zip(data_set.dims, names, pixels.shape, strict=True):
            if name:
                file[name] = np.arange(size)
                file[name].make_scale()
                axis.attach_scale(file[name])
    return f"{folder}/a.h5::run"


WRITERS = {
    "zarr 2": write_zarr2,
    "zarr 3": write_zarr3,
    "xarray 2": lambda *arguments: write_xarray(*arguments, 2),
    "xarray 3": lambda *arguments: write_xarray(*arguments, 3),
    "HDF5 labels": write_labels,
    "HDF5 scales": write_scales,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("names", "images"),
    [
        (("time", "y", "x"), "tyx"),
        (("x", "y", "time"), "xyt"),
        (("time", "lat", "lon"), "tyx"),
        (("time", "col", "row"), "txy"),
        (("channel", "time", "y", "x"), "ctyx"),
        (("time", "z", "channel", "Y", "X"), "tzcyx"),
        (("z", "y", "x", "time"), "zyxt"),
        (("y", "x", "rgb"), "yxc"),
        (("y", "x"), "yx"),
    ],
)
def test_names_are_obeyed(tmp_path, writer, names, images):
    pixels = random_pixels([SIZES[name] for name in names], "uint16")
    order = sorted(range(len(images)), key=lambda i: "yxc".find(images[i]))
    n_counting = sum(axis in "tz" for axis in images)
    expected = pixels.transpose(order).reshape(-1, *(pixels.shape[i] for i in order[n_counting:]))
    stack = open_stack(WRITERS[writer](tmp_path, pixels, names))
    np.testing.assert_array_equal(stack.data.compute(), expected)
    shuffled = np.random.default_rng(0).permutation(len(stack))
    np.testing.assert_array_equal(stack[shuffled].data.compute(), expected[shuffled])


@pytest.mark.parametrize("writer", ["zarr 3", "HDF5 labels", "HDF5 scales"])
@pytest.mark.parametrize(
    ("names", "is_clear"),
    [
        ((None, None, None, None), True),
        (("time", None, None, None), True),
        ((None, "y", "x", None), True),
        (("dim_0", "dim_1", "phony_dim_2", "axis_3"), True),
        (("time", "a", "b", "c"), False),
        ((None, "c", None, None), False),
        (("time", "z", None, None), False),
        (("channel", "c", "y", "x"), False),
        (("channel", "x", "y", None), False),
    ],
)
def test_position_counts_only_where_no_name_contradicts(tmp_path, writer, names, is_clear):
    pixels = random_pixels((3, 5, 6, 2))
    source = WRITERS[writer](tmp_path, pixels, names)
    if is_clear:
        np.testing.assert_array_equal(open_stack(source).data.compute(), pixels)
        return
    with pytest.raises(BadImageError, match=r"a\..*its axes are named .*not clear which are y, x and channels"):
        open_stack(source)


def test_as_many_names_as_axes(tmp_path):
    with pytest.raises(BadImageError, match=r"a\.zarr.*it names 2 axes, .* and its shape \(3, 5, 6\) has 3"):
        open_stack(write_zarr2(tmp_path, random_pixels((3, 5, 6)), ["y", "x"]))


@pytest.mark.parametrize("names", [("time", "y", "x"), None, ("y", "time", "x")])
def test_arrays_given_to_an_estimator_have_names_too(tmp_path, names):
    h5py = pytest.importorskip("h5py")
    pixels = random_pixels((5, 9, 7))
    stored = [zarr.create_array(tmp_path / "a.zarr", data=pixels, dimension_names=names)]
    stored.append(zarr.create_array(tmp_path / "b.zarr", data=pixels, zarr_format=2))
    stored[1].attrs.update({"_ARRAY_DIMENSIONS": names} if names else {})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored.append(file.create_dataset("a", data=pixels, chunks=True))
        for axis, name in zip(stored[2].dims, names or (), strict=False):
            axis.label = name
        for X in stored:
            refused = pytest.raises(TypeError, match=r"axes \('y', 'time', 'x'\)")
            with refused if names and names[0] == "y" else contextlib.nullcontext():
                mean = StackCenterer().fit(X).mean_
                np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-6)
