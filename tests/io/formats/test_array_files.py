"""NumPy and HDF5 files as files among others: which arrays are images, and that no Python object is ever read."""

import zipfile

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import random_pixels


def write(path, pixels):
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".npz":
        np.savez_compressed(path, a=pixels)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["run/images"] = pixels
            file["run/times"] = np.arange(5)
            if path.suffix == ".mat":
                file["run/images"].attrs["MATLAB_class"] = np.bytes_("uint8")
    return str(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".nc"])
@pytest.mark.parametrize(
    ("shape", "n", "dtype"),
    [((8, 9), 1, "u1"), ((5, 8, 9), 5, ">u2"), ((5, 8, 9, 3), 5, "f4"), ((2, 8, 9, 1), 2, "u1")],
)
def test_images_of_arrays(tmp_path, suffix, shape, n, dtype):
    pixels = random_pixels(shape, np.dtype(dtype).newbyteorder("=")).astype(dtype)
    path = write(tmp_path / f"a{suffix}", pixels)
    expected = pixels.reshape(n, 8, 9, 3) if shape[-1] == 3 else pixels.reshape(n, 8, 9)
    stack = open_stack([path, path], chunks=2)
    assert stack.dtype == pixels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(stack[::-1].data.compute(), np.concatenate([expected, expected])[::-1])


def test_matlab_writes_axes_in_reversed_order(tmp_path):
    pixels = random_pixels((8, 9, 5))  # height, width, n_images, as MATLAB has them
    path = write(tmp_path / "a.mat", pixels.T)
    for source in (path, [path], f"{path}::run/images"):
        np.testing.assert_array_equal(open_stack(source).data.compute(), np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("colour.npy", np.zeros((8, 9, 3)), r"\(8, 9, 3\), images or one of 3 channels.*numpy\.load\(path\)\[None\]"),
        ("colour.h5", np.zeros((8, 9, 4)), r"one of 4 channels.*h5py"),
        ("line.npy", np.zeros(9), r"shape \(9,\)"),
        ("text.npy", np.array([["a"]]), "dtype <U1"),
        ("objects.npy", np.array([[{}]]), "Python objects, which are never read"),
        ("empty.npy", np.zeros((0, 8, 9)), "without an image"),
        ("order.npy", np.asfortranarray(np.zeros((5, 8, 9))), "not stored one after the other.*ascontiguousarray"),
        ("two.npz", {"a": np.zeros((8, 9)), "b": np.zeros((8, 9))}, r"2 arrays, and one is read: 'a', 'b'"),
        ("two.h5", {"a": np.zeros((8, 9)), "b": np.zeros((8, 9))}, r"it has 'a', 'b'\. Give one: open_stack"),
        ("old.mat", b"MATLAB 5.0 MAT-file" + bytes(200), r"before 7\.3.*scipy\.io\.loadmat"),
        ("old.nc", b"CDF\1" + bytes(200), r"netCDF 3.*xarray\.open_dataset"),
    ],
)
def test_other_arrays_are_refused_by_name(tmp_path, name, content, match):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict) and name.endswith("npz"):
        np.savez(path, **content)
    elif isinstance(content, dict):
        with pytest.importorskip("h5py").File(path, "w") as file:
            file.update(content)
    else:
        write(path, content)
    with pytest.raises(BadImageError, match=rf"{name}.*{match}"):
        open_stack([path])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_cut_arrays_and_bombs_are_named(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", random_pixels((40, 30, 20)))
    with open(path, "rb") as file:
        content = file.read()
    for part in (0.1, 0.5, 0.97):
        with open(path, "wb") as file:
            file.write(content[: int(len(content) * part)])
        with pytest.raises(BadImageError):
            open_stack([path]).data.compute()
    header = (
        b"\x93NUMPY\1\0v\0" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 99999999, 99999999), }".ljust(118)
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("a.npy", header)
    with pytest.raises(BadImageError, match="it claims 99999999 × 99999999 pixels"):
        open_stack([tmp_path / "bomb.npz"])
