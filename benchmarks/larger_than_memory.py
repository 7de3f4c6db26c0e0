"""Twenty components of a stack larger than memory, within 2 GB: ``python -m benchmarks.larger_than_memory``.

    python -m benchmarks.larger_than_memory --bytes 2e9        # a trial
    python -m benchmarks.larger_than_memory --docs             # 1.5 times the memory, into docs/benchmarks.md

Writes a stack of 256 x 256 x 3 images with 40 planted modes and noise into a folder of its own, and removes it at the
end, on an error and when it is interrupted. 10 GB of the disk are left free: without room for both, nothing is
written. Fits in a process of its own; seconds are those after imports. A stack of that size does not fit the
operating system's cache, so that each pass reads the disk.

What is found is compared with the variances that were planted, known without the images to about 3e-4.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ._common import exit_on_sigterm
from ._measure import Found, Measurement, Workflow, measure, run_here
from ._pages import PAGE, fill, machine, table
from ._stacks import planted_variances, write_planted

IMAGE_SHAPE = (256, 256, 3)
CHUNK = 64  # images
K = 20
MEMORY_LIMIT = "2GB"
MARGIN = 10e9  # bytes of the disk that stay free


def image_pca() -> Workflow:
    """Fit this package's estimator, from the store."""
    import distributed  # noqa: F401 - dask.compute imports it late

    from imgstack_ml import ImagePCA, open_stack

    def run(store: Path) -> Found:
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


FITS: dict[str, Callable[[], Workflow]] = {f"ImagePCA({K})": image_pca}


def n_images(n_bytes: float) -> int:
    """Images, in whole chunks, that take at least so many bytes."""
    return CHUNK * max(1, -(-int(n_bytes) // (CHUNK * prod(IMAGE_SHAPE))))


def require_room(folder: Path, n_bytes: float) -> None:
    """Refuse where the disk has no room for the stack and the margin."""
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
        return measure("benchmarks.larger_than_memory", next(iter(FITS)), store)


def tell(n: int, run: Measurement) -> str:
    """Write what was found as a table, and the certificate."""
    p, found = prod(IMAGE_SHAPE), run.found
    passes, n_bytes = float(found["passes"]), n * p
    off = np.abs(found["variance"] / planted_variances(n, p, "uint8", CHUNK)[:K] - 1).max()
    size = " × ".join(map(str, IMAGE_SHAPE))
    rows = [
        ("stack", f"{n:,} images of {size} uint8, {n_bytes / 1e9:.1f} GB"),
        ("memory of the machine", f"{psutil.virtual_memory().total / 1e9:.1f} GB"),
        ("fit", f"`ImagePCA({K}, memory_limit={MEMORY_LIMIT!r})`, solver `{found['solver']}`"),
        ("time", f"{run.seconds:.0f} s (CPU {run.cpu_seconds:.0f} s)"),
        ("reads", f"{passes:.3g} ({run.bytes_read / n_bytes:.3g} by bytes read)"),
        ("effective speed of a pass", f"{n_bytes * passes / run.seconds / 1e9:.2f} GB/s"),
        ("memory above imports, planned", f"{float(found['planned']) / 1e6:.0f} MB"),
        ("memory above imports, measured", f"{run.peak - run.baseline:.0f} MB"),
        ("peak of the process", f"{run.peak:.0f} MB"),
        ("largest difference from a planted variance", f"{off:.1e}"),
    ]
    return f"{table(('', ''), rows)}\n\n```\n{found['certificate']}\n```\n\n{machine()}"


def arguments() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.larger_than_memory", description=__doc__.splitlines()[0]
    )
    most = 1.5 * psutil.virtual_memory().total
    parser.add_argument("--bytes", type=float, default=most, help="of the stack (default: 1.5 times the memory)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on a disk with room")
    parser.add_argument("--docs", action="store_true", help="write into docs/benchmarks.md")
    parser.add_argument("--only", choices=FITS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Write, fit, tell, and remove; or fit for the process that does."""
    given = arguments()
    if given.only:
        run_here(FITS[given.only], given.folder, given.result)
        return
    exit_on_sigterm()
    n = n_images(given.bytes)
    text = tell(n, measure_stack(given.folder, n))
    print(text)
    if given.docs:
        fill(PAGE, "larger than memory", text)


if __name__ == "__main__":
    main()
