"""``imgstack-ml features``: one row of numbers for every image."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Iterable, Iterator
from itertools import accumulate
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from .._errors import MemoryLimitError, StoreError
from .._files import atomic_path
from ._features import FEATURES, compute_rows, features_option, make_features, n_components_option
from ._input import describe_run, image_names, mode_option, on_error_option, open_images, shape_option, skipped_files
from ._output import new_folder
from ._task import SKIPPED, Task, Terminal, debug_option, json_option, quiet_option

if TYPE_CHECKING:
    import dask.array as da
    import numpy as np

    from .. import ImageFeatures, ImageStack

__all__ = ["features"]

_BLOCKS_PER_THREAD = 16  # computed at once: memory is bounded, and threads seldom idle


def _known_format(ctx: click.Context, param: click.Parameter, path: str) -> str:
    """Refuse at once what could not be written in the end."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _WRITERS:
        raise click.BadParameter(f"{path!r} is of no known format; give a name that ends in .csv or .parquet")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise click.BadParameter(
            "a .parquet file needs pyarrow: pip install 'imgstack_ml[parquet]', or give a name that ends in .csv"
        )
    return path


@click.command(cls=Task, short_help="Rows of numbers from images, as CSV or Parquet.")
@click.argument("source", metavar="FOLDER")
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False),
    callback=_known_format,
    help="The table to write: a name that ends in .csv or .parquet (which needs pyarrow).",
)
@features_option(*FEATURES[:-1])
@n_components_option
@click.option("-r", "--recursive", is_flag=True, help="Read the sub-folders of FOLDER too; they become a column label.")
@mode_option
@shape_option
@on_error_option
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@json_option
@quiet_option
@debug_option
def features(
    source: str,
    out: str,
    features: tuple[str, ...],
    n_components: int | None,
    recursive: bool,
    mode: str | None,
    shape: tuple[int, int] | None,
    on_error: str,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
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
    terminal = Terminal(quiet, as_json)
    if os.path.lexists(out) and not overwrite:
        raise StoreError(f"the file {out!r} exists already; name another one, or replace it with --overwrite")
    stack = open_images(source, terminal, recursive=recursive, on_error=on_error, mode=mode, shape=shape)
    with new_folder(os.path.dirname(os.path.abspath(out))):
        fitted = _fit(make_features(features, stack, n_components=n_components, n_fitted=len(stack)), stack, terminal)
        columns = fitted.get_feature_names_out().tolist()
        terminal.status(f"writing {len(columns)} features of {len(stack)} images to {out}")
        _write(out, image_names(stack, source), stack, fitted, terminal)
    record = {**describe_run(stack, source, started), "features": columns, "outputs": [out]}
    if stack.problems:
        record["skipped"] = [list(row) for row in skipped_files(stack, source)]
    terminal.result(_summary(record, stack.labels is not None), record)
    if stack.problems:
        click.get_current_context().exit(SKIPPED)


def _fit(features: ImageFeatures, stack: ImageStack, terminal: Terminal) -> ImageFeatures:
    terminal.status(f"describing {len(stack)} images by {', '.join(name for name, _ in features.transformer_list)}")
    try:
        return features.fit(stack)
    except MemoryLimitError as error:
        error.add_note("fewer components: -k; or leave pca out, e.g. -f stats -f texture")
        raise


def _write(out: str, files: list[str], stack: ImageStack, features: ImageFeatures, terminal: Terminal) -> None:
    """Write the table part by part, so that neither it nor the images need fit into memory."""
    columns = ["file", *(["label"] if stack.labels is not None else []), *features.get_feature_names_out()]
    rows: Any = features.transform(stack)
    parts = _parts(rows, files, stack.labels, terminal)
    with atomic_path(out) as temporary:
        _WRITERS[os.path.splitext(out)[1].lower()](temporary, columns, parts)


def _parts(
    rows: da.Array, files: list[str], labels: np.ndarray | None, terminal: Terminal
) -> Iterator[tuple[list[list[str]], np.ndarray]]:
    """Yield the columns of text, and the numbers, of some images after the other."""
    from dask.system import CPU_COUNT

    step = _BLOCKS_PER_THREAD * CPU_COUNT
    edges = [0, *accumulate(rows.chunks[0])]
    for first in range(0, len(edges) - 1, step):
        part = slice(edges[first], edges[min(first + step, len(edges) - 1)])
        text = [files[part]] if labels is None else [files[part], labels[part].tolist()]
        yield text, compute_rows(rows[part], terminal, "features")


def _write_csv(path: str, columns: list[str], parts: Iterable[tuple[list[list[str]], np.ndarray]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for text, numbers in parts:
            table.writerows([*names, *row] for *names, row in zip(*text, numbers.tolist(), strict=True))


def _write_parquet(path: str, columns: list[str], parts: Iterable[tuple[list[list[str]], np.ndarray]]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    n_text = 2 if columns[1] == "label" else 1
    fields = [(name, pa.string() if i < n_text else pa.float64()) for i, name in enumerate(columns)]
    schema = pa.schema(fields)
    with ParquetWriter(path, schema) as writer:
        for text, numbers in parts:
            names = [[_in_utf8(name) for name in names] for names in text]
            writer.write_table(pa.table([*names, *numbers.T], schema=schema))


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet}


def _in_utf8(name: str) -> str:
    """Write bytes of a file name that are not UTF-8, which Parquet cannot hold, by their numbers."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _summary(record: dict[str, Any], labelled: bool) -> str:
    (out,) = record["outputs"]
    table = f"{'file, label' if labelled else 'file'} and {len(record['features'])} features"
    read = "pandas.read_csv" if out.lower().endswith(".csv") else "pandas.read_parquet"
    return (
        f"{record['input']['n_images']:,} rows in {out}: {table}, in {record['seconds']:.1f} s\n\n"
        f"To look at it, in Python: {read}({out!r})"
    )
