"""How far above a bare loop of as many threads is each pass, from images of 28 x 28 pixels to 8000 x 8000?

The loops read blocks with the package's own reader and keep one accumulator a thread. That of ImagePCA reads, makes
inner products of images, or of pixels where they are fewer, takes leading eigenvectors and makes the components. What
is tracked is processor time over that of the loop, the median of some pairs of runs.
``python -m benchmarks.comparisons.image_sizes`` writes a table of all sizes.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time

import dask.array as da
import numpy as np
import scipy.linalg

from benchmarks.lib.suite import LARGE, Suite, unit
from benchmarks.lib.threads import THREADS, in_threads
from imgstack_ml import ImagePCA, IntensityRescaler, StackCenterer

SIZES = [28, 64, 256, 1024, 2048, 4096, 8000] if LARGE else [28, 1024]
DTYPES = ["uint8", "float32"]
N_BYTES = 2**30 if LARGE else 2**22
N_COMPONENTS = 4
N_RATIOS = 5 if LARGE else 1
TILE = 2**14  # pixels
SUM = {"u": np.uint32, "f": np.float64}  # by kind of dtype


def write_stack(folder: str, size: int, dtype: str, n_bytes: int) -> None:
    """Write images, which are one image shifted along its rows, in blocks of at most 16 MB, or of one image."""
    image_bytes = size**2 * np.dtype(dtype).itemsize
    n = max(8, min(4000 if size < 50 else 1000, n_bytes // image_bytes))
    rows = max(1, min(n // 8, 2**24 // image_bytes))
    rng = np.random.default_rng(0)
    base = rng.integers(0, 200, (size, size), dtype=np.uint8).astype(dtype)
    blocks = [
        da.from_array(np.stack([np.roll(base, rng.integers(size**2)) for _ in range(rows)]))
        for _ in range(-(-n // rows))
    ]
    da.to_npy_stack(folder, da.concatenate(blocks).rechunk({0: rows, 1: -1, 2: -1}))


class ImageSizes(Suite):
    params = (["mean", "mean, deviation", "range", "pca"], SIZES, DTYPES)
    param_names = ("pass", "size", "dtype")
    timeout = 600

    def setup_cache(self) -> None:
        for size in SIZES:
            for dtype in DTYPES:
                write_stack(f"{size}-{dtype}", size, dtype, N_BYTES)

    def setup(self, name, size, dtype):
        super().setup()
        self.stack = da.from_npy_stack(f"{size}-{dtype}", mmap_mode=None)
        self.fit, self.loop = FITS[name], LOOPS[name]

    def time_fit(self, name, size, dtype):
        self.fit(self.stack)

    def peakmem_fit(self, name, size, dtype):
        self.fit(self.stack)

    @unit("times the loop")
    def track_ratio(self, name, size, dtype):
        """Processor time of the fit divided by that of the loop."""
        return median(seconds(self.fit, self.stack)[1] / seconds(self.loop, self.stack)[1] for _ in range(N_RATIOS))


def seconds(function: Callable, stack: da.Array) -> tuple[float, float]:
    """Wall and processor time of a fit or a loop."""
    wall, cpu = perf_counter(), process_time()
    function(stack)
    return perf_counter() - wall, process_time() - cpu


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
            total = np.zeros(block.shape[1:], SUM[block.dtype.kind])
        if block[0].size < TILE:
            return np.add(total, block.sum(axis=0, dtype=total.dtype), out=total)
        for image in block:
            total += image
        return total

    return np.divide(sum(_each_thread(stack, add)), len(stack))


def _deviation(stack: da.Array) -> np.ndarray:
    def add(total: np.ndarray | None, block: np.ndarray) -> np.ndarray:
        total = np.zeros((2, *block.shape[1:]), SUM[block.dtype.kind]) if total is None else total
        for image in block:
            wide = image.astype(total.dtype)
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

    in_threads(read, range(len(blocks)))
    return _from_pixels(blocks) if p < len(stack) else _from_images(blocks)


def _from_pixels(blocks: list[np.ndarray]) -> np.ndarray:
    n, p = sum(map(len, blocks)), blocks[0].shape[1]
    scatter, sums = np.zeros((THREADS, p, p)), np.zeros((THREADS, p))

    def multiply(first: int) -> None:
        for block in blocks[first::THREADS]:
            rows = block.astype(np.float32)
            scatter[first] += rows.T @ rows
            sums[first] += rows.sum(axis=0)

    in_threads(multiply, range(THREADS))
    total = sums.sum(axis=0)
    return _leading(scatter.sum(axis=0) - np.outer(total, total) / n)[1].T


def _from_images(blocks: list[np.ndarray]) -> np.ndarray:
    n, p = sum(map(len, blocks)), blocks[0].shape[1]
    gram, found = np.zeros((THREADS, n, n)), np.empty((N_COMPONENTS, p), np.float32)

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

    in_threads(multiply, range(THREADS))
    values, vectors = _leading(gram.sum(axis=0))
    weights = (vectors / np.sqrt(values)).T.astype(np.float32)
    in_threads(components, range(THREADS))
    return found


def _leading(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(matrix)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(n - N_COMPONENTS, n - 1))
    return values, vectors


def _fit_pca(stack: da.Array) -> ImagePCA:
    solver = "covariance_eigh" if stack[0].size < len(stack) else "gram"
    return ImagePCA(N_COMPONENTS, svd_solver=solver, memory_limit="8GB").fit(stack)


FITS = {
    "mean": lambda stack: StackCenterer().fit(stack),
    "mean, deviation": lambda stack: StackCenterer(with_std=True).fit(stack),
    "range": lambda stack: IntensityRescaler(in_range="stack").fit(stack),
    "pca": _fit_pca,
}
LOOPS = {"mean": _mean, "mean, deviation": _deviation, "range": _range, "pca": _pca}
