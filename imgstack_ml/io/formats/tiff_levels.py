"""Levels of pyramids in TIFF: the smaller copies of a page, in its sub-directories or in the pages that follow it.

Where tifffile's series say that pages of their own are the levels, as in slide scans, `tiff_series` takes these.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

from .base import check_level
from .tiff_directory import Directory, Tag
from .tiff_series import Planes, Series

__all__ = ["copies_of", "series_at_level"]


def copies_of(directories: Sequence[Directory], read: Callable[[int], Directory]) -> dict[int, list[Directory]]:
    """Return the smaller copies of each page, by its offset, the largest one first.

    Parameters
    ----------
    directories : sequence of Directory
        Those of all pages.
    read : callable
        From the offset of a sub-directory to it.
    """
    found: dict[int, list[Directory]] = {}
    page = directories[0]
    for directory in directories:
        if directory.is_image:
            page = directory
        candidates = [] if directory is page else [directory]
        candidates += map(read, filter(None, directory.many(Tag.SUB_DIRECTORIES)))
        found.setdefault(page.offset, []).extend(one for one in candidates if _is_copy(one, page))
    for copies in found.values():
        copies.sort(key=lambda copy: -copy.one(Tag.WIDTH, 0) * copy.one(Tag.HEIGHT, 0))
    return found


def _is_copy(directory: Directory, page: Directory) -> bool:
    """Tell whether a directory is a page with fewer pixels, and not a thumbnail or a mask of another kind."""
    kinds = [(one.many(Tag.BITS, 1), one.one(Tag.SAMPLES, 1)) for one in (directory, page)]
    (height, width), (full_height, full_width) = map(_shape, (directory, page))
    return (
        kinds[0] == kinds[1]
        and height <= full_height
        and width <= full_width
        and height * width < (full_height * full_width)
    )


def _shape(directory: Directory) -> tuple[int, int]:
    return directory.one(Tag.HEIGHT, 0), directory.one(Tag.WIDTH, 0)


def series_at_level(
    series: Series, level: int, directories: Sequence[Directory], copies: dict[int, list[Directory]]
) -> Series:
    """Return a series with the planes of a level in place of those of the full resolution.

    Raises
    ------
    ValueError
        There is no such level of all planes.
    """
    pages = {directory.offset: directory for directory in directories}

    def levels_of(image: Planes) -> Iterator[tuple[int, ...]]:
        # Planes that follow a page have no copies of their own.
        levels = [[pages[offset], *(copies.get(offset, ()) if number == 0 else ())] for offset, number in image]
        for same in zip(*levels, strict=False):
            yield tuple(directory.offset for directory in same)

    images = []
    for image in series.images:
        levels = list(levels_of(image))
        if level >= len(levels):
            known = {directory.offset: directory for directory in itertools.chain(directories, *copies.values())}
            check_level(level, [_shape(known[offset]) for offset, *_ in levels])
        images.append(tuple((offset, 0) for offset in levels[level]))
    return series._replace(images=images)
