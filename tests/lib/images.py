"""Real image files for tests."""

import contextlib
import os
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from imgstack_ml.io import readers
from imgstack_ml.io.formats.registry import how_read
from imgstack_ml.io.locations.listing import find_files
from imgstack_ml.io.readers import decode_file

_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))


def random_pixels(shape, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    # From 1, so that a pixel that was never written shows.
    return rng.integers(1, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write_image(path, pixels, **options):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        if pixels.ndim == 3:
            options.setdefault("photometric", "rgb")
        tifffile.imwrite(path, pixels, **options)
    else:
        Image.fromarray(pixels).save(path, **options)
    return str(path)


def write_folder(folder, n_images, shape=(8, 6, 3), dtype="uint8", suffix=".png"):
    """Write images 0 … n_images - 1 and return their pixels; a stack of them has them in this order."""
    pixels = random_pixels((n_images, *shape), dtype)
    for i, image in enumerate(pixels):
        write_image(Path(folder) / f"img{i}{suffix}", image)
    return pixels


def png_bytes(pixels, **options):
    """Make a PNG with right checksums, of 8 or 16 bits; for options see `png_chunks`."""
    return png_of_chunks(png_chunks(pixels, **options))


def png_chunks(pixels, *, height=None, interlaced=False, rows=None):
    """List kind and content of the chunks of a PNG: `rows` scan lines only, `height` claimed."""
    passes = _ADAM7 if interlaced else ((0, 1, 0, 1),)
    lines = [
        b"\0" + line.astype(line.dtype.newbyteorder(">")).tobytes()
        for left, across, top, down in passes
        for line in pixels[top::down, left::across]
        if line.size
    ]
    depth, color_type = 8 * pixels.itemsize, {(): 0, (2,): 4, (3,): 2, (4,): 6}[pixels.shape[2:]]
    header = struct.pack(">IIBBBBB", pixels.shape[1], height or pixels.shape[0], depth, color_type, 0, 0, interlaced)
    return [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines[:rows]))), (b"IEND", b"")]


def png_of_chunks(parts):
    """Make a PNG of chunks, each a kind and its content."""
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def count_decoded(monkeypatch):
    """Count how often each image is decoded, by its file and its key in there."""
    counts = Counter()

    @contextlib.contextmanager
    def opened(name, *args, original=readers.open_images):
        with original(name, *args) as images:

            def read(key, out, original=images.read):
                counts[name, key] += 1
                original(key, out)

            images.read = read
            yield images

    monkeypatch.setattr(readers, "open_images", opened)
    return counts


def list_files(source, **options):
    """List the files of a source as absolute paths."""
    return find_files(source, how_read, **options).files


def assert_named(path, match=None):
    """A file of one image is not read, and the error names it."""
    with pytest.raises(BadImageError, match=match) as caught:
        decode_file(str(path))
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)


def read_image(path, **options):
    """Read a file of one image as a stack."""
    (image,) = open_stack(path, **options).data.compute()
    return image


def picture_in_mode(mode):
    """Make a picture of 9 x 7 pixels in one of Pillow's modes."""
    if mode == "I;16":
        return Image.fromarray(random_pixels((9, 7), "uint16"))
    colours = Image.fromarray(random_pixels((9, 7, 4)))
    return colours.convert("RGB").convert(mode) if mode in ("P", "CMYK", "F", "I") else colours.convert(mode)


def pack(folder, path, compression=zipfile.ZIP_STORED):
    """Pack a folder into a zip or tar archive."""
    names = sorted(
        os.path.relpath(os.path.join(parent, name), folder) for parent, _, files in os.walk(folder) for name in files
    )
    if str(path).endswith(".zip"):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name in names:
                archive.write(folder / name, name)
    else:
        with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as archive:
            for name in names:
                archive.add(folder / name, name)
    return str(path)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def relative(files, folder):
    return [os.path.relpath(file, folder) for file in files]
