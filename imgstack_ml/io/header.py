"""Shape and dtype of image files, read from their headers without decoding a pixel."""

import contextlib
import hashlib
import math
import os
import stat
import struct
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from .._errors import BadImageError, MixedStackError

__all__ = [
    "Header",
    "OpenImage",
    "Scan",
    "fingerprint",
    "naming_the_file",
    "open_image",
    "png_chunks",
    "read_header",
    "scan",
]

#: What Pillow refuses as a decompression bomb. tifffile has no guard of its own.
MAX_PIXELS = 178_956_970

# What damaged files make Pillow, tifffile and zlib raise: their parsers trust what they read.
READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    EOFError,
    struct.error,
    tifffile.TiffFileError,  # a ValueError in its newer versions only
    zlib.error,
)

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MODES: dict[str, tuple[tuple[int, ...], type]] = {
    "L": ((), np.uint8),
    "I;16": ((), np.uint16),
    "RGB": ((3,), np.uint8),
    "RGBA": ((4,), np.uint8),
}
_TIFF_DTYPES = ("uint8", "uint16", "float32", "float64")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class Header(NamedTuple):
    """What a file says about its image, and the state of the file when it said so.

    Attributes
    ----------
    shape : tuple of int
        (height, width) or (height, width, n_channels).
    dtype : numpy.dtype
    n_bytes : int
        Size of the file.
    modified : int
        Its time of modification, in nanoseconds.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    n_bytes: int
    modified: int


class OpenImage(NamedTuple):
    """An image file that is open, with its header checked and its pixels not yet decoded."""

    header: Header
    picture: JpegImageFile | PngImageFile | tifffile.TiffPage
    file: BinaryIO


class Scan(NamedTuple):
    """What the headers of many files say together.

    Attributes
    ----------
    files : tuple of str
        The files that can be read, in the order given.
    shape : tuple of int
        Shape of every image.
    dtype : numpy.dtype
    problems : tuple of (str, str)
        Path and reason of each file left out.
    fingerprint : str
        Changes when a file's size or time of modification does.
    """

    files: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    problems: tuple[tuple[str, str], ...]
    fingerprint: str


def read_header(path: str) -> Header:
    """Read shape and dtype of an image file without decoding it.

    Parameters
    ----------
    path : str
        JPEG, PNG or single-page TIFF, told by content, not by suffix. Grey, RGB and RGBA are read, with 8 bits
        a channel or, for grey PNG and for TIFF, 16; TIFF also with floating-point pixels. Pixels come as the
        file stores them: an EXIF orientation is not applied.

    Returns
    -------
    Header

    Raises
    ------
    BadImageError
        The file is missing, not a regular file, damaged, too large or of a kind that is not read.
    """
    with open_image(path) as image:
        return image.header


def scan(files: Sequence[str], *, on_error: str = "raise") -> Scan:
    """Read the headers of all files and check that the images are of one shape and dtype.

    Parameters
    ----------
    files : sequence of str
    on_error : {"raise", "skip"}, default="raise"
        Whether a file whose header cannot be read raises, or is left out with a warning.

    Returns
    -------
    Scan

    Raises
    ------
    BadImageError
        A header cannot be read (with ``on_error="skip"``: none of them can).
    MixedStackError
        The images differ in shape or dtype.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} is not known; it is 'raise' or 'skip'")
    headers: dict[str, Header] = {}
    problems: dict[str, str] = {}
    for path in dict.fromkeys(files):
        try:
            headers[path] = read_header(path)
        except BadImageError as error:
            if on_error == "raise":
                raise
            problems[path] = error.reason
    kept = tuple(path for path in files if path in headers)
    _report_unreadable(problems, len(kept))
    _check_uniform(kept, headers)
    first = headers[kept[0]]
    states = _digest([(headers[path].n_bytes, headers[path].modified) for path in kept])
    return Scan(kept, first.shape, first.dtype, tuple(problems.items()), states)


def fingerprint(files: Sequence[str]) -> str:
    """Return a short text that changes when a file's size or time of modification does."""
    states = []
    for path in files:
        with naming_the_file(path):
            state = os.stat(path)
        states.append((state.st_size, state.st_mtime_ns))
    return _digest(states)


def _digest(states: list[tuple[int, int]]) -> str:
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


@contextlib.contextmanager
def open_image(path: str) -> Iterator[OpenImage]:
    """Open an image file and check its header; whatever fails inside the block names the file.

    Raises
    ------
    BadImageError
        See `read_header`.
    """
    with naming_the_file(path):
        state = os.stat(path)
        # Before open(), which would wait at a named pipe until someone writes to it.
        _check_regular(state)
        with open(path, "rb") as file:
            signature = file.read(8)
            file.seek(0)
            if signature.startswith(_TIFF_SIGNATURES):
                with tifffile.TiffFile(file, name=os.path.basename(path)) as tiff:
                    page = _only_page(tiff)
                    layout = _page_layout(page, state.st_size)
                    yield OpenImage(Header(*layout, state.st_size, state.st_mtime_ns), page, file)
            else:
                picture = _open_picture(signature, file)
                layout = _picture_layout(picture)
                yield OpenImage(Header(*layout, state.st_size, state.st_mtime_ns), picture, file)


@contextlib.contextmanager
def naming_the_file(path: str) -> Iterator[None]:
    """Turn what damaged files make the libraries raise into a BadImageError with the path."""
    try:
        yield
    except BadImageError:
        raise
    except READ_ERRORS as error:
        raise BadImageError(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, OSError | ValueError | SyntaxError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _check_regular(state: os.stat_result) -> None:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kind = stat.S_IFMT(state.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"it is {kinds.get(kind, 'a device')}, not a file")
    if state.st_size == 0:
        raise ValueError("the file is empty (0 bytes)")


def _check_size(height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"it claims {height} × {width} pixels; at most {MAX_PIXELS:,} are read")


def _open_picture(signature: bytes, file: BinaryIO) -> JpegImageFile | PngImageFile:
    # The plugins are called directly: Image.open would guess the format from all it knows, and would warn of
    # large images by a limit that is global to the process.
    if signature.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(file)
    if signature == _PNG_SIGNATURE:
        _check_png(file)
        return PngImageFile(file)
    raise ValueError(f"it is neither JPEG, PNG nor TIFF (it begins with {signature!r})")


def _picture_layout(picture: JpegImageFile | PngImageFile) -> tuple[tuple[int, ...], np.dtype]:
    width, height = picture.size
    _check_size(height, width)
    if picture.mode not in _MODES:
        raise ValueError(
            f"its Pillow mode is {picture.mode!r}, and only {', '.join(_MODES)} are read. "
            "Convert it first: PIL.Image.open(path).convert('RGB').save(new_path)"
        )
    n_frames = getattr(picture, "n_frames", 1)
    if n_frames > 1:
        raise ValueError(f"it is an animation of {n_frames} images, and only single ones are read")
    channels, dtype = _MODES[picture.mode]
    return (height, width, *channels), np.dtype(dtype)


def _check_png(file: BinaryIO) -> None:
    """Check what Pillow does not: the depth of colour pixels, and that the file has its end."""
    depth, color_type = file.read(26)[24:]
    # Pillow reads such pixels too, and drops the lower 8 bits without a word.
    if depth == 16 and color_type != 0:
        raise ValueError(
            "it has 16 bits a channel in colour or with transparency, of which Pillow reads only 8; "
            "save it as TIFF, or in grey"
        )
    file.seek(-len(_PNG_END), os.SEEK_END)
    # Other data may follow the end.
    if file.read() != _PNG_END and not any(kind == b"IEND" and len(file.read(4)) == 4 for kind, _ in png_chunks(file)):
        raise ValueError("the PNG has no end: it was cut")
    file.seek(0)


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the kind and size of each chunk of a PNG, the file standing at its content."""
    position = len(_PNG_SIGNATURE)
    file.seek(position)
    while len(head := file.read(8)) == 8:
        n_bytes, kind = struct.unpack(">I4s", head)
        yield kind, n_bytes
        position += n_bytes + 12
        file.seek(position)


def _only_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    # ImageJ writes stacks above 4 GB as one page followed by the rest.
    n_images = max(len(tiff.pages), (tiff.imagej_metadata or {}).get("images", 1))
    if n_images > 1:
        raise ValueError(
            f"it holds {n_images} images, and only TIFFs of a single one are read. Split it first: for i, image "
            "in enumerate(tifffile.imread(path)): tifffile.imwrite(f'{i}.tif', image)"
        )
    # tifffile only logs that a further page lies behind the end of the file.
    if _offset_of_second_page(tiff):
        raise ValueError("its second page is missing: it was cut")
    return tiff.pages.first


def _offset_of_second_page(tiff: tifffile.TiffFile) -> int:
    """Read the link that closes the first page's directory: 0 where it is the only page."""
    layout, handle = tiff.tiff, tiff.filehandle
    handle.seek(tiff.pages.first.offset)
    (n_tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(n_tags * layout.tagsize, os.SEEK_CUR)
    (offset,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    return offset


def _page_layout(page: tifffile.TiffPage, n_bytes: int) -> tuple[tuple[int, ...], np.dtype]:
    _check_size(page.imagelength, page.imagewidth)
    if page.is_tiled:
        _check_size(page.tilelength, page.tilewidth)
    if not _is_plain(page):
        raise ValueError(
            f"its pixels are {page.dtype or 'unknown'}, {page.bitspersample} bits, {_name(page.photometric)}, "
            f"axes {page.axes} {page.shape}; only grey, RGB and RGBA of {', '.join(_TIFF_DTYPES)} with the "
            "channels last are read. Convert it first: tifffile.imwrite(new_path, pixels)"
        )
    for known, name in [
        (page.compression in tifffile.TIFF.DECOMPRESSORS, f"compression {_name(page.compression)}"),
        (page.predictor in tifffile.TIFF.UNPREDICTORS, f"predictor {page.predictor}"),
    ]:
        if not known:
            raise ValueError(f"its {name} needs the package imagecodecs: pip install imagecodecs")
    _check_segments(page, n_bytes)
    return page.shape, np.dtype(page.dtype)


def _name(code: int) -> str:
    return getattr(code, "name", str(code))  # a code unknown to tifffile is a plain number


def _is_plain(page: tifffile.TiffPage) -> bool:
    grey_or_color = page.axes == "YX" or (page.axes == "YXS" and page.shape[-1] in (3, 4))
    # tifffile returns palette indices, inverted grey and CMYK as they are stored.
    as_shown = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    if not grey_or_color or not as_shown or page.dtype is None or page.dtype.name not in _TIFF_DTYPES:
        return False
    return page.bitspersample == 8 * page.dtype.itemsize


def _check_segments(page: tifffile.TiffPage, n_bytes: int) -> None:
    """Check that all strips or tiles lie in the file; tifffile fills up what is missing with zeros."""
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(segments) != math.prod(page.chunked) or not all(count for _, count in segments):
        raise ValueError("some of its strips or tiles are missing")
    end = max(offset + count for offset, count in segments)
    if end > n_bytes:
        raise ValueError(f"its pixels end at byte {end:,}, and the file has {n_bytes:,}: it was cut")


def _report_unreadable(problems: dict[str, str], n_kept: int) -> None:
    if problems and not n_kept:
        path, reason = next(iter(problems.items()))
        raise BadImageError(path, f"{reason} (nor can any of the {len(problems)} files given)")
    if problems:
        warnings.warn(
            f"{len(problems)} of {len(problems) + n_kept} files cannot be read as images and are left out; "
            "they are listed in .problems",
            UserWarning,
            stacklevel=4,
        )


def _check_uniform(files: Sequence[str], headers: dict[str, Header]) -> None:
    groups = defaultdict(list)
    for path in files:
        groups[headers[path][:2]].append(path)
    if len(groups) < 2:
        return
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    kinds = "".join(
        f"\n  {len(paths)} of shape {shape}, {dtype}, e.g. {', '.join(map(repr, paths[:2]))}"
        for (shape, dtype), paths in ranked
    )
    (shape, dtype), (other_shape, _) = ranked[0][0], ranked[1][0]
    test = f"shape == {shape}" if shape != other_shape else f"dtype == {str(dtype)!r}"
    raise MixedStackError(
        f"the {len(files)} images are not of one shape and dtype:{kinds}\n"
        f"Give the files of one kind as a list: open_stack([f for f in files if skimage.io.imread(f).{test}])"
    )
