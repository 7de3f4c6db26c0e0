"""``imgstack-ml reconstruct``: images as the components of a saved model draw them."""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING

import click

from .lib.images import ImageOptions, image_options
from .lib.line import typed
from .lib.model import errors_that_name_options, model_argument, open_model
from .lib.options import ComponentNumbers, OutputPath, n_components_option, overwrite_option, run_options
from .lib.output import make_folder, refuse_existing
from .lib.task import Task
from .lib.terminal import Terminal

if TYPE_CHECKING:
    from .. import ImageStack
    from .lib.reconstruction import Reconstruction

__all__ = ["reconstruct"]


@click.command(cls=Task, short_help="Images from k components of a saved model.")
@model_argument
@click.option(
    "-o",
    "--out",
    required=True,
    type=OutputPath(),
    help="A name that ends in .zarr for one array, or in .tif for one OME-TIFF of all images; or a folder for one file "
    "an image, in the sub-folders of FOLDER.",
)
@n_components_option("Use the first N components only.  [default: all]")
@click.option(
    "--components",
    metavar="LIST",
    type=ComponentNumbers(),
    help="Use these components only, by their numbers from 1 on, e.g. 1,3-5.",
)
@click.option("--residuals", is_flag=True, help="Draw what is left of the images without them, with signs.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["png", "tiff"]),
    help="Format of files in a folder: png rounds to the integers of the images; tiff keeps fractions.  [default: png "
    "where it can hold the images]",
)
@image_options()
@overwrite_option("the array, or files of the same names")
@run_options()
def reconstruct(
    images: ImageOptions,
    terminal: Terminal,
    model: str,
    out: str,
    n_components: int | None,
    components: list[int] | None,
    residuals: bool,
    kind: str | None,
    overwrite: bool,
) -> None:
    """Draw the images in FOLDER from the principal components of a saved model.

    MODEL is a file saved by pca, demo or imgstack_ml.save_model, or the folder of results that holds it. Steps before
    the components that cannot be inverted, such as the rescaling of intensities, are not undone. A .zarr array keeps
    names and labels of the images, and the exact numbers (float32 as a rule). Each image is read once, and neither
    images nor results need fit into memory.

    \b
    Examples:
      imgstack-ml reconstruct results photos -k 8 -o drawn
      imgstack-ml reconstruct results plates -r -o drawn
      imgstack-ml reconstruct results photos -k 8 --residuals -o left.zarr
      imgstack-ml reconstruct results photos -o drawn.zarr
      imgstack-ml reconstruct results film.avi --residuals -o changes.tif
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    from ..io.write.filenames import refuse_file_suffix
    from ..io.write.one_tiff import is_tiff_name
    from .lib.reconstruction import reconstruct_images, write_reconstruction

    if not is_tiff_name(out):
        refuse_file_suffix(out, "a folder of files, one an image,", "-o {0}; or one file: -o {0}.tif, or -o {0}.zarr")
    if components is not None and n_components is not None:
        raise click.UsageError("-k and --components both choose components; give one of them")
    refuse_existing(out, overwrite=overwrite)
    fitted = open_model(model)
    chosen = components if n_components is None else list(range(1, n_components + 1))
    option = "--components" if n_components is None else "-k"

    def draw(stack: ImageStack) -> Reconstruction:
        with errors_that_name_options():
            return reconstruct_images(fitted, model, stack, chosen, residuals=residuals, option=option)

    run = images.open(terminal, started, out=out, check=draw)
    drawn = draw(run.stack)
    make_folder(os.path.dirname(os.path.abspath(out)))
    k = len(drawn.numbers)
    what = f"{len(run.stack):,} images {'without' if residuals else 'from'} {k} component{'s' if k > 1 else ''}"
    terminal.status(f"drawing {what}, to {out}")
    options = {"overwrite": overwrite, "progress": terminal.progress}
    dtype = str(write_reconstruction(out, drawn, run.stack, run.image_names, kind=kind, **options))
    record = run.describe_output(out, n_components=k, components=drawn.numbers, residuals=residuals, dtype=dtype)
    in_folders = (
        os.path.isdir(out) and not out.lower().endswith(".zarr") and any("/" in name for name in run.image_names)
    )
    recursive = ["-r"] * in_folders
    seconds, next_line = record["seconds"], f"Next: {typed('imgstack-ml', 'scan', out, *recursive)}"
    run.print_result(f"{what} in {out}: {dtype}, in {seconds:.1f} s\n\n{next_line}", record)
