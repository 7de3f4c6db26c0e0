"""Images and channels by the names of axes."""

import numpy as np
import pytest
import tifffile
import zarr

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import random_pixels
from tests.lib.plugins import Dump, write_dump

PIXELS = random_pixels((4, 3, 2, 6, 5))  # t z c y x
CHOICES = [
    ({}, np.s_[:, :, :], "tzyxc"),
    ({"c": ["GFP"], "z": 1, "t": slice(0, 3)}, np.s_[:3, 1:2, 1:2], "tyx"),
    ({"t": [3, 0], "z": slice(None, None, 2)}, np.s_[[3, 0], ::2, :], "tzyxc"),
    ({"c": "DAPI"}, np.s_[:, :, :1], "tzyx"),
    ({"c": [1, 0], "t": -1}, np.s_[-1:, :, ::-1], "zyxc"),
]


def expected(place):
    images = PIXELS[place].transpose(0, 1, 3, 4, 2)
    images = images.reshape(-1, *images.shape[2:])
    return images[..., 0] if images.shape[-1] == 1 else images


@pytest.fixture
def ome(tmp_path):
    group = zarr.open_group(tmp_path / "ome.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=PIXELS, chunks=(1, 2, 1, 6, 5))
    axes = [{"name": axis} for axis in "tz"] + [{"name": "c", "type": "channel"}, {"name": "y"}, {"name": "x"}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    group.attrs["omero"] = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    return tmp_path / "ome.zarr"


@pytest.fixture
def tiff(tmp_path):
    metadata = {"axes": "TZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, ome=True, photometric="minisblack", metadata=metadata)
    return tmp_path / "a.ome.tif"


@pytest.mark.parametrize("kind", ["ome", "tiff"])
@pytest.mark.parametrize(("select", "place", "axes"), CHOICES)
def test_selections_are_numpys(kind, select, place, axes, request):
    stack = open_stack(request.getfixturevalue(kind), select=select, chunks=3)
    images = expected(place)
    assert (stack.shape, stack.axes) == (images.shape, tuple(axes))
    np.testing.assert_array_equal(stack.data, images)
    np.testing.assert_array_equal(stack[[1, 0]].data, images[[1, 0]])
    places = np.meshgrid(np.arange(4)[place[0]], np.arange(3)[place[1]], indexing="ij")
    for axis, found in zip("tz", places, strict=True):
        if axis in axes:
            np.testing.assert_array_equal(stack.coords[axis], found.ravel())
    names = np.array(["DAPI", "GFP"])[place[2]].tolist()
    assert f"c ({', '.join(names)})" in repr(stack)
    assert stack.channel_names == tuple(names)
    assert np.atleast_1d(stack.to_xarray().coords["channel"].to_numpy()).tolist() == names
    assert {"time", "z"} & set(stack.to_xarray().coords) == {{"t": "time"}.get(a, a) for a in axes if a in "tz"}


def test_what_is_not_there_is_refused(ome, tmp_path):
    for select, message in (
        ({"q": 0}, r"no axis 'q' to select from; there are 't', 'z', 'c'"),
        ({"c": "RFP"}, r"'RFP' is not among the names along its axis 'c': they are 'DAPI', 'GFP'"),
        ({"z": 3}, r"no position 3 along its axis 'z' of 3, from 0 to 2"),
        ({"z": "top"}, r"'top' is not among the names along its axis 'z': none has one; give positions up to 2"),
        ({"t": slice(9, None)}, r"selects nothing of 4"),
        ({"t": 1.5}, r"is no name, position, slice or list"),
    ):
        with pytest.raises(BadImageError, match=message):
            open_stack(ome, select=select)
    np.save(tmp_path / "x.npy", PIXELS[:, 0, 0])
    with pytest.raises(BadImageError, match=r"no axis 't' to select from; there are none that have names but y and x"):
        open_stack(tmp_path / "x.npy", select={"t": 0})
    with pytest.raises(BadImageError, match=r"axes are named .*axes='xyctz' says otherwise"):
        open_stack(ome, axes="xyctz")
    for axes in ("tzz", "tc", "yyx", 3):
        with pytest.raises(ValueError, match=r"with y and x among them; give e\.g\. axes='tyxc'"):
            open_stack(ome, axes=axes)


def test_names_of_other_channels_than_there_are_do_not_count(ome):
    zarr.open_group(ome).attrs["omero"] = {"channels": [{"label": "DAPI"}]}
    assert open_stack(ome).channel_names == ()
    with pytest.raises(BadImageError, match="none has one; give positions up to 1"):
        open_stack(ome, select={"c": "DAPI"})


def test_axes_that_an_array_does_not_name(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    with pytest.raises(BadImageError, match="a stack is of shape"):
        open_stack(tmp_path / "x.npy")
    stack = open_stack(tmp_path / "x.npy", axes="tzcyx", select={"z": 2, "c": 1})
    assert stack.axes == ("t", "y", "x")
    np.testing.assert_array_equal(stack.data, PIXELS[:, 2, 1])


def test_files_of_several_images(registered, tmp_path):
    registered(Dump)
    images = random_pixels((2, 5, 4, 4))
    for i in range(2):
        write_dump(tmp_path / f"{i}.dump", images[i])
    stack = open_stack(tmp_path, select={"t": [4, 1]})
    np.testing.assert_array_equal(stack.data, images[:, [4, 1]].reshape(4, 4, 4))
    assert [name[-9:] for name in stack.files] == ["0.dump[4]", "0.dump[1]", "1.dump[4]", "1.dump[1]"]
    assert (stack.axes, stack.coords["t"].tolist()) == (("t", "y", "x"), [4, 1, 4, 1])
    for axes in ("txy", "tcyx", "tyxc", "zyx"):
        with pytest.raises(BadImageError, match=f"axes='{axes}'"):
            open_stack(tmp_path, axes=axes)
    assert open_stack(tmp_path, axes="tyx").axes == ("t", "y", "x")
    write_dump(tmp_path / "2.dump", images[0, :3])
    with pytest.warns(UserWarning, match="1 of 3 files cannot be read"):
        assert open_stack(tmp_path, select={"t": 4}, on_error="skip").shape == (2, 4, 4)
    with pytest.raises(BadImageError, match=r"2\.dump.*no position 4 along its axis 't' of 3"):
        open_stack(tmp_path, select={"t": 4})


@pytest.mark.parametrize("channels", [1, [2, 1]])
def test_pages_of_other_channels_are_not_decoded(tmp_path, channels):
    pixels = random_pixels((4, 3, 6, 5))
    metadata = {"axes": "TCYX"}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=metadata, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        places = [page.dataoffsets[0] for page in tiff.pages][::3]
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place)
            file.write(b"damaged")
    stack = open_stack(path, select={"c": channels}, dtype="float32")
    expected = pixels[:, channels]
    np.testing.assert_array_equal(stack.data, expected if expected.ndim == 3 else np.moveaxis(expected, 1, -1))
    with pytest.raises(BadImageError):
        open_stack(path).data.compute()


@pytest.mark.parametrize("channels", [1, [2, 0], ["last"]])
@pytest.mark.parametrize("order", ["nyxc", "ncyx"])
@pytest.mark.parametrize("chunks", [None, (2, 1, 3, 2)])
def test_channels_of_arrays_in_files(tmp_path, channels, order, chunks):
    h5py = pytest.importorskip("h5py")
    channels = [3] if channels == ["last"] else channels
    pixels = random_pixels((4, 6, 5, 4), "uint16")
    stored = pixels if order == "nyxc" else np.moveaxis(pixels, 3, 1)
    for i in range(2):
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            data_set = file.create_dataset("images", data=stored + i, chunks=chunks)
            for dimension, name in zip(data_set.dims, order.replace("n", "t"), strict=True):
                dimension.label = name
    expected = np.squeeze(np.concatenate([pixels, pixels + 1])[..., np.atleast_1d(channels)])
    np.testing.assert_array_equal(open_stack(tmp_path, select={"c": channels}).data, expected)
    np.testing.assert_array_equal(open_stack(f"{tmp_path}/0.h5::images", select={"c": channels}).data, expected[:4])
    if order == "nyxc":
        np.save(tmp_path / "a.npy", pixels)
        np.testing.assert_array_equal(open_stack([tmp_path / "a.npy"], select={"c": channels}).data, expected[:4])


@pytest.mark.parametrize("stored", ["chunks", "planes"])
def test_chunks_of_other_channels_are_not_read(tmp_path, stored):
    h5py = pytest.importorskip("h5py")
    options = {"chunks": (1, 1, 6, 5), "compression": "gzip"} if stored == "chunks" else {}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data_set = file.create_dataset("images", data=random_pixels((2, 3, 6, 5)), **options)
        for dimension, name in zip(data_set.dims, "tcyx", strict=True):
            dimension.label = name
        read, wanted = [], data_set[:, 1]
    getitem = h5py.Dataset.__getitem__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h5py.Dataset, "__getitem__", lambda self, key: (read.append(key), getitem(self, key))[1])
        np.testing.assert_array_equal(open_stack([tmp_path / "a.h5"], select={"c": 1}).data, wanted)
    assert [key[1] for key in read] == [slice(1, 2)] * 2


def test_axes_that_a_file_does_not_name_are_explained_and_can_be_named(tmp_path):
    """tifffile calls them Q."""
    pixels = random_pixels((4, 3, 6, 5))
    tifffile.imwrite(tmp_path / "one.tif", pixels[:, 0], photometric="minisblack")
    tifffile.imwrite(tmp_path / "two.tif", pixels, photometric="minisblack")
    assert "axes: q (4); the file does not say what q is\n" in f"{open_stack(tmp_path / 'one.tif')}\n"
    with pytest.raises(
        BadImageError, match=r"no axis 't'.*there are 'q' \(an axis that the file does not name\). To name"
    ):
        open_stack(tmp_path / "one.tif", select={"t": 1})
    with pytest.raises(BadImageError, match=r"2 axes 'q' \(.*not clear which is meant. Name all.*axes='tzyx'"):
        open_stack(tmp_path / "two.tif", select={"q": 1})
    found = open_stack(tmp_path / "two.tif", axes="tzyx", select={"z": 1})
    np.testing.assert_array_equal(found.data, pixels[:, 1])
    assert found.axes == ("t", "y", "x")
