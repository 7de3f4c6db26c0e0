"""Clusters of rows that lie in a file, by dask-ml's KMeans, for the command ``cluster``. Rows are read block by block.

NumPy and Dask are imported here: the command imports this module late.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
from sklearn.cluster import KMeans as FittedKMeans
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from ...errors import ImgstackError, MemoryLimitError
from ...passes.memory import allowance, format_bytes

__all__ = ["Clusters", "RowsOnDisk", "StoredRows", "find_clusters", "plan_bytes"]

_BLOCK_BYTES = 2**23  # of scaled rows, or of their distances to candidates for centres
_N_STARTS = 4  # from one start, k-means can end far above the least sum of squares
_CANDIDATES = 2  # for each cluster, in each round of k-means||
_ROUNDS = 5  # of k-means||; Bahmani et al. 2012 find no gain in more


class ClusterError(ImgstackError, ValueError):
    """The images give no clusters."""


class Clusters(NamedTuple):
    """Clusters of n rows, the largest first.

    Attributes
    ----------
    number : ndarray of shape (n,)
        Of the cluster of each row, from 1.
    distance : ndarray of shape (n,)
        To the centre of that cluster, in scaled features.
    next_number, next_distance : ndarray of shape (n,)
        The same of the cluster that is second nearest; 0 and infinity where there is one cluster.
    explained : float
        Share of the sum of squares that the clusters explain, from 0 to 1.
    steps : Pipeline
        What finds the cluster of a row, less 1: a StandardScaler and a KMeans of scikit-learn, fitted.
    """

    number: np.ndarray
    distance: np.ndarray
    next_number: np.ndarray
    next_distance: np.ndarray
    explained: float
    steps: Pipeline


class StoredRows:
    """Rows (n, p) in a .npy file, read by their positions: without a memory map, whose pages would stay in memory."""

    def __init__(self, path: str):
        with open(path, "rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self._start = file.tell()
        self.path, self.ndim, self._token = path, 2, uuid4().hex

    def __dask_tokenize__(self) -> str:
        return self._token

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        rows, columns = key
        start, stop, _ = rows.indices(self.shape[0])
        width = self.shape[1]
        offset = self._start + start * width * self.dtype.itemsize
        found: np.ndarray = np.fromfile(self.path, self.dtype, (stop - start) * width, offset=offset)
        return found.reshape(-1, width)[:, columns]


class RowsOnDisk:
    """Write rows part by part into a .npy file, and learn their means and standard deviations.

    Parameters
    ----------
    path : str
    shape : (int, int)
    dtype : dtype
    """

    def __init__(self, path: str, shape: tuple[int, int], dtype: np.dtype):
        self.path, self.shape, self.dtype, self.scaler = path, shape, np.dtype(dtype), StandardScaler()

    def write(self, parts: Iterable[np.ndarray]) -> None:
        """Write consecutive rows; all together they have the shape."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        with open(self.path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                rows = np.ascontiguousarray(part, self.dtype)
                self.scaler.partial_fit(rows)
                rows.tofile(file)


def plan_bytes(n_clusters: int, n_images: int, n_columns: int, memory_limit: str) -> int:
    """Bytes that clusters take at most, refused before any image is read where they are more than the limit."""
    from dask.system import CPU_COUNT

    candidates = 1 + _ROUNDS * _CANDIDATES * n_clusters
    # A thread holds a block, its scaled copy and products of it; the candidates are clustered in memory.
    needed = 8 * CPU_COUNT * max(_BLOCK_BYTES, 8 * n_columns) + 4 * candidates * n_columns * 8 + 200 * n_images
    allowed = allowance(memory_limit).limit
    if needed > allowed:
        raise MemoryLimitError(
            f"{n_clusters:,} clusters of {n_images:,} images by {n_columns:,} features may need "
            f"{format_bytes(needed)} of memory, and {format_bytes(allowed)} are allowed"
        )
    return needed


def find_clusters(
    stored: StoredRows, scaler: StandardScaler, n_clusters: int, *, seed: int, n_scores: int = 0
) -> Clusters:
    """Divide stored rows into clusters by k-means, from several starts, of which the best counts.

    Parameters
    ----------
    stored : StoredRows
    scaler : StandardScaler
        With the means and standard deviations of the columns, which are scaled to 0 and 1.
    n_clusters : int
    seed : int
    n_scores : int, default=0
        Columns at the end that are scores: they keep their proportions, and the largest has standard deviation 1.

    Raises
    ------
    ClusterError
        If all rows are equal.
    """
    from dask_ml.cluster import KMeans

    scale = scaler.scale_.copy()
    if n_scores:
        scale[-n_scores:] = scale[-n_scores:].max()
    if not (scaler.var_ > 0).any():
        raise ClusterError("all images have the same features, so that there is nothing to divide")
    n, p = stored.shape
    widest = max(p, 1 + _ROUNDS * _CANDIDATES * n_clusters)  # of the rows, and of their distances to candidates
    # Fixed sizes: draws of random numbers, and so the result, depend on them.
    rows = da.from_array(stored, chunks=(max(1, _BLOCK_BYTES // (8 * widest)), p), name=False, inline_array=True)
    scaled = rows.map_blocks(_scaled, scaler.mean_, scale, dtype=np.float64, meta=np.empty((0, p)))
    best = None
    # On threads, also where a cluster reads the images: the rows are in a file of this machine.
    with _without_log(), dask.config.set(scheduler="threads"):
        for start in range(_N_STARTS):
            model = KMeans(
                n_clusters,
                random_state=seed * _N_STARTS + start,
                oversampling_factor=_CANDIDATES * n_clusters,
                init_max_iter=_ROUNDS,
            ).fit(scaled)
            nearest = _nearest(scaled, model.cluster_centers_)
            within = float((nearest[:, 1] ** 2).sum())
            if best is None or within < best[0]:
                best = within, nearest, np.asarray(model.cluster_centers_)
    assert best is not None, "there is at least one start"
    within, nearest, centres = best
    rank = _ranks_by_size(nearest, n_clusters)
    numbers = (rank[nearest[:, column].astype(int)] for column in (0, 2))
    explained = max(0.0, 1 - within / (n * float((scaler.var_ / scale**2).sum())))
    steps = _fitted_steps(scaler, scale, centres[np.argsort(rank[:-1])].astype(stored.dtype))
    return Clusters(next(numbers), nearest[:, 1], next(numbers), nearest[:, 3], explained, steps)


def _fitted_steps(scaler: StandardScaler, scale: np.ndarray, centres: np.ndarray) -> Pipeline:
    """Make the steps that find the nearest of some centres, as scikit-learn would have fitted them."""
    scaler.scale_, scaler.var_ = scale, scale**2
    model = FittedKMeans(len(centres))
    model.cluster_centers_, model.n_features_in_, model._n_threads = centres, centres.shape[1], 1
    return Pipeline([("scale", scaler), ("cluster", model)])


def _scaled(rows: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    found: np.ndarray = (rows - mean) / scale
    return found


def _nearest(rows: da.Array, centres: np.ndarray) -> np.ndarray:
    """Find the number and the distance of the nearest and the second nearest centre of each row, (n, 4)."""
    nearest: Any = _nearest_of_block
    found: np.ndarray = rows.map_blocks(
        nearest, centres, chunks=(rows.chunks[0], (4,)), dtype=np.float64, meta=np.empty((0, 4))
    ).compute()
    return found


def _nearest_of_block(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    # Differences, not squares of norms: a row that is a centre has distance 0.
    distances = np.stack([np.sqrt(((rows - centre) ** 2).sum(axis=1)) for centre in centres], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :2]
    if len(centres) == 1:
        return np.column_stack([order[:, 0], distances[:, 0], np.full(len(rows), -1.0), np.full(len(rows), np.inf)])
    nearest, following = (np.take_along_axis(distances, order[:, [i]], axis=1)[:, 0] for i in (0, 1))
    return np.column_stack([order[:, 0], nearest, order[:, 1], following])


def _ranks_by_size(nearest: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return the number of each cluster, from 1 for the largest; at the end 0, for no second cluster."""
    own = nearest[:, 0].astype(int)
    counts = np.bincount(own, minlength=n_clusters)
    first = np.full(n_clusters, len(own))
    np.minimum.at(first, own, np.arange(len(own)))
    rank = np.zeros(n_clusters + 1, dtype=int)
    rank[np.lexsort((first, -counts))] = np.arange(1, n_clusters + 1)
    return rank


@contextmanager
def _without_log() -> Iterator[None]:
    """Silence the log of dask-ml: it warns of fewer candidates than clusters, and takes others for them."""
    logger = logging.getLogger("dask_ml.cluster.k_means")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
