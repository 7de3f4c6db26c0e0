"""Strips and tiles that are decoded."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import assert_named, random_pixels, write_image


@pytest.mark.skipif(5 in tifffile.TIFF.DECOMPRESSORS, reason="imagecodecs is installed and reads LZW")
def test_missing_codec_is_named(tmp_path):
    Image.fromarray(random_pixels((8, 6))).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert_named(tmp_path / "a.tif", "compression LZW needs .* pip install imagecodecs")


def test_strips_longer_than_their_pixels(tmp_path):
    """Some programs write a full strip where a shorter one is left; what is inflated beyond is bounded."""
    import zlib

    pixels = random_pixels((10, 16))
    for rows, match in ((10, None), (16, None), (64, "inflates to more than twice its 160 bytes")):
        path = tmp_path / "a.tif"
        strip = zlib.compress(np.resize(pixels, (rows, 16)).tobytes())
        tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None, compression="zlib")
        end = os.path.getsize(path)
        with tifffile.TiffFile(path, mode="r+") as found:
            for name, value in (("StripOffsets", end), ("StripByteCounts", len(strip))):
                found.pages.first.tags[name].overwrite(value)
        with open(path, "ab") as file:
            file.write(strip)
        if match is None:
            np.testing.assert_array_equal(open_stack(path).data.compute()[0], pixels)
        else:
            with pytest.raises(BadImageError, match=match):
                open_stack(path).data.compute()


def test_checksum_of_a_strip_is_looked_at(tmp_path):
    pixels = random_pixels((10, 16))
    path = write_image(tmp_path / "a.tif", pixels, compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as found:
        place, n_bytes = found.pages.first.dataoffsets[0], found.pages.first.databytecounts[0]
    content = bytearray(Path(path).read_bytes())
    content[place + n_bytes - 1] ^= 1
    Path(path).write_bytes(content)
    with pytest.raises(BadImageError, match="incorrect data check"):
        open_stack(path).data.compute()
