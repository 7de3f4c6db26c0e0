"""What Pillow reads besides JPEG and PNG: equal to Pillow, and nothing that is not allowed."""

import contextlib
import io
import os
import struct

import numpy as np
import pytest
from PIL import GifImagePlugin, Image, ImageFile, ImageSequence, features

from imgstack_ml import BadImageError, open_stack
from imgstack_ml.io.formats.jpeg_png import Jpeg, Png
from imgstack_ml.io.formats.picture import _decoder_of
from imgstack_ml.io.formats.pillow import PILLOW_FORMATS
from tests.lib.images import assert_named, picture_in_mode, png_chunks, png_of_chunks, random_pixels, read_image

AVIF = {"AVIF": ".avif"} if "avif" in features.get_supported() else {}  # Pillow 11.3 and later
ANIMATED = {"GIF": ".gif", "WEBP": ".webp", "PNG": ".apng", "MPO": ".mpo"} | AVIF
# Suffix, mode, and how Pillow is to write it.
STILL = [
    *((".gif", mode, {}) for mode in ("L", "P", "RGBA")),
    *((".webp", mode, {"lossless": True}) for mode in ("RGB", "RGBA")),
    *((suffix, mode, {}) for suffix in AVIF.values() for mode in ("RGB", "RGBA")),
    *((".jp2", mode, {}) for mode in ("L", "LA", "RGB", "RGBA", "I;16")),
    (".j2k", "RGB", {"irreversible": True, "tile_size": (16, 16)}),
    *((".bmp", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *((".ppm", mode, {}) for mode in ("1", "L", "I", "RGB")),
    (".pfm", "F", {}),
    *((".tga", mode, {"compression": "tga_rle"}) for mode in ("L", "LA", "P", "RGB", "RGBA")),
    *(
        (".ico", mode, {"sizes": [(4, 4), (7, 9)], "bitmap_format": how})
        for mode, how in [("RGB", "png"), ("P", "bmp")]
    ),
    *((".dds", mode, {}) for mode in ("L", "RGBA")),
    *((".pcx", mode, {}) for mode in ("1", "P", "RGB")),
    *((".sgi", mode, {}) for mode in ("L", "RGB")),
    (".xbm", "1", {}),
    (".jfif", "RGB", {"format": "JPEG"}),
]


def frames(n_frames=4, shape=(24, 32, 3)):
    return [
        Image.fromarray(np.roll(np.cumsum(random_pixels(shape) % 5, 1, dtype=np.uint8), i, 0)) for i in range(n_frames)
    ]


def write_animation(path, kind, n_frames=4, **options):
    first, *others = frames(2 if kind == "MPO" else n_frames)  # Pillow's offsets of a third are wrong
    first.save(path, format=kind, save_all=True, append_images=others, **options)
    return path


def shown(picture, has_alpha):
    mode = {"P": "RGBA" if has_alpha else "RGB", "1": "L"}.get(picture.mode, picture.mode)
    return np.asarray(picture if picture.mode == mode else picture.convert(mode))


@pytest.mark.parametrize(("suffix", "mode", "options"), STILL)
def test_pixels_are_those_of_pillow(tmp_path, suffix, mode, options):
    path = tmp_path / f"a{suffix}"
    picture_in_mode(mode).save(path, **options)
    with Image.open(path) as picture:
        expected = shown(picture, "transparency" in picture.info)
    np.testing.assert_array_equal(read_image([path]), expected)


@pytest.mark.parametrize("kind", ANIMATED)
def test_frames_of_an_animation_are_images(tmp_path, kind):
    path = str(write_animation(tmp_path / f"a{ANIMATED[kind]}", kind))
    with Image.open(path) as picture:
        expected = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])
    stack = open_stack([path], chunks=3)
    assert list(stack.files) == [f"{path}[{i}]" for i in range(len(expected))]
    np.testing.assert_array_equal(stack.data.compute(), expected)
    order = np.random.default_rng(0).permutation(len(expected))
    np.testing.assert_array_equal(stack.data[order].compute(), expected[order])


@pytest.mark.parametrize("disposal", [1, 2, 3])
def test_gif_is_composed(tmp_path, disposal):
    pictures = [Image.new("RGBA", (16, 12)) for _ in range(4)]
    for i, picture in enumerate(pictures):
        picture.paste((60 * i, 255, 0, 255), (i, i, i + 6, i + 4))
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], disposal=disposal)
    with Image.open(tmp_path / "a.gif") as picture:
        expected = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(picture)]
    np.testing.assert_array_equal(open_stack([tmp_path / "a.gif"]).data.compute(), expected)


@pytest.mark.parametrize("way", ["forward", "backward", "synchronous", "threads"])
def test_frames_are_decoded_once(tmp_path, monkeypatch, way):
    stack = open_stack([write_animation(tmp_path / "a.gif", "GIF", 9)], chunks=2)
    decoded, load_end = [], GifImagePlugin.GifImageFile.load_end
    monkeypatch.setattr(
        GifImagePlugin.GifImageFile, "load_end", lambda self: (decoded.append(self.tell()), load_end(self))
    )
    if way in ("synchronous", "threads"):
        stack.data.compute(scheduler=way, num_workers=3)
    else:
        for block in list(stack.data.blocks)[:: 1 if way == "forward" else -1]:
            block.compute()
    assert decoded == list(range(9))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_decoders_that_wait_are_those_of_the_file(tmp_path, kind):
    path = write_animation(tmp_path / f"a{ANIMATED[kind]}", kind, 6)
    expected = open_stack([path]).data.compute()
    blocks = open_stack([path], chunks=2).data.blocks
    for i in (1, 0, 2, 1, 0, 0, 2):
        np.testing.assert_array_equal(blocks[i].compute(), expected[2 * i : 2 * i + 2])
    blocks[0].compute()
    first, *others = reversed(frames(6))
    first.save(path, kind, save_all=True, append_images=others)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(
        open_stack([path], chunks=2).data.blocks[1].compute(), open_stack([path]).data.compute()[2:4]
    )


@pytest.mark.parametrize("kind", [*ANIMATED, "JPEG2000", "BMP", "PPM", "TGA", "PCX", "SGI", "DDS", "ICO"])
def test_cut_files_are_named(tmp_path, kind):
    suffix = ANIMATED.get(kind) or {"JPEG2000": ".jp2"}.get(kind, f".{kind.lower()}")
    path = tmp_path / f"a{suffix}"
    write_animation(path, kind, 3) if kind in ANIMATED else frames()[0].save(path)
    content = path.read_bytes()
    whole = open_stack([path]).data.compute()
    for end in np.linspace(1, len(content) - 1, 12).astype(int):
        path.write_bytes(content[:end])
        try:
            pixels = open_stack([path]).data.compute()
        except BadImageError as error:
            told = str(error)
        else:
            np.testing.assert_array_equal(pixels, whole)  # what was cut stands behind the pixels
            continue
        assert str(path) in told
        assert "unpack" not in told


def fli_frame(*chunks):
    content = b"".join(struct.pack("<IH", 6 + len(chunk), kind) + chunk for kind, chunk in chunks)
    return struct.pack("<IHH8x", 16 + len(content), 0xF1FA, len(chunks)) + content


def rare_files():
    """Files of formats that Pillow does not write, of 6 rows of 4 pixels, and their pixels as Pillow stores them."""
    numbers, colours = random_pixels((6, 4)), random_pixels((6, 4, 3))
    wide = numbers.astype(int)
    palette = random_pixels((256, 3)) >> 2
    changed = fli_frame((11, b"\2\0\0\1\1\2\3\7\1\7\7\7"), (16, bytes(18) + b"\x08" * 6))
    frames = fli_frame((11, b"\1\0\0\0" + palette.tobytes()), (16, numbers.tobytes())), changed
    head = struct.pack("<IHHHHHHI", 128 + sum(map(len, frames)), 0xAF12, 2, 4, 6, 8, 0, 40).ljust(128, b"\0")
    others = np.repeat(np.uint8([[4, 8, 12], [28, 28, 28]]), (18, 6), axis=0).reshape(6, 4, 3)
    yield ".flc", head + b"".join(frames), np.stack([palette[numbers] << 2, others])
    yield ".cur", cursor(colours), np.dstack([colours, np.full((6, 4), 255)])
    yield ".ras", struct.pack(">8I", 0x59A66A95, 4, 6, 24, 72, 3, 0, 0) + colours.tobytes(), colours
    levels = np.stack([(wide >> 5) * 255 // 7, (wide >> 2 & 7) * 255 // 7, (wide & 3) * 85], axis=-1)
    yield ".p7", b"P7 332\n#END_OF_COMMENTS\n4 6 255\n" + numbers.tobytes(), levels
    pixar = b"\x80\xe8\0\0".ljust(416, b"\0") + struct.pack("<HH4xHH", 6, 4, 14, 2)
    yield ".pxr", pixar.ljust(1024, b"\0") + colours.tobytes(), colours
    yield (
        ".ftc",
        b"FTEX" + struct.pack("<8i", 0, 4, 6, 1, 1, 1, 32, 72)[:28] + struct.pack("<i", 72) + colours.tobytes(),
        colours,
    )


def cursor(colours):
    """A cursor of 24 bits whose hot spot is at (3, 2), with its mask behind the colours, unpadded."""
    bitmap = struct.pack("<IiiHH24x", 40, 4, 12, 1, 24) + colours[::-1, :, ::-1].tobytes() + bytes(24)
    return b"\0\0\2\0\1\0\4\6\0\0\3\0\2\0" + struct.pack("<II", len(bitmap), 22) + bitmap[:-3]


@pytest.mark.parametrize(("suffix", "content", "expected"), list(rare_files()))
def test_rare_formats_are_read_whole_or_not_at_all(tmp_path, suffix, content, expected):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    np.testing.assert_array_equal(np.squeeze(open_stack(tmp_path).data.compute()), expected)
    for end in range(len(content) - 1, 1, -max(1, len(content) // 50)):
        path.write_bytes(content[:end])
        assert_named(path, "a\\.")


def test_what_pillow_reads_wrongly_is_refused(tmp_path):
    flc = next(content for suffix, content, _ in rare_files() if suffix == ".flc")
    content = bytearray(flc)
    content[content.index(b"\2\0\0\1\1\2\3") + 2] = 255  # so many colours are passed over
    (tmp_path / "a.flc").write_bytes(content)
    assert_named(tmp_path / "a.flc", "its palette is damaged")
    for number, (depth, kind, n_colours) in enumerate([(32, 1, 0), (1, 1, 6), (8, 2, 0)]):
        head = struct.pack(">8I", 0x59A66A95, 5, 6, depth, 0, kind, 1, n_colours)
        (tmp_path / f"{number}.ras").write_bytes(head + bytes(200))
        assert_named(tmp_path / f"{number}.ras", "Pillow reads wrongly")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 2), (6, 5, 3), (6, 5, 4)])
@pytest.mark.parametrize(("short", "interlaced"), [(None, False), (0, False), (1, False), (2, True)])
def test_frames_of_fewer_rows_are_named(tmp_path, shape, short, interlaced):
    pixels = random_pixels((3, *shape))
    pixels[:, -1] = 0  # as if it had not been decoded
    first, *others = (
        png_chunks(p, rows=5 if i == short else None, interlaced=interlaced) for i, p in enumerate(pixels)
    )
    chunks = [
        first[0],
        (b"acTL", struct.pack(">II", 3, 0)),
        (b"fcTL", struct.pack(">IIIIIHHBB", 0, 5, 6, 0, 0, 1, 1, 0, 0)),
    ]
    chunks += [first[1]]
    for i, frame in enumerate(others):
        chunks.append((b"fcTL", struct.pack(">IIIIIHHBB", 2 * i + 1, 5, 6, 0, 0, 1, 1, 0, 0)))
        chunks.append((b"fdAT", struct.pack(">I", 2 * i + 2) + frame[1][1]))
    (tmp_path / "a.png").write_bytes(png_of_chunks([*chunks, first[2]]))
    stack = open_stack([tmp_path / "a.png"])
    if short is None:
        np.testing.assert_array_equal(stack.data.compute(), pixels)
    else:
        with pytest.raises(BadImageError, match=r"early|damaged|decod"):
            stack[2].compute()


def claims(kind):
    """A file that claims more than it holds, and what the error says."""
    side = struct.pack("<HH", 65535, 65535)
    if kind == "GIF":
        return b"GIF89a" + side + bytes(3) + b"," + bytes(4) + side + b"\0\2\0;", "65535 × 65535 pixels"
    if kind == "WebP":
        chunk = b"VP8X" + struct.pack("<II", 10, 0) + b"\xff\x3f\0\xff\x3f\0"
        return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk, "16384 × 16384 pixels"
    if kind == "ICO":
        png = png_of_chunks(png_chunks(random_pixels((1, 60000)), height=60000))
        return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(png), 22) + png, "60000 × 60000 pixels"
    if kind == "BMP":
        buffer = io.BytesIO()
        frames()[0].save(buffer, "BMP")
        content = bytearray(buffer.getvalue())
        content[18:26] = struct.pack("<II", 60000, 60000)
        return bytes(content), "60000 × 60000 pixels"
    header, pixels, end = png_chunks(random_pixels((4, 4)))
    return png_of_chunks(
        [header, (b"acTL", b"\x7f" + bytes(7)), pixels, end]
    ), "claims 2,130,706,433 images and holds 1"


@pytest.mark.parametrize("kind", ["GIF", "WebP", "ICO", "BMP", "APNG"])
def test_sizes_and_numbers_are_checked_before_pixels_are_decoded(tmp_path, kind):
    content, told = claims(kind)
    (tmp_path / "a").write_bytes(content)
    assert_named(tmp_path / "a", told)


def foreign_files():
    """Contents of files for which Pillow has decoders that are not to be called."""
    picture = frames()[0]
    for kind in ("EPS", "PDF", "SPIDER", "TIFF"):
        buffer = io.BytesIO()
        picture.convert({"SPIDER": "F"}.get(kind, "RGB")).save(buffer, kind)
        yield buffer.getvalue()
    yield from (
        b"\xd7\xcd\xc6\x9a\0\0" + bytes(200),  # WMF
        b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(200),
        b"\xc5\xd0\xd3\xc6" + bytes(200),  # EPS of DOS
        b"GRIB\0\0\0\1" + bytes(200),
        b"BUFR" + bytes(200),
        b"\x89HDF\r\n\x1a\n" + bytes(200),
        b"SIMPLE  =                    T" + b" " * 2850,
        b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0};",
        b"/* XPM */",
        b"\0\0\1\xba" + bytes(200),
        bytes(300),
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),  # FPX, MIC
    )


def test_no_decoder_is_called_that_is_not_allowed(tmp_path, monkeypatch):
    called = set()

    def start(self, *args, original=ImageFile.ImageFile.__init__):
        called.add(type(self))
        original(self, *args)

    contents = list(foreign_files())
    monkeypatch.setattr(ImageFile.ImageFile, "__init__", start)
    monkeypatch.setattr(Image, "open", lambda *args: called.add(Image.Image))
    for suffix in [".eps", ".wmf", *(kind.suffixes[0] for kind in (Jpeg, Png, *PILLOW_FORMATS))]:
        path = tmp_path / f"a{suffix}"
        for content in contents:
            path.write_bytes(content)
            with contextlib.suppress(BadImageError):
                open_stack([path])
    allowed = {kind._decoder.partition(".")[0] for kind in PILLOW_FORMATS}
    names = {kind.__module__.removeprefix("PIL.") for kind in called}
    assert {"TgaImagePlugin", "PcxImagePlugin"} <= names <= allowed


def test_what_the_installed_pillow_lacks_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x1cftypavif" + bytes(100))
    _decoder_of.cache_clear()
    monkeypatch.setattr(features, "get_supported", list)
    assert_named(
        tmp_path / "a.avif", "it is AVIF, which the installed Pillow cannot read; .* pip install --upgrade pillow"
    )


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("suffix", [".jp2", ".avif"])
def test_deep_colour_is_decoded_by_imagecodecs(tmp_path, suffix, bits):
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = np.cumsum(random_pixels((24, 32, 3)), 1, dtype=np.uint16) >> (16 - bits)
    if suffix == ".jp2":
        content = imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, bitspersample=bits)
    else:
        pixels >>= 4
        content = imagecodecs.avif_encode(pixels, bitspersample=12, level=100)
    (tmp_path / f"a{suffix}").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), pixels)


def test_signed_jpeg_2000_is_refused(tmp_path):
    buffer = io.BytesIO()
    frames()[0].convert("L").save(buffer, "JPEG2000", signed=True)
    (tmp_path / "a.jp2").write_bytes(buffer.getvalue())
    assert_named(tmp_path / "a.jp2", "its values are signed")


@pytest.mark.parametrize("suffix", [".ppm", ".png"])
def test_deep_colour_that_nothing_reads_is_refused(tmp_path, suffix):
    header, pixels, end = png_chunks(random_pixels((4, 4, 3), "uint16"))
    animation = [(b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", struct.pack(">IIIIIHHBB", 0, 4, 4, 0, 0, 1, 1, 0, 0))]
    frame = [(b"fcTL", struct.pack(">IIIIIHHBB", 1, 4, 4, 0, 0, 1, 1, 0, 0)), (b"fdAT", b"\0\0\0\2" + pixels[1])]
    content = png_of_chunks([header, *animation, pixels, *frame, end])
    (tmp_path / f"a{suffix}").write_bytes(b"P6 2 1 4095\n" + bytes(12) if suffix == ".ppm" else content)
    with pytest.raises(BadImageError, match=r"more than 8 bits a channel .* save it as TIFF"):
        open_stack([tmp_path / f"a{suffix}"])


def test_grey_gif_that_turns_coloured_is_refused(tmp_path):
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    buffer = io.BytesIO()
    grey.convert("RGB").quantize(8).save(buffer, "GIF")
    grey.save(tmp_path / "a.gif")
    first, other = (tmp_path / "a.gif").read_bytes(), buffer.getvalue()
    n_bytes = 3 << (other[10] & 7) + 1
    image = other.index(b",", 13 + n_bytes)
    local = other[image : image + 9] + bytes([0x80 | other[10] & 7]) + other[13 : 13 + n_bytes] + other[image + 10 :]
    (tmp_path / "a.gif").write_bytes(first[:-1] + local)
    with pytest.raises(BadImageError, match="its first image is grey and a later one has colours"):
        open_stack([tmp_path / "a.gif"])
