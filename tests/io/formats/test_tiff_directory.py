"""Directories of TIFF files: damaged, cut, too large, or of kinds that are not read."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError, MixedStackError
from tests.lib.bombs import BOMBS
from tests.lib.images import assert_named, random_pixels, read_image, write_image


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
def test_cut_tiff_with_directory_at_the_end_is_named(tmp_path, compression):
    path = tmp_path / "pillow.tif"
    Image.fromarray(random_pixels((12, 10))).save(path, compression=compression)
    whole = path.read_bytes()
    link = len(whole) - 4 if compression != "raw" else len(whole)  # to a next page, at the end of the directory
    for n_bytes in range(0, link, 3):
        path.write_bytes(whole[:n_bytes])
        with warnings.catch_warnings(action="ignore"):
            assert_named(path)
    for n_bytes in range(link, len(whole)):
        path.write_bytes(whole[:n_bytes])
        with pytest.warns(UserWarning, match=r"pillow\.tif' was cut, or is damaged: nothing .* read: 1"):
            np.testing.assert_array_equal(read_image(path), random_pixels((12, 10)))


def test_cut_tiff_of_two_pages_is_named(tmp_path):
    path = tmp_path / "two.tif"
    pixels = random_pixels((2, 8, 6))
    write_image(path, pixels, photometric="minisblack", metadata=None)
    whole = path.read_bytes()
    n_warned = n_whole = 0
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        try:
            with warnings.catch_warnings(record=True, action="always") as said:
                stack = open_stack(path)
        except BadImageError as error:
            assert error.path == str(path)  # noqa: PT017 - either outcome is right
        else:  # what was cut are remarks behind the directories, or the second page, of which a warning tells
            n_warned, n_whole = n_warned + len(said), n_whole + (not said)
            assert all(str(path) in str(warning.message) for warning in said)
            assert said or len(stack) == 2
            np.testing.assert_array_equal(stack.data.compute(), pixels[: len(stack)])
    assert n_warned > n_whole
    assert n_whole < 20


def test_tiff_with_too_few_rows_is_named(tmp_path):
    path = tmp_path / "short.tif"
    write_image(path, random_pixels((10, 16)), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("ImageLength", "RowsPerStrip"):
            tiff.pages.first.tags[tag].overwrite(64)
    assert_named(path)


@pytest.mark.parametrize(
    ("dtype", "options", "match"),
    [
        ("uint8", {"photometric": "cielab"}, "CIELAB, 3 samples of 8 bits, which are not converted"),
        ("uint16", {"photometric": "ycbcr"}, "YCBCR, 3 samples"),
        ("complex64", {"photometric": "minisblack", "planarconfig": "contig"}, "of 64/64/64 bits and format 6/6/6"),
    ],
)
def test_tiffs_that_are_not_read(tmp_path, dtype, options, match):
    write_image(tmp_path / "a.tif", np.zeros((8, 6, 3), dtype), **options)
    assert_named(tmp_path / "a.tif", match)


def test_tile_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.tif"
    BOMBS["tile.tif"](path)
    assert_named(path, "claims 65520 × 65520")


def test_directories_in_a_circle_are_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_pixels((2, 5, 6)), photometric="minisblack", metadata=None, description="a=b")
    with tifffile.TiffFile(path) as tiff:
        first, second = tiff.pages[0].offset, tiff.pages[1].offset
    content = bytearray(path.read_bytes())
    n_tags = int.from_bytes(content[second : second + 2], "little")
    link = second + 2 + 12 * n_tags
    content[link : link + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="lead in a circle; its first 2 pages are read"):
        assert len(open_stack(path)) == 2


def test_tile_bombs_and_totals_are_refused(tmp_path):
    path = write_image(tmp_path / "a.tif", random_pixels((16, 16)), tile=(16, 16))
    with pytest.raises(BadImageError, match=r"claims 16 × 16 pixels; at most 100 .*max_pixels="):
        open_stack(path, max_pixels=100)
    pixels = random_pixels((8, 10, 10))
    tifffile.imwrite(tmp_path / "c.tif", pixels, photometric="minisblack", metadata={"axes": "CYX"})
    assert open_stack(tmp_path / "c.tif", max_pixels=200).shape == (1, 10, 10, 8)
    with pytest.raises(BadImageError, match="10 × 10 pixels of 8 channels; at most 199"):
        open_stack(tmp_path / "c.tif", max_pixels=199)


@pytest.mark.filterwarnings("ignore:.*( was cut, or is damaged| describes )")
def test_damaged_directories_raise_nothing_else(tmp_path):
    pixels = random_pixels((3, 12, 10), "uint16")
    for number, options in enumerate([{}, {"compression": "zlib"}, {"imagej": True}, {"metadata": None}]):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, pixels, photometric="minisblack", **options)
        whole = path.read_bytes()
        rng = np.random.default_rng(number)
        for _ in range(100):
            content = bytearray(whole)
            for position in rng.integers(0, len(content), 4):
                content[position] = rng.integers(256)
            path.write_bytes(content)
            try:
                images = open_stack(path).data.compute()
            except (BadImageError, MixedStackError):
                continue
            assert images.ndim >= 3


def test_tiff_without_a_place_of_its_pixels(tmp_path):
    """Read from the beginning of the file, headers would be pixels."""
    path = write_image(tmp_path / "a.tif", random_pixels((9, 7)))
    content = Path(path).read_bytes()
    Path(path).write_bytes(content.replace(struct.pack("<HH", 273, 4), struct.pack("<HH", 600, 4)))
    with pytest.raises(BadImageError, match="strips or tiles are missing"):
        open_stack(path)


def test_of_two_tags_the_first_counts(tmp_path):
    """As for libtiff and tifffile."""
    path = write_image(tmp_path / "a.tif", random_pixels((9, 7)), description="x" * 40)
    content = Path(path).read_bytes()
    # The entry of the resolution's unit, behind it, becomes another width.
    unit = content.index(struct.pack("<HHI", 296, 3, 1))
    Path(path).write_bytes(content[:unit] + struct.pack("<HHII", 256, 3, 1, 5) + content[unit + 12 :])
    np.testing.assert_array_equal(open_stack(path).data.compute()[0], random_pixels((9, 7)))


@pytest.mark.parametrize("tag", [258, 259, 262, 277, 278])
def test_tags_of_unknown_types_are_not_taken_for_missing(tmp_path, tag):
    """The default of 258 is 1 bit, which would give other pixels."""
    path = write_image(tmp_path / "a.tif", random_pixels((9, 7)), metadata=None)
    with tifffile.TiffFile(path) as found:
        start = found.pages.first.tags[tag].offset
    content = bytearray(Path(path).read_bytes())
    content[start + 2] = 11  # a floating-point number
    Path(path).write_bytes(content)
    assert_named(path)
