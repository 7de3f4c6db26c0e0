"""Channels: names and colours as files have them, or numbers; they follow images through lazy steps, into models."""

import dask.array as da
import pytest
import tifffile

import imgstack_ml as im
from imgstack_ml.base.channels import RGB, channel_names_of
from tests.lib.images import picture_in_mode, random_pixels

FOUR = ("c0", "c1", "c2", "c3")


def tiff(pixels, **options):
    def write(folder):
        tifffile.imwrite(folder / "a.tif", pixels, **options)
        return im.open_stack(folder)

    return write


def png(mode):
    def write(folder):
        picture_in_mode(mode).save(folder / "a.png")
        return im.open_stack(folder)

    return write


def stored(stack):
    return lambda folder: im.open_stack(im.save_stack(stack, folder / "s.zarr"))


def ome(dtype="uint16", n=3):
    pixels = random_pixels((2, n, 8, 9), dtype)
    names = {"Channel": {"Name": ["DAPI", "GFP", "TRITC"]}} if n == 3 else {}
    return tiff(pixels, ome=True, metadata={"axes": "TCYX", **names}, photometric="minisblack")


SOURCES = {
    "8-bit array": (lambda _: random_pixels((3, 8, 9, 3)), RGB),
    "float array": (lambda _: random_pixels((3, 8, 9, 3), "float32"), FOUR[:3]),
    "array of four": (lambda _: random_pixels((3, 8, 9, 4)), FOUR),
    "grey": (lambda _: random_pixels((3, 8, 9)), ()),
    "rows": (lambda _: random_pixels((3, 8)), ()),
    "PNG": (png("RGB"), RGB),
    "PNG with palette": (png("P"), RGB),
    "PNG with alpha": (png("RGBA"), (*RGB, "alpha")),
    "grey with alpha": (png("LA"), ("grey", "alpha")),
    "deep TIFF": (tiff(random_pixels((8, 9, 3), "uint16"), photometric="rgb"), RGB),
    "TIFF with alpha": (
        tiff(random_pixels((8, 9, 4)), photometric="rgb", extrasamples=["unassalpha"]),
        (*RGB, "alpha"),
    ),
    "TIFF with a fourth sample": (tiff(random_pixels((8, 9, 4)), photometric="rgb", extrasamples=[0]), FOUR),
    "TIFF of grey samples": (
        tiff(random_pixels((8, 9, 3)), photometric="minisblack", planarconfig="contig"),
        FOUR[:3],
    ),
    "OME": (ome(), ("DAPI", "GFP", "TRITC")),
    "OME of 8 bits without names": (ome("uint8", 4), FOUR),
    "store": (stored(random_pixels((3, 8, 9, 4))), FOUR),
    "store of colours": (stored(random_pixels((3, 8, 9, 3))), RGB),
    "mode": (lambda folder: im.open_stack(png("RGBA")(folder).files, mode="RGB"), RGB),
}


@pytest.mark.parametrize("source", SOURCES)
def test_names_of_channels_are_those_of_the_source(source, tmp_path):
    make, names = SOURCES[source]
    stack = make(tmp_path)
    assert channel_names_of(stack, stack.shape[1:], stack.dtype) == names
    assert getattr(im.IntensityRescaler().fit(stack), "channel_names_", ()) == names


def test_names_follow_lazy_steps_stores_and_models(tmp_path):
    stack = ome()(tmp_path)
    rescaled = im.IntensityRescaler().fit_transform(stack)
    pca = im.ImagePCA(1).fit(rescaled)
    im.save_model(pca, tmp_path / "model.safetensors")
    again = im.open_stack(im.save_stack(rescaled, tmp_path / "again.zarr"))
    assert pca.channel_names_ == again.channel_names == ("DAPI", "GFP", "TRITC")
    assert im.load_model(tmp_path / "model.safetensors").channel_names_ == pca.channel_names_
    assert im.ChannelStatistics(("mean",)).fit(stack).get_feature_names_out()[1] == "GFP_mean"
    mixed = im.ImageMap(lambda image: image[..., ::-1]).fit_transform(stack)  # what its channels are, nobody knows
    assert im.ImagePCA(1).fit(im.IntensityRescaler().fit_transform(mixed)).channel_names_ == FOUR[:3]
    pca.fit(random_pixels((3, 8, 9)))
    assert not hasattr(pca, "channel_names_")


def test_names_of_arrays_of_xarray():
    xarray = pytest.importorskip("xarray")
    for pixels in (random_pixels((3, 8, 9, 2)), da.from_array(random_pixels((3, 8, 9, 2)))):
        coords = {"channel": ["a", "b"]}
        array = xarray.DataArray(pixels, dims=("sample", "y", "x", "channel"), coords=coords)
        assert im.ImagePCA(1).fit(array).channel_names_ == ("a", "b")
