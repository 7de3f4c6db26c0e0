"""Images of a TIFF: which of its pages make an image, and the pixels of an image.

The key of an image is a tuple of *planes*, one for each channel: the offset of a directory, and which of the planes
that follow each other from the place that this directory names. A task reads these directories only, however many pages
the file has.

Where the file describes its axes, the images are those of tifffile's series (`tiff_series`), in their order: all axes
but y, x, C and S count images, the last one fastest. Else each page is an image, except those marked as smaller copies
or masks. Channels are the last axis: the C of a description, or the samples within a page (RGB, RGBA and such); where a
file has both, C counts images.
"""

import functools
import itertools
import math
import operator
from typing import Any, BinaryIO, cast

import numpy as np
import tifffile

from ...base.warn import warn
from ..locations.base import Bounded
from .base import Header, ImageFormat, ImageSeries, OpenFile, channels_of, check_size, mode_of, orient, oriented_shape
from .tiff_directory import OF_CAMERA, Directory, Tag, is_tiff, read_byte_layout, read_directories, read_directory
from .tiff_levels import copies_of, series_at_level
from .tiff_page import ALPHA, PageLayout, check_ends, decode_by_pillow, decode_segments, is_negative, page_layout, show
from .tiff_segments import n_missing_planes
from .tiff_series import (
    Planes,
    Series,
    check_lsm,
    check_ome,
    check_tags,
    is_described,
    kinds_left_out,
    planes_of_series,
)

__all__ = ["Tiff"]


class Tiff(ImageFormat):
    """TIFF: plain pages by their directories, all others by tifffile, and by Pillow where tifffile lacks a decoder."""

    name, suffixes = "TIFF", (".tif", ".tiff", ".lsm", ".stk")
    has_levels = True

    def __init__(self, source: OpenFile):
        super().__init__(source)
        self._file, self._n_bytes, self._max_pixels = source.file, source.n_bytes, source.max_pixels
        self._bytes, self._start = read_byte_layout(self._file)
        self._known: dict[int, Directory] = {}
        self._last: tuple[Planes, list[PageLayout]] = ((), [])
        self._tiff: tifffile.TiffFile | None = None

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a TIFF."""
        return is_tiff(head)

    def list_images(self) -> list[ImageSeries]:
        """List the images of the file.

        Raises
        ------
        ValueError
            The file is damaged, or it is not clear which of its pages make an image.
        """
        name = self.source.name
        directories = list(read_directories(self._file, self._bytes, self._start, self._n_bytes, name))
        if not directories:
            raise ValueError("it holds no page")
        self._known = {directory.offset: directory for directory in directories}
        if any(directory.is_of_camera for directory in directories):
            raise ValueError(OF_CAMERA)
        check_lsm(directories[0], self._n_bytes)
        self._check_sub_directories(directories)
        # Where directories lead in a circle, tifffile would follow them without an end.
        described = directories[-1].next not in self._known and any(map(is_described, directories))
        found = self._images_of_series(directories) if described else None
        if found is None:  # each page is an image, but those that are marked as smaller copies or masks of others
            pages = [directory for directory in directories if directory.is_image] or directories
            found = [Series([((page.offset, 0),) for page in pages])]
        if level := self.source.level:
            copies = copies_of(directories, self._directory)
            found = [
                series if series.is_at_level else series_at_level(series, level, directories, copies)
                for series in found
            ]
        if any(map(is_negative, directories)):
            warn("in some TIFFs here 0 is white, and pixels are read as they are stored: as a negative")
        n_missing = list(map(n_missing_planes, directories))
        if any(n_missing):
            n_planes = sum(page.one(Tag.SAMPLES, 1) for page, n in zip(directories, n_missing, strict=True) if n)
            warn(
                f"{name!r} describes {n_planes:,} planes, of which {sum(n_missing):,} are missing; the others are read"
            )
        series = [part for of_tifffile in found for part in self._alike(of_tifffile)]
        if len(directories) == 1 and not described and not level:
            return [series[0]._replace(keys=(None,))]
        return series

    def _alike(self, series: Series) -> list[ImageSeries]:
        """Return a series in parts that have one shape and dtype each."""
        parts = itertools.groupby(series.images, lambda planes: self._header(self._layouts(planes), planes))
        alike = [ImageSeries(shape, dtype, list(keys), mode) for (shape, dtype, _, mode), keys in parts]
        if len(alike) == 1:
            return [alike[0]._replace(axes=series.axes, sizes=series.sizes, channel_names=series.channel_names)]
        return alike

    def header(self, key: Planes | None) -> Header:
        """Read the header of an image; None stands for the only one of the file."""
        planes = key or self._only
        return self._header(self._layouts(planes), planes)

    def read(self, key: Planes | None, out: np.ndarray) -> None:
        """Decode an image into its place, which must be contiguous."""
        planes = key or self._only
        layouts = self._layouts(planes)
        if len(planes) == 1:
            self._decode_plane(planes[0], layouts[0], out)
            return
        for channel, (plane, layout) in enumerate(zip(planes, layouts, strict=True)):
            pixels = np.empty(oriented_shape(layout.shape, layout.orientation), layout.dtype)
            self._decode_plane(plane, layout, pixels)
            out[..., channel] = pixels

    def key_of_channels(self, key: Planes | None, channels: tuple[int, ...]) -> Planes | None:
        """Return the planes of some channels, where each channel is a plane."""
        return tuple(key[channel] for channel in channels) if key and len(key) > 1 else None

    @functools.cached_property
    def _only(self) -> Planes:
        directory = self._directory(self._start)
        is_last = not 0 < directory.next < self._n_bytes
        if is_last and not is_described(directory):
            return ((directory.offset, 0),)
        return self.only_key() or ((directory.offset, 0),)

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
                    f"its images have {len(planes)} planes of {shape[2]} channels each: what is a channel?"
                )
            shape = (*shape, len(planes))
            check_size(*shape, max_pixels=self._max_pixels)
        shape = oriented_shape(shape, first.orientation)
        return Header(shape, first.dtype, self.name, self._mode(planes, shape, first.dtype))

    def _mode(self, planes: Planes, shape: tuple[int, ...], dtype: np.dtype) -> str:
        """Return the mode of an image; channels are colours where the file says so, in 8 bits or more."""
        if len(shape) == 2:
            return mode_of(shape, dtype)
        directory = self._directory(planes[0][0])
        has_alpha = any(kind in ALPHA for kind in directory.many(Tag.EXTRA_SAMPLES))
        is_colour = len(planes) == 1 and directory.tags.get(Tag.PHOTOMETRIC, 2) > 1
        mode = ("RGB" if is_colour else "L") + "A" * has_alpha
        return mode if len(mode) == shape[2] else channels_of(shape, dtype)

    def _check_contiguous(self, layout: PageLayout, number: int) -> None:
        if number == 0:
            return
        n_bytes = math.prod(layout.shape) * layout.dtype.itemsize
        start = layout.segments[0][0]
        if not layout.is_raw or sum(layout.segments[-1]) != start + n_bytes:
            raise ValueError(
                "its planes follow one page, and are compressed or scattered, so that they cannot be reached"
            )
        end = start + (number + 1) * n_bytes
        if end > self._n_bytes:
            raise ValueError(f"its pixels end at byte {end:,}, and the file has {self._n_bytes:,}: it was cut")

    def _decode_plane(self, plane: tuple[int, int], layout: PageLayout, out: np.ndarray) -> None:
        offset, number = plane
        directory = self._directory(offset)
        check_ends(self._file, layout)
        if layout.is_raw:
            pixels = out if layout.orientation == 1 else np.empty(layout.shape, layout.dtype)
            self._read_strips(layout, number, pixels)
        elif layout.samples.by_tifffile:
            check_tags([directory])
            pixels = show(decode_segments(self._tifffile(), offset, layout), layout, directory)
        else:
            out[...] = decode_by_pillow(self._file, self._n_bytes, layout, directory)
            return
        if pixels is not out:
            out[...] = orient(pixels, layout.orientation)

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
            check_tags([self._directory(self._start)])
            left_out = {name: cast(Any, False) for name in kinds_left_out(self._directory(self._start))}
            self._file.seek(0)  # tifffile takes the position for the beginning of the file
            # A Bounded has neither name nor number of a file, so that tifffile cannot open other files beside it.
            bounded = cast(BinaryIO, Bounded(self._file, self._n_bytes))
            self._tiff = tifffile.TiffFile(bounded, name="image.tif", **left_out)
        return self._tiff

    def _images_of_series(self, directories: list[Directory]) -> list[Series] | None:
        if "<OME" in directories[0].description:
            check_ome(directories[0].description, len(directories))
        check_tags(directories)
        return planes_of_series(self._tifffile(), directories, self._n_bytes, self.source.name, self.source.level)

    def _check_sub_directories(self, directories: list[Directory]) -> None:
        """Warn of images in sub-directories that are no smaller copies; refuse those of a camera."""
        parents, n_read, n_others = list(directories), 0, 0
        while parents:
            parent = parents.pop()
            for offset in filter(None, parent.many(Tag.SUB_DIRECTORIES)):
                child = read_directory(self._file, self._bytes, offset, self._n_bytes)
                parents.append(child)
                n_read += child.n_bytes
                if n_read > 2 * self._n_bytes:
                    raise ValueError("its directories overlap: it is damaged")
                if child.is_of_camera:
                    raise ValueError(OF_CAMERA)
                n_others += child.is_image and not _is_smaller(child, parent)
        if n_others:
            warn(f"{self.source.name!r} has {n_others:,} images in sub-directories of its pages, which are not read")


def _is_smaller(image: Directory, other: Directory) -> bool:
    sizes = [(directory.one(Tag.HEIGHT, 0), directory.one(Tag.WIDTH, 0)) for directory in (image, other)]
    return sizes[0] != sizes[1] and all(map(operator.le, *sizes))
