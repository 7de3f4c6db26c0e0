"""The streaming PCA beside Dask's and scikit-learn's out-of-core ones, and beside the floor of a single pass.

``python -m benchmarks.streaming [--n 20032] [--size 256] [--folder DIR]``

Makes a zarr of n images of size x size x 3 uint8 in uncompressed chunks of 64 images: 40 planted modes whose
singular values fall by a tenth each, and noise (3.9 GB at full size, kept in --folder if one is given). Fits ten
components by each workflow in a fresh process, so that its peak memory (Linux's VmHWM, imports included) is its own.
Times begin after imports. Reads are bytes read, in sizes of the stack. The error is that of the tenth explained
variance, against a subspace iteration in float64 that goes on until nothing is left to gain. scikit-learn's
IncrementalPCA takes many minutes: it is timed on 1/16 of the images, and its time is scaled up.
`python -m benchmarks.peers` compares more, on more stacks.

The floor of a pass is a bare loop of two threads over the same chunks that reads, casts to float32 in tiles and
multiplies twice by a block of 32 vectors; the pass beside it is one of ImagePCA's own. Both run in one process, three
times in turn, and the medians are shown.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from timeit import default_timer
from typing import Any

import numpy as np

from ._fits import K, image_pca, incremental_pca, svd_compressed
from ._floors import N_ROWS, two_products
from ._measure import Measurement, Workflow, measure, run_here
from ._stacks import Source, write_planted
from ._truth import truth_of

CHUNK = 64  # images
PART = 16  # IncrementalPCA sees one image in so many


WORKFLOWS: dict[str, Callable[[], Workflow]] = {
    "ImagePCA(10)": image_pca,
    "ImagePCA(10), one read": partial(image_pca, max_passes=1),
    "svd_compressed(q=1)": svd_compressed,
    "IncrementalPCA": partial(incremental_pca, PART),
}


# The floor of a pass ----------------------------------------------------------------------------------


def own_pass(store: Path, vectors: np.ndarray, shift: np.ndarray) -> None:
    """Make one of ImagePCA's passes, planned as ImagePCA plans it."""
    import dask.array as da

    from imgstack_ml import ImagePCA
    from imgstack_ml.base.validation import Images
    from imgstack_ml.linalg.krylov import both_products, merge_both_products
    from imgstack_ml.passes.runner import PassRunner

    stack = da.from_zarr(store)
    need = ImagePCA(K, svd_solver="randomized").plan(stack).chosen
    runner = PassRunner(Images(stack, None), read_bytes=need.reading_bytes)
    runner.run(
        partial(both_products, dtype=np.dtype(np.float32)),
        merge_both_products,
        shared=(vectors, shift.astype(np.float64), np.zeros(len(vectors))),
        partial_bytes=vectors.nbytes,
        batch_bytes=need.sizes.batch_bytes,
    )


def compare_pass(store: Path) -> tuple[float, float]:
    """Return median seconds of the floor and of our pass, in turn, with BLAS on one thread."""
    from imgstack_ml.passes.blas import one_blas_thread

    source = Source(store)
    vectors = np.random.default_rng(0).standard_normal((N_ROWS, source.p), dtype=np.float32)
    shift = np.full(source.p, 128, np.float32)
    passes = [partial(two_products, source, vectors, shift), partial(own_pass, store, vectors, shift)]
    with one_blas_thread():
        rounds = [[_seconds(run) for run in passes] for _ in range(4)][1:]  # the first one warms up
    floor, own = (median(times) for times in zip(*rounds, strict=True))
    return floor, own


def _seconds(run: Callable[[], None]) -> float:
    start = default_timer()
    run()
    return default_timer() - start


# Printing ---------------------------------------------------------------------------------------------


def report(results: dict[str, Measurement], truth: float, stored: int) -> None:
    """Print a table, given the true variance of the last component and the bytes of the stack."""
    own = results["ImagePCA(10)"].seconds
    print(f"{'':<26}{'seconds':>9}{'to ours':>9}{'CPU s':>9}{'peak MB':>9}{'reads':>7}{'error of the 10th':>19}")
    for name, m in results.items():
        scale = PART if name == "IncrementalPCA" else 1
        error = "" if scale > 1 else f"{abs(m.found['variance'][K - 1] / truth - 1):.1e}"
        reads = scale * m.bytes_read / stored
        print(
            f"{name:<26}{scale * m.seconds:>9.1f}{scale * m.seconds / own:>8.1f}x{scale * m.cpu_seconds:>9.1f}"
            f"{m.peak:>9.0f}{reads:>7.2f}{error:>19}"
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
        write_planted(store, given.n, (given.size, given.size, 3), "uint8", CHUNK)
        results = {name: measure("benchmarks.streaming", name, store) for name in WORKFLOWS}
        truth, stored = truth_of(store, K).variance[K - 1], Source(store).file_bytes
        floor, own = compare_pass(store)
    print(f"{given.n} images of {given.size} x {given.size} x 3 uint8, ten components\n")
    report(results, truth, stored)
    print(f"\nOne pass with {N_ROWS} vectors: floor {floor:.2f} s, ImagePCA's {own:.2f} s, {own / floor:.2f} times it")


if __name__ == "__main__":
    main()
