"""Textures of Blizzard's games."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.lib.images import assert_named, random_pixels, read_image

WIDTH, HEIGHT = 20, 12


def blp1(kind, alpha, content, start, beginning=b""):
    head = struct.pack("<4s6I", b"BLP1", kind, alpha, WIDTH, HEIGHT, 5, 0)
    return head + tables(start, content) + beginning + content


def blp2(encoding, alpha, dxt, content):
    head = struct.pack("<4sI4B2I", b"BLP2", 1, encoding, alpha, dxt, 0, WIDTH, HEIGHT)
    return head + tables(148 + 1024, content) + bytes(range(256)) * 4 + content


def tables(start, content):
    return struct.pack("<16I", start, *[0] * 15) + struct.pack("<16I", len(content), *[0] * 15)


def by_pillow(path):
    with Image.open(path) as picture:
        picture.load()
        return np.asarray(picture)


@pytest.mark.parametrize("version", [1, 2])
def test_palettes_are_those_of_pillow(tmp_path, version):
    picture, path = Image.fromarray(random_pixels((HEIGHT, WIDTH, 3))).quantize(200), tmp_path / "a.blp"
    picture.save(path, blp_version="BLP2")
    if version == 1:  # to which Pillow writes wrong offsets
        colours, content = path.read_bytes()[148:1172], path.read_bytes()[1172:]
        path.write_bytes(blp1(1, 0, content, 1180, colours))
    np.testing.assert_array_equal(read_image(tmp_path), np.asarray(picture.convert("RGB")))
    np.testing.assert_array_equal(by_pillow(path), np.asarray(picture.convert("RGB")))
    whole = path.read_bytes()
    for end in (3, 9, 30, 160, 900, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert_named(path)


@pytest.mark.parametrize(("dxt", "number", "name"), [(0, 1, "DXT1"), (1, 2, "DXT3"), (7, 3, "DXT5")])
@pytest.mark.parametrize("alpha", [0, 8])
def test_dxt(tmp_path, dxt, number, name, alpha):
    """Pillow's reader of BLP cuts the lower bits of colours; that of other formats does not."""
    blocks = random_pixels((WIDTH * HEIGHT // 16 * (8 if dxt == 0 else 16),)).tobytes()
    path = tmp_path / "a.blp"
    path.write_bytes(blp2(2, alpha, dxt, blocks))
    found = read_image(path)
    expected = np.asarray(Image.frombytes("RGBA", (WIDTH, HEIGHT), blocks, "bcn", number, name))
    np.testing.assert_array_equal(found, expected if alpha else expected[..., :3])
    path.write_bytes(blp2(2, 8, dxt, blocks))
    cut = by_pillow(path).astype(int)
    np.testing.assert_array_less(np.abs(found[..., :3] - cut[..., :3]), 9)
    np.testing.assert_array_equal(expected[..., 3], cut[..., 3])
    path.write_bytes(blp2(2, alpha, dxt, blocks)[:-1])
    assert_named(path)


def test_jpeg(tmp_path):
    """Without a change of colours; Pillow writes the four channels as negatives."""
    pixels = np.dstack([random_pixels((HEIGHT, WIDTH, 3)), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    buffer, path = io.BytesIO(), tmp_path / "a.blp"
    Image.frombytes("CMYK", (WIDTH, HEIGHT), (255 - pixels).tobytes()).save(buffer, "JPEG", quality=100)
    jpeg = buffer.getvalue()
    beginning = struct.pack("<I", 200) + jpeg[:200] + bytes(7)  # a gap before the pixels
    path.write_bytes(blp1(0, 0, jpeg[200:], 156 + len(beginning), beginning))
    found = read_image(path)
    np.testing.assert_array_equal(found, by_pillow(path))
    np.testing.assert_array_less(np.abs(found[..., ::-1].astype(int) - pixels[..., :3]), 6)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert_named(path)
    path.write_bytes(whole.replace(struct.pack("<2I", WIDTH, HEIGHT), struct.pack("<2I", WIDTH, 8), 1))
    assert_named(path, "its JPEG is of")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (blp1(1, 8, bytes(480), 1180, bytes(1024)), "palette with alpha"),
        (blp2(1, 1, 0, bytes(480)), "palette with alpha"),
        (blp2(3, 0, 0, bytes(960)), "kind that is not read"),
        (blp2(2, 8, 2, bytes(960)), "kind that is not read"),
        (blp2(2, 0, 0, bytes(80)), "80 bytes of pixels, and they need 120"),
        (blp2(1, 0, 0, bytes(240)).replace(struct.pack("<I", 1172), struct.pack("<I", 20)), "damaged"),
    ],
)
def test_what_is_damaged_or_unknown_is_named(tmp_path, content, match):
    (tmp_path / "a.blp").write_bytes(content)
    assert_named(tmp_path / "a.blp", match)
