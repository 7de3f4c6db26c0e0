"""Bare loops over a stack that do only what every fit has to do: floors for its time."""

import threading
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from .stacks import Source
from .threads import in_threads

__all__ = ["N_VECTORS", "multiply_stack", "read_stack", "two_products"]

N_VECTORS = 32  # multiplied at a time, as in a pass of ImagePCA(10)
TILE = 2048  # values
FEW_IMAGES, FEW_VALUES = 4096, 1024  # up to here, all inner products of images, or of values, are computed


def read_stack(path: Path) -> None:
    """Read and decode all images."""
    source = Source(path)
    in_threads(lambda start: source.read(start)[0, 0], source.starts)


def multiply_stack(path: Path) -> np.ndarray:
    """Read all images once, cast them to float32 in tiles, and compute the products that a fit needs.

    These are the inner products of all images if there are few, or of all values if those are few (NumPy computes a
    triangle of them). Otherwise they are the products with a block of 32 vectors, and of the results with the images.
    """
    source = Source(path)
    with threadpool_limits(1, user_api="blas"):
        if source.n <= FEW_IMAGES:
            return _multiply_images(source)
        if source.p <= FEW_VALUES:
            return _multiply_values(source)
        vectors = np.random.default_rng(0).standard_normal((N_VECTORS, source.p), dtype=np.float32)
        return two_products(source, vectors, np.full(source.p, 128, np.float32))


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

    def __init__(self, shape: tuple[int, ...]):
        self._shape, self._local, self._parts = shape, threading.local(), list[np.ndarray]()

    def of_this_thread(self) -> np.ndarray:
        """Return the array of this thread, zeros at first."""
        if not hasattr(self._local, "part"):
            self._local.part = np.zeros(self._shape, np.float32)
            self._local.product = np.empty(self._shape, np.float32)
            self._parts.append(self._local.part)
        return self._local.part

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
