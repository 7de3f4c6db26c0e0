"""``imgstack-ml transform``: scores of other images by a saved model, as a table."""

import os
from time import perf_counter
from typing import Any

import click

from .lib.analysis import score_names
from .lib.images import ImageOptions, image_options
from .lib.model import ModelError, errors_that_name_options, model_argument, open_model
from .lib.options import overwrite_option, run_options
from .lib.output import make_folder, refuse_existing
from .lib.table import in_small_blocks, print_table_written, table_option, write_table
from .lib.task import Task
from .lib.terminal import Terminal

__all__ = ["transform"]


@click.command(cls=Task, short_help="Scores of other images by a saved model, as one table.")
@model_argument
@table_option
@image_options(labels=True)
@overwrite_option("the file")
@run_options()
def transform(
    images: ImageOptions,
    terminal: Terminal,
    model: str,
    out: str,
    overwrite: bool,
) -> None:
    """Project the images in FOLDER by a model that pca, demo or imgstack_ml.save_model has saved.

    MODEL is the file, or the folder of results that holds it. The columns are file, label (where sub-folders are read,
    or a stored stack has labels), and PC1, PC2, ... or the features that the model gives. A .npy file holds a
    structured array of the fields file, label and values. The images must have the shape and mode of those that the
    model is fitted to. Each image is read once, and neither images nor scores need fit into memory.

    \b
    Examples:
      imgstack-ml transform results new-photos -o scores.csv
      imgstack-ml transform results/model.safetensors 'plate*/*.tif' -o scores.parquet
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    refuse_existing(out, overwrite=overwrite)
    fitted = open_model(model)
    run = images.open(terminal, started)
    with errors_that_name_options():
        width = _lazy_rows(fitted, model, run.stack).shape[1]
        rows = _lazy_rows(fitted, model, in_small_blocks(run.stack, width))
    columns = _column_names(fitted, rows.shape[1])
    make_folder(os.path.dirname(os.path.abspath(out)))
    terminal.status(f"projecting {len(run.stack):,} images on {len(columns):,} columns, to {out}")
    write_table(out, columns, rows, run, "scores")
    print_table_written(out, len(columns), run, run.describe_output(out, columns=columns))


def _lazy_rows(fitted: Any, path: str, stack: Any) -> Any:
    """Transform images lazily into rows of numbers.

    Raises
    ------
    ModelError
        If the model gives labels or images instead.
    """
    last = _last_step(fitted)
    if not hasattr(fitted, "transform"):
        raise ModelError(
            f"{path!r} ends in a {type(last).__name__}, which predicts labels and gives no scores. In Python: "
            f"imgstack_ml.load_model(...).predict(imgstack_ml.open_stack({stack.inputs[0]!r}))"
        )
    rows = fitted.transform(stack)
    if rows.ndim != 2:
        raise ModelError(
            f"{path!r} ends in a {type(last).__name__}, which gives images and no rows of numbers. In Python: "
            "imgstack_ml.save_stack(model.transform(stack), 'out.zarr')"
        )
    return rows


def _column_names(fitted: Any, width: int) -> list[str]:
    last = _last_step(fitted)
    return score_names(width) if hasattr(last, "components_") else list(map(str, last.get_feature_names_out()))


def _last_step(fitted: Any) -> Any:
    return fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
