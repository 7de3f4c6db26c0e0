"""Lines that errors say to type: each is typed here, on a file of the kind that the error is about."""

import glob
import os
import re

import h5py
import numpy as np
import PIL.Image
import pytest
import skimage.exposure
import tifffile

import imgstack_ml
from imgstack_ml import open_stack, save_stack, write_images
from imgstack_ml.errors import ImgstackError
from tests.lib.images import random_pixels, write_image

PIXELS = random_pixels((5, 8, 9), "int16")


def fortran(folder):
    np.save(folder / "a.npy", np.asfortranarray(PIXELS))
    return [folder / "a.npy"], {}, PIXELS


def external_link(folder):
    with h5py.File(folder / "b.h5", "w") as file:
        file["x"] = PIXELS
    with h5py.File(folder / "a.h5", "w") as file:
        file["y"] = h5py.ExternalLink("b.h5", "x")
    return f"{folder}/a.h5::y", {}, PIXELS


def virtual(folder):
    external_link(folder)
    layout = h5py.VirtualLayout(PIXELS.shape, PIXELS.dtype)
    layout[:] = h5py.VirtualSource(str(folder / "b.h5"), "x", PIXELS.shape)
    with h5py.File(folder / "c.h5", "w") as file:
        file.create_virtual_dataset("z", layout)
    return f"{folder}/c.h5::z", {}, PIXELS


def one_of_channels(folder):
    np.save(folder / "a.npy", PIXELS[..., :3])
    return [folder / "a.npy"], {}, PIXELS[None, ..., :3]


def archive(folder):
    np.savez(folder / "a.npz", one=PIXELS, two=PIXELS[0])
    return folder / "a.npz", {}, PIXELS


def lab(folder):
    write_image(folder / "a.tif", random_pixels((8, 9, 3)), photometric="cielab")
    return folder / "a.tif", {}, tifffile.imread(folder / "a.tif")[None]


def lab_psd(folder):
    head = b"8BPS\0\1" + bytes(6) + b"\0\3" + bytes((0, 0, 0, 4, 0, 0, 0, 5, 0, 8, 0, 9)) + bytes(14)
    (folder / "a.psd").write_bytes(head + random_pixels((3, 4, 5)).tobytes())
    return folder / "a.psd", {}, np.asarray(PIL.Image.open(folder / "a.psd").convert("RGB"))[None]


def scaled(folder):
    write_image(folder / "a.tif", PIXELS[0].astype("float32"))
    expected = skimage.exposure.rescale_intensity(PIXELS[:1].astype("float32"), out_range="uint8")
    return folder / "a.tif", {"mode": "L"}, expected


def mixed(folder):
    for i, pixels in enumerate((PIXELS[0], PIXELS[1], random_pixels((8, 9, 3), "int16"))):
        write_image(folder / f"{i}.tif", pixels)
    return folder, {}, PIXELS[:2]


@pytest.mark.parametrize(
    ("make", "marker"),
    [
        (fortran, "Write it anew: "),
        (external_link, "of its own: "),
        (virtual, "of its own: "),
        (one_of_channels, "Give an estimator the array: "),
        (archive, "Give an estimator one of them: "),
        (lab, "as they are stored: "),
        (lab_psd, "Convert it first: "),
        (scaled, "Scale others to 8 bits: "),
        (mixed, "as a list: "),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_advice_gives_the_pixels(tmp_path, make, marker):
    source, options, expected = make(tmp_path)
    with pytest.raises((ImgstackError, ValueError)) as caught:
        open_stack(source, **options)
    line = str(caught.value).partition(marker)[2].partition(" of one image")[0]
    assert line, str(caught.value)
    path = source[0] if isinstance(source, list) else source
    new_path = tmp_path / {".psd": "new.png", ".npy": "new.npy"}.get(os.path.splitext(path)[1], "new.h5")
    stack = None if make is mixed else open_stack(source) if options else None
    files, name = sorted(glob.glob(f"{tmp_path}/*.tif")), "one"
    names = {
        **globals(),
        "numpy": np,
        **vars(imgstack_ml),
        "imgstack_ml": imgstack_ml,
        "path": path,
        "new_path": new_path,
        "stack": stack,
        "files": files,
        "name": name,
    }
    if line.startswith("from "):
        imports, _, line = line.partition("; ")
        exec(imports, names)
    if line.startswith("h5py.File(new_path"):
        exec(line, names)
        found = open_stack(new_path).data
    else:
        found = eval(line, names)
        found = open_stack(new_path).data if os.path.exists(new_path) else getattr(found, "data", found)
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_what_pictures_cannot_hold_is_written_as_the_error_says(tmp_path):
    cases = (PIXELS > 0, PIXELS * 1j, PIXELS.astype("longdouble"), PIXELS.astype("uint8")[..., None], PIXELS)
    for i, pixels in enumerate(cases):
        folder, path, stack = tmp_path / f"pictures{i}", tmp_path / f"{i}.zarr", pixels
        if pixels.dtype == bool:
            stack = open_stack(save_stack(pixels, tmp_path / "in.zarr"))
        with pytest.raises(ValueError) as caught:
            write_images(stack, folder)
        line = re.search(r"(write_images|save_stack)\(.*", str(caught.value))[0].replace("…", "folder")
        written = open_stack(eval(line, {**globals(), "stack": stack, "folder": folder, "path": path})).data.compute()
        np.testing.assert_array_equal(written, pixels[..., 0] if pixels.ndim == 4 else pixels)
        assert written.dtype == {"b": "uint8", "f": "float64"}.get(pixels.dtype.kind, pixels.dtype)
