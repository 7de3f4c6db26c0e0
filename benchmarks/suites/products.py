"""How fast are the products that fits consist of: of bytes, and the same in float32?

A second's multiply-adds of one thread, counted as if no symmetry were used. ``"bytes"`` are the exact products of
`imgstack_ml.linalg.integers`, packing included; ``"float32"`` are what is done where a processor has no products of
bytes, casting included; ``"sgemm"`` is BLAS alone, with pixels that are float32 already.
"""

from time import thread_time

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.lib.suite import LARGE, Suite, unit
from imgstack_ml.linalg import gram
from imgstack_ml.linalg.integers import products_of_images, products_of_pixels
from imgstack_ml.linalg.tiles import tiles
from imgstack_ml.linalg.weighted import weighted_sums_of_bytes

SINGLE = np.dtype(np.float32)
N_WEIGHTS = 10
SHAPES = [(384, 65_536), (844, 65_536), (20_000, 784)] if LARGE else [(96, 4096), (2000, 196)]


class Products(Suite):
    params = (["bytes", "float32", "sgemm"], SHAPES)
    param_names = ("arithmetic", "shape")

    def setup_cache(self) -> None:
        for shape in SHAPES:
            np.save(f"{shape[0]}.npy", np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))

    def setup(self, arithmetic, shape):
        super().setup()
        self._pins.enter_context(threadpool_limits(1))
        self.images = np.load(f"{shape[0]}.npy")
        self.floats = self.images.astype(np.float32)
        self.weights = np.random.default_rng(1).standard_normal((N_WEIGHTS, shape[0]))
        self.mean = self.images.mean(axis=0)

    @unit("multiply-adds a second")
    def track_inner_products(self, arithmetic, shape):
        """Of images or of pixels, whichever are fewer."""
        n, p = shape
        blocks = [self.images]
        if n < p:
            functions = {
                "bytes": lambda: products_of_images(blocks, 0, p),
                "float32": lambda: gram.centred_gram(blocks, 0, p, SINGLE),
                "sgemm": lambda: self.floats @ self.floats.T,
            }
        else:
            functions = {
                "bytes": lambda: products_of_pixels(blocks),
                "float32": lambda: gram.scatter(blocks, 0, SINGLE),
                "sgemm": lambda: self.floats.T @ self.floats,
            }
        return n * p * min(n, p) / _seconds(functions[arithmetic])

    @unit("multiply-adds a second")
    def track_weighted_sums(self, arithmetic, shape):
        n, p = shape
        weights, shift, out = self.weights, np.rint(self.mean), np.zeros((N_WEIGHTS, p), np.float32)
        functions = {
            "bytes": lambda: weighted_sums_of_bytes([self.images], 0, p, weights, shift, out),
            "float32": lambda: _add_sums_of_floats([self.images], weights.astype(np.float32), shift, out),
            "sgemm": lambda: weights.astype(np.float32) @ self.floats,
        }
        return N_WEIGHTS * n * p / _seconds(functions[arithmetic])


def _add_sums_of_floats(blocks, weights, shift, out) -> None:
    for a, b, tile in tiles(blocks, shift, SINGLE):
        out[:, a:b] += weights @ tile


def _seconds(function) -> float:
    """Least time of three calls in this thread."""
    times = []
    for _ in range(4):
        start = thread_time()
        function()
        times.append(thread_time() - start)
    return min(times[1:])
