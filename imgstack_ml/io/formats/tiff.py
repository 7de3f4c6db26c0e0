"""Images of a TIFF: which of its pages make an image, and the pixels of an image.

The key of an image is a tuple of *planes*, one for each channel: the offset of a directory, and which of the planes
that follow each other from the place that this directory names. A task reads these directories only, however many pages
the file has.

Which pages are images and which are channels:

==========================  ==============================================================================
file                        images, in order; channels are the last axis
==========================  ==============================================================================
no description              each page, except those marked as smaller copies or masks
ImageJ                      time, then z; its channels are channels
OME-TIFF                    the images (positions) of the file, then all axes but C in the file's order
tifffile's own description  all axes in front of y and x but C, in the file's order
==========================  ==============================================================================

Samples within a page (RGB, RGBA and such) are channels too; a file with both kinds is refused.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import tifffile

from ..locations.base import Bounded
from .base import Header, Planes, check_size, mode_of, orient, oriented_shape
from .tiff_directory import Directory, PageLayout, Tag, page_layout, read_byte_layout, read_directories, read_directory
from .tiff_ome import check_ome
from .tiff_segments import read_segments

__all__ = ["TiffImages"]


class _Arrangement(NamedTuple):
    """The axes along which the planes of a file are counted, their sizes, and all planes in C order."""

    axes: str
    sizes: tuple[int, ...]
    planes: list[tuple[int, int]]


class TiffImages:
    """The images of an open TIFF.

    Parameters
    ----------
    file : binary file
    n_bytes : int
        Its size.
    max_pixels : int
        Most pixels of an image.
    """

    def __init__(self, file: BinaryIO, n_bytes: int, max_pixels: int):
        self._file, self._n_bytes, self._max_pixels = file, n_bytes, max_pixels
        self._bytes, self._start = read_byte_layout(file)
        self._known: dict[int, Directory] = {}
        self._last: tuple[Planes, list[PageLayout]] = ((), [])
        self._tiff: tifffile.TiffFile | None = None

    def list_images(self) -> list[tuple[Planes | None, Header]]:
        """List the images of the file: their planes and headers.

        Raises
        ------
        ValueError
            The file is damaged, or it is not clear which of its pages make an image.
        """
        directories = list(read_directories(self._file, self._n_bytes))
        if not directories:
            raise ValueError("it holds no page")
        self._known = {directory.offset: directory for directory in directories}
        found: list[tuple[Planes | None, Header]] = []
        same: dict[Header, Header] = {}  # pages that are alike share one header, which takes less memory
        for arrangement in self._arrangements(directories):
            for planes in _planes_of_images(arrangement):
                header = self._header(self._layouts(planes), planes)
                found.append((planes, same.setdefault(header, header)))
        if not found:
            raise ValueError("it holds no image")
        if len(directories) == len(found) == 1 and found[0][0] == ((self._start, 0),):
            return [(None, found[0][1])]
        return found

    def header(self, planes: Planes | None) -> Header:
        """Read the header of an image; None stands for the only one of the file."""
        planes = planes or self._only()
        return self._header(self._layouts(planes), planes)

    def decode(self, planes: Planes | None, out: np.ndarray) -> None:
        """Decode an image into its place, which must be contiguous."""
        planes = planes or self._only()
        layouts = self._layouts(planes)
        if len(planes) == 1 and layouts[0].orientation == 1:
            self._decode_plane(planes[0], layouts[0], out)
            return
        for channel, (plane, layout) in enumerate(zip(planes, layouts, strict=True)):
            pixels = np.empty(layout.shape, layout.dtype)
            self._decode_plane(plane, layout, pixels)
            pixels = orient(pixels, layout.orientation)
            if len(planes) == 1:
                out[...] = pixels
            else:
                out[..., channel] = pixels

    def _only(self) -> Planes:
        directory = self._directory(self._start)
        if directory.next:
            raise ValueError("it holds several images, and one is needed; open it as a stack")
        return ((directory.offset, 0),)

    def _directory(self, offset: int) -> Directory:
        if offset not in self._known:
            self._known[offset] = read_directory(self._file, self._bytes, offset, self._n_bytes)
        return self._known[offset]

    def _layouts(self, planes: Planes) -> list[PageLayout]:
        if planes != self._last[0]:  # the layouts for the header are those for the pixels, which are read next
            checked = [page_layout(self._directory(offset), self._n_bytes, self._max_pixels) for offset, _ in planes]
            self._last = planes, checked
        return self._last[1]

    def _header(self, layouts: list[PageLayout], planes: Planes) -> Header:
        first = layouts[0]
        for layout, (_, number) in zip(layouts, planes, strict=True):
            if (layout.shape, layout.dtype) != (first.shape, first.dtype):
                raise ValueError("the channels of an image differ in shape or dtype")
            self._check_contiguous(layout, number)
        shape = first.shape
        if len(planes) > 1:
            if len(shape) == 3:
                raise ValueError(
                    f"its images have {len(planes)} channels in pages of {shape[2]} samples each, and it is not clear "
                    "which are the channels. Write it anew: tifffile.imwrite(new_path, pixels)"
                )
            shape = (*shape, len(planes))
            check_size(*shape, max_pixels=self._max_pixels)
        shape = oriented_shape(shape, first.orientation)
        return Header(shape, first.dtype, "TIFF", mode_of(shape, first.dtype))

    def _check_contiguous(self, layout: PageLayout, number: int) -> None:
        if number == 0:
            return
        n_bytes = math.prod(layout.shape) * layout.dtype.itemsize
        start = layout.segments[0][0] if layout.segments else 0
        if not start or sum(layout.segments[-1]) != start + n_bytes:
            raise ValueError(
                "its planes follow one page, and are compressed or scattered, so that they cannot be reached"
            )
        end = start + (number + 1) * n_bytes
        if end > self._n_bytes:
            raise ValueError(f"its pixels end at byte {end:,}, and the file has {self._n_bytes:,}: it was cut")

    def _decode_plane(self, plane: tuple[int, int], layout: PageLayout, out: np.ndarray) -> None:
        offset, number = plane
        if layout.segments:
            self._read_strips(layout, number, out)
            return
        tiff = self._tifffile()
        tiff.filehandle.seek(offset)
        page = tifffile.TiffPage(tiff, index=0)
        if page.size != out.size or page.dtype != out.dtype:
            raise ValueError(f"tifffile reads {page.shape}, {page.dtype} where the directory says {layout.shape}")
        pixels = np.empty(page.shape, out.dtype) if layout.is_planar else out
        read_segments(page, pixels)
        if layout.is_planar:
            out[...] = np.moveaxis(pixels, 0, -1)

    def _read_strips(self, layout: PageLayout, number: int, out: np.ndarray) -> None:
        """Read uncompressed pixels from the file into `out`, and bring them to the machine's byte order."""
        content = out.reshape(-1).view(np.uint8).data
        position = 0
        for offset, count in layout.segments:
            strip = content[position : position + count]
            self._file.seek(offset + number * len(content))
            if self._file.readinto(strip) != len(strip):  # type: ignore[attr-defined]
                raise ValueError("its pixels end early: it was cut")
            position += len(strip)
        if out.dtype.itemsize > 1 and (self._bytes.order == "<") != np.little_endian:
            out.byteswap(inplace=True)

    def _tifffile(self) -> tifffile.TiffFile:
        if self._tiff is None:
            self._file.seek(0)  # tifffile takes the position for the beginning of the file
            # A Bounded has neither name nor number of a file, so that tifffile cannot open other files beside it.
            self._tiff = tifffile.TiffFile(
                cast(BinaryIO, Bounded(self._file, self._n_bytes)), name="image.tif", is_lsm=False, is_mmstack=False
            )
        return self._tiff

    def _arrangements(self, directories: list[Directory]) -> Iterator[_Arrangement]:
        description = _text(directories[0])
        images = [directory for directory in directories if directory.is_image] or directories[:1]
        if "<OME" in description:
            check_ome(description, len(directories))
            tiff = self._tifffile()
            series = [found for found in tiff.series if found.kind == "ome"] if tiff.is_ome else []
            if series:
                yield from map(_arrangement_of_ome, series)
                return
        yield (
            _arrangement_of_imagej(description, images, self._n_bytes)
            or _arrangement_of_tifffile(description, images, self._n_bytes)
            or _Arrangement("I", (len(images),), [(image.offset, 0) for image in images])
        )


def _arrangement_of_ome(series: tifffile.TiffPageSeries) -> _Arrangement:
    """Return the axes of an OME-TIFF as tifffile reads them, which knows the many ways of describing them."""
    pages: list[Any] = list(series.pages)
    if any(page is None for page in pages):
        raise ValueError("it lacks some of the pages that its OME description names")
    # The last axes are those of a page: y, x, and its samples if there are any.
    n_leading = len(series.shape)
    while n_leading and math.prod(series.shape[n_leading - 1 :]) <= math.prod(pages[0].shape):
        n_leading -= 1
    axes, sizes = series.axes[:n_leading], series.shape[:n_leading]
    n_planes = math.prod(sizes)
    planes = [(page.offset, 0) for page in pages]
    if len(pages) == 1:
        planes = [(pages[0].offset, number) for number in range(n_planes)]
    if len(planes) != n_planes:
        raise ValueError(f"its axes {series.axes} {series.shape} do not match its {len(pages)} pages")
    return _Arrangement(axes, sizes, planes)


def _text(directory: Directory) -> str:
    value = directory.tags.get(Tag.DESCRIPTION, b"")
    return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else ""


def _arrangement_of_imagej(description: str, images: list[Directory], n_bytes: int) -> _Arrangement | None:
    """Read ImageJ's description: lines of ``name=value``, axes in the order t, z, c."""
    if not description.startswith("ImageJ="):
        return None
    values = dict(line.partition("=")[::2] for line in description.splitlines())
    sizes = tuple(int(values.get(name, 1)) for name in ("frames", "slices", "channels"))
    n_planes = int(values.get("images", 1))
    if math.prod(sizes) != n_planes:
        sizes = (n_planes, 1, 1)
    # Above 4 GB, ImageJ writes one page, and all other planes behind its pixels.
    return _Arrangement("TZC", sizes, _planes_in_order(images, n_planes, n_bytes))


def _arrangement_of_tifffile(description: str, images: list[Directory], n_bytes: int) -> _Arrangement | None:
    """Read tifffile's own description: the shape of the whole as JSON, and its axes where they were given."""
    # Older versions write the axes in front of the shape.
    if not description.startswith("{") or '"shape":' not in description:
        return None
    said = json.loads(description)
    height, width = images[0].one(Tag.HEIGHT), images[0].one(Tag.WIDTH)
    shape, axes = tuple(said["shape"]), str(said.get("axes", ""))
    n_own = next((n for n in (2, 3) if shape[-n:][:2] == (height, width)), None)
    if n_own is None or len(shape) == n_own:
        return None
    sizes = shape[:-n_own]
    axes = axes[: len(sizes)] if len(axes) == len(shape) else "Q" * len(sizes)
    n_planes = math.prod(sizes)
    if not said.get("truncated") and n_planes != len(images):
        return None
    return _Arrangement(axes, sizes, _planes_in_order(images, n_planes, n_bytes))


def _planes_in_order(images: list[Directory], n_planes: int, n_bytes: int) -> list[tuple[int, int]]:
    if len(images) == 1:
        # A pixel takes a byte or more. Checked before a list of all planes is made.
        if n_planes * images[0].one(Tag.HEIGHT) * images[0].one(Tag.WIDTH) > n_bytes:
            raise ValueError(f"its description names {n_planes:,} planes, for which the file is too small")
        return [(images[0].offset, number) for number in range(n_planes)]
    if len(images) != n_planes:
        raise ValueError(f"it holds {len(images)} pages, and its description names {n_planes}")
    return [(image.offset, 0) for image in images]


def _planes_of_images(arrangement: _Arrangement) -> Iterator[Planes]:
    """Yield a tuple of planes for each image: its channels if there is one C axis, else a single plane."""
    axes, sizes, planes = arrangement
    plane_numbers = np.arange(len(planes)).reshape(sizes)
    n_channels = 1
    if axes.count("C") == 1:
        n_channels = sizes[axes.index("C")]
        plane_numbers = np.moveaxis(plane_numbers, axes.index("C"), -1)
    for channels in plane_numbers.reshape(-1, n_channels).tolist():
        yield tuple(planes[number] for number in channels)
