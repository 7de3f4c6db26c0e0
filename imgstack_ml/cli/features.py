"""``imgstack-ml features``: one row of numbers for every image."""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..errors import MemoryLimitError
from .lib.features import FEATURES, count_features, features_option, make_features
from .lib.images import ImageOptions, image_options
from .lib.options import n_components_option, overwrite_option, run_options
from .lib.output import make_folder, refuse_existing
from .lib.table import in_small_blocks, print_table_written, table_option, write_table
from .lib.task import Task, hint
from .lib.terminal import Terminal

if TYPE_CHECKING:
    from .. import ImageFeatureUnion, ImageStack

__all__ = ["features"]


@click.command(cls=Task, short_help="Rows of numbers from images, as one table.")
@table_option
@features_option(*FEATURES[:-1])
@n_components_option()
@image_options(labels=True)
@overwrite_option("the file")
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
    decoded once, and once more if the range of images of more than 8 bits is learned first, or pca with others.

    \b
    Examples:
      imgstack-ml features photos -o photos.csv
      imgstack-ml features plates --recursive -f hist -f texture -o plates.parquet
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    refuse_existing(out, overwrite=overwrite)

    def make(stack: ImageStack) -> ImageFeatureUnion:
        return make_features(features, stack, n_components=n_components, n_fitted=len(stack))

    run = images.open(terminal, started, check=make)
    make_folder(os.path.dirname(os.path.abspath(out)))
    transformer = make(run.stack)
    terminal.status(f"describing {len(run.stack)} images by {', '.join(features)}")
    with hint(MemoryLimitError, "fewer components: -k; or leave pca out, e.g. -f stats -f texture"):
        rows: Any = transformer.fit_transform(in_small_blocks(run.stack, count_features(transformer, run.stack)))
    columns = transformer.get_feature_names_out().tolist()
    terminal.status(f"writing {len(columns)} features of {len(run.stack)} images to {out}")
    write_table(out, columns, rows, run, "features")
    print_table_written(out, len(columns), run, run.describe_output(out, features=columns))
