"""Pages of a TIFF: strips and tiles that are decoded."""

import functools
import itertools
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import assert_named, pack, random_pixels, read_image, write_image


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


def as_shown(pixels, photometric, bits, colormap=None):
    """NumPy's own way: palettes looked up, 1 bit as black and white, white that is 0 inverted."""
    if photometric == "palette":
        return (colormap >> 8).astype("uint8").T[pixels]
    if photometric == "miniswhite":
        pixels = pixels.dtype.type((1 << bits) - 1) - pixels
    return pixels * np.uint8(255) if bits == 1 else pixels


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 5}], ids=str)
@pytest.mark.parametrize(
    ("photometric", "bits"),
    [("minisblack", 1), ("miniswhite", 1), ("miniswhite", 8), ("miniswhite", 16), ("miniswhite", 32), ("palette", 8)],
)
def test_pixels_are_as_shown(tmp_path, options, photometric, bits):
    colormap = random_pixels((3, 1 << bits), "uint16") if photometric == "palette" else None
    pixels = random_pixels((3, 20, 19), f"uint{max(8, bits)}") & np.array((1 << bits) - 1, f"uint{max(8, bits)}")
    extra = {"colormap": colormap} if photometric == "palette" else {"bitspersample": 1} if bits == 1 else {}
    if bits == 1:
        pixels, extra = pixels.astype(bool), {}
        options = {name: value for name, value in options.items() if name != "tile"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, metadata=None, **options, **extra)
    expected = as_shown(pixels.astype("uint8") if bits == 1 else pixels, photometric, bits, colormap)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), expected)


@pytest.mark.parametrize(
    "compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "group3", "group4", "packbits"]
)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_pictures_of_pillow(tmp_path, mode, compression):
    """With imagecodecs and without, in files of one page and of two."""
    first, second = (Image.fromarray(random_pixels((40, 33, 3), seed=seed)) for seed in range(2))
    if mode in ("I;16", "F"):
        first, second = (Image.fromarray(random_pixels((40, 33), "uint16", seed=seed)) for seed in range(2))
    first, second = (p.convert(mode) if p.mode != mode else p for p in (first, second))
    try:
        first.save(tmp_path / "a.tif", compression=compression, save_all=True, append_images=[second])
    except (OSError, RuntimeError):
        pytest.skip("Pillow does not write it")
    compressed = tmp_path / "compressed.tif"  # which libtiff converts to RGB
    lossless = "tiff_lzw" if mode == "YCbCr" else compression
    first.save(compressed, compression=lossless, save_all=True, append_images=[second])
    expected = []
    with Image.open(compressed if compression == "raw" else tmp_path / "a.tif") as picture:
        for i in range(2):
            picture.seek(i)
            shown = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}.get(picture.mode)
            expected.append(np.asarray(picture.convert(shown) if shown else picture))
    compressed.unlink()
    for source in (tmp_path / "a.tif", pack(tmp_path, f"{tmp_path}.zip")):
        np.testing.assert_allclose(open_stack(source).data.compute(), expected, atol=compression == "jpeg")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_in_ycbcr_are_converted_by_the_coefficients_of_the_file(tmp_path, planar):
    """By the formula of TIFF 6.0, section 21, with brightness and colours in whole numbers, as libtiff has them."""
    stored, (red, green, blue) = random_pixels((12, 10, 3)), (0.2126, 0.7152, 0.0722)
    luma = [2126, 10000, 7152, 10000, 722, 10000]
    range_ = [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]
    tags = [(529, 5, 3, luma, True), (532, 5, 6, range_, True)]
    pixels, path = np.moveaxis(stored, -1, 0) if planar == "separate" else stored, tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="ycbcr", planarconfig=planar, metadata=None, extratags=tags)
    scaled = (stored - np.array([16, 128, 128])) * np.array([255 / 219, 127 / 112, 127 / 112])
    y, cb, cr = np.moveaxis(np.trunc(scaled), -1, 0)
    r, b = cr * (2 - 2 * red) + y, cb * (2 - 2 * blue) + y
    expected = np.clip(np.stack([r, (y - blue * b - red * r) / green, b], axis=-1), 0, 255)
    np.testing.assert_allclose(open_stack(path).data.compute()[0], expected, atol=1)
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHI", 530, 3, 2), struct.pack("<HHI", 531, 3, 2)))
    assert_named(path, "YCBCR")  # pixels share colours where nothing else is said


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}], ids=str)
@pytest.mark.parametrize("photometric", ["palette", "separated"])
def test_alpha_beside_a_palette_or_cmyk(tmp_path, photometric, options):
    """Colours are those without it; where it is multiplied into them, they are refused."""
    n, table = (2, random_pixels((3, 256), "uint16")) if photometric == "palette" else (5, None)
    pixels, path = random_pixels((20, 19, n)), tmp_path / "a.tif"
    extra = {"photometric": "separated"} if table is None else {"extratags": [(320, 3, 768, table.ravel(), True)]}
    for kind in ("unassalpha", "assocalpha"):
        common = {"planarconfig": "contig", "extrasamples": [kind], "metadata": None}
        tifffile.imwrite(path, pixels, **({"photometric": "minisblack"} | extra | common | options))
        if table is not None:
            with tifffile.TiffFile(path, mode="r+") as found:
                found.pages.first.tags["PhotometricInterpretation"].overwrite(3)
        if kind == "assocalpha":
            assert_named(path, "with alpha")
            return
        colours = Image.fromarray(np.ascontiguousarray(pixels[..., :4]), "CMYK").convert("RGB") if n == 5 else None
        expected = (table >> 8).T[pixels[..., 0]] if colours is None else np.asarray(colours)
        stack = open_stack(path)
        np.testing.assert_array_equal(stack.data.compute()[0], np.dstack([expected, pixels[..., -1]]))
        assert "RGBA" in str(stack.summary())


def test_depths_that_are_not_whole_bytes_are_read_as_stored(tmp_path):
    pytest.importorskip("imagecodecs")
    for bits in (3, 5, 7, 10, 12, 14):
        pixels = random_pixels((9, 7), "uint16") & ((1 << bits) - 1)
        stored = pixels.astype("uint8" if bits < 8 else "uint16")
        tifffile.imwrite(tmp_path / "a.tif", stored, bitspersample=bits, photometric="minisblack")
        found = open_stack(tmp_path / "a.tif").data.compute()[0]
        np.testing.assert_array_equal(found, stored)
        assert found.dtype == stored.dtype


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "palette"])
@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_2_and_4_bits_is_shown_as_in_png(tmp_path, photometric, bits):
    """With imagecodecs and without; strips of fewer bytes than their rows need are refused."""
    packed, colours = random_pixels((5, 6)), random_pixels((3, 256), "uint16")
    extra = {"colormap": colours} if photometric == "palette" else {}
    tifffile.imwrite(tmp_path / "a.tif", packed, photometric=photometric, metadata=None, **extra)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        for name, value in {"BitsPerSample": bits, "ImageWidth": 48 // bits - 1}.items():
            tiff.pages[0].tags[name].overwrite(value)
        if extra:
            tiff.pages[0].tags["ColorMap"].overwrite(colours[:, : 1 << bits].tobytes())
    with Image.open(tmp_path / "a.tif") as picture:
        expected = np.asarray(picture.convert("RGB") if extra else picture)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute()[0], expected)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages[0].tags["StripByteCounts"].overwrite(29)
    assert_named(tmp_path / "a.tif", "its strip 0 holds 29 bytes, and its pixels need 30")


@pytest.mark.parametrize("pixels", [random_pixels((9, 7, 2)), random_pixels((9, 7), "float32")], ids=["two", "float"])
def test_white_that_is_zero_in_unusual_samples_is_told(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", planarconfig="contig", metadata=None)
    with pytest.warns(UserWarning, match="0 is white, and pixels are read as they are stored"):
        np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute()[0], pixels)


@pytest.mark.parametrize("gdal", [True, False])
def test_tiles_that_are_left_out(tmp_path, gdal):
    """GDAL leaves out tiles without data, and says which number stands for it; else a tile is missing."""
    path = tmp_path / "a.tif"
    pixels = random_pixels((32, 16), "uint16")
    extra = [(42113, 2, 0, "7", True)] if gdal else []
    tifffile.imwrite(path, pixels, tile=(16, 16), metadata=None, extratags=extra)
    with tifffile.TiffFile(path, mode="r+") as found:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = found.pages.first.tags[name]
            tag.overwrite((tag.value[0], 0))
    if not gdal:
        assert_named(path, "strips or tiles are missing")
        return
    pixels[16:] = 7
    np.testing.assert_array_equal(open_stack(path).data.compute()[0], pixels)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"rowsperstrip": 5}, {"tile": (16, 16)}])
def test_planes_that_were_not_written_are_left_out(tmp_path, options):
    path, pixels = tmp_path / "a.tif", random_pixels((3, 32, 24), "int16")
    write = functools.partial(write_image, path, pixels, photometric="minisblack", planarconfig="separate")
    for missing in ([2], [1, 2], [1], [0, 1, 2]):
        write(metadata=None, **options)
        with tifffile.TiffFile(path, mode="r+") as found:
            kind = "Tile" if "tile" in options else "Strip"
            for tag in (found.pages.first.tags[kind + name] for name in ("Offsets", "ByteCounts")):
                values = np.reshape(tag.value, (3, -1))
                values[missing] = 0
                tag.overwrite(values.ravel().tolist())
        if 2 not in missing or 0 in missing:
            assert_named(path, "strips or tiles are missing")
            continue
        with pytest.warns(UserWarning, match=f"a.tif' describes 3 planes, of which {len(missing)} are missing"):
            stack = open_stack(path)
        expected = pixels[0] if len(missing) == 2 else np.moveaxis(pixels[:2], 0, -1)
        np.testing.assert_array_equal(stack.data.compute()[0], expected)


def test_inks_in_floating_point_numbers(tmp_path):
    inks = np.random.default_rng(0).random((9, 7, 4), "float32")
    inks[0, :2], inks[0, 2] = [[0, 0, 0, 0], [1, 1, 1, 1]], [0, 0.5, 1, 0]
    path = write_image(tmp_path / "a.tif", inks, photometric="separated")
    found = read_image(path)
    np.testing.assert_array_equal(found[0, :3], [[255, 255, 255], [0, 0, 0], [255, 128, 0]])
    eight = Image.frombytes("CMYK", (7, 9), np.rint(255 * inks).astype(np.uint8).tobytes())
    assert np.abs(found - np.asarray(eight.convert("RGB"), int)).max() <= 1
    for beyond in (-0.1, 1.1, np.nan):
        inks[5, 5, 2] = beyond
        write_image(path, inks, photometric="separated")
        assert_named(path, "not all between 0 and 1")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"rowsperstrip": 4}])
def test_strips_without_their_sizes(tmp_path, options):
    path = write_image(tmp_path / "a.tif", random_pixels((9, 7)), metadata=None, **options)
    with tifffile.TiffFile(path, mode="r+") as found:
        tag = found.pages.first.tags["StripByteCounts"]
        tag.overwrite(0 if tag.count == 1 else (0,) * tag.count)
    np.testing.assert_array_equal(open_stack(path).data.compute()[0], random_pixels((9, 7)))


def test_palette_that_lacks_colours_is_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_pixels((9, 7)), photometric="palette", colormap=np.zeros((3, 256), "uint16"))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<HHI", 320, 3, 768), struct.pack("<HHI", 320, 3, 96)))
    with pytest.raises(BadImageError, match="palette has 32 colours, and a pixel has colour 2"):
        open_stack(path).data.compute()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "float64"])
def test_the_fast_road_agrees_with_tifffile(tmp_path, monkeypatch, dtype):
    """The directory of a plain file says the same as tifffile, which is not asked."""
    cases = itertools.product([(9, 7), (9, 7, 3)], ["<", ">"], [False, True], [None, 4])
    for i, (shape, order, big, rows) in enumerate(cases):
        photometric = "rgb" if len(shape) == 3 else "minisblack"
        options = {"byteorder": order, "bigtiff": big, "rowsperstrip": rows, "photometric": photometric}
        tifffile.imwrite(tmp_path / f"{i}.tif", random_pixels(shape, dtype, seed=i), **options)
    paths = [tmp_path / f"{i}.tif" for i in range(16)]
    expected = [tifffile.imread(path) for path in paths]
    monkeypatch.setattr(tifffile, "TiffFile", None)
    for path, pixels in zip(paths, expected, strict=True):
        found = open_stack(path).data.compute()[0]
        np.testing.assert_array_equal(found, pixels)
        assert found.dtype == pixels.dtype


def test_jpeg_that_was_cut_within_a_strip_is_named(tmp_path):
    """Libjpeg would fill it with grey, and raise nothing."""
    path = tmp_path / "a.tif"
    Image.fromarray(random_pixels((99, 80, 3))).save(path, compression="jpeg")
    np.testing.assert_array_equal(open_stack(path).data.compute()[0], np.asarray(Image.open(path)))
    with tifffile.TiffFile(path, mode="r+") as found:
        tag = found.pages.first.tags["StripByteCounts"]
        values = tag.value if isinstance(tag.value, tuple) else (tag.value,)
        cut = (values[0] // 2, *values[1:])
        tag.overwrite(cut if len(cut) > 1 else cut[0])
    with pytest.raises(BadImageError, match="JPEG strip or tile of it has no end"):
        open_stack(path).data.compute()
