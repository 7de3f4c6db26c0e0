"""Levels of pyramids in TIFF; tifffile is the oracle."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import random_pixels

PIXELS = random_pixels((3, 2, 64, 48), "uint16")
TILES = {"tile": (16, 16), "photometric": "minisblack"}


def write_pyramid(path, pixels, *, in_pages=False, **options):
    """Write pages with two smaller copies each, in sub-directories or in the pages that follow."""
    with tifffile.TiffWriter(path, ome=options.pop("ome", None)) as writer:
        writer.write(pixels, **TILES, subifds=0 if in_pages else 2, **options)
        for step in (2, 4):
            others = {"metadata": None} if in_pages else {}
            writer.write(pixels[..., ::step, ::step], **TILES, subfiletype=1, **others)


def write_slide(path):
    """Write pages as the scanners of Aperio do it: slide, thumbnail, level, label."""
    slide = random_pixels((256, 192, 3))
    said = "Aperio Image Library v1\r\n256x192|AppMag = 20"
    pages = [(slide, {"tile": (64, 64)}), (slide[::8, ::8], {}), (slide[::4, ::4], {"tile": (16, 16)})]
    with tifffile.TiffWriter(path) as writer:
        for pixels, options in pages:
            writer.write(pixels, photometric="rgb", description=said, metadata=None, **options)
        writer.write(slide[:40, :50], photometric="rgb", subfiletype=1, description=f"{said}\r\nlabel", metadata=None)


def test_levels_are_those_of_tifffile(tmp_path):
    write_pyramid(tmp_path / "sub.ome.tif", PIXELS, ome=True, metadata={"axes": "TCYX"})
    write_pyramid(tmp_path / "cog.tif", PIXELS[0, 0], in_pages=True, metadata=None)
    write_slide(tmp_path / "slide.tif")
    for name, n_levels, axes in (("sub.ome.tif", 3, (0, 2, 3, 1)), ("cog.tif", 3, (0, 1)), ("slide.tif", 2, (0, 1, 2))):
        with tifffile.TiffFile(tmp_path / name) as tiff:
            levels = [level.asarray().transpose(axes) for level in tiff.series[0].levels]
        assert len(levels) == n_levels
        for number, expected in list(enumerate(levels))[name == "slide.tif" :]:
            stack = open_stack(tmp_path / name, level=number)
            np.testing.assert_array_equal(stack.data, expected.reshape(stack.shape))
            assert stack.axes == open_stack(tmp_path / "sub.ome.tif").axes or name != "sub.ome.tif"
        with pytest.raises(BadImageError, match=rf"no level={n_levels}; its levels are 0 of shape .* of shape"):
            open_stack(tmp_path / name, level=n_levels)


def test_levels_that_tifffile_does_not_find(tmp_path):
    write_pyramid(tmp_path / "a.tif", PIXELS, metadata={"axes": "TCYX"})
    for level in range(3):
        expected = PIXELS[..., :: 2**level, :: 2**level].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(open_stack(tmp_path / "a.tif", level=level).data, expected)


def test_files_that_are_no_pyramids_refuse_levels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[0, 0])
    tifffile.imwrite(tmp_path / "b.tif", PIXELS, imagej=True, metadata={"axes": "TCYX"})
    Image.new("L", (5, 4)).save(tmp_path / "c.png")
    np.save(tmp_path / "d.npy", PIXELS[0])
    for name in ("a.tif", "b.tif", "c.png", "d.npy"):
        with pytest.raises(BadImageError, match=rf"{name}'.*it is no pyramid, and level=1 is asked of it"):
            open_stack(tmp_path / name, level=1)
    for level in (-1, True, 0.5):
        with pytest.raises(ValueError, match="is no level of a pyramid"):
            open_stack(tmp_path / "a.tif", level=level)
