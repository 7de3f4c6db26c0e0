"""``imgstack-ml pca``: the principal components of a folder of images."""

from __future__ import annotations

import math
import os
from time import perf_counter
from typing import TYPE_CHECKING

import click

from .._errors import MemoryLimitError
from ._analysis import analyse, describe, write_report, write_results
from ._input import input_folders, mode_option, on_error_option, open_images, shape_option
from ._output import OutputFolder, refuse_inside
from ._summary import summary
from ._task import SKIPPED, Task, Terminal, TerminatedError, debug_option, json_option, quiet_option

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


__all__ = ["pca"]

_COMPONENTS = 16
_NAMED = 5  # files left out that are named on the terminal


def _memory_size(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse a size that is none at once, not after the headers of a million files."""
    if value == "auto":
        return value
    from dask.utils import parse_bytes

    try:
        if parse_bytes(value) > 0:
            return value
    except ValueError:
        pass
    raise click.BadParameter(f"{value!r} is no size; give auto, a number of bytes, or a size such as 500MB or 2GB")


@click.command(cls=Task, short_help="Principal components of your own images.")
@click.argument("source", metavar="FOLDER")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder for the results.")
@click.option(
    "-k",
    "n_components",
    metavar="N",
    type=click.IntRange(min=1),
    help="Number of components.  [default: 16, or as many as the images allow]",
)
@click.option("-r", "--recursive", is_flag=True, help="Read the sub-folders of FOLDER too.")
@mode_option
@shape_option
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
@click.option(
    "--memory-limit",
    default="auto",
    show_default=True,
    metavar="SIZE",
    callback=_memory_size,
    help="Memory that the fit may take, e.g. 1GB; auto stays below half of what is free.",
)
@on_error_option
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
@json_option
@quiet_option
@debug_option
def pca(
    source: str,
    out: str,
    n_components: int | None,
    recursive: bool,
    mode: str | None,
    shape: tuple[int, int] | None,
    rescale: bool,
    solver: str,
    memory_limit: str,
    on_error: str,
    report: bool,
    overwrite: bool,
    resume: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Find the principal components (eigenimages) of the images in FOLDER.

    FOLDER can also be a pattern in quotes, such as 'plate*/*.tif', or a stack stored by imgstack_ml.save_stack.
    The images must be of one shape and type; JPEG, PNG and TIFF are read.

    \b
    Examples:
      imgstack-ml pca photos -o results -k 16
      imgstack-ml pca plates --recursive --rescale --memory-limit 2GB -o results
      imgstack-ml pca plates --recursive --rescale --memory-limit 2GB -o results --resume
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    terminal = Terminal(quiet, as_json)
    folder = OutputFolder(out, overwrite=overwrite, resume=resume)
    refuse_inside(out, [source])
    stack = open_images(source, terminal, recursive=recursive, mode=mode, shape=shape, on_error=on_error)
    refuse_inside(out, input_folders(stack))
    folder.create()
    try:
        n_components = n_components or min(_COMPONENTS, max(1, len(stack) - 1), math.prod(stack.shape[1:]))
        pipeline = _pipeline(rescale, n_components, solver, memory_limit, folder.checkpoint)
        analysis = analyse(pipeline, stack, terminal)
    except MemoryLimitError as error:
        error.add_note("here these are the options --memory-limit, --solver and -k")
        raise
    except (KeyboardInterrupt, TerminatedError) as stop:
        if folder.is_resumable:
            stop.add_note("to go on from here: the same command with --resume")
        raise
    write_results(folder, analysis, stack, source, terminal)
    record = describe(analysis, stack, source, started)
    if report:
        write_report(folder, analysis, stack, source, record, terminal)
    record = folder.finish(record)
    model = os.path.join(out, "model.safetensors")
    terminal.result(summary(record, out, f"Next, in Python: model = imgstack_ml.load_model({model!r})"), record)
    if stack.problems:
        click.get_current_context().exit(SKIPPED)


def _pipeline(rescale: bool, n_components: int, solver: str, memory_limit: str, checkpoint: str) -> Pipeline:
    from sklearn.pipeline import Pipeline

    from .. import ImagePCA, IntensityRescaler

    first = [("rescale", IntensityRescaler())] if rescale else []
    # It centres by itself: a StackCenterer before it would cost a read. The same command gives the same result.
    last = ImagePCA(n_components, svd_solver=solver, memory_limit=memory_limit, random_state=0, checkpoint=checkpoint)
    return Pipeline([*first, ("pca", last)])
