"""``imgstack-ml transform``: what a saved model makes of other images, as a table."""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

import click

from ._analysis import score_names
from ._input import ImageOptions, describe_run, image_names, image_options, skipped_files
from ._model import ModelError, model_argument, naming_the_options, open_model
from ._output import make_folder, refuse_existing
from ._table import reading_line, table_option, write_table
from ._task import Task, Terminal, run_options

__all__ = ["transform"]


@click.command(cls=Task, short_help="Scores of other images by a saved model, as one table.")
@model_argument
@table_option
@image_options("Read the sub-folders of FOLDER too; they become a column label.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
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
    structured array of the fields file, label and values. The images are to be of the shape and mode that the model
    was fitted to; each is read once, and neither images nor scores need fit into memory.

    \b
    Examples:
      imgstack-ml transform results new-photos -o scores.csv
      imgstack-ml transform results/model.safetensors 'plate*/*.tif' -o scores.parquet
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    refuse_existing(out, overwrite=overwrite)
    fitted = open_model(model)
    stack = images.open(terminal)
    with naming_the_options():
        rows = _rows(fitted, model, stack)
    columns = _columns(fitted, rows.shape[1])
    make_folder(os.path.dirname(os.path.abspath(out)))
    terminal.status(f"projecting {len(stack):,} images on {len(columns):,} columns, to {out}")
    write_table(out, columns, rows, stack, image_names(stack, images.source), terminal, "scores")
    record = {**describe_run(stack, images.source, started), "columns": columns, "outputs": [out]}
    if stack.problems:
        record["skipped"] = [list(row) for row in skipped_files(stack, images.source)]
    table = f"{'file, label' if stack.labels is not None else 'file'} and {len(columns):,} columns of numbers"
    terminal.result(
        f"{len(stack):,} rows in {out}: {table}, in {record['seconds']:.1f} s\n\nNext, in Python: {reading_line(out)}",
        record,
        n_skipped=len(stack.problems),
    )


def _rows(fitted: Any, path: str, stack: Any) -> Any:
    """Give the rows that the model makes of the images, lazily.

    Raises
    ------
    ModelError
        If it makes predictions, or images.
    """
    last = fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
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


def _columns(fitted: Any, width: int) -> list[str]:
    last = fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
    return score_names(width) if hasattr(last, "components_") else list(map(str, last.get_feature_names_out()))
