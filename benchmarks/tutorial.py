"""The Dask image tutorial's own PCA beside this package's, on the same JPEG files.

``python -m benchmarks.tutorial [--n 844] [--size 256] [--folder DIR]``

Each workflow runs in a fresh process, so that its peak memory (Linux's VmHWM, imports included) is its own; the
peak after imports stands beside it. Times begin after imports, with the files in the operating system's cache; CPU
seconds tell whether the machine was busy with something else. The short workflows run three times, and the one of
median time is shown. The full size needs 9 GB of memory and a few minutes.
Threads are as each library chooses them.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ._fits import K, dask_tutorial, image_pca, scikit_learn
from ._measure import Found, Measurement, Workflow, measure, median, run_here
from ._stacks import write_cells

# Workflows: those of `_fits`, and one more -------------------------------------------------------------


def four_steps() -> Workflow:
    """Fit the whole pipeline, from the files: rescaled images, hence other modes than the tutorial's."""
    import distributed  # noqa: F401 - dask.compute imports it late
    from sklearn.pipeline import make_pipeline

    from imgstack_ml import ImageFlattener, ImagePCA, IntensityRescaler, StackCenterer, open_stack

    def run(folder: Path) -> Found:
        steps = IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(K)
        pca = make_pipeline(*steps).fit(open_stack(folder))[-1]
        return {"variance": pca.explained_variance_, "components": pca.components_}

    return run


WORKFLOWS: dict[str, Callable[[], Workflow]] = {
    "Dask tutorial": dask_tutorial,
    "ImagePCA(10)": image_pca,
    "four-step Pipeline": four_steps,
    "scikit-learn in memory": scikit_learn,
}


# Measuring --------------------------------------------------------------------------------------------


def measured(name: str, folder: Path) -> Measurement:
    """Measure the tutorial once, since it takes long, and the others three times."""
    return median([measure("benchmarks.tutorial", name, folder) for _ in range(1 if name == "Dask tutorial" else 3)])


def disagreement(found: Found, expected: Found) -> tuple[float, float]:
    """Return the largest 1 - |cos| between modes, and the largest relative error of a singular value."""
    a, b = (each["components"].astype(np.float64) for each in (found, expected))
    cosines = np.abs(np.einsum("ij,ij->i", a, b)) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.abs(1 - cosines).max(), np.abs(np.sqrt(found["variance"] / expected["variance"]) - 1).max()


# Files ------------------------------------------------------------------------------------------------


def prepare(folder: Path, n: int, size: int) -> None:
    """Write n generated cell images as JPEGs, unless the folder holds them already."""
    files = sorted(folder.glob("*.jpg"))
    if len(files) == n and _image_size(files[0]) == (size, size):
        return
    if files:
        raise SystemExit(f"{str(folder)!r} holds other images; give a new folder with --folder")
    write_cells(folder, n, size)


def _image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


# Printing ---------------------------------------------------------------------------------------------


def report(results: dict[str, Measurement]) -> None:
    """Print a table, and how well the modes agree with the tutorial's."""
    tutorial = results["Dask tutorial"]
    print(f"{'':<24}{'seconds':>9}{'CPU s':>8}{'peak MB':>10}{'imports MB':>12}{'faster':>9}{'less memory':>13}")
    for name, m in results.items():
        faster, smaller = tutorial.seconds / m.seconds, tutorial.peak / m.peak
        print(
            f"{name:<24}{m.seconds:>9.2f}{m.cpu_seconds:>8.2f}{m.peak:>10.0f}{m.baseline:>12.0f}{faster:>8.1f}x{smaller:>12.1f}x"
        )
    print("\nAgreement with the tutorial's ten modes: max |1 - |cos||, largest relative error of a singular value")
    for name in ("ImagePCA(10)", "scikit-learn in memory"):
        angle, error = disagreement(results[name].found, tutorial.found)
        print(f"{name:<24}{angle:>9.1e}{error:>10.1e}")


def arguments() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorial", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=844, help="images (default: 844)")
    parser.add_argument("--size", type=int, default=256, help="their height and width (default: 256)")
    parser.add_argument("--folder", type=Path, help="where the images are or go (default: a temporary folder)")
    parser.add_argument("--only", choices=WORKFLOWS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure all workflows, or run one for the process that measures it."""
    given = arguments()
    if given.only:
        Image.init()  # Pillow imports its formats on first use
        run_here(WORKFLOWS[given.only], given.folder, given.result)
        return
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prepare(folder, given.n, given.size)
        results = {name: measured(name, folder) for name in WORKFLOWS}
    print(f"{given.n} JPEG files of {given.size} x {given.size} x 3, ten modes\n")
    report(results)


if __name__ == "__main__":
    main()
