"""How fast is the streaming solver beside the out-of-core fits of Dask and scikit-learn, and beside a bare loop?

Takes 25 minutes, most of them for the reference in float64; 4 GB of disk, 2 GB of memory. Trial: --n 1024 --size 32

The stack is a zarr of --n images (a multiple of 64) of --size x --size x 3 uint8 in uncompressed chunks of 64 images:
40 planted modes whose singular values fall by a tenth each, and noise. It is kept in --folder if that is given.

Each workflow fits ten components in a fresh process, so that peak memory (Linux's VmHWM, imports included) is its own.
Times begin after imports. Reads are bytes read, divided by the size of the stack. The error is the relative error of
the tenth explained variance, against a subspace iteration in float64 that has converged. scikit-learn's
IncrementalPCA takes many minutes: it is timed on 1/16 of the images, and its time is multiplied by 16.

The floor of a pass is a bare loop of two threads over the same chunks, which reads, casts to float32 in tiles and
multiplies twice by a block of 32 vectors. It is compared with one pass of ImagePCA. Both run in one process, three
times alternately; medians are shown.

benchmarks.comparisons.peers compares more libraries, on more stacks.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from ..lib.command import add_stack_options, command_parser, given_or_temporary
from ..lib.fits import K, image_pca, incremental_pca, svd_compressed
from ..lib.floors import N_VECTORS, two_products
from ..lib.measure import Measurement, Workflow, add_workflow_options, measure, ran_workflow, seconds_of
from ..lib.stacks import Source, write_colour_stack
from ..lib.truth import truth_of

MODULE = "benchmarks.comparisons.streaming"
PART = 16  # IncrementalPCA fits 1/16 of the images


WORKFLOWS: dict[str, Callable[[], Workflow]] = {
    "ImagePCA(10)": image_pca,
    "ImagePCA(10), one read": partial(image_pca, max_passes=1),
    "svd_compressed(q=1)": svd_compressed,
    "IncrementalPCA": partial(incremental_pca, PART),
}


# The floor of a pass ----------------------------------------------------------------------------------


def image_pca_pass(store: Path, vectors: np.ndarray, shift: np.ndarray) -> None:
    """Run one pass of ImagePCA, with the batches that it plans."""
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
        batch_bytes=need.counts.batch_bytes,
    )


def compare_pass(store: Path) -> tuple[float, float]:
    """Return median seconds of the bare loop and of a pass of ImagePCA, with BLAS on one thread."""
    from imgstack_ml.passes.blas import one_blas_thread

    source = Source(store)
    vectors = np.random.default_rng(0).standard_normal((N_VECTORS, source.p), dtype=np.float32)
    shift = np.full(source.p, 128, np.float32)
    passes = [partial(two_products, source, vectors, shift), partial(image_pca_pass, store, vectors, shift)]
    with one_blas_thread():
        rounds = [[seconds_of(run) for run in passes] for _ in range(4)][1:]  # the first one warms up
    floor, own = (median(times) for times in zip(*rounds, strict=True))
    return floor, own


# Printing ---------------------------------------------------------------------------------------------


def print_table(results: dict[str, Measurement], truth: float, stored: int) -> None:
    """Print a table, given the true variance of the last component and the bytes of the stack."""
    own = results["ImagePCA(10)"].seconds
    print(f"{'':<26}{'seconds':>9}{'to ours':>9}{'CPU s':>9}{'peak MB':>9}{'reads':>7}{'error of the 10th':>19}")
    for name, m in results.items():
        scale = PART if name == "IncrementalPCA" else 1
        error = "" if scale > 1 else f"{abs(m.answer['variance'][K - 1] / truth - 1):.1e}"
        reads = scale * m.bytes_read / stored
        print(
            f"{name:<26}{scale * m.seconds:>9.1f}{scale * m.seconds / own:>8.1f}x{scale * m.cpu_seconds:>9.1f}"
            f"{m.peak:>9.0f}{reads:>7.2f}{error:>19}"
        )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(MODULE, __doc__)
    add_stack_options(parser, 20_032)
    add_workflow_options(parser, WORKFLOWS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all workflows."""
    given = arguments(argv)
    if ran_workflow(given, WORKFLOWS):
        return
    with given_or_temporary(given.folder) as folder:
        store = write_colour_stack(folder, given.n, given.size)
        results = {name: measure(MODULE, name, store) for name in WORKFLOWS}
        truth, stored = truth_of(store, K).variance[K - 1], Source(store).file_bytes
        floor, own = compare_pass(store)
    print(f"{given.n} images of {given.size} x {given.size} x 3 uint8, ten components\n")
    print_table(results, truth, stored)
    print(f"\nOne pass with {N_VECTORS} vectors: floor {floor:.2f} s, ImagePCA {own:.2f} s, {own / floor:.2f} times it")


if __name__ == "__main__":
    main()
