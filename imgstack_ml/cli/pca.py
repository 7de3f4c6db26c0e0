"""``imgstack-ml pca``: the principal components of a folder of images."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import click

from ..errors import MemoryLimitError
from .lib.analysis import analyse, describe_fit, plan_of, write_report, write_results
from .lib.images import ImageOptions, image_options
from .lib.mask import mask_option, read_mask
from .lib.model import MODEL_FILE
from .lib.options import (
    DEFAULT_COMPONENTS,
    memory_limit_option,
    n_components_option,
    overwrite_option,
    results_option,
    run_options,
)
from .lib.output import OutputFolder
from .lib.run import Run, refusing_another_run, tell_finished
from .lib.task import Task, hint
from .lib.terminal import Terminal

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from .. import ImageStack

__all__ = ["pca"]

_hint_options = partial(hint, MemoryLimitError, "here these are the options --memory-limit, --solver and -k")


@click.command(cls=Task, short_help="Principal components of your own images.")
@results_option(required=False)
@n_components_option()
@image_options()
@click.option(
    "--rescale/--no-rescale",
    default=False,
    show_default=True,
    help="Stretch each image to the full range of intensities first, so that bright and dim images compare.",
)
@mask_option
@click.option(
    "--solver",
    type=click.Choice(["auto", "gram", "covariance_eigh", "tsqr", "randomized"]),
    default="auto",
    show_default=True,
    help="How to compute: auto chooses the cheapest solver that fits the memory limit, exact ones first; randomized "
    "works for any number of images and certifies its accuracy.",
)
@memory_limit_option
@click.option(
    "--plan",
    is_flag=True,
    help="Print the solver that would be chosen, its reads and its peak memory, and stop. Nothing is read or written, "
    "and -o is not needed.",
)
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="Write report.html, for which the images are read once more.",
)
@click.option(
    "--full-size",
    is_flag=True,
    help="Also write the eigenimages as they are, as one TIFF: pictures are reduced to 2048 pixels a side.",
)
@overwrite_option()
@click.option(
    "--resume",
    is_flag=True,
    help="Resume a run that was interrupted or killed: repeat its command with this option added. Reads of the fit "
    "whose results were saved are not repeated. A fit that keeps the images in memory saves nothing, and begins again. "
    "A run that is finished is left as it is.",
)
@run_options()
def pca(
    images: ImageOptions,
    terminal: Terminal,
    out: str | None,
    n_components: int | None,
    rescale: bool,
    mask: str | None,
    solver: str,
    memory_limit: str,
    plan: bool,
    report: bool,
    full_size: bool,
    overwrite: bool,
    resume: bool,
) -> None:
    """Find the principal components (eigenimages) of the images in FOLDER.

    FOLDER can also be a pattern in quotes, such as 'plate*/*.tif', an archive, a TIFF of many pages, a zarr array:
    whatever imgstack_ml.open_stack takes. Images of several sizes or modes need --shape and --mode, and
    "imgstack-ml scan FOLDER" prints the line for them.

    \b
    Examples:
      imgstack-ml pca photos --plan
      imgstack-ml pca photos -o results -k 16
      imgstack-ml pca frames -o results --mask roi.png
      imgstack-ml pca plates -r --rescale --memory-limit 2GB -o results
      imgstack-ml pca plates -r --rescale --memory-limit 2GB -o results --resume
      imgstack-ml pca mixed --mode RGB --shape 256x256 --fit crop -o results
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    make_pipeline = partial(_make_pipeline, rescale, mask, n_components, solver, memory_limit)
    if plan:
        _print_plan(images.open(terminal, started), make_pipeline)
        return
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'.")
    if resume and tell_finished(out, terminal):
        return
    folder = OutputFolder(out, overwrite=overwrite, resume=resume)
    run = images.open(terminal, started, out=out, check=partial(_check_plan, make_pipeline))
    pipeline = make_pipeline(run.stack, folder.checkpoint)
    folder.create()
    with _hint_options(), refusing_another_run(out) if resume else nullcontext():
        analysis = analyse(pipeline, run)
    write_results(folder, analysis, run, full_size=full_size)
    record = run.describe(fit=describe_fit(analysis))
    if report:
        write_report(folder, analysis, run, record)
    run.finish(
        folder,
        record,
        f"Next, in Python: model = imgstack_ml.load_model({os.path.join(out, MODEL_FILE)!r})\n"
        f"or, for other images: imgstack-ml transform {shlex.quote(out)} FOLDER -o scores.csv",
    )


def _check_plan(make_pipeline: Callable[..., Pipeline], stack: ImageStack) -> None:
    """Refuse a fit that cannot be, before images are decoded."""
    with _hint_options():
        plan_of(make_pipeline(stack, None), stack)


def _print_plan(run: Run, make_pipeline: Callable[..., Pipeline]) -> None:
    """Print what the fit would do."""
    with _hint_options():
        plan = plan_of(make_pipeline(run.stack, None), run.stack)
    record = run.describe(
        plan={
            "solver": plan.solver,
            "n_passes": float(plan.n_passes),
            "planned_peak_bytes": int(plan.peak_bytes),
            "memory_limit_bytes": int(plan.memory_limit),
        }
    )
    run.terminal.result(f"{run.stack!r}\n{plan!r}", record)


def _make_pipeline(
    rescale: bool,
    mask: str | None,
    n_components: int | None,
    solver: str,
    memory_limit: str,
    stack: ImageStack,
    checkpoint: str | None,
) -> Pipeline:
    from sklearn.pipeline import Pipeline

    from .. import ImagePCA, IntensityRescaler

    inside = None if mask is None else read_mask(mask, stack)
    n_values = math.prod(stack.shape[1:]) if inside is None else int(inside.sum()) * math.prod(stack.shape[3:])
    k = n_components or min(DEFAULT_COMPONENTS, max(1, len(stack) - 1), n_values)
    first = [("rescale", IntensityRescaler())] if rescale else []
    # ImagePCA centres by itself: a StackCenterer before it would read the images once more. A fixed seed: the same
    # command gives the same result.
    last = ImagePCA(k, svd_solver=solver, memory_limit=memory_limit, random_state=0, checkpoint=checkpoint, mask=inside)
    return Pipeline([*first, ("pca", last)])
