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
from .lib.table import Classes, in_small_blocks, print_table_written, table_option, write_table
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
    """Project or classify the images in FOLDER by a model that pca, classify, cluster or save_model has saved.

    MODEL is the file, or the folder of results that holds it. The columns are file, label (where sub-folders are read,
    or a stored stack has labels), and PC1, PC2, ... or the features that the model gives. Of a classifier they are
    predicted, and the probability of each class; of clusters they are cluster, and the distance from the centre of
    each. A .npy file holds a structured array of these texts and the field values. The images must have the shape and
    mode of those that the model is fitted to. Each image is read once, and neither images nor scores need fit into
    memory.

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
    """Transform images lazily into rows of numbers: scores, features, probabilities of classes, or distances.

    Raises
    ------
    ModelError
        If the model gives images instead.
    """
    last = _last_step(fitted)
    with errors_that_name_options():
        rows = fitted.transform(stack) if _classes(fitted) is None else _by_class(fitted, path, stack)
    if rows.ndim != 2:
        raise ModelError(
            f"{path!r} ends in a {type(last).__name__}, which gives images and no rows of numbers. In Python: "
            "imgstack_ml.save_stack(model.transform(stack), 'out.zarr')"
        )
    return rows


def _by_class(fitted: Any, path: str, stack: Any) -> Any:
    """Compute what tells the class, a probability of each or a distance from each (n_images, n_classes), by blocks."""
    import numpy as np
    from dask_ml.wrappers import ParallelPostFit
    from sklearn.preprocessing import StandardScaler

    steps = getattr(fitted, "steps", [])
    if len(steps) < 2:
        raise ModelError(
            f"{path!r} is a {type(fitted).__name__} of rows of numbers. Save it with the step that makes rows of "
            "images: imgstack_ml.save_model(make_pipeline(features, model), path)"
        )
    # A scaling of scikit-learn would draw all rows into memory.
    n_last = 2 if len(steps) > 2 and isinstance(steps[-2][1], StandardScaler) else 1
    features, last = fitted[:-n_last], fitted[-n_last:]
    # With an example of the result, which else is found by a call on made-up rows.
    example = np.empty((1, len(_classes(fitted).names)))
    post = ParallelPostFit(last, predict_proba_meta=example, transform_meta=example)
    rows = features.transform(stack)
    return post.transform(rows) if hasattr(last, "transform") else post.predict_proba(rows)


def _classes(fitted: Any) -> Any:
    """Classes that a Pipeline predicts, or clusters that it finds; None of one that gives numbers."""
    last = _last_step(fitted)
    if hasattr(last, "cluster_centers_"):
        return Classes([str(number) for number in range(1, 1 + len(last.cluster_centers_))], "cluster", least=True)
    return None if hasattr(fitted, "transform") else Classes(list(map(str, last.classes_)))


def _column_names(fitted: Any, width: int) -> list[str]:
    last = _last_step(fitted)
    if classes := _classes(fitted):
        return [f"{'distance' if classes.least else 'p'}_{name}" for name in classes.names]
    return score_names(width) if hasattr(last, "components_") else list(map(str, last.get_feature_names_out()))


def _last_step(fitted: Any) -> Any:
    return fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
