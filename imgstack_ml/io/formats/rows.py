"""Reading of images by their positions in one stored array, each chunk once."""

from collections.abc import Callable

import numpy as np

__all__ = ["read_rows"]


def read_rows(
    fetch: Callable[[int, int], np.ndarray],
    rows: np.ndarray,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    images_per_chunk: int = 1,
    line: int | None = None,
) -> np.ndarray:
    """Read the images at `rows`, and decode each chunk once.

    Parameters
    ----------
    fetch : callable
        ``fetch(first, stop)`` reads the images from `first` up to, not including, `stop`.
    rows : ndarray of int
        In any order.
    shape : tuple of int
        Shape of an image.
    dtype : numpy.dtype
    images_per_chunk : int
        Images that are stored, and so decoded, together.
    line : int, optional
        Length of the last axis that counts images, where there are several; neither a chunk nor a call of `fetch`
        may reach beyond its end.

    Returns
    -------
    ndarray of shape (len(rows), *shape)
    """
    lines, places = (rows // line, rows % line) if line else (np.zeros_like(rows), rows)
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))) and lines[0] == lines[-1]:
        return fetch(int(rows[0]), int(rows[0]) + len(rows))
    out = np.empty((len(rows), *shape), dtype)
    # One slice a chunk is many times faster than zarr's own indexing by integers.
    chunks = np.stack([lines, places // images_per_chunk])
    for chunk in np.unique(chunks, axis=1).T:
        here = (chunks == chunk[:, None]).all(axis=0)
        first = int(rows[here].min())
        out[here] = fetch(first, int(rows[here].max()) + 1)[rows[here] - first]
    return out
