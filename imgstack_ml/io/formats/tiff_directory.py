"""Directories of TIFF files: a directory lists the tags of a page, and is checked before pixels are read.

tifffile takes some 100 µs to open a file, and reads all directories in front of the one that is needed. Here a
directory is read in a tenth of that, directly at its offset. The pixels of compressed pages are decoded by tifffile,
see `tiff`.
"""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tifffile

from .base import check_size
from .tiff_segments import can_decode

__all__ = [
    "OF_CAMERA",
    "ByteLayout",
    "Directory",
    "PageLayout",
    "Tag",
    "is_tiff",
    "page_layout",
    "read_byte_layout",
    "read_directories",
    "read_directory",
    "read_first_directory",
]

OF_CAMERA = (
    "it is the raw file of a camera, of which only previews could be read. The package rawpy reads it: "
    "imgstack_ml.imread('*.dng', imread=lambda path: rawpy.imread(path).postprocess())"
)

_CR2 = b"II*\0\x10\0\0\0CR\2\0"  # Canon's raw files
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Tag:
    """Numbers of the tags that are read."""

    SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION = 254, 255, 256, 257, 258, 259
    PHOTOMETRIC, FILL_ORDER, DESCRIPTION, STRIP_OFFSETS, ORIENTATION = 262, 266, 270, 273, 274
    SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 277, 278, 279, 284, 317
    TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
    SUB_DIRECTORIES, SAMPLE_FORMAT, DEPTH = 330, 339, 32997


_WANTED = frozenset(number for name, number in vars(Tag).items() if name.isupper())
# Those of the TIFF standard, of EXIF, ICC, IPTC, Photoshop, GeoTIFF and GDAL, and ImageJ's for one page. They do not
# change which pages make an image.
_SILENT = {*range(254, 348), 512, 513, 514, *range(529, 533), 33432, 33550, 33723, 33922, 34016, 34264, 34377, 34665}
_SILENT |= {34675, 34735, 34736, 34737, 34853, 37724, 42112, 42113, 50838, 50839}
_CAMERA = (32803, 34892)  # PHOTOMETRIC: a colour filter array, linear values of a camera
_CAMERA_TAGS = frozenset((33421, 33422, 50706))  # CFARepeatPatternDim, CFAPattern, DNGVersion

# Types that the values of these tags can have, by their codes in struct.
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TEXT = 2
_NUMBER_KINDS = {1: "u", 2: "i", 3: "f"}
_REDUCED, _MASK = 1, 4  # bits of SUBFILE_TYPE: a smaller copy, a transparency mask
_OLD_REDUCED = 2
_MOST_VALUES = 1 << 18  # of a tag; some tags have one value for each strip or tile
_MOST_TEXT = 1 << 24
_SHOWN_AS_STORED = (1, 2)  # PHOTOMETRIC: grey where zero is black, RGB


class ByteLayout(NamedTuple):
    """Order of bytes, ``"<"`` or ``">"``, and whether offsets take 8 of them (BigTIFF)."""

    order: str
    big: bool


class Directory(NamedTuple):
    """One directory of a TIFF.

    Attributes
    ----------
    offset : int
        Where it lies in the file.
    next : int
        Where the next one lies; 0 if there is none.
    tags : dict
        Values by the numbers of their tags.
    layout : ByteLayout
    n_bytes : int
        Bytes that were read for it.
    others : dict
        Type and number of values of the tags that may say which pages make an image.
    """

    offset: int
    next: int
    tags: dict[int, Any]
    layout: ByteLayout
    n_bytes: int
    others: dict[int, tuple[int, int]]

    @property
    def orientation(self) -> int:
        """EXIF orientation from 1 to 8; any other value counts as 1, upright."""
        value = self.tags.get(Tag.ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    @property
    def is_image(self) -> bool:
        """Whether the page is an image, not a smaller copy or a mask of another one."""
        is_reduced = self.tags.get(Tag.OLD_SUBFILE_TYPE) == _OLD_REDUCED
        return not is_reduced and not self.one(Tag.SUBFILE_TYPE, 0) & (_REDUCED | _MASK)

    @property
    def is_of_camera(self) -> bool:
        """Whether it belongs to the raw file of a camera."""
        return self.tags.get(Tag.PHOTOMETRIC) in _CAMERA or not _CAMERA_TAGS.isdisjoint(self.others)

    def one(self, tag: int, default: int | None = None) -> int:
        """Return the value of a tag that has a single number."""
        value = self.tags.get(tag, default)
        if not isinstance(value, int):
            raise ValueError(f"its tag {tag} is {'missing' if value is None else 'not a number'}: it is damaged")
        return value

    def many(self, tag: int, default: int = 0) -> tuple[int, ...]:
        """Return the values of a tag that may have several numbers."""
        value = self.tags.get(tag, default)
        return value if isinstance(value, tuple) else (value,)

    @property
    def description(self) -> str:
        """Its description, empty where it has none."""
        value = self.tags.get(Tag.DESCRIPTION, b"")
        return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else ""


class PageLayout(NamedTuple):
    """Where and how the pixels of a page are stored, checked against the file.

    Attributes
    ----------
    shape : tuple of int
        (height, width) or (height, width, n_samples), before the orientation is applied.
    dtype : numpy.dtype
        In the byte order of the machine.
    orientation : int
    segments : tuple of (int, int)
        Offset and size of each strip, if pixels lie in the file as they do in memory, except for the order of their
        bytes. Empty if they have to be decoded.
    is_planar : bool
        Whether each sample is stored as an image of its own.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    orientation: int
    segments: tuple[tuple[int, int], ...]
    is_planar: bool


def is_tiff(signature: bytes) -> bool:
    """Tell whether a file that begins with these bytes is a TIFF."""
    return signature.startswith(_SIGNATURES)


def read_byte_layout(file: BinaryIO) -> tuple[ByteLayout, int]:
    """Read the beginning of a TIFF: its byte layout, and the offset of its first directory."""
    file.seek(0)
    start = file.read(16)
    if not is_tiff(start):
        raise ValueError(f"it is no TIFF (it begins with {start[:8]!r})")
    if start.startswith(_CR2):
        raise ValueError(OF_CAMERA)
    layout = ByteLayout("<" if start.startswith(b"II") else ">", b"+" in start[2:4])
    (offset,) = (
        struct.unpack_from(layout.order + "Q", start, 8)
        if layout.big
        else (struct.unpack_from(layout.order + "I", start, 4))
    )
    return layout, offset


def read_first_directory(file: BinaryIO, n_bytes: int) -> Directory:
    """Read the first directory of a TIFF."""
    return read_directory(file, *read_byte_layout(file), n_bytes)


def read_directories(file: BinaryIO, n_bytes: int) -> Iterator[Directory]:
    """Read the directories of a TIFF one after the other; each holds the offset of the next one."""
    layout, offset = read_byte_layout(file)
    seen: set[int] = set()
    n_read = 0
    while offset:
        if offset in seen:
            raise ValueError("its directories lead in a circle")
        seen.add(offset)
        if seen != {offset} and offset >= n_bytes:
            raise ValueError(f"its page {len(seen)} is missing: it was cut")
        directory = read_directory(file, layout, offset, n_bytes)
        n_read += directory.n_bytes
        if n_read > 2 * n_bytes:
            raise ValueError("its directories overlap: it is damaged")
        yield directory
        offset = directory.next


def read_directory(file: BinaryIO, layout: ByteLayout, offset: int, n_bytes: int) -> Directory:
    """Read the directory at an offset.

    Parameters
    ----------
    file : binary file
    layout : ByteLayout
    offset : int
    n_bytes : int
        Size of the file. No directory or tag may be larger: a damaged one could ask for any size.

    Returns
    -------
    Directory

    Raises
    ------
    ValueError
        It does not fit into the file, or a tag has more values than are read.
    """
    order = layout.order
    count_code, entry_code, link_code, inline = ("Q", "HHQ8s", "Q", 8) if layout.big else ("H", "HHI4s", "I", 4)
    file.seek(offset)
    (n_tags,) = struct.unpack(order + count_code, file.read(struct.calcsize(order + count_code)))
    entry = struct.Struct(order + entry_code)
    if n_tags * entry.size > n_bytes:
        raise ValueError(f"a directory of {n_tags:,} tags does not fit into the file: it is damaged")
    block = file.read(n_tags * entry.size + inline)
    (following,) = struct.unpack(order + link_code, block[n_tags * entry.size :])
    tags: dict[int, Any] = {}
    others: dict[int, tuple[int, int]] = {}
    n_read = len(block)
    for code, kind, count, value in entry.iter_unpack(block[: n_tags * entry.size]):
        if code in _WANTED and kind in _TYPES and code not in tags and (kind == _TEXT or code != Tag.DESCRIPTION):
            tags[code] = _read_values(file, order, kind, count, value, n_bytes)
            n_read += struct.calcsize(f"={_TYPES[kind]}") * count
        elif code not in _SILENT or code == Tag.DESCRIPTION:  # of several, the first counts; a second text may say more
            others[code] = kind, count
    return Directory(offset, following, tags, layout, n_read, others)


def _read_values(file: BinaryIO, order: str, kind: int, count: int, value: bytes, n_bytes: int) -> Any:
    code = f"{order}{count}{_TYPES[kind]}"
    size = struct.calcsize(code)
    if size > n_bytes:
        raise ValueError(f"a tag of {count:,} values does not fit into the file: it is damaged")
    if count > (_MOST_TEXT if kind == _TEXT else _MOST_VALUES):
        raise ValueError(f"a tag has {count:,} values, which is more than are read")
    if size > len(value):
        file.seek(struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)[0])
        value = file.read(size)
    values = struct.unpack(code, value[:size])
    return values[0] if len(values) == 1 else values


def page_layout(directory: Directory, n_bytes: int, max_pixels: int) -> PageLayout:
    """Return where and how the pixels of a page are stored, after checking its directory.

    Parameters
    ----------
    directory : Directory
    n_bytes : int
        Size of the file.
    max_pixels : int

    Returns
    -------
    PageLayout

    Raises
    ------
    ValueError
        It is damaged, too large, or of a kind that is not read.
    """
    tags = directory.tags
    height, width, n_samples = directory.one(Tag.HEIGHT), directory.one(Tag.WIDTH), directory.one(Tag.SAMPLES, 1)
    check_size(height, width, n_samples, max_pixels=max_pixels)
    if Tag.TILE_WIDTH in tags:
        tile_height, tile_width = directory.one(Tag.TILE_HEIGHT), directory.one(Tag.TILE_WIDTH)
        check_size(tile_height, tile_width, n_samples, max_pixels=max_pixels)
        # Tiles are decoded whole, also where they reach beyond the image. A thin image of tall tiles would take hours.
        padded = (-(-height // tile_height) * tile_height, -(-width // tile_width) * tile_width)
        check_size(*padded, n_samples, max_pixels=4 * max_pixels)
    dtype = _dtype(directory)
    _check_codecs(directory)
    is_planar = n_samples > 1 and directory.one(Tag.PLANAR, 1) == 2
    segments = _segments(directory, is_planar, n_bytes)
    shape = (height, width) if n_samples == 1 else (height, width, n_samples)
    raw: tuple[tuple[int, int], ...] = ()
    if directory.one(Tag.COMPRESSION, 1) == 1 and Tag.TILE_WIDTH not in tags:
        row_bytes = width * dtype.itemsize * (1 if is_planar else n_samples)
        needed = _strip_sizes(directory, len(segments), row_bytes)
        for number, ((_, n_held), n_needed) in enumerate(zip(segments, needed, strict=True)):
            if n_held < n_needed:
                raise ValueError(f"its strip {number} holds {n_held:,} bytes, and its pixels need {n_needed:,}")
        # Strips with bytes behind their rows are left to tifffile.
        if directory.one(Tag.PREDICTOR, 1) == 1 and not is_planar and [n for _, n in segments] == needed:
            raw = tuple(segments)
    return PageLayout(shape, dtype, directory.orientation, raw, is_planar)


def _dtype(directory: Directory) -> np.dtype:
    """Return the dtype of pixels that are numbers of whole bytes, and are shown as they are stored."""
    bits, kinds = set(directory.many(Tag.BITS, 1)), set(directory.many(Tag.SAMPLE_FORMAT, 1))
    plain = len(bits) == len(kinds) == 1 and kinds <= _NUMBER_KINDS.keys() and bits <= {8, 16, 32, 64}
    if plain:
        kind, size = _NUMBER_KINDS[next(iter(kinds))], next(iter(bits)) // 8
        plain = (kind, size) != ("f", 1)
    photometric = directory.one(Tag.PHOTOMETRIC, 0)
    if (
        not plain
        or photometric not in _SHOWN_AS_STORED
        or directory.one(Tag.FILL_ORDER, 1) != 1
        or directory.one(Tag.DEPTH, 1) != 1
    ):
        name = _name(tifffile.PHOTOMETRIC, photometric)
        raise ValueError(
            f"its pixels are {name} of {'/'.join(map(str, sorted(bits)))} bits; only TIFFs of whole numbers of 8 to 64 "
            "bits or floating-point numbers, in grey (MINISBLACK), in colour (RGB) or of several channels are read. "
            "Convert it first: tifffile.imwrite(new_path, pixels)"
        )
    return np.dtype(f"{kind}{size}")


def _name(codes: Any, code: int | None) -> str:
    try:
        return codes(code).name
    except ValueError:
        return f"of kind {code}"


def _check_codecs(directory: Directory) -> None:
    compression, predictor = directory.one(Tag.COMPRESSION, 1), directory.one(Tag.PREDICTOR, 1)
    if not can_decode(compression):
        missing = f"compression {_name(tifffile.COMPRESSION, compression)}"
    elif predictor not in tifffile.TIFF.UNPREDICTORS:
        missing = f"predictor {predictor}"
    else:
        return
    raise ValueError(f"its {missing} needs the package imagecodecs: pip install imagecodecs")


def _segments(directory: Directory, is_planar: bool, n_bytes: int) -> list[tuple[int, int]]:
    """Return offset and size of all strips or tiles. All must lie in the file: tifffile reads missing ones as zeros."""
    tags = directory.tags
    height, width = directory.one(Tag.HEIGHT), directory.one(Tag.WIDTH)
    if Tag.TILE_WIDTH in tags:
        across, down = -(-width // directory.one(Tag.TILE_WIDTH)), -(-height // directory.one(Tag.TILE_HEIGHT))
        offsets, counts = directory.many(Tag.TILE_OFFSETS), directory.many(Tag.TILE_BYTES)
    else:
        across, down = 1, -(-height // min(height, directory.one(Tag.ROWS_PER_STRIP, height)))
        offsets, counts = directory.many(Tag.STRIP_OFFSETS), directory.many(Tag.STRIP_BYTES)
    n_expected = across * down * (directory.one(Tag.SAMPLES) if is_planar else 1)
    if not len(offsets) == len(counts) == n_expected or not (all(counts) and all(offsets)):
        raise ValueError("some of its strips or tiles are missing")
    segments = list(zip(offsets, counts, strict=True))
    end = max(offset + count for offset, count in segments)
    if end > n_bytes:
        raise ValueError(f"its pixels end at byte {end:,}, and the file has {n_bytes:,}: it was cut")
    return segments


def _strip_sizes(directory: Directory, n_strips: int, row_bytes: int) -> list[int]:
    """Return the bytes of pixels in each strip; the last one of an image, or of a sample, may have fewer rows."""
    height = directory.one(Tag.HEIGHT)
    n_rows = min(height, directory.one(Tag.ROWS_PER_STRIP, height))
    n_full, rest = divmod(height, n_rows)
    sizes = [n_rows * row_bytes] * n_full + [rest * row_bytes] * (rest > 0)
    return sizes * (n_strips // len(sizes))
