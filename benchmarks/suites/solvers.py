"""How fast, how small and how exact are the solvers of ImagePCA, by shape of the stack and number of components?

References are a NumPy SVD in float64 and scikit-learn's PCA, both of the whole stack in memory. The stack is stored in
blocks of raw arrays, so that reading takes little time beside the solver. It has 40 planted modes of slowly falling
variance, and white noise.

One error is that of the k-th explained variance, relative to NumPy's. The other is the sine of the largest angle
between the subspace of the components and NumPy's. Peak memory is that of the process, of which imports take about
200 MB: compare solvers at ``IMGSTACK_BENCH=large``.
"""

import math
import timeit

import dask.array as da
import numpy as np
from sklearn.decomposition import PCA

from benchmarks.lib.suite import LARGE, Suite, TaskCounter, unit
from imgstack_ml import ImagePCA
from imgstack_ml.datasets import make_planted

SOLVERS = ["auto", "gram", "covariance_eigh", "tsqr", "randomized"]
REFERENCES = ["numpy", "scikit-learn"]
SHAPES = [(20_000, 32, 32), (844, 256, 256, 3)] if LARGE else [(600, 16, 16), (150, 48, 48, 3)]
N_COMPONENTS = [5, 20]
N_BLOCKS = 20
MAX_MATRIX = 2_000  # images for gram, values of an image for covariance_eigh; larger matrices take minutes


class _Stacks(Suite):
    param_names = ("solver", "shape", "n_components")
    skip_params = [  # noqa: RUF012 - asv wants a list
        (solver, shape, k)
        for shape in SHAPES
        for k in N_COMPONENTS
        for solver, side in (("gram", shape[0]), ("covariance_eigh", math.prod(shape[1:])))
        if side > MAX_MATRIX
    ]

    def setup_cache(self) -> None:
        for shape in SHAPES:
            n, *image_shape = shape
            planted = make_planted(n, tuple(image_shape), n_modes=40, decay=0.9, noise=0.02, dtype=np.uint8)
            da.to_npy_stack(_folder_name(shape), da.from_array(planted.stack, chunks=(n // N_BLOCKS, *image_shape)))
            variance, components = _numpy_components(planted.stack, max(N_COMPONENTS))
            np.savez(f"{_folder_name(shape)}.npz", variance=variance, components=components)

    def setup(self, solver, shape, n_components):
        super().setup()
        self.stack = da.from_npy_stack(_folder_name(shape), mmap_mode=None)


class ExactSolvers(_Stacks):
    params = (SOLVERS + REFERENCES, SHAPES, N_COMPONENTS)

    def time_fit(self, solver, shape, n_components):
        _variance_and_components(solver, self.stack, n_components)

    def peakmem_fit(self, solver, shape, n_components):
        _variance_and_components(solver, self.stack, n_components)

    @unit("relative")
    def track_variance_error(self, solver, shape, n_components):
        variance, _ = _variance_and_components(solver, self.stack, n_components)
        return float(abs(variance[-1] / _truth(shape, "variance")[n_components - 1] - 1))

    @unit("sine of the largest angle")
    def track_subspace_error(self, solver, shape, n_components):
        _, components = _variance_and_components(solver, self.stack, n_components)
        basis, _ = np.linalg.qr(components.T.astype(np.float64))
        true = _truth(shape, "components")[:n_components]
        return float(np.linalg.norm(basis - true.T @ (true @ basis), ord=2))


class SolverCosts(_Stacks):
    params = (SOLVERS, SHAPES, N_COMPONENTS)

    @unit("reads of the stack")
    def track_n_passes(self, solver, shape, n_components):
        return ImagePCA(n_components, svd_solver=solver).fit(self.stack).n_passes_

    @unit("tasks")
    def track_num_tasks(self, solver, shape, n_components):
        with TaskCounter() as counter:
            ImagePCA(n_components, svd_solver=solver).fit(self.stack)
        return counter.n_tasks


class Masks(Suite):
    """Time of a fit with half of the pixels, a disc or pixels at random, relative to all; images in memory."""

    param_names = ("mask", "solver")
    params = (["disc", "random"], ["gram", "randomized"])

    def setup_cache(self) -> None:
        n, side = (844, 512) if LARGE else (150, 64)
        np.save("images", make_planted(n, (side, side), n_modes=40, decay=0.9, noise=0.02, dtype=np.uint16).stack)

    def setup(self, mask, solver):
        super().setup()
        self.images = np.load("images.npy")
        side = self.images.shape[1]
        disc = np.hypot(*np.mgrid[:side, :side] - side / 2) < side / (2 * math.pi) ** 0.5
        self.mask = disc if mask == "disc" else np.random.default_rng(0).random(disc.shape) < 0.5

    def track_time_over_that_of_all_pixels(self, mask, solver):
        fits = [ImagePCA(10, svd_solver=solver, mask=which, random_state=0).fit for which in (None, self.mask)]
        whole, half = (min(timeit.repeat(lambda fit=fit: fit(self.images), number=1, repeat=3)) for fit in fits)
        return half / whole


class Regret(Suite):
    """Time of ``"auto"`` on six spectra, relative to the better one of two solvers, for images in memory."""

    param_names = ("spectrum",)
    params = (["white", "slow", "harmonic", "exponential", "planted", "steps"],)

    def setup_cache(self) -> None:
        n, side = (3_000, 128) if LARGE else (600, 32)
        rng, j = np.random.default_rng(0), np.arange(1, 101)
        spectra = {
            "white": (0 * j, 1),
            "slow": (j**-0.5, 0.02),
            "harmonic": (1 / j, 0.01),
            "exponential": (np.exp(-j / 5), 1e-3),
            "planted": (np.where(j <= 40, 2 - j / 40, 0), 0.05),
            "steps": (1.0 * (j <= 5) + 0.1 * (j <= 30), 0.02),
        }
        for name, (strengths, noise) in spectra.items():
            images = (rng.standard_normal((n, 100)) * strengths) @ rng.standard_normal((100, side**2))
            images += noise * rng.standard_normal(images.shape)
            np.save(name, np.rint(32_768 + 5_000 / images.std() * images).clip(0, 65_535).astype(np.uint16))

    def setup(self, spectrum):
        super().setup()
        self.images = np.load(f"{spectrum}.npy")

    def track_time_over_that_of_the_better_solver(self, spectrum):
        seconds = {}
        for solver in ("auto", "gram", "randomized"):
            pca = ImagePCA(10, svd_solver=solver, tol=1e-4, random_state=0)
            seconds[solver] = min(timeit.repeat(lambda pca=pca: pca.fit(self.images), number=1, repeat=2))
        return seconds["auto"] / min(seconds["gram"], seconds["randomized"])


def _folder_name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _truth(shape: tuple[int, ...], name: str) -> np.ndarray:
    with np.load(f"{_folder_name(shape)}.npz") as arrays:
        return arrays[name]


def _variance_and_components(solver: str, stack: da.Array, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return k variances and components of a solver of ImagePCA or of a reference."""
    if solver == "numpy":
        return _numpy_components(stack.compute(), k)
    if solver == "scikit-learn":
        pca = PCA(k, random_state=0).fit(stack.compute().reshape(len(stack), -1))
    else:
        pca = ImagePCA(k, svd_solver=solver, random_state=0).fit(stack)
    return pca.explained_variance_, pca.components_


def _numpy_components(stack: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    rows = stack.reshape(len(stack), -1).astype(np.float64)
    rows -= rows.mean(axis=0)
    _, singular_values, components = np.linalg.svd(rows, full_matrices=False)
    return singular_values[:k] ** 2 / (len(rows) - 1), components[:k]
