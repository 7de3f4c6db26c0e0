"""How far above a bare loop of as many threads is each pass, from images of 28 x 28 pixels to 8000 x 8000?

The loops read blocks with the package's own reader and keep one accumulator a thread. That of ImagePCA reads, makes
inner products, takes their eigenvectors and makes the components. What is tracked is processor time over that of the
loop, the median of some pairs of runs.
"""

from collections.abc import Callable
from statistics import median
from time import process_time

import dask.array as da
import numpy as np

from benchmarks.lib.suite import LARGE, Suite, unit
from benchmarks.lib.threads import THREADS, in_threads
from imgstack_ml import ImagePCA, IntensityRescaler, StackCenterer

SIZES = [28, 64, 256, 1024, 2048, 4096, 8000] if LARGE else [28, 1024]
N_BYTES = 2**30 if LARGE else 2**22
N_COMPONENTS = 4
N_RATIOS = 5 if LARGE else 1
TILE = 2**14  # pixels


class ImageSizes(Suite):
    params = (["mean", "mean, deviation", "range", "pca"], SIZES)
    param_names = ("pass", "size")
    timeout = 600

    def setup_cache(self) -> None:
        for size in SIZES:
            n = max(8, min(4000 if size < 100 else 1000, N_BYTES // size**2))
            rows = max(1, min(n // 8, 2**24 // size**2))
            rng = np.random.default_rng(0)
            base = rng.integers(0, 200, (size, size), dtype=np.uint8)
            blocks = [
                da.from_array(np.stack([np.roll(base, rng.integers(size**2)) for _ in range(rows)]))
                for _ in range(-(-n // rows))
            ]
            da.to_npy_stack(str(size), da.concatenate(blocks).rechunk({0: rows, 1: -1, 2: -1}))

    def setup(self, name, size):
        super().setup()
        self.stack = da.from_npy_stack(str(size), mmap_mode=None)
        self.fit, self.loop = _FITS[name], _LOOPS[name]

    def time_fit(self, name, size):
        self.fit(self.stack)

    def peakmem_fit(self, name, size):
        self.fit(self.stack)

    @unit("times the loop")
    def track_ratio(self, name, size):
        """Processor time of the fit divided by that of the loop."""
        return median(_cpu_seconds(self.fit, self.stack) / _cpu_seconds(self.loop, self.stack) for _ in range(N_RATIOS))


def _cpu_seconds(function: Callable, stack: da.Array) -> float:
    start = process_time()
    function(stack)
    return process_time() - start


def _read(stack: da.Array, i: int) -> np.ndarray:
    return stack.blocks[i].compute(scheduler="synchronous")


def _each_thread(stack: da.Array, add: Callable) -> list:
    """Give each thread every other block: ``accumulator = add(accumulator, block)``."""
    found = [None] * THREADS

    def loop(first: int) -> None:
        for i in range(first, stack.numblocks[0], THREADS):
            found[first] = add(found[first], _read(stack, i))

    in_threads(loop, range(THREADS))
    return found


def _mean(stack: da.Array) -> np.ndarray:
    def add(total: np.ndarray | None, block: np.ndarray) -> np.ndarray:
        if total is None:
            total = np.zeros(block.shape[1:], np.uint32)
        if block[0].size < TILE:
            return np.add(total, block.sum(axis=0, dtype=np.uint32), out=total)
        for image in block:
            total += image
        return total

    return np.divide(sum(_each_thread(stack, add)), len(stack))


def _deviation(stack: da.Array) -> np.ndarray:
    def add(total: np.ndarray | None, block: np.ndarray) -> np.ndarray:
        total = np.zeros((2, *block.shape[1:]), np.uint32) if total is None else total
        for image in block:
            wide = image.astype(np.uint32)
            total[0] += wide
            wide *= wide
            total[1] += wide
        return total

    sums, squares = sum(_each_thread(stack, add)) / len(stack)
    return np.sqrt(squares - sums**2)


def _range(stack: da.Array) -> list:
    return _each_thread(stack, lambda ends, block: [*(ends or []), block.min(), block.max()])


def _pca(stack: da.Array) -> np.ndarray:
    p, blocks = stack[0].size, [np.empty(0)] * stack.numblocks[0]

    def read(i: int) -> None:
        blocks[i] = _read(stack, i).reshape(-1, p)

    def tile(a: int) -> np.ndarray:
        rows = np.concatenate([block[:, a : a + TILE] for block in blocks]).astype(np.float32)
        rows -= rows.mean(axis=0)
        return rows

    def multiply(first: int) -> None:
        for a in range(first * TILE, p, THREADS * TILE):
            rows = tile(a)
            gram[first] += rows @ rows.T

    def components(first: int) -> None:
        for a in range(first * TILE, p, THREADS * TILE):
            np.matmul(weights, tile(a), out=found[:, a : a + TILE])

    in_threads(read, range(len(blocks)))
    gram = np.zeros((THREADS, len(stack), len(stack)))
    in_threads(multiply, range(THREADS))
    values, vectors = np.linalg.eigh(gram.sum(axis=0))
    weights = (vectors[:, -N_COMPONENTS:] / np.sqrt(values[-N_COMPONENTS:])).T.astype(np.float32)
    found = np.empty((N_COMPONENTS, p), np.float32)
    in_threads(components, range(THREADS))
    return found


def _fit_pca(stack: da.Array) -> ImagePCA:
    return ImagePCA(N_COMPONENTS, svd_solver="gram", memory_limit="8GB").fit(stack)


_FITS = {
    "mean": lambda stack: StackCenterer().fit(stack),
    "mean, deviation": lambda stack: StackCenterer(with_std=True).fit(stack),
    "range": lambda stack: IntensityRescaler(in_range="stack").fit(stack),
    "pca": _fit_pca,
}
_LOOPS = {"mean": _mean, "mean, deviation": _deviation, "range": _range, "pca": _pca}
