"""Pages of a TIFF: strips and tiles that are decoded."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import random_pixels, write_image


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


@pytest.mark.parametrize("options", [{}, {"predictor": True, "compression": "zlib"}, {"planarconfig": "separate"}])
@pytest.mark.parametrize(("extra", "dtype"), [(5, "uint8"), (64, ">u2"), (-1, "uint8"), (-7, ">u2")])
def test_uncompressed_strips_of_other_lengths(tmp_path, options, extra, dtype):
    """Bytes behind the rows of a strip belong to no row; rows that are missing are an error."""
    path = tmp_path / "a.tif"
    pixels = random_pixels((3, 10, 7) if "planarconfig" in options else (10, 7, 3), np.dtype(dtype).newbyteorder("="))
    tifffile.imwrite(
        path, pixels, byteorder=dtype[0] if ">" in dtype else "<", rowsperstrip=4, **{"photometric": "rgb"} | options
    )
    with tifffile.TiffFile(path) as found:
        page = found.pages.first
        strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    content = path.read_bytes()
    offsets, changed = [], b""
    for start, n_bytes in strips:
        offsets.append(len(content) + len(changed))
        changed += (content[start : start + n_bytes] + b"\xff" * 64)[: n_bytes + extra]
    path.write_bytes(content + changed)
    with tifffile.TiffFile(path, mode="r+") as found:
        for name, values in (("StripOffsets", offsets), ("StripByteCounts", [n + extra for _, n in strips])):
            found.pages.first.tags[name].overwrite(values)
    if extra > 0 or "compression" in options:
        images = open_stack(path).data
        if extra > 0:
            np.testing.assert_array_equal(
                images.compute()[0], np.moveaxis(pixels, 0, -1) if pixels.shape[0] == 3 else pixels
            )
            np.testing.assert_array_equal(tifffile.imread(path), pixels)
            return
        with pytest.raises(BadImageError, match="it was cut"):
            images.compute()
    else:
        with pytest.raises(BadImageError, match=r"its strip 0 holds [\d,]+ bytes, and its pixels need"):
            open_stack(path)


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
