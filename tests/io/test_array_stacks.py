"""Plates and wells of OME-Zarr, and the images that Bio-Formats writes."""

import pickle
import shutil

import numpy as np
import pytest
import zarr

from imgstack_ml import open_stack, save_stack
from imgstack_ml.errors import BadImageError, MixedStackError
from tests.lib.images import random_pixels

WELLS = ("B/03", "C/11")


def describe(group, version, said):
    group.attrs.update({"ome": {"version": version, **said}} if version == "0.5" else said)


def write_image(group, version, pixels):
    """Write an image of axes tczyx with two levels, as the specification has it."""
    for level in range(2):
        data = np.ascontiguousarray(pixels[..., :: 2**level, :: 2**level])
        group.create_array(str(level), data=data, chunks=(1, 1, 1, *data.shape[-2:]))
    axes = [{"name": axis, "type": {"t": "time", "c": "channel"}.get(axis, "space")} for axis in "tczyx"]
    scales = [{"type": "scale", "scale": [1] * 5}]
    levels = [{"path": str(level), "coordinateTransformations": scales} for level in range(2)]
    channels = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    describe(
        group, version, {"multiscales": [{"version": version, "axes": axes, "datasets": levels}], "omero": channels}
    )


def write_plate(path, version="0.4", n_fields=2):
    pixels = random_pixels((len(WELLS), n_fields, 3, 2, 2, 8, 6), "uint16")
    plate = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    wells = [{"path": name, "rowIndex": i, "columnIndex": i} for i, name in enumerate(WELLS)]
    describe(plate, version, {"plate": {"rows": [], "columns": [], "wells": wells}})
    for name, fields in zip(WELLS, pixels, strict=True):
        well = plate.create_group(name)
        describe(well, version, {"well": {"images": [{"path": str(i)} for i in range(n_fields)]}})
        for i, field in enumerate(fields):
            write_image(well.create_group(str(i)), version, field)
    return pixels


def as_images(pixels):
    """Bring (..., c, z, y, x) to images with channels last, in C order."""
    pixels = np.moveaxis(pixels, -4, -1)
    return pixels.reshape(-1, *pixels.shape[-3:])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_is_one_stack(tmp_path, version):
    path = tmp_path / "plate.zarr"
    pixels = write_plate(path, version)
    stack = open_stack(path, chunks=5)
    images = as_images(pixels)
    np.testing.assert_array_equal(stack.data, images)
    places = np.random.default_rng(1).permutation(len(images))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stack))[places].data, images[places])
    assert stack.files[5:7] == (f"{path}/B/03/0[5]", f"{path}/B/03/1[0]")
    assert stack.labels.tolist() == ["B/03"] * 12 + ["C/11"] * 12
    assert (stack.axes, stack.channel_names) == (("p", "t", "z", "y", "x", "c"), ("DAPI", "GFP"))
    np.testing.assert_array_equal(
        [stack.coords[axis] for axis in "ptz"], np.tile(np.indices((2, 3, 2)).reshape(3, -1), 2)
    )
    assert stack.inputs == (str(path),)
    assert open_stack(path, recursive=True).labels.tolist() == stack.labels.tolist()
    chosen = open_stack(path, select={"p": 1, "c": "GFP", "t": [2, 0]}, level=1)
    np.testing.assert_array_equal(chosen.data, pixels[:, 1, [2, 0], 1, :, ::2, ::2].reshape(-1, 4, 3))
    assert (chosen.axes, chosen.channel_names) == (("t", "z", "y", "x"), ("GFP",))
    well = open_stack(path / "C/11", mode=None, dtype="float32")
    np.testing.assert_array_equal(well.data, as_images(pixels[1]).astype("float32"))
    stored = open_stack(save_stack(stack, tmp_path / "stored.zarr"))
    assert (stored.files, stored.labels.tolist()) == (stack.files, stack.labels.tolist())


def test_the_images_that_bio_formats_writes_are_scenes(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"bioformats2raw.layout": 3}, zarr_format=2)
    (tmp_path / "a.zarr" / "OME").mkdir()
    (tmp_path / "a.zarr" / "OME" / "METADATA.ome.xml").write_text("<OME/>")
    pixels = random_pixels((3, 3, 2, 2, 8, 6))
    for i in range(3):
        write_image(group.create_group(str(i)), "0.4", pixels[i])
    stack = open_stack(tmp_path / "a.zarr", select={"z": 0})
    np.testing.assert_array_equal(stack.data, as_images(pixels[:, :, :, :1]))
    assert (stack.axes, stack.labels) == (("s", "t", "y", "x", "c"), None)
    group.create_group("OME", overwrite=True).attrs["series"] = ["2", "0"]
    np.testing.assert_array_equal(open_stack(tmp_path / "a.zarr").data, as_images(pixels[[2, 0]]))


def test_wells_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "plate.zarr"
    pixels = write_plate(path)
    for select, message in (
        ({"q": 1}, r"B/03/0'.*no axis 'q' to select from; there are 'p', 't', 'z', 'c'"),
        ({"p": 2}, r"B/03'.*no position 2 along its axis 'p' of 2"),
    ):
        with pytest.raises(BadImageError, match=message):
            open_stack(path, select=select)
    shutil.move(path / "C/11/0", tmp_path / "0")
    with pytest.raises(BadImageError, match=r"C/11/0'.*does not exist"):
        open_stack(path)
    with pytest.warns(UserWarning, match="1 of 4 files cannot be read"):
        stack = open_stack(path, on_error="skip")
    np.testing.assert_array_equal(stack.data, as_images(pixels)[[*range(12), *range(18, 24)]])
    (path / "C/11/0").symlink_to(tmp_path / "0")
    with pytest.raises(BadImageError, match=r"C/11'.*leads out of"):
        open_stack(path)
    (path / "C/11/0").unlink()
    write_image(zarr.open_group(path / "C/11").create_group("0"), "0.4", pixels[0, 0, ..., ::2])
    with pytest.raises(
        MixedStackError, match=r"(?s)18 of shape .*\n.*6 of shape \(8, 3, 2\).*C/11/0\[0\].*shape=\(8, 6\)"
    ):
        open_stack(path)
    stack = open_stack(path / "B/03")
    zarr.open_array(path / "B/03/1/0", mode="r+")[0] = 0
    np.testing.assert_array_equal(stack[:6].data, as_images(pixels)[:6])
    with pytest.raises(BadImageError, match=r"B/03/1'.*has changed since the stack was opened"):
        stack.data.compute()


@pytest.mark.parametrize("place", ["../other.zarr/B/03", "{folder}/other.zarr/B/03"])
def test_wells_outside_of_the_plate_are_refused(tmp_path, place):
    write_plate(tmp_path / "plate.zarr")
    write_plate(tmp_path / "other.zarr")
    zarr.open_group(tmp_path / "plate.zarr").attrs["plate"] = {"wells": [{"path": place.format(folder=tmp_path)}]}
    with pytest.raises(BadImageError, match="leads out of"):
        open_stack(tmp_path / "plate.zarr")
    zarr.open_group(tmp_path / "plate.zarr").attrs["plate"] = {}
    with pytest.raises(BadImageError, match="it holds no image"):
        open_stack(tmp_path / "plate.zarr")


@pytest.mark.parametrize("channels", [[1], [4, 0], [3, 3, 2], [0, 1, 5]])
@pytest.mark.parametrize("per_chunk", [1, 2, 6])
def test_chunks_of_other_channels_are_not_read(tmp_path, channels, per_chunk):
    pixels = random_pixels((3, 6, 4, 5))
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=pixels, chunks=(1, per_chunk, 4, 5), dimension_names="tcyx")
    stack = open_stack(path, select={"c": channels})
    for channel in {*range(6)} - {c for one in channels for c in range(one // per_chunk * per_chunk, one + per_chunk)}:
        for t in range(3):
            (path / f"c/{t}/{channel // per_chunk}/0/0").write_bytes(b"damaged")
    expected = np.moveaxis(pixels[:, channels], 1, -1)
    np.testing.assert_array_equal(stack.data, expected[..., 0] if len(channels) == 1 else expected)
