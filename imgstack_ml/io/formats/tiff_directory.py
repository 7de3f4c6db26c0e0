"""Directories of TIFF files: a directory lists the tags of a page, and is checked before pixels are read.

tifffile takes some 100 µs to open a file, and reads all directories in front of the one that is needed. Here a
directory is read in a tenth of that, directly at its offset, and what it claims is bounded by the size of the file.
"""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ...base.warn import warn

__all__ = [
    "OF_CAMERA",
    "ByteLayout",
    "Directory",
    "Tag",
    "is_tiff",
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
    COLORMAP, SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING, DEPTH = 320, 330, 338, 339, 530, 32997
    GDAL_METADATA, GDAL_NODATA = 42112, 42113


_WANTED = frozenset(number for name, number in vars(Tag).items() if name.isupper())
# Those of the TIFF standard, of EXIF, ICC, IPTC, Photoshop, GeoTIFF and GDAL, and ImageJ's for one page. They do not
# change which pages make an image.
_SILENT = {*range(254, 348), 512, 513, 514, *range(529, 533), 33432, 33550, 33723, 33922, 34016, 34264, 34377, 34665}
_SILENT |= {34675, 34735, 34736, 34737, 34853, 37724, 42112, 42113, 50838, 50839}
_CAMERA = (32803, 34892)  # PHOTOMETRIC: a colour filter array, linear values of a camera
_CAMERA_TAGS = frozenset((33421, 33422, 50706))  # CFARepeatPatternDim, CFAPattern, DNGVersion

# Types that the values of these tags can have, by their codes in struct.
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SIZES = {kind: struct.calcsize("=" + code) for kind, code in _TYPES.items()}
_TEXT = 2
_KINDS_OF = {Tag.DESCRIPTION: (_TEXT,), Tag.ORIENTATION: (3,)}  # others are ignored, as by tifffile and Pillow
_CUT = "it ends in the middle of a directory: it was cut, or is damaged"
_DECISIVE = {Tag.BITS, Tag.COMPRESSION, Tag.PHOTOMETRIC, Tag.FILL_ORDER, Tag.SAMPLES, Tag.PLANAR, Tag.PREDICTOR}
_DECISIVE |= {Tag.SAMPLE_FORMAT, Tag.ROWS_PER_STRIP}
_REDUCED, _MASK = 1, 4  # bits of SUBFILE_TYPE: a smaller copy, a transparency mask
_OLD_REDUCED = 2
_MOST_VALUES = 1 << 18  # of a tag; some tags have one value for each strip or tile
_MOST_TEXT = 1 << 24


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
        Where the next one lies, behind the end of the file if it was cut; 0 if there is none.
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
    if len(start) < (16 if b"+" in start[2:4] else 8):
        raise ValueError("it ends within its first 16 bytes: it was cut")
    layout = ByteLayout("<" if start.startswith(b"II") else ">", b"+" in start[2:4])
    (offset,) = struct.unpack_from(layout.order + "IQ"[layout.big], start, 8 if layout.big else 4)
    return layout, offset


def read_first_directory(file: BinaryIO, n_bytes: int) -> Directory:
    """Read the first directory of a TIFF."""
    return read_directory(file, *read_byte_layout(file), n_bytes)


def read_directories(file: BinaryIO, layout: ByteLayout, offset: int, n_bytes: int, name: str) -> Iterator[Directory]:
    """Read the directories of a TIFF one after the other, from an offset; each holds the offset of the next one.

    Where that offset is wrong, a warning names the file and counts the pages that are there.
    """
    seen: set[int] = set()
    n_read = 0
    while offset:
        if offset in seen:
            warn(f"the directories of {name!r} lead in a circle; its first {len(seen)} pages are read")
            return
        if seen and offset >= n_bytes:
            n = len(seen)
            warn(f"{name!r} was cut, or is damaged: nothing is left behind its page {n - 1}; pages that are read: {n}")
            return
        seen.add(offset)
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
    start = file.read(struct.calcsize(order + count_code))
    if len(start) < struct.calcsize(order + count_code):
        raise ValueError(_CUT)
    (n_tags,) = struct.unpack(order + count_code, start)
    entry = struct.Struct(order + entry_code)
    if n_tags * entry.size > n_bytes:
        raise ValueError(f"a directory of {n_tags:,} tags does not fit into the file: it is damaged")
    block = file.read(n_tags * entry.size + inline)
    if len(block) < n_tags * entry.size:
        raise ValueError(_CUT)
    link = block[n_tags * entry.size :]
    # Where the link was cut, the next page lies behind the end of the file.
    (following,) = struct.unpack(order + link_code, link) if len(link) == inline else (n_bytes,)
    tags: dict[int, Any] = {}
    others: dict[int, tuple[int, int]] = {}
    n_read = len(block)
    for code, kind, count, value in entry.iter_unpack(block[: n_tags * entry.size]):
        if code in _WANTED and kind in _KINDS_OF.get(code, _TYPES) and code not in tags:
            tags[code] = _read_values(file, order, kind, count, value, n_bytes)
            n_read += _SIZES[kind] * count
        elif code in _DECISIVE and code not in tags:
            tags[code] = None  # without a value that can be read; its default would give other pixels
        elif code not in _SILENT or code == Tag.DESCRIPTION:  # of several, the first counts; a second text may say more
            others[code] = kind, count
    return Directory(offset, following, tags, layout, n_read, others)


def _read_values(file: BinaryIO, order: str, kind: int, count: int, value: bytes, n_bytes: int) -> Any:
    size = _SIZES[kind] * count
    if size > n_bytes:
        raise ValueError(f"a tag of {count:,} values does not fit into the file: it is damaged")
    if count > (_MOST_TEXT if kind == _TEXT else _MOST_VALUES):
        raise ValueError(f"a tag has {count:,} values, which is more than are read")
    if size > len(value):
        file.seek(struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)[0])
        value = file.read(size)
        if len(value) < size:
            raise ValueError(f"a tag of {count:,} values ends early: it was cut, or is damaged")
    values = struct.unpack(f"{order}{count}{_TYPES[kind]}", value[:size])
    return values[0] if len(values) == 1 else values
