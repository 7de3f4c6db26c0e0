"""Stacks in one array for tests: zarr, HDF5, NumPy files; and the same images from every kind of source."""

import os
import zipfile

import numpy as np
import pytest
import tifffile
import zarr

from imgstack_ml import save_stack
from tests.lib.images import write_folder


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


def chunk_files(path):
    return sorted(os.path.join(parent, name) for parent, _, names in os.walk(os.path.join(path, "c")) for name in names)


def sources(folder):
    """The same twelve images by every road; memory:// is left out, which other processes do not share."""
    pixels = write_folder(folder / "png", 12, shape=(8, 6))
    tifffile.imwrite(folder / "pages.tif", pixels, photometric="minisblack")
    tifffile.imwrite(folder / "tiles.tif", pixels, photometric="minisblack", compression="zlib", tile=(16, 16))
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for path in (folder / "png").iterdir():
            archive.write(path, path.name)
    np.save(folder / "x.npy", pixels)
    zarr.create_array(folder / "x.zarr", data=pixels, chunks=(4, 8, 6))
    save_stack(pixels, folder / "own.zarr")
    found = [
        folder / "png",
        f"simplecache::file://{folder}/png",
        folder / "pages.tif",
        folder / "tiles.tif",
        folder / "x.zip",
        folder / "x.npy",
        folder / "x.zarr",
        folder / "own.zarr",
    ]
    try:
        import h5py
    except ImportError:
        return pixels, found
    with h5py.File(folder / "x.h5", "w") as file:
        file["images"] = pixels
    return pixels, [*found, f"{folder}/x.h5::images"]
