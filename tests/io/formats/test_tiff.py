"""Images and channels of a TIFF."""

import itertools
import json
import pickle

import dask
import numpy as np
import pytest
import tifffile
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError, MixedStackError
from tests.lib.images import random_pixels

LAYOUTS = [{}, {"tile": (16, 16)}, {"rowsperstrip": 5}]
ENCODINGS = [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"bigtiff": True}]
DTYPES = ["uint8", "int16", "uint32", "int32", "float16", "float32", "float64"]


# All pairs of two of these three.
@pytest.mark.parametrize(
    ("options", "more", "dtype"),
    [(LAYOUTS[(i + j) % 3], ENCODINGS[j], dtype) for i, dtype in enumerate(DTYPES) for j in range(4)],
    ids=str,
)
def test_pages_of_any_layout(tmp_path, options, more, dtype):
    pixels = random_pixels((4, 35, 33), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **options, **more)
    data = open_stack(tmp_path / "a.tif").data
    np.testing.assert_array_equal(data.compute(), pixels)
    assert data.dtype == pixels.dtype


@pytest.mark.parametrize(
    ("options", "n"), [({}, 2), ({}, 5), ({"compression": "zlib"}, 3), ({"tile": (16, 16)}, 2), ({"tile": (16, 16)}, 5)]
)
def test_planar_and_many_samples(tmp_path, options, n):
    pixels = random_pixels((n, 35, 33), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="separate", **options)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute()[0], np.moveaxis(pixels, 0, -1))
    tifffile.imwrite(tmp_path / "b.tif", pixels.T, photometric="minisblack", planarconfig="contig", **options)
    np.testing.assert_array_equal(open_stack(tmp_path / "b.tif").data.compute()[0], pixels.T)


def test_folder_of_stacks_is_one(tmp_path):
    pixels = random_pixels((7, 9, 6))
    for i, part in enumerate(np.split(pixels, [3, 4])):
        tifffile.imwrite(tmp_path / f"part{i}.tif", part, photometric="minisblack")
    stack = open_stack(tmp_path, chunks=4)
    np.testing.assert_array_equal(stack.data.compute(), pixels)
    assert stack.files[2:4] == (f"{tmp_path}/part0.tif[2]", f"{tmp_path}/part1.tif")
    np.testing.assert_array_equal(stack[[6, 0, 3]].data.compute(), pixels[[6, 0, 3]])


def test_pages_of_other_programs(tmp_path):
    pixels = random_pixels((5, 9, 6))
    first, *others = map(Image.fromarray, pixels)
    first.save(tmp_path / "pillow.tif", save_all=True, append_images=others)
    np.testing.assert_array_equal(open_stack(tmp_path / "pillow.tif").data.compute(), pixels)


def test_smaller_copies_are_left_out(tmp_path):
    pixels = random_pixels((2, 32, 32))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in pixels:
            tiff.write(page, photometric="minisblack", metadata=None)
            tiff.write(page[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), pixels)
    with tifffile.TiffWriter(tmp_path / "b.tif") as tiff:  # a pyramid in sub-directories
        tiff.write(pixels[0], photometric="minisblack", subifds=1)
        tiff.write(pixels[0, ::2, ::2], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(open_stack(tmp_path / "b.tif").data.compute(), pixels[:1])


def test_imagej_above_4_gb_is_one_page_and_the_rest(tmp_path):
    pixels = random_pixels((6, 9, 7), "uint16")
    description = "ImageJ=1.11a\nimages=6\nchannels=2\nframes=3\nhyperstack=true\n"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels[0].astype(">u2"), byteorder=">", description=description, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.dataoffsets[0]
    content = path.read_bytes()[:start] + pixels.astype(">u2").tobytes()
    path.write_bytes(content)
    expected = pixels.reshape(3, 2, 9, 7).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(open_stack(path).data.compute(), expected)
    path.write_bytes(content[:-1])
    with pytest.raises(BadImageError, match="names 6 planes, and it holds 1: it was cut"):
        open_stack(path)


def test_axes_that_stand_in_front_of_the_shape(tmp_path):
    """As tifffile wrote its description before 2026."""
    pixels = random_pixels((3, 2, 9, 7))
    description = json.dumps({"axes": "TCYX", "shape": pixels.shape})
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for plane in pixels.reshape(-1, 9, 7):
            tiff.write(plane, photometric="minisblack", description=description, metadata=None)
            description = None
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), np.moveaxis(pixels, 1, -1))


def test_of_channels_and_samples_the_channels_count_images(tmp_path):
    pixels = random_pixels((2, 2, 9, 7, 3))
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", metadata={"axes": "TCYXS"})
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), pixels.reshape(4, 9, 7, 3))


def test_pages_that_differ_are_counted(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for width in (6, 6, 7):
            tiff.write(random_pixels((5, width)), photometric="minisblack", metadata=None)
    with pytest.raises(
        MixedStackError, match=r"(?s)2 of shape \(5, 6\).*a.tif\[0\]'.*1 of shape .*a.tif\[2\]'.*shape="
    ):
        open_stack(tmp_path / "a.tif")
    assert open_stack(tmp_path / "a.tif", shape=(5, 6), fit="crop").data.compute().shape == (3, 5, 6)


def test_keys_go_straight_to_their_pages(tmp_path, monkeypatch):
    """A block of two pages near the end of a hundred reads two directories."""
    from imgstack_ml.io.formats import tiff as pages
    from imgstack_ml.io.formats import tiff_directory as tiff

    tifffile.imwrite(tmp_path / "a.tif", random_pixels((100, 8, 6)), photometric="minisblack", metadata=None)
    stack = open_stack(tmp_path / "a.tif")
    read = []
    monkeypatch.setattr(
        pages, "read_directory", lambda *arguments: read.append(arguments[2]) or tiff.read_directory(*arguments)
    )
    stack[[98, 95]].data.compute()
    assert len(read) == 2


def test_keys_are_smaller_than_names(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random_pixels((500, 4, 4)), photometric="minisblack")
    stack = open_stack(tmp_path / "a.tif", chunks=100)
    assert len(pickle.dumps(stack.reader)) < 1000
    tasks = dict(dask.optimize(stack.data)[0].__dask_graph__())
    assert len(tasks) == 5
    assert max(len(pickle.dumps(task)) for task in tasks.values()) < 1000 + len(pickle.dumps(stack.files[:100]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [(), (3,)])
def test_orientation_of_pages(tmp_path, orientation, channels):
    pixels = random_pixels((2, 5, 8, *channels))
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        photometric="rgb" if channels else "minisblack",
        extratags=[(274, 3, 1, orientation, False)],
    )
    turned = [upright(page, orientation) for page in pixels]
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), turned)


def upright(pixels, orientation):
    """Pillow's own way."""
    methods = [None, *(Image.Transpose(i) for i in (0, 3, 1, 5, 4, 6, 2))]
    method = methods[orientation - 1]
    picture = Image.fromarray(pixels)
    return np.asarray(picture if method is None else picture.transpose(method))


def test_many_pages_are_the_same_by_any_selection(tmp_path):
    pixels = random_pixels((60, 6, 5))
    tifffile.imwrite(tmp_path / "a.tif", pixels[:40], photometric="minisblack", compression="zlib", tile=(16, 16))
    tifffile.imwrite(tmp_path / "b.tif", pixels[40:], photometric="minisblack")
    for chunks, scheduler in itertools.product([1, 7, 60], ["synchronous", "threads"]):
        stack = open_stack(tmp_path, chunks=chunks)
        order = np.random.default_rng(chunks).permutation(60)
        np.testing.assert_array_equal(stack[order].data.compute(scheduler=scheduler), pixels[order])


def test_tiff_of_another_byte_order_has_the_machines(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random_pixels((4, 4), "uint16"), byteorder=">")
    assert open_stack(tmp_path / "a.tif").dtype == np.dtype("uint16")
