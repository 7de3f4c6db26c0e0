"""``imgstack-ml reconstruct``: images as the components of a saved model draw them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..files.atomic import atomic_folder
from ._input import ImageOptions, describe_run, image_options, input_folders, skipped_files
from ._model import ModelError, model_argument, naming_the_options, open_model
from ._output import make_folder, refuse_existing, refuse_inside
from ._task import Task, Terminal, run_options

if TYPE_CHECKING:
    import dask.array as da
    import numpy as np

__all__ = ["reconstruct"]


@dataclass(frozen=True)
class NamedImages:
    """Lazy images with the names of those they are made from: what is written of an ImageStack."""

    data: da.Array
    files: Sequence[str]
    labels: np.ndarray | None
    inputs: tuple[str, ...]


@click.command(cls=Task, short_help="Images from k components of a saved model.")
@model_argument
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(),
    help="A name that ends in .zarr for one array, or a folder for one file an image.",
)
@click.option(
    "-k", "n_components", metavar="N", type=click.IntRange(min=1), help="The first N components only.  [default: all]"
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["png", "tiff"]),
    help="Files in a folder: png is rounded to the integers that the images hold; tiff keeps fractions.  [default: png "
    "where the images fit it]",
)
@image_options()
@click.option("--overwrite", is_flag=True, help="Replace the array, or files of the same names.")
@run_options()
def reconstruct(
    images: ImageOptions,
    terminal: Terminal,
    model: str,
    out: str,
    n_components: int | None,
    kind: str | None,
    overwrite: bool,
) -> None:
    """Draw the images in FOLDER from the principal components of a saved model.

    MODEL is the file that pca, demo or imgstack_ml.save_model has saved, or the folder of results that holds it. Steps
    before the components that cannot be undone, such as the rescaling of intensities, stay done. A .zarr array keeps
    names and labels of the images, and the exact numbers (float32 as a rule). Each image is read once, and neither
    images nor results need fit into memory.

    \b
    Examples:
      imgstack-ml reconstruct results photos -k 8 -o drawn
      imgstack-ml reconstruct results photos -o drawn.zarr
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    refuse_existing(out, overwrite=overwrite)
    refuse_inside(out, [images.source])
    fitted = open_model(model)
    stack = images.open(terminal)
    refuse_inside(out, input_folders(stack))
    with naming_the_options():
        drawn, k, dtype = _reconstructions(fitted, model, stack, n_components)
    make_folder(os.path.dirname(os.path.abspath(out)))
    terminal.status(f"drawing {len(stack):,} images from {k} component{'s' if k > 1 else ''}, to {out}")
    named = NamedImages(drawn, stack.files, stack.labels, stack.inputs)
    written = _write(out, named, dtype, kind, overwrite, terminal)
    record = {
        **describe_run(stack, images.source, started),
        "n_components": k,
        "dtype": str(written),
        "outputs": [out],
    }
    if stack.problems:
        record["skipped"] = [list(row) for row in skipped_files(stack, images.source)]
    terminal.result(
        f"{len(stack):,} images from {k} component{'s' if k > 1 else ''} in {out}: {written}, in "
        f"{record['seconds']:.1f} s\n\nNext: imgstack-ml scan {shlex.quote(out)}",
        record,
        n_skipped=len(stack.problems),
    )


def _reconstructions(fitted: Any, path: str, stack: Any, k: int | None) -> tuple[da.Array, int, np.dtype]:
    """Give lazy reconstructions, the number of components, and the dtype of the images that they stand for.

    Raises
    ------
    ModelError
        If the model has no components, fewer than `k`, or sees no images.
    """
    from sklearn.exceptions import NotFittedError

    from ..inspection.pipelines import find_route

    try:
        route = find_route(fitted)
    except NotFittedError:
        raise ModelError(
            f"{path!r} holds no principal components to draw from; give a model of imgstack-ml pca or demo"
        ) from None
    most = len(route.pca.components_)
    if k is not None and k > most:
        raise ModelError(f"-k {k} is more components than the {most} of {path!r}; give -k {most} or less")
    prepared = route.prepare(stack)
    if prepared.ndim < 3:
        raise ModelError(f"the components of {path!r} are of rows of numbers, of which no images can be made")
    return route.reconstruct(route.scores(prepared), k), k or most, prepared.dtype


def _write(
    out: str, images: NamedImages, dtype: np.dtype, kind: str | None, overwrite: bool, terminal: Terminal
) -> np.dtype:
    """Write the images, and return the dtype that they were written in."""
    from .. import save_stack, write_images

    data = images.data
    if out.lower().endswith(".zarr"):
        save_stack(images, out, overwrite=overwrite, progress=terminal.progress)
        return data.dtype
    if data.ndim == 4 and data.shape[3] not in (3, 4):
        raise ModelError(f"no image file takes {data.shape[3]} channels; give a name that ends in .zarr")
    fits_png = dtype == "uint8" or (dtype == "uint16" and data.ndim == 3)
    if kind == "png" and not fits_png:
        colour = "" if data.ndim == 3 else " in colour"
        raise ModelError(f"PNG does not take {dtype}{colour}; give --format tiff, or a name that ends in .zarr")
    if kind == "png" or (kind is None and fits_png):
        kind, images = "png", replace(images, data=_as_integers(data, dtype))
    # A new folder appears when all of its images are there; in one that exists they appear one by one.
    with nullcontext(out) if os.path.lexists(out) else atomic_folder(out) as folder:
        write_images(images, folder, format=kind or "tiff", overwrite=overwrite, progress=terminal.progress)
    return images.data.dtype


def _as_integers(data: da.Array, dtype: np.dtype) -> Any:
    from ..base.lazy import map_images

    return map_images(partial(_rounded, dtype), data, image_shape=data.shape[1:], dtype=dtype)


def _rounded(dtype: np.dtype, block: np.ndarray) -> np.ndarray:
    """Round to the integers of `dtype`; what lies beyond them becomes the nearest one."""
    import numpy as np

    return np.rint(block).clip(0, np.iinfo(dtype).max).astype(dtype)
