"""Files of all formats: told by content, read whole, or named."""

import os

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from imgstack_ml.io.formats.registry import find_images, read_header
from imgstack_ml.io.readers import decode_file
from tests.lib.bombs import BOMBS
from tests.lib.images import assert_named, png_bytes, random_pixels, write_image

KINDS = [
    (".png", (9, 7), "uint8", {}),
    (".png", (9, 7), "uint16", {}),
    (".png", (9, 7, 3), "uint8", {}),
    (".png", (9, 7, 4), "uint8", {}),
    (".tif", (9, 7), "uint8", {}),
    (".tif", (9, 7), "uint16", {"byteorder": ">"}),
    (".tiff", (9, 7, 3), "uint16", {"compression": "zlib", "predictor": True}),
    (".tif", (40, 33), "uint16", {"compression": "zlib", "tile": (16, 16)}),
    (".tif", (9, 7, 4), "uint8", {"bigtiff": True, "rowsperstrip": 2}),
    (".tif", (9, 7, 4), "uint16", {}),
    (".tif", (9, 7), "float32", {}),
    (".tif", (9, 7, 3), "float64", {"compression": "zlib"}),
    (".tif", (1, 1), "uint8", {}),
    (".png", (1, 1), "uint8", {}),
]


@pytest.mark.parametrize(("suffix", "shape", "dtype", "options"), KINDS)
def test_lossless_files_give_their_pixels(tmp_path, suffix, shape, dtype, options):
    pixels = random_pixels(shape, dtype)
    path = write_image(tmp_path / f"image{suffix}", pixels, **options)
    header = read_header(path)
    image = decode_file(path)
    assert (header.shape, header.dtype) == (image.shape, image.dtype) == (pixels.shape, pixels.dtype)
    np.testing.assert_array_equal(image, pixels)
    assert open_stack(path).data.compute().tobytes() == pixels.tobytes()


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_files_are_told_by_content(tmp_path, suffix):
    pixels = random_pixels((5, 4))
    path = write_image(tmp_path / f"a{suffix}", pixels)
    os.rename(path, tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode_file(str(tmp_path / "a.jpg")), pixels)


CUT = {
    "grey.jpg": ((24, 20), "uint8", {}),
    "color.jpg": ((24, 20, 3), "uint8", {}),
    "progressive.jpg": ((24, 20, 3), "uint8", {"progressive": True}),
    "grey.png": ((12, 10), "uint16", {}),
    "color.png": ((8, 8, 3), "uint8", {}),
    "raw.tif": ((12, 10), "uint16", {}),
    "strips.tif": ((12, 10, 3), "uint8", {"rowsperstrip": 4}),
    "deflate.tif": ((12, 10), "uint16", {"compression": "zlib", "rowsperstrip": 4}),
    "tiles.tif": ((20, 18), "uint8", {"compression": "zlib", "tile": (16, 16)}),
}


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CUT)
def test_cut_anywhere_is_named(tmp_path, name, step):
    shape, dtype, options = CUT[name]
    path = tmp_path / name
    write_image(path, random_pixels(shape, dtype), **options)
    whole = path.read_bytes()
    for n_bytes in {*range(64), *range(64, len(whole), step), *range(len(whole) - 32, len(whole))}:
        path.write_bytes(whole[:n_bytes])
        assert_named(path)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert_named(tmp_path / "empty.png", r"empty \(0 bytes\)")
    assert_named(tmp_path / "text.png", "of no format that is read .*b'not an i'")
    assert_named(tmp_path / "folder.png", "it is a folder")
    assert_named(tmp_path / "pipe.png", "it is a named pipe")
    assert_named(tmp_path / "zero.png", "it is a device")
    assert_named(tmp_path / "missing.png", "No such file")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_bombs_are_refused_by_their_header(tmp_path, suffix):
    path = tmp_path / f"bomb{suffix}"
    BOMBS[f"size{suffix}"](path)
    with pytest.raises(BadImageError, match="claims 60000 × 60000 pixels; at most 178,956,970"):
        read_header(str(path))


@pytest.mark.filterwarnings("ignore:.* was cut, or is damaged")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "raw.tif", "deflate.tif"])
def test_damaged_bytes_raise_nothing_else(tmp_path, name):
    path = tmp_path / name
    options = {"compression": "zlib", "rowsperstrip": 5} if name == "deflate.tif" else {}
    write_image(path, random_pixels((16, 12)), **options)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), 3):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        try:
            image = decode_file(str(path))
        except BadImageError as error:
            assert error.path == str(path)  # noqa: PT017 - either outcome is right
        else:
            assert image.ndim in (2, 3)


def test_the_cache_is_bounded():
    assert find_images.cache_info().maxsize == 100_000


def test_max_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bytes(random_pixels((20, 20))))
    with pytest.raises(BadImageError, match="claims 20 × 20 pixels; at most 399 are read"):
        open_stack(tmp_path / "a.png", max_pixels=399)
    stack = open_stack(tmp_path / "a.png", max_pixels=400)
    assert stack.data.compute().shape == (1, 20, 20)
    (tmp_path / "b.png").write_bytes(png_bytes(random_pixels((1, 13_400)), height=13_400))
    with pytest.raises(BadImageError, match="13400 × 13400"):
        decode_file(str(tmp_path / "b.png"))
    with pytest.raises(BadImageError, match="early"):
        open_stack(tmp_path / "b.png", max_pixels=300_000_000)[0].compute()
