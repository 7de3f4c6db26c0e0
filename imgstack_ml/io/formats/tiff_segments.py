"""Strips and tiles of a TIFF's page: where they lie, checked against the size of the file."""

import numpy as np

from .tiff_directory import Directory, Tag

__all__ = ["find_segments", "n_missing_planes", "strip_sizes"]

_NOT_COMPRESSED = 1


def find_segments(directory: Directory, row_bytes: int, n_planes: int, n_bytes: int) -> list[tuple[int, int]]:
    """Return offset and size of all strips or tiles. All must lie in the file: tifffile reads missing ones as zeros."""
    tags, one, height = directory.tags, directory.one, directory.one(Tag.HEIGHT)
    is_tiled = Tag.TILE_WIDTH in tags
    if is_tiled:
        n_expected = -(-one(Tag.WIDTH) // one(Tag.TILE_WIDTH)) * -(-height // one(Tag.TILE_HEIGHT)) * n_planes
    else:
        n_expected = -(-height // _rows(directory)) * n_planes
    offsets, counts = _offsets_and_counts(directory)
    if n_missing_planes(directory):
        offsets, counts = offsets[:n_expected], counts[:n_expected]
    if len(offsets) == n_expected and not (is_tiled or any(counts)):  # some programs leave them out
        if one(Tag.COMPRESSION, 1) == _NOT_COMPRESSED:
            counts = tuple(strip_sizes(directory, row_bytes, n_planes))
        elif n_expected == 1:
            counts = (max(0, n_bytes - offsets[0]),)
    segments = list(zip(offsets, counts, strict=False))
    may_lack = _may_lack_segments(directory)
    if not len(offsets) == len(counts) == n_expected or not (
        all(bool(offset) == bool(count) and (offset or may_lack) for offset, count in segments)
    ):
        raise ValueError("some of its strips or tiles are missing")
    end = max(offset + count for offset, count in segments)
    if end > n_bytes:
        raise ValueError(f"its pixels end at byte {end:,}, and the file has {n_bytes:,}: it was cut")
    return segments


def _offsets_and_counts(directory: Directory) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return offset and size of all strips or tiles, as they are told."""
    in_tiles = Tag.TILE_WIDTH in directory.tags and Tag.TILE_OFFSETS in directory.tags
    offsets = directory.many(Tag.TILE_OFFSETS if in_tiles else Tag.STRIP_OFFSETS)
    return offsets, directory.many(Tag.TILE_BYTES if in_tiles else Tag.STRIP_BYTES)


def _may_lack_segments(directory: Directory) -> bool:
    """Tell whether strips or tiles may be left out: GDAL does so where all pixels have no data."""
    return Tag.GDAL_NODATA in directory.tags or Tag.GDAL_METADATA in directory.tags


def _rows(directory: Directory) -> int:
    """Return the rows of a strip; some programs write 0 for all of them."""
    height = directory.one(Tag.HEIGHT)
    return min(height, directory.one(Tag.ROWS_PER_STRIP, height) or height)


def strip_sizes(directory: Directory, row_bytes: int, n_planes: int) -> list[int]:
    """Return the bytes of pixels in each strip; the last one of an image, or of a sample, may have fewer rows."""
    n_rows = _rows(directory)
    n_full, rest = divmod(directory.one(Tag.HEIGHT), n_rows)
    return ([n_rows * row_bytes] * n_full + [rest * row_bytes] * (rest > 0)) * n_planes


def n_missing_planes(directory: Directory) -> int:
    """Count the samples, of those that are stored apart, of which nothing was written: the last ones, if any."""
    n_samples = directory.one(Tag.SAMPLES, 1)
    if n_samples < 2 or directory.one(Tag.PLANAR, 1) != 2 or _may_lack_segments(directory):
        return 0
    offsets, counts = _offsets_and_counts(directory)
    if len(offsets) != len(counts) or len(offsets) % n_samples or not offsets:
        return 0
    written = [bool(offset or count) for offset, count in zip(offsets, counts, strict=True)]
    (planes,) = np.nonzero(np.reshape(written, (n_samples, -1)).any(axis=1))
    return n_samples - 1 - int(planes[-1]) if len(planes) else 0
