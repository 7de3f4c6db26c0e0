"""``imgstack-ml features``: one row of numbers for every image."""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..errors import MemoryLimitError
from ._features import FEATURES, features_option, make_features, n_components_option
from ._input import ImageOptions, describe_run, image_names, image_options, skipped_files
from ._output import make_folder, refuse_existing
from ._table import reading_line, table_option, write_table
from ._task import Task, Terminal, run_options

if TYPE_CHECKING:
    from .. import ImageFeatureUnion, ImageStack

__all__ = ["features"]


@click.command(cls=Task, short_help="Rows of numbers from images, as one table.")
@table_option
@features_option(*FEATURES[:-1])
@n_components_option
@image_options("Read the sub-folders of FOLDER too; they become a column label.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@run_options()
def features(
    images: ImageOptions,
    terminal: Terminal,
    out: str,
    features: tuple[str, ...],
    n_components: int | None,
    overwrite: bool,
) -> None:
    """Describe every image in FOLDER by a row of numbers, in one table.

    The columns are file, label (where sub-folders are read, or a stored stack has labels), and the features. FOLDER can
    also be a pattern in quotes, such as 'plate*/*.tif', or a stack stored by imgstack_ml.save_stack. Each image is
    decoded once, and once more where pca, or the range of floating-point images, is to be learned first.

    \b
    Examples:
      imgstack-ml features photos -o photos.csv
      imgstack-ml features plates --recursive -f hist -f texture -o plates.parquet
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    refuse_existing(out, overwrite=overwrite)
    stack = images.open(terminal)
    make_folder(os.path.dirname(os.path.abspath(out)))
    fitted = _fit(make_features(features, stack, n_components=n_components, n_fitted=len(stack)), stack, terminal)
    columns = fitted.get_feature_names_out().tolist()
    terminal.status(f"writing {len(columns)} features of {len(stack)} images to {out}")
    write_table(out, columns, fitted.transform(stack), stack, image_names(stack, images.source), terminal, "features")
    record = {**describe_run(stack, images.source, started), "features": columns, "outputs": [out]}
    if stack.problems:
        record["skipped"] = [list(row) for row in skipped_files(stack, images.source)]
    terminal.result(_summary(record, stack.labels is not None), record, n_skipped=len(stack.problems))


def _fit(features: ImageFeatureUnion, stack: ImageStack, terminal: Terminal) -> ImageFeatureUnion:
    terminal.status(f"describing {len(stack)} images by {', '.join(name for name, _ in features.transformer_list)}")
    try:
        return features.fit(stack)
    except MemoryLimitError as error:
        error.add_note("fewer components: -k; or leave pca out, e.g. -f stats -f texture")
        raise


def _summary(record: dict[str, Any], labelled: bool) -> str:
    (out,) = record["outputs"]
    table = f"{'file, label' if labelled else 'file'} and {len(record['features'])} features"
    return (
        f"{record['input']['n_images']:,} rows in {out}: {table}, in {record['seconds']:.1f} s\n\n"
        f"To look at it, in Python: {reading_line(out)}"
    )
