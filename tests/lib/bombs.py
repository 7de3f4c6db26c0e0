"""Small files that claim, or unpack to, far more than they are, and what opening and reading each of them costs."""

import functools
import io
import json
import os
import re
import struct
import sys
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import tifffile

sys.path.append(str(Path(__file__).parents[2]))  # for `tests`, where this runs as a script

from tests.lib.images import png_bytes, random_pixels, write_image

LARGE = 1 << 27  # bytes that a small file unpacks to: twice what reading it may take


def set_tags(path, **values):
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name, value in values.items():
            tiff.pages.first.tags[name].overwrite(value)


def tiff(path, shape=(16, 16), tags=None, **options):
    tifffile.imwrite(path, random_pixels(shape), **{"photometric": "minisblack", "metadata": None, **options})
    set_tags(path, **(tags or {}))


def png_with(kind, content, n_bytes=None):
    """A PNG with a further chunk in front of its pixels, which may claim another length."""
    whole = png_bytes(random_pixels((4, 4)))
    size = len(content) if n_bytes is None else n_bytes
    chunk = struct.pack(">I", size) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return whole[:33] + chunk + whole[33:]


@functools.cache
def squeezed(n_bytes):
    """Zeros, deflated in pieces."""
    packer = zlib.compressobj(1)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(n_bytes >> 20)]
    return b"".join(pieces) + packer.flush()


def one_strip(path, strip, compression):
    """A TIFF whose only strip is `strip`."""
    tiff(path, compression="zlib")
    with tifffile.TiffFile(path) as found:
        place = found.pages.first.dataoffsets[0]
    end = os.path.getsize(path)
    set_tags(path, StripOffsets=end, StripByteCounts=len(strip), Compression=compression)
    assert place < end
    with open(path, "ab") as file:
        file.write(strip)


def directories(n):
    """A TIFF of one byte a directory, each of which lies in the next ones."""
    content = bytearray(b"II*\0" + struct.pack("<I", 8))
    for i in range(n):
        entries = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 16)]
        entries += [(270, 2, 8 * n, 8)]
        content += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        content += struct.pack("<I", 0 if i == n - 1 else len(content) + 4)
    return bytes(content)


def many_values(path, kind, count, name="StripOffsets", **options):
    """A sparse TIFF of 10 GB with one tag of many values."""
    tiff(path, **options)
    with tifffile.TiffFile(path, mode="r+") as found:
        tag = found.pages.first.tags[name]
        place = tag.offset
    with open(path, "r+b") as file:
        file.seek(place + 2)
        file.write(struct.pack("<HII", kind, count, 4096))
        file.truncate(10 << 30)


UIC = [(33628, 4, 2, (0, 0), True), (33629, 5, 1, (1, 1), True)]  # of MetaMorph's STK; the second counts planes


def children(path):
    """A TIFF whose page is its own sub-directory, many times."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(random_pixels((16, 16)), photometric="minisblack", subifds=1000, subfiletype=1)
    set_tags(path, SubIFDs=(8,) * 1000)


def ome(path, text, *, named=True):
    """An OME-TIFF of three pages whose description is changed; @OWN in it becomes the file's own UUID."""
    pixels = random_pixels((3, 9, 7))
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as found:
        described = found.ome_metadata
    own = re.search('UUID="([^"]*)"', described)
    for old, new in text.items():
        assert old in described
        described = described.replace(old, new.replace("@OWN", own[1]))
    if not named:
        described = described.replace(own[0], "")
    with tifffile.TiffWriter(path) as writer:
        for page in pixels:
            writer.write(page, photometric="minisblack", description=described.encode(), metadata=None)
            described = ""


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


def zip_member(path, name, content, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive, archive.open(name, "w") as member:
        for piece in content:
            member.write(piece)


def lzma_zip(path):
    zip_member(path, "a.png", [png_bytes(random_pixels((4, 4)))], zipfile.ZIP_LZMA)
    content = bytearray(path.read_bytes())
    start = 30 + len("a.png")
    content[start + 5 : start + 9] = b"\xff" * 4  # size of the dictionary
    path.write_bytes(content)


def npy(path, shape, header=None):
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    content = bytearray(file.getvalue())
    if header is not None:
        content[8:12] = struct.pack("<I", header)
    path.write_bytes(content + bytes(100))


def text_chunk():
    return b"key\0\0" + squeezed(LARGE)


def imagej(path, text):
    tiff(path, description=text)


def claimed(path):
    write_image(path, random_pixels((4, 4)))
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(content)


def lzma_strip():
    import lzma

    return lzma.compress(bytes(LARGE), preset=0)


def png_head():
    yield png_bytes(random_pixels((4, 4)))[:-12]
    for _ in range(LARGE >> 20):
        yield bytes(1 << 20)


#: How each is written; what has no name in it can be refused by its header alone.
BOMBS = {
    "size.png": lambda path: path.write_bytes(png_bytes(random_pixels((1, 60_000)), height=60_000)),
    "size.jpg": claimed,
    "size.tif": lambda path: tiff(path, tags={"ImageLength": 60_000, "ImageWidth": 60_000}),
    "tile.tif": lambda path: tiff(path, tile=(16, 16), tags={"TileLength": 65_520, "TileWidth": 65_520}),
    "thin.tif": lambda path: tiff(path, tile=(16, 16), tags={"ImageWidth": 10_000_000, "TileLength": 10_000_000}),
    "chunk.png": lambda path: path.write_bytes(png_with(b"teSt", b"", 2**32 - 1)),
    "text.png": lambda path: path.write_bytes(png_with(b"zTXt", text_chunk())),
    "profile.png": lambda path: path.write_bytes(png_with(b"iCCP", text_chunk())),
    "deflate.tif": lambda path: one_strip(path, squeezed(LARGE), 8),
    "lzma.tif": lambda path: one_strip(path, lzma_strip(), 34925),
    "overlap.tif": lambda path: path.write_bytes(directories(20_000)),
    "numbers.tif": lambda path: many_values(path, 4, 2_000_000_000),
    "letters.tif": lambda path: many_values(path, 16, 500_000_000),
    "imagej.tif": lambda path: imagej(path, "ImageJ=1.11a\nimages=2000000000\nframes=2000000000\n"),
    "described.tif": lambda path: imagej(path, json.dumps({"shape": [2_000_000_000, 16, 16], "truncated": True})),
    "named.tif": lambda path: imagej(path, json.dumps({"shape": [2_000_000_000, 16, 16], "truncated": False})),
    "planes.tif": lambda path: many_values(path, 5, 1_000_000_000, "UIC2tag", extratags=UIC),
    "children.tif": children,
    "times.ome.tif": lambda path: ome(path, text={'SizeT="3"': 'SizeT="2000000000"'}),
    "planes.ome.tif": lambda path: ome(path, text={'PlaneCount="3"': 'PlaneCount="2000000000"'}),
    "laughs.ome.tif": lambda path: ome(
        path,
        text={"<OME ": f'<!DOCTYPE OME [<!ENTITY l0 "laughs">{LAUGHS}]><OME ', "</Pixels>": "&l9;</Pixels>"},
    ),
    "member.zip": lambda path: zip_member(path, "a.png", png_head()),
    "dictionary.zip": lzma_zip,
    "shape.npy": lambda path: npy(path, (2, 10**9, 10**9)),
    "header.npy": lambda path: npy(path, (2, 3, 4), header=2**32 - 1),
}


def peak(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024


def measure(path):
    """Seconds, growth of memory, and the error of a file that is opened and read."""
    from imgstack_ml.io import open_stack

    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM begins anew
    before, start = peak("VmRSS"), time.perf_counter()
    try:
        open_stack(path).data[:1].compute(scheduler="synchronous")
        found = "read"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    return time.perf_counter() - start, peak("VmHWM") - before, found


if __name__ == "__main__":
    write_image(Path(sys.argv[1], "warm.tif"), random_pixels((4, 4)), compression="zlib")
    measure(os.path.join(sys.argv[1], "warm.tif"))  # what is imported late, which may warn where it is old
    warnings.simplefilter("error")
    print(json.dumps({name: measure(os.path.join(sys.argv[1], name)) for name in sys.argv[2:]}))
