"""Does ImagePCA fit twenty components of a stack of 1.5 times the memory, with memory_limit="2GB"?

Takes a quarter of an hour, 2.5 GB of memory, and a disk with room for the stack and 10 GB more. Trial: --bytes 2e9

Writes a stack of 256 x 256 x 3 images with 40 planted modes and noise into a new folder, and removes it at the end, on
an error and when interrupted. If the disk has no room for it, nothing is written. The fit runs in a process of its own;
times begin after imports. Such a stack does not fit into the operating system's cache, so that each pass reads the
disk.

The explained variances are compared with the planted ones, which are known without the images to about 3e-4.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import numpy as np
import psutil

from ..lib.command import command_parser, exit_on_sigterm
from ..lib.measure import Answer, Measurement, Workflow, add_workflow_options, measure, ran_workflow
from ..lib.pages import PAGE, machine_and_versions, markdown_table, replace_between_markers
from ..lib.stacks import planted_variances, write_planted

MODULE = "benchmarks.comparisons.larger_than_memory"
IMAGE_SHAPE = (256, 256, 3)
CHUNK = 64  # images
K = 20
MEMORY_LIMIT = "2GB"
MARGIN = 10e9  # bytes of the disk that stay free


def image_pca() -> Workflow:
    """Fit ImagePCA to the zarr, and return what it plans and finds."""
    import distributed  # noqa: F401 - dask.compute imports it late

    from imgstack_ml import ImagePCA, open_stack

    def run(store: Path) -> Answer:
        pca = ImagePCA(K, memory_limit=MEMORY_LIMIT, random_state=0)
        stack = open_stack(store)
        planned = pca.plan(stack).peak_bytes
        pca.fit(stack)
        return {
            "variance": pca.explained_variance_,
            "passes": np.array(pca.n_passes_),
            "solver": np.array(pca.svd_solver_),
            "planned": np.array(planned),
            "certificate": np.array(repr(pca.certificate_ or "an exact solver has no certificate")),
        }

    return run


WORKFLOWS: dict[str, Callable[[], Workflow]] = {f"ImagePCA({K})": image_pca}


def n_images(n_bytes: float) -> int:
    """Return the number of images, in whole chunks, whose pixels take at least so many bytes."""
    return CHUNK * max(1, -(-int(n_bytes) // (CHUNK * prod(IMAGE_SHAPE))))


def require_room(folder: Path, n_bytes: float) -> None:
    """Raise SystemExit if the disk has no room for the stack and the margin."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes + MARGIN:
        raise SystemExit(
            f"{str(folder)!r} has {free / 1e9:.1f} GB free, and the stack takes {n_bytes / 1e9:.1f} GB beside "
            f"{MARGIN / 1e9:.0f} GB that stay free: give another --folder, or fewer --bytes"
        )


def measure_stack(folder: Path, n: int) -> Measurement:
    """Write a stack of `n` images, fit it, and remove it whatever happens."""
    require_room(folder, n * prod(IMAGE_SHAPE))
    with tempfile.TemporaryDirectory(prefix="larger-than-memory-", dir=folder) as scratch:
        store = Path(scratch) / "stack.zarr"
        write_planted(store, n, IMAGE_SHAPE, "uint8", CHUNK)
        return measure(MODULE, next(iter(WORKFLOWS)), store)


def result_table(n: int, run: Measurement) -> str:
    """Return a table of the result, and the certificate."""
    p, answer = prod(IMAGE_SHAPE), run.answer
    passes, n_bytes = float(answer["passes"]), n * p
    off = np.abs(answer["variance"] / planted_variances(n, p, "uint8", CHUNK)[:K] - 1).max()
    size = " × ".join(map(str, IMAGE_SHAPE))
    rows = [
        ("stack", f"{n:,} images of {size} uint8, {n_bytes / 1e9:.1f} GB"),
        ("memory of the machine", f"{psutil.virtual_memory().total / 1e9:.1f} GB"),
        ("fit", f"`ImagePCA({K}, memory_limit={MEMORY_LIMIT!r})`, solver `{answer['solver']}`"),
        ("time", f"{run.seconds:.0f} s (CPU {run.cpu_seconds:.0f} s)"),
        ("reads", f"{passes:.3g} ({run.bytes_read / n_bytes:.3g} by bytes read)"),
        ("effective speed of a pass", f"{n_bytes * passes / run.seconds / 1e9:.2f} GB/s"),
        ("memory above imports, planned", f"{float(answer['planned']) / 1e6:.0f} MB"),
        ("memory above imports, measured", f"{run.peak - run.baseline:.0f} MB"),
        ("peak of the process", f"{run.peak:.0f} MB"),
        ("largest difference from a planted variance", f"{off:.1e}"),
    ]
    return f"{markdown_table(('', ''), rows)}\n\n```\n{answer['certificate']}\n```\n\n{machine_and_versions()}"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(MODULE, __doc__)
    most = 1.5 * psutil.virtual_memory().total
    parser.add_argument("--bytes", type=float, default=most, help="size of the stack (default: 1.5 times the memory)")
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--folder", type=Path, default=temporary, help="for the stack (default: the temporary folder)")
    parser.add_argument("--docs", action="store_true", help="write into docs/benchmarks.md")
    add_workflow_options(parser, WORKFLOWS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write a stack, fit it, remove it, and print the result."""
    given = arguments(argv)
    if ran_workflow(given, WORKFLOWS):
        return
    exit_on_sigterm()
    n = n_images(given.bytes)
    text = result_table(n, measure_stack(given.folder, n))
    print(text)
    if given.docs:
        replace_between_markers(PAGE, "larger than memory", text)


if __name__ == "__main__":
    main()
