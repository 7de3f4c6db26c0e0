"""JPEG and PNG."""

import importlib.util
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from imgstack_ml import BadImageError, open_stack
from imgstack_ml.io.formats import jpeg_png
from imgstack_ml.io.formats.registry import open_images, read_header
from imgstack_ml.io.readers import decode_file
from tests.lib.images import (
    assert_named,
    picture_in_mode,
    png_bytes,
    png_chunks,
    png_of_chunks,
    random_pixels,
    read_image,
    write_image,
)

MODES = [
    ("1", ".png", "L", (9, 7)),
    ("L", ".png", "L", (9, 7)),
    ("L", ".jpg", "L", (9, 7)),
    ("LA", ".png", "LA", (9, 7, 2)),
    ("P", ".png", "RGB", (9, 7, 3)),
    ("RGB", ".png", "RGB", (9, 7, 3)),
    ("RGB", ".jpg", "RGB", (9, 7, 3)),
    ("RGBA", ".png", "RGBA", (9, 7, 4)),
    ("CMYK", ".jpg", "RGB", (9, 7, 3)),
    ("I;16", ".png", "I;16", (9, 7)),
    ("I;16", ".tif", "I;16", (9, 7)),
    ("I", ".tif", "I", (9, 7)),
    ("F", ".tif", "F", (9, 7)),
]


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 3)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg_is_what_pillow_decodes(tmp_path, shape, options):
    path = write_image(tmp_path / "image.jpg", random_pixels(shape), **options)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(decode_file(path), np.asarray(picture))
    assert read_header(path)[:2] == (shape, np.uint8)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("shape", [(16, 13), (3, 2), (1, 1), (9, 1), (64, 64)])
def test_png_with_black_last_row_and_interlaced(tmp_path, interlaced, shape):
    pixels = random_pixels(shape)
    pixels[-1] = 0
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(pixels, interlaced=interlaced) + b"data after the end are allowed")
    np.testing.assert_array_equal(decode_file(str(path)), pixels)


@pytest.mark.parametrize("interlaced", [False, True])
def test_png_with_too_few_rows_is_named(tmp_path, interlaced):
    path = tmp_path / "short.png"
    path.write_bytes(png_bytes(random_pixels((64, 64)), interlaced=interlaced, rows=10))
    with Image.open(path) as picture:
        picture.load()  # Pillow has nothing to say
    assert_named(path, "its pixel data end .* early")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_plain_png_that_pillow_does_not_open_is_read_as_by_pillow(tmp_path, monkeypatch, channels):
    """Whole, and in colour with each of its bytes changed."""
    pixels, path, outcomes = random_pixels((5, 4, channels)), tmp_path / "a.png", []
    header, data, end = png_chunks(pixels[..., 0] if channels == 1 else pixels)
    parts = [(b"IDAT", data[1][:9]), (b"IDAT", data[1][9:])]
    whole = png_of_chunks([header, (b"pHYs", bytes(9)), *parts, end])
    for plain in (jpeg_png.Png._plain_series, lambda *_: None):
        monkeypatch.setattr(jpeg_png.Png, "_plain_series", plain)
        outcomes.append([])
        for place in range(8 if channels == 3 else len(whole), len(whole) + 1):
            path.write_bytes(whole[:place] + bytes(b ^ 1 for b in whole[place : place + 1]) + whole[place + 1 :])
            try:
                outcomes[-1].append((decode_file(str(path)).tolist(), read_header(str(path))))
            except BadImageError:
                outcomes[-1].append(None)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][-1][0] == pixels.squeeze().tolist()
    assert channels != 3 or outcomes[0].count(None) > len(whole) // 2


@pytest.mark.parametrize(("shape", "options"), [((5, 4), {"progressive": True}), ((9, 17, 3), {"optimize": True})])
def test_plain_jpeg_that_pillow_does_not_open_is_read_as_by_pillow(tmp_path, monkeypatch, shape, options):
    """Whole, cut, and with each byte of its header changed."""
    path, outcomes = tmp_path / "a.jpg", []
    whole = Path(write_image(path, random_pixels(shape), quality=30, **options)).read_bytes()
    places = range(whole.index(b"\xff\xda") + 14)
    changed = [whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :] for i in places]
    into = np.empty(shape[::-1], np.uint8).T
    with open_images(str(path)) as images, Image.open(path) as picture:
        assert images._is_plain
        images.read(None, into)
        np.testing.assert_array_equal(into, np.asarray(picture))
    for plain in (jpeg_png.Jpeg._plain_series, lambda *_: None):
        monkeypatch.setattr(jpeg_png.Jpeg, "_plain_series", plain)
        outcomes.append([])
        for content in (whole, *(whole[:i] for i in places[::7]), *changed):
            path.write_bytes(content)
            try:
                outcomes[-1].append((read_header(str(path)), decode_file(str(path)).tobytes()))
            except BadImageError:
                outcomes[-1].append(None)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].count(None) > len(places) // 5 > outcomes[0].index(None) > 0


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_png_of_16_bits_in_colour_is_not_cut_to_8(tmp_path, monkeypatch, channels, interlaced):
    path, pixels = tmp_path / "a.png", random_pixels((33, 17, channels), "uint16")
    path.write_bytes(png_bytes(pixels, interlaced=interlaced))
    if importlib.util.find_spec("imagecodecs"):
        np.testing.assert_array_equal(decode_file(str(path)), pixels)
        path.write_bytes(png_bytes(pixels, interlaced=interlaced, rows=10))
        assert_named(path)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert_named(path, r"only 8; to read it as uint16: pip install 'imgstack_ml\[codecs\]'")


@pytest.mark.parametrize(("mode", "key"), [("1", 0), ("L", 5), ("RGB", (1, 2, 3))])
def test_colour_keys_become_alpha_where_the_mode_has_it(tmp_path, mode, key):
    pixels = random_pixels((9, 7, 3)) % 8
    pixels[2, 3] = 1, 2, 3
    path = tmp_path / "a.png"
    (Image.fromarray(pixels[:, :, 0]) if mode == "L" else Image.fromarray(pixels).convert(mode)).save(
        path, transparency=key
    )
    with Image.open(path) as picture:
        expected = picture.convert("RGBA")
        assert picture.mode == mode
        assert np.any(np.asarray(expected)[:, :, 3] == 0)
    np.testing.assert_array_equal(read_image(path, mode="RGBA"), np.asarray(expected))
    np.testing.assert_array_equal(read_image(path, mode="LA"), np.asarray(expected.convert("LA")))
    assert read_image(path).shape[2:] == ((3,) if mode == "RGB" else ())


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("shape", [(33, 17, 3), (16, 16), (1, 1, 3)])
def test_simplejpeg_decodes_what_pillow_does(tmp_path, monkeypatch, shape, subsampling, quality):
    pytest.importorskip("simplejpeg")
    path = write_image(tmp_path / "a.jpg", random_pixels(shape), subsampling=subsampling, quality=quality)
    decoded = decode_file(path)
    monkeypatch.setattr(jpeg_png, "_installed", lambda name: None)
    np.testing.assert_array_equal(decoded, decode_file(path))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_imagecodecs_decodes_what_pillow_does_and_nothing_that_is_cut(tmp_path, monkeypatch, channels, interlaced):
    decoder = pytest.importorskip("imagecodecs").png_decode
    path, pixels, calls = tmp_path / "a.png", random_pixels((33, 17, channels)), []
    monkeypatch.setattr("imagecodecs.png_decode", lambda data, out: calls.append(1) or decoder(data, out=out))
    path.write_bytes(content := png_bytes(pixels, interlaced=interlaced))
    np.testing.assert_array_equal(decode_file(str(path)), pixels)
    assert len(calls) == (not interlaced)
    path.write_bytes(png_bytes(pixels, interlaced=interlaced, rows=10))
    assert_named(path)
    path.write_bytes(content.replace(b"IEND", b"IENX"))
    assert_named(path)
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    assert_named(path)


XMP = "<x:xmpmeta><rdf:Description tiff:Orientation{}/></x:xmpmeta>"
EXIF = Image.Exif()
EXIF[0x0112] = 8
PROFILE = f"\nexif\n{len(EXIF.tobytes()):8}\n{EXIF.tobytes().hex()}\n"
TEXT = [
    (b"tEXt", b"Raw profile type exif\0" + PROFILE.encode()),
    (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE.encode())),
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format('="6"').encode()),
    (b"eXIf", EXIF.tobytes()[6:]),
]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("chunk", TEXT, ids=lambda chunk: chunk[0].decode())
def test_orientation_in_any_chunk_of_a_png(tmp_path, chunk, late):
    header, pixels, end = png_chunks(random_pixels((9, 7)))
    path = tmp_path / "a.png"
    path.write_bytes(png_of_chunks([header, pixels, chunk, end] if late else [header, chunk, pixels, end]))
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    assert expected.shape == open_stack([path]).shape[1:] == (7, 9)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("exif", [None, 3])
def test_orientation_in_xmp_counts_where_exif_has_none(tmp_path, suffix, exif):
    tags = Image.Exif()
    tags[0x010F] = "a maker"
    if exif:
        tags[0x0112] = exif
    path = write_image(tmp_path / f"a{suffix}", random_pixels((9, 7, 3)), exif=tags, xmp=XMP.format(">6<").encode())
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read_image(path), expected)


def test_large_images_do_not_warn(tmp_path):
    # Image.open warns above half of what it refuses.
    path = tmp_path / "large.png"
    path.write_bytes(png_bytes(random_pixels((1, 10_000)), height=10_000))
    assert read_header(str(path)).shape == (10_000, 10_000)


def test_pillow_set_to_fill_up_is_refused(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.jpg", random_pixels((8, 8)))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert_named(path, "LOAD_TRUNCATED_IMAGES is True")


@pytest.mark.parametrize(("mode", "suffix", "shown", "shape"), MODES)
def test_modes_are_read_as_shown(tmp_path, mode, suffix, shown, shape):
    path = tmp_path / f"a{suffix}"
    picture_in_mode(mode).save(path)
    with Image.open(path) as picture:
        assert picture.mode == mode
        expected = np.asarray(picture.convert(shown) if shown != mode else picture)
    stack = open_stack(path)
    image = stack.data.compute()[0]
    assert (image.shape, image.dtype) == (stack.shape[1:], stack.dtype) == (shape, expected.dtype)
    np.testing.assert_array_equal(image, expected)
    assert stack.summary().counts[0][0].mode == mode


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
def test_palettes_with_transparency_have_four_channels(tmp_path, transparency):
    picture_in_mode("P").save(tmp_path / "a.png", transparency=transparency)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(picture.convert("RGBA")))


KINDS = [(".jpg", "L"), (".jpg", "CMYK"), (".png", "RGB"), (".png", "P")]


# Each orientation in JPEG and PNG, in grey and colour; each kind with four of them.
@pytest.mark.parametrize(
    ("orientation", "suffix", "mode"),
    [(orientation, *KINDS[(orientation + i) % 4]) for orientation in range(1, 9) for i in (0, 2)],
)
def test_exif_orientation_is_applied(tmp_path, suffix, mode, orientation):
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x010F] = "a maker's name of some length"
    exif[0x0112] = orientation
    picture_in_mode(mode).save(path, exif=exif)
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        expected = np.asarray(upright.convert("RGB") if mode in ("P", "CMYK") else upright)
    stack = open_stack(path)
    assert stack.shape[1:] == expected.shape
    np.testing.assert_array_equal(stack.data.compute()[0], expected)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
    ],
)
def test_damaged_exif_is_upright(tmp_path, exif):
    write_image(tmp_path / "a.jpg", random_pixels((9, 7)), exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (9, 7)
