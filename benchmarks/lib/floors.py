"""Bare loops over a stack that do only what every fit has to do: floors for its time."""

import threading
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from imgstack_ml.linalg.integers import are_fast, products_of_images, products_of_pixels

from .stacks import Source, read_rows
from .threads import THREADS, in_threads

__all__ = ["N_VECTORS", "multiply_stack", "read_stack", "two_products"]

N_VECTORS = 32  # multiplied at a time, as in a pass of ImagePCA(10)
GROUP = 384  # images of a long stack whose inner products are computed, where that takes the fewest operations
TILE = 2048  # values
FEW_IMAGES, FEW_VALUES = 4096, 1024  # up to here, all inner products of images, or of values, are computed


def read_stack(path: Path) -> None:
    """Read and decode all images."""
    source = Source(path)
    in_threads(lambda start: source.read(start)[0, 0], source.starts)


def multiply_stack(path: Path) -> np.ndarray:
    """Read all images once, and compute the products that a fit needs.

    These are the inner products of all images if there are few, or of all values if those are few (a triangle of them).
    Otherwise they are the inner products of groups of 384 images of 8 bits, or the products of others with a block of
    32 vectors, and of the results with the images. Products of 8 bits are exact, of bytes, where processors have
    instructions for them; others are made in float32, of tiles that are cast.
    """
    source = Source(path)
    in_bytes = are_fast(source.dtype)
    with threadpool_limits(1, user_api="blas"):
        if in_bytes:
            return _multiply_bytes(source)
        if source.n <= FEW_IMAGES:
            return _multiply_images(source)
        if source.p <= FEW_VALUES:
            return _multiply_values(source)
        vectors = np.random.default_rng(0).standard_normal((N_VECTORS, source.p), dtype=np.float32)
        return two_products(source, vectors, np.full(source.p, 128, np.float32))


def _multiply_bytes(source: Source) -> np.ndarray:
    """Compute inner products of all images, or of all values, or of groups of images, exactly."""
    if source.n > FEW_IMAGES and source.p <= FEW_VALUES:
        sums = _SumOfThreads((source.p, source.p), np.dtype(np.int64))
        in_threads(lambda start: sums.add(products_of_pixels([source.read(start)])[0]), source.starts)
        return sums.total()
    if source.n > FEW_IMAGES:
        step = max(1, GROUP // source.chunk) * source.chunk
        grams = [np.empty(0)] * len(range(0, source.n, step))

        def work(first: int) -> None:
            blocks = [source.read(start) for start in range(first, min(first + step, source.n), source.chunk)]
            grams[first // step] = products_of_images(blocks, 0, source.p)

        in_threads(work, range(0, source.n, step))
        return grams[0]
    rows = read_rows(source.path, dtype=None, threads=True)
    edges = np.linspace(0, source.p, THREADS + 1, dtype=int)
    sums = _SumOfThreads((source.n, source.n), np.dtype(np.int64))
    in_threads(lambda i: sums.add(products_of_images([rows], int(edges[i]), int(edges[i + 1]))), range(THREADS))
    return sums.total()


def two_products(source: Source, vectors: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Read, cast in tiles, multiply twice: the least that a pass of a streaming solver does."""
    sums = _SumOfThreads(vectors.shape)
    tiles = _SumOfThreads((source.chunk, TILE))

    def work(start: int) -> None:
        block, products = source.read(start), sums.of_this_thread()
        scores = np.zeros((len(block), len(vectors)), np.float32)
        spans = [slice(a, a + TILE) for a in range(0, source.p, TILE)]
        for span in spans:
            scores += _cast(block, shift, span, tiles.of_this_thread()) @ vectors[:, span].T
        weights = np.ascontiguousarray(scores.T)
        for span in spans:
            products[:, span] += weights @ _cast(block, shift, span, tiles.of_this_thread())

    in_threads(work, source.starts)
    return sums.total()


def _multiply_images(source: Source) -> np.ndarray:
    raw = np.empty((source.n, source.p), source.dtype)

    def read(start: int) -> None:
        block = source.read(start)
        raw[start : start + len(block)] = block

    def work(a: int) -> None:
        tile = raw[:, a : a + TILE].astype(np.float32)
        sums.add_product(tile, tile.T)

    sums = _SumOfThreads((source.n, source.n))
    in_threads(read, source.starts)
    in_threads(work, range(0, source.p, TILE))
    return sums.total()


def _multiply_values(source: Source) -> np.ndarray:
    sums = _SumOfThreads((source.p, source.p))

    def work(start: int) -> None:
        rows = source.read(start).astype(np.float32)
        sums.add_product(rows.T, rows)

    in_threads(work, source.starts)
    return sums.total()


class _SumOfThreads:
    """A sum of arrays to which each thread adds in an array of its own."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype = np.dtype(np.float32)):  # noqa: B008
        self._shape, self._dtype = shape, dtype
        self._local, self._parts = threading.local(), list[np.ndarray]()

    def of_this_thread(self) -> np.ndarray:
        """Return the array of this thread, zeros at first."""
        if not hasattr(self._local, "part"):
            self._local.part = np.zeros(self._shape, self._dtype)
            self._local.product = np.empty(self._shape, self._dtype)
            self._parts.append(self._local.part)
        return self._local.part

    def add(self, array: np.ndarray) -> None:
        """Add to the array of this thread."""
        part = self.of_this_thread()
        part += array

    def add_product(self, a: np.ndarray, b: np.ndarray) -> None:
        """Add ``a @ b`` to the array of this thread. NumPy computes only a triangle if b is the transpose of a."""
        part = self.of_this_thread()
        part += np.matmul(a, b, out=self._local.product)

    def total(self) -> np.ndarray:
        """Return the sum over all threads."""
        return sum(self._parts[1:], start=self._parts[0])


def _cast(block: np.ndarray, shift: np.ndarray, span: slice, tile: np.ndarray) -> np.ndarray:
    """Return some columns of a block minus their shift, as float32, in the memory of a tile."""
    part = tile[: len(block), : len(shift[span])]
    np.subtract(block[:, span], shift[span], out=part, dtype=np.float32, casting="unsafe")
    return part
