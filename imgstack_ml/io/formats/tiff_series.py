"""Which planes make the images of a TIFF that describes its axes: what tifffile's series say.

OME-TIFF, ImageJ, MetaMorph, tifffile's own description and others each have their own way to say which pages belong
together. tifffile knows them. Files that describe nothing are told by their first directory (`is_described`), without
tifffile, which takes some 200 µs a file.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile

from ...base.warn import warn
from .base import check_level
from .tiff_directory import Directory, Tag

__all__ = [
    "Planes",
    "Series",
    "check_lsm",
    "check_ome",
    "check_tags",
    "is_described",
    "kinds_left_out",
    "planes_of_series",
]

#: Where an image is: for each of its channels, the offset of a directory, and which of the planes that follow each
#: other from there.
Planes = tuple[tuple[int, int], ...]


class Series(NamedTuple):
    """Images of one of tifffile's series: their planes, and the axes that count them."""

    images: list[Planes]
    axes: str = ""
    sizes: tuple[int, ...] = ()
    channel_names: tuple[str, ...] = ()
    is_at_level: bool = False  # whether a level of a pyramid was taken, whose levels are pages of their own


_SEVERAL_IN_IMAGEJ = re.compile(r"^(images|frames|slices|channels)=(?!1\s*$)", re.MULTILINE)
_NUMBER_OF_IMAGES = re.compile(r"^images=(\d+)\s*$", re.MULTILINE)
# In these, each page is an image.
_WITHOUT_AXES = {"generic", "uniform", "nih"}
_BESIDE_SLIDES = {"Thumbnail", "Label", "Macro"}  # names that tifffile gives to series
_MOST_VALUES, _MOST_BYTES = 1 << 18, 1 << 26  # of a tag that tifffile reads
_MOST_MISSING = 1_000_000  # planes that a description may name and the file lacks
_LSM = 34412  # CZ_LSMINFO
_COUNTS = ("SizeZ", "SizeC", "SizeT", "FirstZ", "FirstC", "FirstT", "IFD", "NumPlanes", "PlaneCount")


def is_described(directory: Directory) -> bool:
    """Tell whether a page may say that it is more, or less, than an image; then tifffile is asked.

    Plain text says nothing, nor do the descriptions that tifffile and ImageJ write for a single image.
    """
    text = directory.description
    if directory.others or Tag.SUB_DIRECTORIES in directory.tags:
        return True
    if text.startswith("ImageJ="):
        return _SEVERAL_IN_IMAGEJ.search(text) is not None
    if text.startswith("{"):
        said = _shape_and_axes(text)
        n_samples = directory.one(Tag.SAMPLES, 1)
        shape = [directory.one(Tag.HEIGHT), directory.one(Tag.WIDTH), *([n_samples] if n_samples > 1 else [])]
        return said is not None and (said[0] != shape or said[1] not in ("", "YX", "YXS", "YXC"))
    return "=" in text or "<" in text


def _shape_and_axes(text: str) -> tuple[list[int], str] | None:
    """Read tifffile's own description; None where a text in JSON is another program's."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    shape = said.get("shape") if isinstance(said, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        return None
    return shape, str(said.get("axes", ""))


def kinds_left_out(first: Directory) -> list[str]:
    """Return the kinds of TIFF that tifffile is told not to look for, by the names of its flags."""
    # It would read files that lie beside; the pages of Micro-Manager's files have descriptions of OME or ImageJ, too.
    kinds = ["is_mmstack", "is_ndtiff"]
    if not first.next:  # it looks at the second page
        kinds.append("is_lsm")
    if not first.layout.big:  # its pages would be counted by the size of the file, and have no other axes
        kinds.append("is_scanimage")
    if first.description.startswith("{") and _shape_and_axes(first.description) is None:
        kinds.append("is_shaped")
    return kinds


def check_lsm(first: Directory, n_bytes: int) -> None:
    """Refuse an LSM whose offsets or sizes are not those of its tags."""
    if _LSM in first.others and (first.one(Tag.COMPRESSION, 1) != 1 or n_bytes >= 1 << 32):
        raise ValueError(
            "it is an LSM that is compressed or larger than 4 GB, in which pixels lie elsewhere than its tags say. To "
            "write it as OME-TIFF, by Bio-Formats: bfconvert old.lsm new.ome.tiff"
        )


def check_tags(directories: Sequence[Directory]) -> None:
    """Refuse huge tags that tifffile reads at once."""
    for directory in directories:
        for code, (kind, count) in directory.others.items():
            most = _MOST_BYTES if kind in (1, 2, 6, 7) else _MOST_VALUES
            if count > most and (code in tifffile.TIFF.TAG_LOAD or code in tifffile.TIFF.TAG_READERS):
                raise ValueError(f"its tag {code} has {count:,} values, which is more than are read")


def check_ome(description: str, n_pages: int) -> None:
    """Refuse an OME description of far more planes than the file has pages: tifffile makes lists of such lengths."""
    if "<!ENTITY" in description:  # entities within entities expand to any length
        raise ValueError("its OME description defines XML entities, which are not read")
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError as error:
        raise ValueError(f"its OME description cannot be read: {error}") from error
    if max(_numbers(root), default=0) > n_pages + _MOST_MISSING:
        raise ValueError(f"its OME description names far more planes than its {n_pages:,} pages")


def _numbers(root: ElementTree.Element) -> Iterator[float]:
    """Yield the numbers of planes that a description names."""
    for element in root.iter():
        counts = [abs(int(element.get(name, 1))) for name in _COUNTS]
        yield max(counts)
        yield counts[0] * counts[1] * counts[2]
        if "Start" in element.attrib:  # an axis within another one, given by its first and last value
            values = [float(element.get(name, 1)) for name in ("Start", "End", "Step")]
            yield abs((values[1] - values[0]) / values[2])


def planes_of_series(
    tiff: tifffile.TiffFile, directories: Sequence[Directory], n_bytes: int, name: str, level: int = 0
) -> list[Series] | None:
    """Return the images of a TIFF, in the order of tifffile's series; None where each page is an image.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    directories : sequence of Directory
        Those of all pages.
    n_bytes : int
        Size of the file.
    name : str
        Of the file, for warnings.
    level : int
        Of the pyramids whose levels are pages; of others, the images are those of the full resolution.

    Raises
    ------
    ValueError
        It is not clear which planes make an image.
    """
    described = [series for series in tiff.series if not series.keyframe.is_subifd]
    if {series.kind for series in described} <= _WITHOUT_AXES:
        said = _NUMBER_OF_IMAGES.search(directories[0].description) if tiff.is_imagej else None
        if said and int(said[1]) != len(directories):
            if len(directories) == 1:
                raise ValueError(f"its ImageJ description names {int(said[1]):,} planes, and it holds 1: it was cut")
            _warn_of_planes(name, int(said[1]), len(directories))
        return None
    axes_of_lsm = [series.axes for series in described if series.kind == "lsm"]
    # The rows of lines are another axis. Older versions of tifffile put channels within pages in front of all axes.
    if any("Y" not in axes or axes[0] == "C" for axes in axes_of_lsm):
        return None
    needed = {number for number, directory in enumerate(directories) if directory.is_image}
    levels = [level for series in described for level in series.levels if not level.keyframe.is_subifd]
    pages = [_pages(level, len(directories)) for level in levels]
    used = {number for numbers in pages for number in numbers or ()}
    if needed - used or None in pages:
        if len(directories) == 1:
            raise ValueError("its description names several planes, and it holds one page: it was cut")
        n_named = sum(map(len, levels)) if None in pages else len(used & needed)
        _warn_of_planes(name, n_named, len(needed))
        return None
    images = [series for series in described if not (series.keyframe.is_reduced or series.keyframe.is_mask)]
    names = _channel_names(tiff, len(described))
    kept = images or described
    if level and any(len(series.levels) > 1 for series in kept):  # pictures beside a slide, of no pyramid
        kept = [series for series in kept if series.name not in _BESIDE_SLIDES]
    found = []
    for series in kept:
        at_level = _at_level(series, level)
        part = _images_of(at_level, directories, n_bytes, names[described.index(series)], name)
        if part is None:
            return None
        found.append(part._replace(is_at_level=at_level is not series))
    return found


def _at_level(series: tifffile.TiffPageSeries, level: int) -> tifffile.TiffPageSeries:
    """Return a level of a series, where its levels are pages and no smaller copies of each page."""
    levels = series.levels
    if len(levels) < 2 or any(one.keyframe.is_subifd or one.keyframe.is_reduced for one in levels[1:]):
        return series
    check_level(level, [one.shape for one in levels])
    return levels[level]


def _warn_of_planes(name: str, n_described: int, n_held: int) -> None:
    warn(f"{name!r} describes {n_described:,} planes, and holds {n_held:,}; each of these is an image")


def _channel_names(tiff: tifffile.TiffFile, n_series: int) -> list[tuple[str, ...]]:
    """Return the names of the channels of each series, as OME, LSM and Micro-Manager have them."""
    if tiff.is_ome and tiff.ome_metadata:
        images = [e for e in ElementTree.fromstring(tiff.ome_metadata).iter() if e.tag.endswith("}Image")]
        names = [
            tuple(e.get("Name") or e.get("ID") or "" for e in image.iter() if e.tag.endswith("}Channel"))
            for image in images
        ]
    elif tiff.is_lsm:
        colours = (tiff.lsm_metadata or {}).get("ChannelColors") or {}
        names = [tuple(map(str, colours.get("ColorNames") or ()))] * n_series
    else:
        summary = (tiff.micromanager_metadata or {}).get("Summary") if tiff.is_micromanager else None
        names = [tuple(map(str, summary.get("ChNames") or ()))] * n_series if isinstance(summary, dict) else []
    return names if len(names) == n_series else [()] * n_series


def _images_of(
    series: tifffile.TiffPageSeries, directories: Sequence[Directory], n_bytes: int, names: tuple[str, ...], name: str
) -> Series | None:
    """Return the images of a series: channels that are planes of their own make one image."""
    if series.transform is not None:
        raise ValueError("its pixels have to be scaled by its tags: imgstack_ml.imread(path, imread=tifffile.imread)")
    n_counting = _n_counting(series)
    axes, sizes = series.axes[:n_counting], series.shape[:n_counting]
    planes = _planes(series, math.prod(sizes), directories, n_bytes)
    if len(planes) != math.prod(sizes):
        _warn_of_planes(name, math.prod(sizes), len(planes))
        return None
    numbers = np.arange(len(planes)).reshape(sizes)
    channels = [i for i, axis in enumerate(axes) if axis in "CS" and sizes[i] > 1]
    # Where a page has samples, these are the channels of an image, and the axis C counts images.
    if len(channels) > 1 or series.keyframe.samplesperpixel > 1:
        channels = [i for i in channels if axes[i] == "S"]
    for axis in reversed(channels):
        numbers = np.moveaxis(numbers, axis, -1)
        axes, sizes = axes[:axis] + axes[axis + 1 :], sizes[:axis] + sizes[axis + 1 :]
    n_channels = numbers.size // math.prod(sizes)
    if len(names) != n_channels and (n_channels > 1 or len(names) not in dict(zip(axes, sizes, strict=True)).values()):
        names = ()
    images = [tuple(planes[i] for i in image) for image in numbers.reshape(-1, n_channels).tolist()]
    n_missing = planes.count(None)
    if n_missing:
        return _existing(images, series, n_missing, names, name)
    return Series(images, axes.lower(), sizes, names)  # type: ignore[arg-type]


def _existing(
    images: list[Any], series: tifffile.TiffPageSeries, n_missing: int, names: tuple[str, ...], name: str
) -> Series:
    """Return the images whose planes are in the file: not all are in a part of a set, or after an aborted recording."""
    whole = [image for image in images if None not in image]
    text = series.keyframe.parent.ome_metadata or ""
    elements = ElementTree.fromstring(text).iter() if text else ()
    files = {element.get("FileName") for element in elements if element.tag.endswith("}UUID")}
    planes = [plane for image in images for plane in image if plane is not None]
    if len(files) > 1:  # the others are those of the other files
        if sum(map(len, whole)) == len(planes):
            return Series(whole, channel_names=names)
        return Series([(plane,) for plane in planes])
    said = f"{name!r} describes {len(planes) + n_missing:,} planes, of which {n_missing:,} are missing"
    if not whole:
        warn(f"{said}; each plane that exists is read as an image")
        return Series([(plane,) for plane in planes])
    n_left = len(planes) - sum(map(len, whole))
    warn(f"{said}; {len(whole):,} whole images are read, {n_left:,} planes of others are not")
    return Series(whole, channel_names=names)


def _n_counting(series: tifffile.TiffPageSeries) -> int:
    """Return how many axes of a series count planes; the others are those of a page."""
    page, n_counting = series.keyframe, len(series.shape)
    while n_counting and math.prod(series.shape[n_counting - 1 :]) <= math.prod(page.shape):
        n_counting -= 1
    of_page = list(zip(page.axes, page.shape, strict=True))
    said = list(zip(series.axes[n_counting:].replace("C", "S"), series.shape[n_counting:], strict=True))
    if [part for part in said if part[1] != 1] != [part for part in of_page if part[1] != 1]:
        raise ValueError(
            f"its axes {series.axes} {series.shape} and those of its pages, {page.axes} {page.shape}, do not match. "
            "To read it by your own function: imgstack_ml.imread(path, imread=tifffile.imread)"
        )
    return n_counting


def _planes(
    series: tifffile.TiffPageSeries, n_planes: int, directories: Sequence[Directory], n_bytes: int
) -> list[tuple[int, int] | None]:
    numbers = _pages(series, len(directories)) or []
    if len(numbers) == 1 < n_planes and numbers[0] is not None:
        # A pixel takes a byte or more. Checked before a list of all planes is made.
        if n_planes * math.prod(series.keyframe.shape) > n_bytes:
            raise ValueError(f"its description names {n_planes:,} planes, for which the file is too small: it was cut")
        return [(directories[numbers[0]].offset, plane) for plane in range(n_planes)]
    return [None if number is None else (directories[number].offset, 0) for number in numbers]


def _pages(series: tifffile.TiffPageSeries, n_pages: int) -> Sequence[int | None] | None:
    """Return the numbers of the pages of a series, None for a missing one; None where there are fewer than it says."""
    if series.kind in ("shaped", "imagej"):  # their pages follow each other, and are read only when they are asked for
        first = series.keyframe.index
        # Checked before as many numbers are used as the description claims.
        return range(first, first + len(series)) if first + len(series) <= n_pages else None
    return [None if page is None else page.index for page in series]
