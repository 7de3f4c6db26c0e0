"""Which planes make the images of a TIFF that describes its axes: what tifffile's series say.

OME-TIFF, ImageJ, MetaMorph, tifffile's own description and others each have their own way to say which pages belong
together. tifffile knows them. Files that describe nothing are told by their first directory (`is_described`), without
tifffile, which takes some 200 µs a file.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tifffile

from .tiff_directory import Directory, Tag

__all__ = ["Planes", "is_described", "kinds_left_out", "planes_of_series"]

#: Where an image is: for each of its channels, the offset of a directory, and which of the planes that follow each
#: other from there.
Planes = tuple[tuple[int, int], ...]

_SEVERAL_IN_IMAGEJ = re.compile(r"^(images|frames|slices|channels)=(?!1\s*$)", re.MULTILINE)
# In these, each page is an image.
_WITHOUT_AXES = {"generic", "uniform", "nih"}
_CHANNELS = "CS"
_OTHER_NUMBER = "it holds {} pages, and its description names {:,} planes"
_MOST_VALUES, _MOST_BYTES = 1 << 18, 1 << 26  # of a tag that tifffile reads


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
    # It would read files that lie beside, or load all pages when it opens a file.
    kinds = ["is_lsm", "is_mmstack", "is_ndtiff"]
    if not first.layout.big:  # its pages would be counted by the size of the file, and have no other axes
        kinds.append("is_scanimage")
    if first.description.startswith("{") and _shape_and_axes(first.description) is None:
        kinds.append("is_shaped")
    return kinds


def planes_of_series(tiff: tifffile.TiffFile, directories: Sequence[Directory], n_bytes: int) -> list[Planes] | None:
    """Return the planes of all images of a TIFF, in the order of tifffile's series; None where each page is an image.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    directories : sequence of Directory
        Those of all pages.
    n_bytes : int
        Size of the file.

    Raises
    ------
    ValueError
        The description does not match the pages, or it is not clear what the channels are.
    """
    _check_tags(directories)
    described = [series for series in tiff.series if not series.keyframe.is_subifd]
    if {series.kind for series in described} <= _WITHOUT_AXES:
        if tiff.is_imagej:
            raise ValueError(f"its ImageJ description does not match its {len(directories)} pages: it was cut")
        return None
    images = [series for series in described if not (series.keyframe.is_reduced or series.keyframe.is_mask)]
    _check_complete(described, directories)
    _check_names(tiff)
    return [planes for series in images or described for planes in _images_of(series, directories, n_bytes)]


def _check_tags(directories: Sequence[Directory]) -> None:
    """Refuse huge tags that tifffile reads at once."""
    for directory in directories:
        for code, (kind, count) in directory.others.items():
            most = _MOST_BYTES if kind in (1, 2, 6, 7) else _MOST_VALUES
            if count > most and (code in tifffile.TIFF.TAG_LOAD or code in tifffile.TIFF.TAG_READERS):
                raise ValueError(f"its tag {code} has {count:,} values, which is more than are read")


def _check_complete(described: Sequence[tifffile.TiffPageSeries], directories: Sequence[Directory]) -> None:
    """Refuse a file of which some pages are in no series: they would be passed over."""
    levels = [level for series in described for level in series.levels if not level.keyframe.is_subifd]
    used = {number for level in levels for number in _pages(level, len(directories))}
    needed = {number for number, directory in enumerate(directories) if directory.is_image}
    if needed - used:
        raise ValueError(
            f"its description names {len(needed & used)} of its {len(needed)} pages, and it is not clear what the "
            "others are. Write what you need anew: tifffile.imwrite(new_path, tifffile.imread(path, series=0))"
        )


def _check_names(tiff: tifffile.TiffFile) -> None:
    """Refuse channels in tifffile's own description that it cannot place: frames of axes CYX written one by one."""
    for said, series in zip(tiff.shaped_metadata or (), tiff.series, strict=False):
        axes = str(said.get("axes", ""))
        if set(axes) & set(_CHANNELS) and not set(series.axes) & set(_CHANNELS):
            raise ValueError(
                f"its description gives axes {axes} for the shape {tuple(said['shape'])}. Write it anew, with a letter "
                f"for each: tifffile.imwrite(new_path, tifffile.imread(path), metadata={{'axes': {'Q' + axes!r}}})"
            )


def _images_of(series: tifffile.TiffPageSeries, directories: Sequence[Directory], n_bytes: int) -> Iterator[Planes]:
    """Yield a tuple of planes for each image of a series: its channels if they are planes, else a single plane."""
    if series.transform is not None:
        raise ValueError("its pixels have to be scaled by its tags: imgstack_ml.imread(path, imread=tifffile.imread)")
    n_counting = _n_counting(series)
    axes, sizes = series.axes[:n_counting], series.shape[:n_counting]
    planes = _planes(series, math.prod(sizes), directories, n_bytes)
    numbers = np.arange(len(planes)).reshape(sizes)
    channels = [i for i, axis in enumerate(axes) if axis in _CHANNELS and sizes[i] > 1]
    if len(channels) > 1:
        raise ValueError(f"it is not clear which of its axes {series.axes} {series.shape} are the channels")
    for axis in channels:
        numbers = np.moveaxis(numbers, axis, -1)
    n_channels = math.prod(sizes[axis] for axis in channels)
    for of_image in numbers.reshape(-1, n_channels).tolist():
        yield tuple(planes[number] for number in of_image)


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
            "Write it anew, a plane a page: tifffile.imwrite(new_path, tifffile.imread(path), "
            f"photometric='minisblack', metadata={{'axes': {series.axes!r}}})"
        )
    return n_counting


def _planes(
    series: tifffile.TiffPageSeries, n_planes: int, directories: Sequence[Directory], n_bytes: int
) -> list[tuple[int, int]]:
    numbers = _pages(series, len(directories))
    if None in numbers:
        raise ValueError("it lacks some of the pages that its OME description names")
    if len(numbers) == 1 < n_planes:
        # A pixel takes a byte or more. Checked before a list of all planes is made.
        if n_planes * math.prod(series.keyframe.shape) > n_bytes:
            raise ValueError(f"its description names {n_planes:,} planes, for which the file is too small")
        return [(directories[numbers[0]].offset, plane) for plane in range(n_planes)]
    if len(numbers) != n_planes:
        raise ValueError(_OTHER_NUMBER.format(len(numbers), n_planes))
    return [(directories[number].offset, 0) for number in numbers]


def _pages(series: tifffile.TiffPageSeries, n_pages: int) -> Sequence[Any]:
    """Return the numbers of the pages of a series, None for those that are missing."""
    if series.kind in ("shaped", "imagej"):  # their pages follow each other, and are read only when they are asked for
        first = series.keyframe.index
        if first + len(series) > n_pages:  # checked before as many numbers are used as the description claims
            raise ValueError(_OTHER_NUMBER.format(n_pages - first, len(series)))
        return range(first, first + len(series))
    return [None if page is None else page.index for page in series]
