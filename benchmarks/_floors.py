"""Bare loops of threads over a stack: what no fit can do without."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ._common import THREADS
from ._stacks import Source

__all__ = ["N_ROWS", "multiply_stack", "read_stack", "two_products"]

N_ROWS = 32  # of a block of vectors, as ImagePCA(10) multiplies
TILE = 2048  # values
FEW_IMAGES, FEW_VALUES = 4096, 1024


def read_stack(path: Path) -> None:
    """Read and decode all images, and do nothing with them."""
    source = Source(path)
    _share_out(source.starts, lambda start: source.read(start)[0, 0])


def multiply_stack(path: Path) -> np.ndarray:
    """Read all images, cast them to float32 in tiles, and make the products that an answer takes, in one read of them.

    Inner products of all images where they are few, or of all pixels where these are few (a triangle of them), and
    else the products with a block of 32 vectors and back.
    """
    source = Source(path)
    with threadpool_limits(1, user_api="blas"):
        if source.n <= FEW_IMAGES:
            return _multiply_images(source)
        if source.p <= FEW_VALUES:
            return _multiply_values(source)
        vectors = np.random.default_rng(0).standard_normal((N_ROWS, source.p), dtype=np.float32)
        return two_products(source, vectors, np.full(source.p, 128, np.float32))


def two_products(source: Source, vectors: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Read, cast in tiles, multiply twice: the least of a streaming pass."""
    sums = _Sums(vectors.shape)
    tiles = _Sums((source.chunk, TILE))

    def work(start: int) -> None:
        block, products = source.read(start), sums.of_this_thread()
        scores = np.zeros((len(block), len(vectors)), np.float32)
        spans = [slice(a, a + TILE) for a in range(0, source.p, TILE)]
        for span in spans:
            scores += _cast(block, shift, span, tiles.of_this_thread()) @ vectors[:, span].T
        weights = np.ascontiguousarray(scores.T)
        for span in spans:
            products[:, span] += weights @ _cast(block, shift, span, tiles.of_this_thread())

    _share_out(source.starts, work)
    return sums.total()


def _multiply_images(source: Source) -> np.ndarray:
    raw = np.empty((source.n, source.p), source.dtype)

    def read(start: int) -> None:
        block = source.read(start)
        raw[start : start + len(block)] = block

    def work(a: int) -> None:
        tile = raw[:, a : a + TILE].astype(np.float32)
        sums.add_product(tile, tile.T)

    sums = _Sums((source.n, source.n))
    _share_out(source.starts, read)
    _share_out(range(0, source.p, TILE), work)
    return sums.total()


def _multiply_values(source: Source) -> np.ndarray:
    sums = _Sums((source.p, source.p))

    def work(start: int) -> None:
        rows = source.read(start).astype(np.float32)
        sums.add_product(rows.T, rows)

    _share_out(source.starts, work)
    return sums.total()


class _Sums:
    """An array of zeros for each thread."""

    def __init__(self, shape: tuple[int, ...]):
        self._shape, self._local, self._parts = shape, threading.local(), list[np.ndarray]()

    def of_this_thread(self) -> np.ndarray:
        if not hasattr(self._local, "part"):
            self._local.part = np.zeros(self._shape, np.float32)
            self._local.product = np.empty(self._shape, np.float32)
            self._parts.append(self._local.part)
        return self._local.part

    def add_product(self, a: np.ndarray, b: np.ndarray) -> None:
        """Add ``a @ b`` to the array of this thread; NumPy multiplies a triangle where b is the transpose of a."""
        part = self.of_this_thread()
        part += np.matmul(a, b, out=self._local.product)

    def total(self) -> np.ndarray:
        return sum(self._parts[1:], start=self._parts[0])


def _share_out(items: Iterable[int], work: Callable[[int], object]) -> None:
    """Have threads take the items in turn."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, items))


def _cast(block: np.ndarray, shift: np.ndarray, span: slice, tile: np.ndarray) -> np.ndarray:
    part = tile[: len(block), : len(shift[span])]
    np.subtract(block[:, span], shift[span], out=part, dtype=np.float32, casting="unsafe")
    return part
