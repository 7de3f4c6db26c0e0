"""Fits of ten components to a stack on disk, by this package and by other libraries.

Each function imports what it needs, and returns a workflow, which is then timed: a function of the path of a stack that
returns ``variance`` (k,) and ``components`` (k, p). A fit in memory gets float32 rows that were read without a second
copy, and may change them. A fit to rows of a Dask array gets blocks of at least 16 images. A fit that does not centre
gets centred rows; their mean takes a read of its own. All other options are the defaults of each library.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .floors import multiply_stack, read_stack
from .measure import Answer, Workflow
from .stacks import Source, read_rows

__all__ = ["FITS", "READING", "READING_AND_MULTIPLYING", "K", "dask_tutorial", "image_pca"]
__all__ += ["incremental_pca", "scikit_learn", "svd_compressed"]

K = 10  # components
TUTORIAL_ROWS = 256  # in a chunk, in the tutorial
BATCH = 64  # images in a batch of an incremental fit
MIN_BLOCK = 16  # images in a block of a Dask array of rows: more than components
SAMPLE_STEP = 10  # `sampled_pca` takes every tenth image


# This package -----------------------------------------------------------------------------------------


def image_pca(**options: Any) -> Workflow:
    """Fit ImagePCA to the files."""
    import distributed  # noqa: F401 - dask.compute imports it late

    from imgstack_ml import ImagePCA, open_stack

    def run(path: Path) -> Answer:
        return _answer_of(ImagePCA(K, random_state=0, **options).fit(open_stack(path)))

    return run


# Lazy -------------------------------------------------------------------------------------------------


def dask_tutorial() -> Workflow:
    """Fit as the tutorial does: centre, reshape to values x images, rechunk to 256 rows, Dask's SVD."""
    import dask
    import dask.array as da

    lazy_images = _lazy_reader()

    def run(path: Path) -> Answer:
        images = lazy_images(path)
        n = len(images)
        centred = images - images.mean(axis=0)
        data = centred.reshape((n, int(np.prod(images.shape[1:])))).T
        data = data.rechunk((TUTORIAL_ROWS, n))  # svd expects only one column block
        u, s, _ = da.linalg.svd(data)
        s, modes = dask.compute(s, u[:, :K])
        return {"variance": _variance(s, n), "components": modes.T}

    return run


def svd_compressed(power: int = 1, dtype: str = "float32") -> Workflow:
    """Apply Dask's randomized SVD to centred rows."""
    import dask
    import dask.array as da

    lazy_images = _lazy_reader()

    def run(path: Path) -> Answer:
        rows = _centred_rows(lazy_images(path), dtype)
        seed = da.random.RandomState(0)
        _, s, v = da.linalg.svd_compressed(rows, K, n_power_iter=power, compute=True, seed=seed)
        s, v = dask.compute(s, v)
        return {"variance": _variance(s, len(rows)), "components": v}

    return run


def dask_ml_pca(**options: Any) -> Workflow:
    """Fit dask-ml's PCA."""
    from dask_ml.decomposition import PCA

    lazy_images = _lazy_reader()
    return lambda path: _answer_of(PCA(K, random_state=0, **options).fit(_rows(lazy_images(path))))


def dask_ml_incremental() -> Workflow:
    """Fit dask-ml's IncrementalPCA."""
    from dask_ml.decomposition import IncrementalPCA

    lazy_images = _lazy_reader()

    def run(path: Path) -> Answer:
        rows = _rows(lazy_images(path))
        return _answer_of(IncrementalPCA(K, batch_size=max(BATCH, rows.chunks[0][0])).fit(rows))

    return run


def dask_ml_truncated(**options: Any) -> Workflow:
    """Fit dask-ml's TruncatedSVD to centred rows, in float64: its five power iterations overflow float32."""
    from dask_ml.decomposition import TruncatedSVD

    lazy_images = _lazy_reader()

    def run(path: Path) -> Answer:
        rows = _centred_rows(lazy_images(path), "float64")
        svd = TruncatedSVD(K, random_state=0, **options).fit(rows)
        return {"variance": _variance(svd.singular_values_, len(rows)), "components": svd.components_}

    return run


def xeofs() -> Workflow:
    """Fit xeofs' EOF to a DataArray, which needs coordinates."""
    import xarray
    from xeofs.single import EOF

    lazy_images = _lazy_reader()

    def run(path: Path) -> Answer:
        rows = _rows(lazy_images(path))
        named = xarray.DataArray(rows, {"image": np.arange(len(rows)), "value": np.arange(rows.shape[1])})
        model = EOF(n_modes=K, random_state=0).fit(named, dim="image")
        components = model.components().transpose("mode", "value")
        return {"variance": model.explained_variance().values, "components": components.values}

    return run


def hyperspy(**options: Any) -> Workflow:
    """Decompose a lazy HyperSpy signal whose rows are the images."""
    from hyperspy.signals import Signal1D

    lazy_images = _lazy_reader()

    def run(path: Path) -> Answer:
        rows = _rows(lazy_images(path))
        signal = Signal1D(rows).as_lazy()
        signal.decomposition(output_dimension=K, print_info=False, **options)
        results = signal.learning_results
        variance = np.asarray(results.explained_variance[:K], np.float64)
        if options["algorithm"] == "SVD" and options["svd_solver"] != "incremental":  # they divide by n
            variance = variance * len(rows) / (len(rows) - 1)
        return {"variance": variance, "components": np.asarray(results.factors).T[:K]}

    return run


def incremental_pca(part: int = 1) -> Workflow:
    """Fit scikit-learn's IncrementalPCA in batches, to the first of `part` equal parts of the images."""
    from sklearn.decomposition import IncrementalPCA

    def run(path: Path) -> Answer:
        source, pca = Source(path), IncrementalPCA(K)
        step = max(1, BATCH // source.chunk)
        starts = source.starts[: len(source.starts) // part]
        for first in range(0, len(starts), step):
            batch = np.concatenate([source.read(start) for start in starts[first : first + step]])
            if len(batch) >= K:  # partial_fit refuses fewer images than components
                pca.partial_fit(batch.astype(np.float32))
        return _answer_of(pca)

    return run


# In memory --------------------------------------------------------------------------------------------


def scikit_learn(svd_solver: str = "randomized") -> Workflow:
    """Fit scikit-learn's PCA to rows in memory."""
    from sklearn.decomposition import PCA

    options: dict[str, Any] = {"svd_solver": svd_solver, "copy": False, "random_state": 0}
    return lambda path: _answer_of(PCA(K, **options).fit(read_rows(path)))


def scikit_learn_plain() -> Workflow:
    """Fit scikit-learn's PCA in the simplest way: files read one after the other, integers passed as they are."""
    import zarr
    from skimage.io import ImageCollection
    from sklearn.decomposition import PCA

    def run(path: Path) -> Answer:
        is_zarr = path.suffix == ".zarr"
        images = zarr.open_array(path, mode="r")[:] if is_zarr else ImageCollection(str(path / "*.jpg")).concatenate()
        return _answer_of(PCA(K, svd_solver="randomized", random_state=0).fit(images.reshape(len(images), -1)))

    return run


def numpy_script() -> Workflow:
    """Do what eight lines of NumPy do: read in two threads, centre, multiply the images, solve for eigenvectors."""

    def run(path: Path) -> Answer:
        rows = read_rows(path, threads=True)
        rows -= rows.mean(axis=0)
        values, vectors = np.linalg.eigh(rows @ rows.T)
        values, vectors = values[: -K - 1 : -1], vectors[:, : -K - 1 : -1]
        return {"variance": values / (len(rows) - 1), "components": (vectors / np.sqrt(values)).T @ rows}

    return run


def faiss() -> Workflow:
    """Train the PCA of faiss on rows in memory."""
    from faiss import PCAMatrix, vector_to_array

    def run(path: Path) -> Answer:
        rows = read_rows(path)
        pca = PCAMatrix(rows.shape[1], K)
        pca.max_points_per_d = len(rows)  # it would draw a sample of more
        pca.train(rows)
        components = vector_to_array(pca.PCAMat).reshape(-1, rows.shape[1])[:K]
        return {"variance": vector_to_array(pca.eigenvalues)[:K] / (len(rows) - 1), "components": components}

    return run


def sampled_pca() -> Workflow:
    """Fit scikit-learn's PCA to every tenth image, as programs for video do."""
    from sklearn.decomposition import PCA

    def run(path: Path) -> Answer:
        source = Source(path)
        rows = np.concatenate([block[-start % SAMPLE_STEP :: SAMPLE_STEP] for start, block in source.blocks()])
        return _answer_of(PCA(K, svd_solver="randomized", random_state=0).fit(rows.astype(np.float32)))

    return run


def scikit_learn_intelex() -> Workflow:
    """Fit the PCA of Intel's extension for scikit-learn to rows in memory."""
    from sklearnex.decomposition import PCA

    return lambda path: _answer_of(PCA(K, copy=False, random_state=0).fit(read_rows(path)))


def fbpca() -> Workflow:
    """Call Facebook's randomized PCA on rows in memory."""
    from fbpca import pca

    def run(path: Path) -> Answer:
        np.random.seed(0)  # noqa: NPY002 - fbpca uses this generator
        rows = read_rows(path)
        _, s, v = pca(rows, K)
        return {"variance": _variance(s, len(rows)), "components": v}

    return run


# Shared code -----------------------------------------------------------------------------------------


def _lazy_reader() -> Callable[[Path], Any]:
    """Import and return a function that opens a stack lazily, without this package."""
    import dask.array as da
    import distributed  # noqa: F401 - dask.compute imports it late
    import skimage.io  # noqa: F401 - imread imports it late
    from dask.array.image import imread

    return lambda path: da.from_zarr(path) if path.suffix == ".zarr" else imread(str(path / "*.jpg"))


def _rows(images: Any, dtype: str = "float32") -> Any:
    """Flatten images to rows of a Dask array, in blocks of at least 16."""
    rows = images.reshape(len(images), -1).astype(dtype)
    return rows.rechunk({0: MIN_BLOCK}) if rows.chunks[0][0] < MIN_BLOCK else rows


def _centred_rows(images: Any, dtype: str) -> Any:
    rows = _rows(images, dtype)
    return rows - rows.mean(axis=0).compute()


def _variance(singular_values: np.ndarray, n: int) -> np.ndarray:
    return singular_values[:K].astype(np.float64) ** 2 / (n - 1)


def _answer_of(pca: Any) -> Answer:
    return {"variance": np.asarray(pca.explained_variance_), "components": np.asarray(pca.components_)}


def _floor(loop: Callable[[Path], object]) -> Workflow:
    """Make a workflow without an answer of a bare loop."""

    def run(path: Path) -> Answer:
        loop(path)
        return {}

    return run


READING, READING_AND_MULTIPLYING = "bare loop: reading", "bare loop: reading, multiplying"
FITS: dict[str, Callable[[], Workflow]] = {
    READING: partial(_floor, read_stack),
    READING_AND_MULTIPLYING: partial(_floor, multiply_stack),
    f"ImagePCA({K})": image_pca,
    f"ImagePCA({K}), one look": partial(image_pca, svd_solver="randomized", max_passes=1),
    "tutorial: Dask svd": dask_tutorial,
    "Dask svd_compressed, q=1": svd_compressed,
    "Dask svd_compressed, q=4": partial(svd_compressed, 4, "float64"),  # float32 overflows
    "dask-ml PCA": dask_ml_pca,
    "dask-ml PCA, tsqr": partial(dask_ml_pca, svd_solver="tsqr"),
    "dask-ml IncrementalPCA": dask_ml_incremental,
    "dask-ml TruncatedSVD": dask_ml_truncated,
    "dask-ml TruncatedSVD, randomized": partial(dask_ml_truncated, algorithm="randomized"),
    "xeofs EOF": xeofs,
    **{
        f"HyperSpy lazy, SVD, {solver}": partial(hyperspy, algorithm="SVD", svd_solver=solver, centre="navigation")
        for solver in ("randomized", "incremental", "full")
    },
    "HyperSpy lazy, PCA": partial(hyperspy, algorithm="PCA"),
    "scikit-learn IncrementalPCA": incremental_pca,
    "scikit-learn PCA, randomized": scikit_learn,
    "scikit-learn PCA, randomized, plain": scikit_learn_plain,
    "scikit-learn PCA, arpack": partial(scikit_learn, "arpack"),
    "scikit-learn PCA, covariance_eigh": partial(scikit_learn, "covariance_eigh"),
    "scikit-learn PCA, full": partial(scikit_learn, "full"),
    "NumPy, eight lines": numpy_script,
    "faiss PCAMatrix": faiss,
    "scikit-learn PCA of 1 in 10": sampled_pca,
    "scikit-learn-intelex PCA": scikit_learn_intelex,
    "fbpca": fbpca,
}
"""All fits by name: floors, this package, lazy fits, fits in memory."""
