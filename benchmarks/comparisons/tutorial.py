"""How much faster and smaller than the Dask image tutorial's own PCA is ImagePCA, on the same JPEG files?

Takes a few minutes, 9 GB of memory for the tutorial's own workflow, 20 MB of disk. Trial: --n 100 --size 64

Each workflow runs in a fresh process, so that peak memory (Linux's VmHWM, imports included) is its own; peak memory
after imports stands beside it. Times begin after imports, with the files in the operating system's cache. CPU seconds
show whether other programs kept the machine busy. The tutorial's workflow runs once; the others run three times, and
the run of median time is shown. Each library uses its default number of threads.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..lib.command import add_stack_options, command_parser, given_or_temporary
from ..lib.fits import K, dask_tutorial, image_pca, scikit_learn
from ..lib.measure import Answer, Measurement, Workflow, add_workflow_options, measure, median_run, ran_workflow
from ..lib.stacks import write_cells

MODULE = "benchmarks.comparisons.tutorial"


def four_steps() -> Workflow:
    """Fit the whole Pipeline to the files. It rescales the images, so its components differ from the tutorial's."""
    import distributed  # noqa: F401 - dask.compute imports it late
    from sklearn.pipeline import make_pipeline

    from imgstack_ml import ImageFlattener, ImagePCA, IntensityRescaler, StackCenterer, open_stack

    def run(folder: Path) -> Answer:
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


def measured(name: str, folder: Path) -> Measurement:
    """Measure the tutorial once, since it takes long, and the others three times."""
    return median_run([measure(MODULE, name, folder) for _ in range(1 if name == "Dask tutorial" else 3)])


def disagreement(answer: Answer, expected: Answer) -> tuple[float, float]:
    """Return the largest 1 - |cos| between components, and the largest relative error of a singular value."""
    a, b = (each["components"].astype(np.float64) for each in (answer, expected))
    cosines = np.abs(np.einsum("ij,ij->i", a, b)) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.abs(1 - cosines).max(), np.abs(np.sqrt(answer["variance"] / expected["variance"]) - 1).max()


def write_images(folder: Path, n: int, size: int) -> None:
    """Write n generated cell images as JPEG files, unless the folder has them already.

    Raises
    ------
    SystemExit
        If the folder has other JPEG files.
    """
    files = sorted(folder.glob("*.jpg"))
    if len(files) == n and _image_size(files[0]) == (size, size):
        return
    if files:
        raise SystemExit(f"{str(folder)!r} holds other images; give a new folder with --folder")
    write_cells(folder, n, size)


def _image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def print_tables(results: dict[str, Measurement]) -> None:
    """Print what each workflow took, and how well its components agree with the tutorial's."""
    tutorial = results["Dask tutorial"]
    print(f"{'':<24}{'seconds':>9}{'CPU s':>8}{'peak MB':>10}{'imports MB':>12}{'faster':>9}{'less memory':>13}")
    for name, m in results.items():
        faster, smaller = tutorial.seconds / m.seconds, tutorial.peak / m.peak
        print(
            f"{name:<24}{m.seconds:>9.2f}{m.cpu_seconds:>8.2f}{m.peak:>10.0f}{m.baseline:>12.0f}{faster:>8.1f}x{smaller:>12.1f}x"
        )
    print("\nAgreement with the tutorial's components: max |1 - |cos||, largest relative error of a singular value")
    for name in ("ImagePCA(10)", "scikit-learn in memory"):
        angle, error = disagreement(results[name].answer, tutorial.answer)
        print(f"{name:<24}{angle:>9.1e}{error:>10.1e}")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(MODULE, __doc__)
    add_stack_options(parser, 844)
    add_workflow_options(parser, WORKFLOWS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all workflows."""
    given = arguments(argv)
    if ran_workflow(given, WORKFLOWS):
        return
    with given_or_temporary(given.folder) as folder:
        write_images(folder, given.n, given.size)
        results = {name: measured(name, folder) for name in WORKFLOWS}
    print(f"{given.n} JPEG files of {given.size} x {given.size} x 3, ten components\n")
    print_tables(results)


if __name__ == "__main__":
    main()
