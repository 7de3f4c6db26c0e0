"""``imgstack-ml pca``: the principal components of a folder of images."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import click

from ..errors import MemoryLimitError
from ._analysis import analyse, describe, plan_of, write_report, write_results
from ._input import ImageOptions, describe_run, image_options, input_folders
from ._model import MODEL_FILE
from ._output import OutputFolder, refuse_inside
from ._summary import summary
from ._task import Task, Terminal, TerminatedError, memory_limit_option, run_options

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from .. import ImageStack

__all__ = ["pca"]

_COMPONENTS = 16


@click.command(cls=Task, short_help="Principal components of your own images.")
@click.option("-o", "--out", type=click.Path(file_okay=False), help="Folder for the results; needed, but for --plan.")
@click.option(
    "-k",
    "n_components",
    metavar="N",
    type=click.IntRange(min=1),
    help="Number of components.  [default: 16, or as many as the images allow]",
)
@image_options()
@click.option(
    "--rescale/--no-rescale",
    default=False,
    show_default=True,
    help="Stretch each image to the full range of intensities first, so that bright and dim ones compare; "
    "else pixels count as they are.",
)
@click.option(
    "--solver",
    type=click.Choice(["auto", "gram", "covariance_eigh", "tsqr", "randomized"]),
    default="auto",
    show_default=True,
    help="How to compute: auto takes the cheapest that fits the memory limit, the exact ones first; randomized is for "
    "any number of images and certifies its accuracy.",
)
@memory_limit_option
@click.option(
    "--plan",
    is_flag=True,
    help="Say which solver would be taken, what it would read and hold, and stop: nothing is read.",
)
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="Write report.html, for which the images are read once more.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run that was interrupted or killed: the same command, and this option. What it had read for the "
    "fit is not read again, as far as it was saved.",
)
@run_options()
def pca(
    images: ImageOptions,
    terminal: Terminal,
    out: str | None,
    n_components: int | None,
    rescale: bool,
    solver: str,
    memory_limit: str,
    plan: bool,
    report: bool,
    overwrite: bool,
    resume: bool,
) -> None:
    """Find the principal components (eigenimages) of the images in FOLDER.

    FOLDER can also be a pattern in quotes, such as 'plate*/*.tif', or a stack stored by imgstack_ml.save_stack.
    The images must be of one shape and type; JPEG, PNG and TIFF are read.

    \b
    Examples:
      imgstack-ml pca photos --plan
      imgstack-ml pca photos -o results -k 16
      imgstack-ml pca plates --recursive --rescale --memory-limit 2GB -o results
      imgstack-ml pca plates --recursive --rescale --memory-limit 2GB -o results --resume
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    make_pipeline = partial(_pipeline, rescale, n_components, solver, memory_limit)
    if plan:
        _show_plan(images.open(terminal), images.source, make_pipeline, terminal, started)
        return
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'.")
    folder = OutputFolder(out, overwrite=overwrite, resume=resume)
    refuse_inside(out, [images.source])
    stack = images.open(terminal)
    refuse_inside(out, input_folders(stack))
    folder.create()
    try:
        with _naming_the_options():
            analysis = analyse(make_pipeline(stack, folder.checkpoint), stack, terminal)
    except (KeyboardInterrupt, TerminatedError) as stop:
        if folder.is_resumable:
            stop.add_note("to go on from here: the same command with --resume")
        raise
    write_results(folder, analysis, stack, images.source, terminal)
    record = describe(analysis, stack, images.source, started)
    if report:
        write_report(folder, analysis, stack, images.source, record, terminal)
    record = folder.finish(record)
    next_lines = (
        f"Next, in Python: model = imgstack_ml.load_model({os.path.join(out, MODEL_FILE)!r})\n"
        f"or, for other images: imgstack-ml transform {shlex.quote(out)} FOLDER -o scores.csv"
    )
    terminal.result(summary(record, out, next_lines), record, n_skipped=len(stack.problems))


@contextmanager
def _naming_the_options() -> Iterator[None]:
    try:
        yield
    except MemoryLimitError as error:
        error.add_note("here these are the options --memory-limit, --solver and -k")
        raise


def _show_plan(
    stack: ImageStack, source: str, make_pipeline: Callable[..., Pipeline], terminal: Terminal, started: float
) -> None:
    """Print what the fit would do."""
    with _naming_the_options():
        plan = plan_of(make_pipeline(stack, None), stack)
    record = {
        **describe_run(stack, source, started),
        "plan": {
            "solver": plan.solver,
            "n_passes": float(plan.n_passes),
            "planned_peak_bytes": int(plan.peak_bytes),
            "memory_limit_bytes": int(plan.memory_limit),
        },
    }
    terminal.result(f"{stack!r}\n{plan!r}", record)


def _pipeline(
    rescale: bool, n_components: int | None, solver: str, memory_limit: str, stack: ImageStack, checkpoint: str | None
) -> Pipeline:
    from sklearn.pipeline import Pipeline

    from .. import ImagePCA, IntensityRescaler

    k = n_components or min(_COMPONENTS, max(1, len(stack) - 1), math.prod(stack.shape[1:]))
    first = [("rescale", IntensityRescaler())] if rescale else []
    # It centres by itself: a StackCenterer before it would cost a read. The same command gives the same result.
    last = ImagePCA(k, svd_solver=solver, memory_limit=memory_limit, random_state=0, checkpoint=checkpoint)
    return Pipeline([*first, ("pca", last)])
