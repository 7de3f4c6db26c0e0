"""Damaged files of every format, by a seeded mutator: what may be raised, how long, and with how much memory.

``python tests/lib/fuzz.py --seconds 600 --seed 1`` runs for minutes, ``--only 12345 --seed 1`` repeats one case.
Case `i` of a seed is always the same bytes, so that a failure is a pair of numbers.
"""

import argparse
import collections
import contextlib
import faulthandler
import io
import itertools
import json
import os
import re
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from imgstack_ml import BadImageError, MixedStackError
from imgstack_ml.io import open_stack
from imgstack_ml.io.formats.registry import find_images
from imgstack_ml.io.lazy import find_faults

sys.path.append(str(Path(__file__).parents[2]))  # for `tests`, where this runs as a script

from tests.lib.bombs import UIC
from tests.lib.images import png_bytes, random_pixels

MAX_PIXELS = 100_000
CPU_SECONDS = 2
EXTRA_MEMORY = 128 << 20  # of address space; LZMA may have 64 MB of it
EXPECTED = (BadImageError, MixedStackError, FileNotFoundError)

# --- valid files ------------------------------------------------------------------------------------------------


def picture(shape, dtype="uint8", mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(random_pixels(shape, dtype))
    (image if mode is None else image.convert(mode)).save(file, **options)
    return file.getvalue()


STILL = {".jp2": "JPEG2000", ".bmp": "BMP", ".ppm": "PPM", ".tga": "TGA", ".ico": "ICO"}
STILL |= {".dds": "DDS", ".pcx": "PCX", ".sgi": "SGI", ".qoi": "QOI"}
ANIMATED = {".gif": "GIF", ".webp": "WEBP", ".avif": "AVIF", ".png": "PNG", ".mpo": "MPO"}
Image.init()
STILL = {suffix: kind for suffix, kind in STILL.items() if kind in Image.SAVE}  # old versions of Pillow read more
ANIMATED = {suffix: kind for suffix, kind in ANIMATED.items() if kind in Image.SAVE_ALL}


def animation(kind):
    first, second = (Image.fromarray(random_pixels((24, 20, 3), seed=seed)) for seed in range(2))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=[second])
    return file.getvalue()


def tiff(shape, dtype="uint8", **options):
    file = io.BytesIO()
    tifffile.imwrite(file, random_pixels(shape, dtype), **{"photometric": "minisblack", **options})
    return file.getvalue()


def tiff_of_series(shape, times=2, **options):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for seed in range(times):
            writer.write(random_pixels(shape, seed=seed), photometric="minisblack", **options)
            options.pop("subifds", None)  # the second one is the sub-directory
    return file.getvalue()


def archive(suffix, members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w", compression) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as packed:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return file.getvalue()


def npy(shape, dtype, version=(1, 0), order="C"):
    file = io.BytesIO()
    pixels = random_pixels(shape, np.dtype(dtype).newbyteorder("=")).astype(dtype, order=order)
    np.lib.format.write_array(file, pixels, version)
    return file.getvalue()


def exif(orientation):
    found = Image.Exif()
    found[274] = orientation
    return found


def make_seeds():
    """Valid files by name; each is read whole before it is damaged."""
    members = {f"a/{i}.png": picture((6, 5), format="PNG") for i in range(3)}
    pages = tiff((3, 9, 7), compression="zlib", metadata=None)
    return {
        "grey.jpg": picture((24, 20), format="JPEG"),
        "color.jpg": picture((24, 20, 3), format="JPEG", exif=exif(6)),
        "progressive.jpg": picture((24, 20, 3), format="JPEG", progressive=True),
        "cmyk.jpg": picture((16, 16, 3), mode="CMYK", format="JPEG"),
        "grey.png": picture((12, 10), format="PNG"),
        "deep.png": picture((12, 10), "uint16", format="PNG"),
        "color.png": picture((8, 8, 3), format="PNG", exif=exif(3)),
        "alpha.png": picture((8, 8, 4), format="PNG"),
        "palette.png": picture((8, 8, 3), mode="P", format="PNG", transparency=3),
        "bits.png": picture((8, 11), mode="1", format="PNG"),
        **{f"a{suffix}": picture((24, 20, 3), format=kind) for suffix, kind in STILL.items()},
        **{f"film{suffix}": animation(kind) for suffix, kind in ANIMATED.items()},
        "interlaced.png": png_bytes(random_pixels((13, 11)), interlaced=True),
        "raw.tif": tiff((12, 10), "uint16"),
        "big_endian.tif": tiff((12, 10), "uint16", byteorder=">"),
        "big.tif": tiff((12, 10), bigtiff=True),
        "strips.tif": tiff((12, 10, 3), photometric="rgb", rowsperstrip=4),
        "deflate.tif": tiff((12, 10), "uint16", compression="zlib", rowsperstrip=4, predictor=True),
        "tiles.tif": tiff((20, 18), compression="zlib", tile=(16, 16)),
        "raw_tiles.tif": tiff((20, 18, 3), "uint16", photometric="rgb", tile=(16, 16)),
        "planar.tif": tiff((3, 12, 10), planarconfig="separate", compression="zlib"),
        "lzma.tif": tiff((12, 10), compression="lzma"),
        "packbits.tif": picture((12, 10), format="TIFF", compression="packbits"),
        "float.tif": tiff((6, 5), "float64"),
        "pages.tif": tiff((3, 9, 7), metadata=None),
        "deflate_pages.tif": pages,
        "described.tif": tiff((2, 3, 9, 7), metadata={"axes": "TCYX"}),
        "truncated.tif": tiff((4, 9, 7), truncate=True),
        "imagej.tif": tiff((2, 3, 2, 9, 7), imagej=True, metadata={"axes": "TZCYX"}),
        "a.ome.tif": tiff((2, 3, 9, 7), ome=True, metadata={"axes": "TCYX"}),
        "series.tif": tiff_of_series((2, 9, 7), metadata={"axes": "CYX"}),
        "pyramid.tif": tiff_of_series((9, 7), subifds=1, subfiletype=1),
        "stk.tif": tiff((9, 7), metadata=None, extratags=UIC),
        "zct.tif": tiff((2, 3, 2, 9, 7), imagej=True, metadata={"axes": "TZCYX", "order": "zct"}),
        "stored.zip": archive(".zip", members),
        "deflated.zip": archive(".zip", members, zipfile.ZIP_DEFLATED),
        "lzma.zip": archive(".zip", members, zipfile.ZIP_LZMA),
        "bz2.zip": archive(".zip", members, zipfile.ZIP_BZIP2),
        "pages.zip": archive(".zip", {"a.tif": pages, "b.tif": pages}, zipfile.ZIP_DEFLATED),
        "a.tar": archive(".tar", {**members, "long/" * 30 + "x.png": members["a/1.png"]}),
        "a.npy": npy((3, 6, 5), "uint8"),
        "big.npy": npy((3, 6, 5, 3), ">u2"),
        "second.npy": npy((3, 6, 5), "float32", (2, 0), "F"),
    }


# --- damage -----------------------------------------------------------------------------------------------------

_NUMBERS = [0, 1, 2, 3, 7, 8, 15, 16, 255, 256, 4096, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


def damage(rng, content, other):
    """Change a file in one to four places, and repair its checksums half of the time."""
    content = bytearray(content)
    for _ in range(1 + int(rng.integers(4))):
        if content:
            _CHANGES[rng.integers(len(_CHANGES))](rng, content, other)
    return _repaired(content) if rng.integers(2) else bytes(content)


def _flip(rng, content, other):
    for place in rng.integers(len(content), size=1 + int(rng.integers(6))):
        content[place] = rng.integers(256)


def _put_number(rng, content, other):
    code = "BHIQ"[rng.integers(4)]
    size = struct.calcsize("=" + code)
    number = [*_NUMBERS, len(content), len(content) - 1, int(rng.integers(len(content)))][rng.integers(21)]
    place = int(rng.integers(len(content)))
    content[place : place + size] = struct.pack("<>"[rng.integers(2)] + code, number % 256**size)


def _cut(rng, content, other):
    del content[int(rng.integers(len(content))) :]


def _drop(rng, content, other):
    place = int(rng.integers(len(content)))
    del content[place : place + 1 + int(rng.integers(64))]


def _repeat(rng, content, other):
    place, n_bytes = int(rng.integers(len(content))), 1 + int(rng.integers(64))
    content[place:place] = content[place : place + n_bytes] * (1 + int(rng.integers(3)))


def _clear(rng, content, other):
    place = int(rng.integers(len(content)))
    n_bytes = min(len(content) - place, 1 + int(rng.integers(64)))
    content[place : place + n_bytes] = bytes([(0, 255)[rng.integers(2)]]) * n_bytes


def _splice(rng, content, other):
    place = int(rng.integers(len(content)))
    content[place:] = other[int(rng.integers(len(other))) :]


def _put_tag(rng, content, other):
    """Change an entry of a TIFF's directory: its number, type, count or value."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(content[:2]))
    if order is None or len(content) < 16:
        return _put_number(rng, content, other)
    (start,) = struct.unpack_from(order + "I", content, 4)
    if start + 2 > len(content):
        return _flip(rng, content, other)
    (n_tags,) = struct.unpack_from(order + "H", content, start)
    entry = start + 2 + 12 * int(rng.integers(max(1, min(n_tags, 40))))
    place, code = [(0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")][rng.integers(5)]
    if entry + 12 <= len(content):
        tags = [254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339]
        choices = {0: tags, 2: [1, 2, 3, 4, 12, 16]}.get(place, [*_NUMBERS, len(content), entry, start])
        number = choices[rng.integers(len(choices))] % 256 ** struct.calcsize(code)
        struct.pack_into(order + code, content, entry + place, number)
    return None


def _put_digits(rng, content, other):
    """Change a number that is written out: of a description, of a header of NumPy's or tar's."""
    found = list(re.finditer(rb"[0-9]+", bytes(content)))
    if found:
        first, end = found[rng.integers(len(found))].span()
        number = [b"%d" % _NUMBERS[rng.integers(len(_NUMBERS))], b"-1", b"1e9", b"0" * (end - first)][rng.integers(4)]
        content[first:end] = number


_CHANGES = (_put_digits, _flip, _put_number, _put_number, _put_tag, _put_tag, _cut, _drop, _repeat, _clear, _splice)


def _repaired(content):
    """Give PNG chunks and tar headers right checksums, without which nothing behind them is looked at."""
    if content.startswith(b"\x89PNG"):
        place = 8
        while place + 12 <= len(content):
            (n_bytes,) = struct.unpack_from(">I", content, place)
            end = place + 8 + n_bytes
            if end + 4 > len(content):
                break
            struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
            place = end + 4
    elif content[257:262] == b"ustar":
        for place in range(0, len(content) - 511, 512):
            if content[place + 257 : place + 262] == b"ustar":
                content[place + 148 : place + 156] = b" " * 8
                content[place + 148 : place + 156] = b"%06o\0 " % sum(content[place : place + 512])
    return bytes(content)


# --- checks -----------------------------------------------------------------------------------------------------


class HangError(BaseException):
    """A case took more than its time."""


def examine(path):
    """Open and read a file as a stack; say what came of it.

    Raises
    ------
    AssertionError
        The pixels are not of the shape and dtype that was declared, or not those of other readers.
    """
    try:
        stack = open_stack(path, max_pixels=MAX_PIXELS, chunks=1)
    except EXPECTED as error:
        return f"refused: {type(error).__name__}"
    outcome = "read"
    for i in range(min(len(stack), 4)):
        try:
            image = stack[i].compute(scheduler="synchronous")
        except BadImageError as error:
            assert error.path.startswith(path)  # noqa: PT017 - either outcome is right
            outcome = "refused: in decoding"
            continue
        assert (image.shape, image.dtype) == (stack.shape[1:], stack.dtype)
        _compare(path, image, i)
    assert find_faults(stack.reader, stack.keys[:4] if stack.keys is not None else stack.files[:4], 2).shape
    return outcome


def _compare(path, image, i):
    """Pixels that were read are those that Pillow or tifffile reads, where they read."""
    if path.endswith((".jpg", *STILL, *ANIMATED)):
        _compare_with_pillow(path, image, i)
    elif path.endswith("pages.tif"):
        _compare_with_tifffile(path, image, i)


def _compare_with_pillow(path, image, i):
    with warnings.catch_warnings(action="ignore"), Image.open(path) as found:
        if found.format == "TIFF":
            return
        if path.endswith(tuple(ANIMATED)) and getattr(found, "n_frames", 1) > 1:
            found.seek(i)
        elif found.format == "PNG":
            _check_rows(path)
        try:
            stored = np.asarray(found)
        except MemoryError:  # of a chunk that claims 4 GB
            return
        if found.mode in ("L", "RGB", "RGBA", "LA"):
            # The orientation moves pixels, and changes none.
            assert sorted(stored.shape) == sorted(image.shape)
            np.testing.assert_array_equal(np.sort(stored, axis=None), np.sort(image, axis=None))


def _check_rows(path):
    """Inflate all of a PNG's pixel data; there must be as many bytes as its rows have, unless it is interlaced."""
    with open(path, "rb") as file:
        content = file.read()
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    place, data = 8, b""
    while place + 8 <= len(content):
        n_bytes, name = struct.unpack_from(">I4s", content, place)
        if name == b"IDAT":
            data += content[place + 8 : place + 8 + n_bytes]
        place += n_bytes + 12
    n_rows = height * (1 + -(-width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] // 8))
    if not interlaced:
        assert len(zlib.decompressobj().decompress(data, n_rows)) == n_rows, "rows are missing"


def _compare_with_tifffile(path, image, i):
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as found:
        if found.pages.first.description:
            return
        expected = found.pages[i].asarray()
        pages = list(itertools.islice(found.pages, 100))  # without an end where they lead in a circle
        if len({page.shape for page in pages}) > 1 or any(page.subfiletype for page in pages):
            return
        if any(page.photometric not in (1, 2) for page in pages):  # tifffile does not convert colours
            return
        if any(273 in page.tags and 324 in page.tags for page in pages):  # strips and tiles: tifffile takes both
            return
        if expected.shape == image.shape and expected.dtype != bool and not any(274 in page.tags for page in pages):
            same = np.array_equal(expected, image, equal_nan=image.dtype.kind == "f")
            found.close()
            if not same:
                raise HangError("pixels differ from tifffile's")


def case(seeds, seed, i):
    """Return name and content of case `i` of a seed."""
    rng = np.random.default_rng((seed, i))
    names = list(seeds)
    name, other = (names[rng.integers(len(names))] for _ in range(2))
    content = damage(rng, seeds[name], seeds[other])
    if name.endswith((".zip", ".tar")) and rng.integers(2):  # a whole archive of a damaged image
        inner = names[rng.integers(len(names) - 10)]
        suffix = name[-4:]
        content = archive(suffix, {"x" + inner[-4:]: damage(rng, seeds[inner], seeds[other])}, zipfile.ZIP_DEFLATED)
    return name, content


def limit_memory():
    """Let the process have little more memory than it has now: what goes beyond raises MemoryError."""
    with open("/proc/self/statm") as file:
        n_pages = int(file.read().split()[0])
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_AS, (n_pages * resource.getpagesize() + EXTRA_MEMORY,) * 2)


def _stop(number, frame):
    raise HangError(f"more than {CPU_SECONDS} s")


def run(seconds, seed, only=None):
    """Try cases for so many seconds of CPU; return counts of what came of them, and the failures."""
    folder = tempfile.mkdtemp(dir=os.environ.get("FUZZ_FOLDER"))
    seeds = make_seeds()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # of broken EXIF; the image is read all the same
    warnings.filterwarnings(
        "ignore", "(.* describes |.* in sub-directories|.* lead in a circle|.* was cut, or is damaged: |.* 0 is white)"
    )
    for name, content in seeds.items():  # also imports whatever is imported late
        assert _examined(folder, name, content) == "read", name
    signal.signal(signal.SIGPROF, _stop)
    limit_memory()
    outcomes, failures = collections.Counter(), {}
    start, slowest = time.process_time(), 0.0
    for i in itertools.count() if only is None else [only]:
        if time.process_time() - start > seconds or len(failures) >= 20:
            break
        name, content = case(seeds, seed, i)
        if i % 1000 == 0:
            find_images.cache_clear()  # headers that are kept would count as memory of this case
        faulthandler.dump_traceback_later(120, exit=True)
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            outcomes[_examined(folder, name, content)] += 1
        except BaseException as error:
            failures.setdefault(_place(error), (seed, i, name, "".join(traceback.format_exception(error, limit=-6))))
        signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - began)
    faulthandler.cancel_dump_traceback_later()
    os.rmdir(folder)
    return {
        "outcomes": outcomes,
        "failures": list(failures.values()),
        "slowest": slowest,
        "seconds": time.process_time() - start,
    }


def _place(error):
    """Type of an error and where it was raised: the same fault is told once."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)[-2:]]
    return type(error).__name__, *frames


def _examined(folder, name, content):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(content)
    try:
        return examine(path)
    finally:
        os.remove(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    arguments = parser.parse_args()
    found = run(arguments.seconds, arguments.seed, arguments.only)
    print(json.dumps(found))
    sys.exit(bool(found["failures"]))
