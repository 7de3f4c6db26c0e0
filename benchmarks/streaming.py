"""The streaming PCA beside Dask's and scikit-learn's out-of-core ones, and beside the floor of a single pass.

``python -m benchmarks.streaming [--n 20032] [--size 256] [--folder DIR]``

Makes a zarr of n images of size x size x 3 uint8 in uncompressed chunks of 64 images: 40 planted modes whose
singular values fall by a tenth each, and noise (3.9 GB at full size, kept in --folder if one is given). Fits ten
components by each workflow in a fresh process, so that its peak memory (Linux's VmHWM, imports included) is its own.
Times begin after imports. The error is that of the tenth explained variance, against `svd_compressed` with eight
power iterations in float64. scikit-learn's IncrementalPCA takes many minutes: it is timed on 1/16 of the images, and
its time is scaled up.

The floor of a pass is a bare loop of two threads over the same chunks that reads, casts to float32 in tiles and
multiplies twice by a block of 32 vectors; the pass beside it is one of ImagePCA's own. Both run in one process, three
times in turn, and the medians are shown.
"""

import argparse
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from timeit import default_timer
from typing import Any

import numpy as np
import zarr

from ._measure import Found, Measurement, Workflow, measure, run_here

CHUNK = 64  # images
K = 10
N_MODES = 40
N_ROWS = 32  # of a block of vectors, as ImagePCA(10) multiplies
PART = 16  # IncrementalPCA sees one image in so many
TILE = 2048  # pixels
THREADS = 2


# Workflows: each imports what it needs and returns what is then timed ----------------------------------


def image_pca(max_passes: int = 6) -> Workflow:
    """Fit this package's estimator with defaults."""
    import dask.array as da
    import distributed  # noqa: F401 - dask.compute imports it late

    from imgstack_ml import ImagePCA

    def run(store: Path) -> Found:
        pca = ImagePCA(K, random_state=0, max_passes=max_passes).fit(da.from_zarr(store))
        return {"variance": pca.explained_variance_, "reads": np.array(pca.n_passes_)}

    return run


def svd_compressed(power: int = 1, dtype: str = "float32") -> Workflow:
    """Subtract the mean in a read of its own, then Dask's randomized singular value decomposition."""
    import dask
    import dask.array as da
    import distributed  # noqa: F401 - dask.compute imports it late

    def run(store: Path) -> Found:
        images = da.from_zarr(store)
        rows = images.reshape(len(images), -1).astype(dtype)
        centred = rows - rows.mean(axis=0).compute()
        seed = da.random.RandomState(0)
        _, s, _ = da.linalg.svd_compressed(centred, K, n_power_iter=power, compute=True, seed=seed)
        (s,) = dask.compute(s)
        return {"variance": s.astype(np.float64) ** 2 / (len(images) - 1), "reads": np.array(3.0 + 2 * power)}

    return run


def incremental_pca() -> Workflow:
    """Fit scikit-learn's IncrementalPCA, a chunk of images at a time."""
    from sklearn.decomposition import IncrementalPCA

    def run(store: Path) -> Found:
        images = zarr.open_array(store, mode="r")
        pca = IncrementalPCA(K)
        for start in range(0, images.shape[0] // PART, CHUNK):
            pca.partial_fit(images[start : start + CHUNK].reshape(CHUNK, -1).astype(np.float32))
        return {"variance": pca.explained_variance_, "reads": np.array(1.0)}

    return run


WORKFLOWS: dict[str, Callable[[], Workflow]] = {
    "ImagePCA(10)": image_pca,
    "ImagePCA(10), one read": partial(image_pca, 1),
    "svd_compressed(q=1)": svd_compressed,
    "IncrementalPCA": incremental_pca,
    "truth": partial(svd_compressed, 8, "float64"),
}


# Data -------------------------------------------------------------------------------------------------


def prepare(store: Path, n: int, size: int) -> None:
    """Write the planted stack, unless it is there."""
    shape = (n, size, size, 3)
    if store.exists() and zarr.open_array(store, mode="r").shape == shape:
        return
    p = size * size * 3
    rng = np.random.default_rng(0)
    modes = np.linalg.qr(rng.standard_normal((p, N_MODES)))[0].T.astype(np.float32)
    sizes = (10 * np.sqrt(p) * 0.9 ** np.arange(N_MODES)).astype(np.float32)
    images = zarr.create_array(store, shape=shape, chunks=(CHUNK, *shape[1:]), dtype="u1", compressors=None)

    def write(start: int) -> None:
        own = np.random.default_rng((1, start))
        pixels = (own.standard_normal((CHUNK, N_MODES), dtype=np.float32) * sizes) @ modes
        pixels += 8 * own.standard_normal((CHUNK, p), dtype=np.float32) + 128
        images[start : start + CHUNK] = np.rint(pixels).clip(0, 255).astype(np.uint8).reshape(CHUNK, *shape[1:])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(0, n, CHUNK)))


# The floor of a pass ----------------------------------------------------------------------------------


def bare_pass(images: zarr.Array, vectors: np.ndarray, shift: np.ndarray) -> None:
    """Read, cast in tiles, multiply twice: what no pass can do without."""
    starts = iter(range(0, images.shape[0], CHUNK))
    lock = threading.Lock()

    def work() -> None:
        products = np.zeros_like(vectors)
        tile = np.empty((CHUNK, TILE), np.float32)
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            block = images[start : start + CHUNK].reshape(CHUNK, -1)
            scores = np.zeros((CHUNK, len(vectors)), np.float32)
            spans = [slice(a, a + TILE) for a in range(0, block.shape[1], TILE)]
            for span in spans:
                part = _cast(block, shift, span, tile)
                scores += part @ vectors[:, span].T
            weights = np.ascontiguousarray(scores.T)
            for span in spans:
                products[:, span] += weights @ _cast(block, shift, span, tile)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _cast(block: np.ndarray, shift: np.ndarray, span: slice, tile: np.ndarray) -> np.ndarray:
    part = tile[:, : len(shift[span])]
    np.subtract(block[:, span], shift[span], out=part, dtype=np.float32, casting="unsafe")
    return part


def own_pass(store: Path, vectors: np.ndarray, shift: np.ndarray) -> None:
    """Make one of ImagePCA's passes, planned as ImagePCA plans it."""
    import dask.array as da

    from imgstack_ml import ImagePCA
    from imgstack_ml._passes import PassRunner
    from imgstack_ml._validation import Images
    from imgstack_ml.linalg.krylov import merge_images, stream

    stack = da.from_zarr(store)
    need = ImagePCA(K, svd_solver="randomized").plan(stack).chosen
    runner = PassRunner(Images(stack, None), read_bytes=need.reading_bytes)
    runner.run(
        partial(stream, dtype=np.dtype(np.float32)),
        merge_images,
        shared=(vectors, shift.astype(np.float64), np.zeros(len(vectors))),
        partial_bytes=vectors.nbytes,
        batch_bytes=need.sizes.batch_bytes,
    )


def compare_pass(store: Path) -> tuple[float, float]:
    """Return median seconds of the floor and of our pass, in turn, with BLAS on one thread."""
    from imgstack_ml._passes import one_blas_thread

    images = zarr.open_array(store, mode="r")
    p = int(np.prod(images.shape[1:]))
    vectors = np.random.default_rng(0).standard_normal((N_ROWS, p), dtype=np.float32)
    shift = np.full(p, 128, np.float32)
    passes = [partial(bare_pass, images, vectors, shift), partial(own_pass, store, vectors, shift)]
    with one_blas_thread():
        rounds = [[_seconds(run) for run in passes] for _ in range(4)][1:]  # the first one warms up
    floor, own = (median(times) for times in zip(*rounds, strict=True))
    return floor, own


def _seconds(run: Callable[[], None]) -> float:
    start = default_timer()
    run()
    return default_timer() - start


# Printing ---------------------------------------------------------------------------------------------


def report(results: dict[str, Measurement]) -> None:
    """Print a table."""
    truth = results.pop("truth").found["variance"][K - 1]
    own = results["ImagePCA(10)"].seconds
    print(f"{'':<26}{'seconds':>9}{'to ours':>9}{'CPU s':>9}{'peak MB':>9}{'reads':>7}{'error of the 10th':>19}")
    for name, m in results.items():
        scale = PART if name == "IncrementalPCA" else 1
        error = "" if scale > 1 else f"{abs(m.found['variance'][K - 1] / truth - 1):.1e}"
        reads = float(m.found["reads"])
        print(
            f"{name:<26}{scale * m.seconds:>9.1f}{scale * m.seconds / own:>8.1f}x{scale * m.cpu_seconds:>9.1f}"
            f"{m.peak:>9.0f}{reads:>7.3g}{error:>19}"
        )


def arguments() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=20_032, help="images, a multiple of 64 (default: 20032)")
    parser.add_argument("--size", type=int, default=256, help="their height and width (default: 256)")
    parser.add_argument("--folder", type=Path, help="where the stack is or goes (default: a temporary folder)")
    parser.add_argument("--only", choices=WORKFLOWS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure all workflows, or run one for the process that measures it."""
    given = arguments()
    if given.only:
        run_here(WORKFLOWS[given.only], given.folder, given.result)
        return
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = folder / f"planted-{given.n}-{given.size}.zarr"
        prepare(store, given.n, given.size)
        results = {name: measure("benchmarks.streaming", name, store) for name in WORKFLOWS}
        floor, own = compare_pass(store)
    print(f"{given.n} images of {given.size} x {given.size} x 3 uint8, ten components\n")
    report(results)
    print(f"\nOne pass with {N_ROWS} vectors: floor {floor:.2f} s, ImagePCA's {own:.2f} s, {own / floor:.2f} times it")


if __name__ == "__main__":
    main()
