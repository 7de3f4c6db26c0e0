"""``imgstack-ml transform``: scores or labels of other images by a saved model, as a table."""

import os
from functools import partial
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


@click.command(cls=Task, short_help="Scores or labels of other images by a saved model.")
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
    """Project or classify the images in FOLDER by a model that pca, classify or imgstack_ml.save_model has saved.

    MODEL is the file, or the folder of results that holds it. The columns are file, label (where sub-folders are read,
    or a stored stack has labels), and PC1, PC2, ... or the features that the model gives. Of a classifier they are
    predicted, and the probability of each class. A .npy file holds a structured array of the fields file, label,
    predicted and values. The images must have the shape and mode of those that the
    model is fitted to. Each image is read once, and neither images nor scores need fit into memory.

    \b
    Examples:
      imgstack-ml transform results new-photos -o scores.csv
      imgstack-ml transform results 'plate*/*.tif' -o scores.parquet
      imgstack-ml transform told-apart new-photos -o predicted.csv
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    refuse_existing(out, overwrite=overwrite)
    fitted = open_model(model)
    run = images.open(terminal, started, check=partial(_lazy_rows, fitted, model))
    width = _lazy_rows(fitted, model, run.stack).shape[1]
    with errors_that_name_options():
        rows = _lazy_rows(fitted, model, in_small_blocks(run.stack, width))
    columns, classes = _column_names(fitted, rows.shape[1]), _classes(fitted)
    make_folder(os.path.dirname(os.path.abspath(out)))
    what = "projecting" if classes is None else "classifying"
    terminal.status(f"{what} {len(run.stack):,} images, {len(columns):,} columns, to {out}")
    write_table(out, columns, rows, run, "scores", classes=classes)
    print_table_written(out, len(columns), run, run.describe_output(out, columns=columns), classes=classes)


def _lazy_rows(fitted: Any, path: str, stack: Any) -> Any:
    """Transform images lazily into rows of numbers: scores, features, or the probabilities of classes.

    Raises
    ------
    ModelError
        If the model gives images instead.
    """
    last = _last_step(fitted)
    with errors_that_name_options():
        rows = fitted.transform(stack) if _classes(fitted) is None else _probabilities(fitted, stack)
    if rows.ndim != 2:
        raise ModelError(
            f"{path!r} ends in a {type(last).__name__}, which gives images and no rows of numbers. In Python: "
            "imgstack_ml.save_stack(model.transform(stack), 'out.zarr')"
        )
    return rows


def _probabilities(fitted: Any, stack: Any) -> Any:
    """Compute the probability of each class (n_images, n_classes) lazily, block by block."""
    import numpy as np
    from dask_ml.wrappers import ParallelPostFit

    features, classifier = fitted[:-1], fitted[-1]
    # With an example of the result, which else is found by a call on made-up rows.
    example = np.empty((1, len(classifier.classes_)))
    return ParallelPostFit(classifier, predict_proba_meta=example).predict_proba(features.transform(stack))


def _classes(fitted: Any) -> list[str] | None:
    """Names of the classes that a Pipeline predicts; None of one that gives numbers."""
    return None if hasattr(fitted, "transform") else list(map(str, _last_step(fitted).classes_))


def _column_names(fitted: Any, width: int) -> list[str]:
    last = _last_step(fitted)
    if classes := _classes(fitted):
        return [f"p_{name}" for name in classes]
    return score_names(width) if hasattr(last, "components_") else list(map(str, last.get_feature_names_out()))


def _last_step(fitted: Any) -> Any:
    return fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
