"""Rows of numbers about images: computed under a bar that counts images, and written as a table."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ...files.atomic import atomic_path
from .cells import as_cell
from .options import OutputPath
from .run import Run

if TYPE_CHECKING:
    import numpy as np

__all__ = ["compute_rows", "print_table_written", "table_option", "write_table"]

Part = tuple[list[list[str]], "np.ndarray"]  # columns of text, and rows of numbers, of consecutive images


def _check_format(ctx: click.Context, param: click.Parameter, path: str) -> str:
    """Refuse a format that cannot be written, before any work."""
    suffix = _suffix(path)
    if suffix not in _WRITERS:
        raise click.BadParameter(f"{path!r} has no known format; give a name that ends in .csv, .parquet or .npy")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise click.BadParameter(
            "a .parquet file needs pyarrow: pip install 'imgstack_ml[parquet]', or give a name that ends in .csv"
        )
    return path


table_option = click.option(
    "-o",
    "--out",
    required=True,
    metavar="FILE",
    type=OutputPath(dir_okay=False),
    callback=_check_format,
    help="The table to write: a name that ends in .csv, .parquet (needs pyarrow) or .npy.",
)


def compute_rows(rows: Any, run: Run, label: str) -> np.ndarray:
    """Compute lazy rows about images, (n_images, n_columns), under a bar with the text `label` before it."""
    import numpy as np

    return np.concatenate(list(_iterate_rows(rows, run, label)))


def write_table(path: str, columns: Sequence[str], rows: Any, run: Run, label: str) -> None:
    """Write a table with a row for each image, part by part: neither table nor images need to fit into memory.

    Parameters
    ----------
    path : str
        Its suffix chooses the format: ``.csv``; ``.parquet``; or ``.npy``, a structured array of the fields ``file``,
        ``label`` where the stack has labels, and ``values`` (n_columns,).
    columns : sequence of str
        Names of the columns of numbers. Before them come the file and, where the stack has labels, the label.
    rows : ndarray or dask array of shape (n_images, n_columns)
    run : Run
        The run whose images they describe.
    label : str
        Text before the bar.
    """
    text = {"file": run.image_names}
    if run.stack.labels is not None:
        text["label"] = run.stack.labels.tolist()

    def parts() -> Iterator[Part]:
        start = 0
        for numbers in _iterate_rows(rows, run, label):
            stop = start + len(numbers)
            yield [column[start:stop] for column in text.values()], numbers
            start = stop

    with atomic_path(path) as temporary:
        _WRITERS[_suffix(path)](temporary, text, columns, rows.dtype, parts())


def print_table_written(path: str, n_columns: int, run: Run, record: dict[str, Any]) -> None:
    """Print what a table holds and the line of Python that reads it, or the record."""
    readers = {".csv": "pandas.read_csv", ".parquet": "pandas.read_parquet", ".npy": "numpy.load"}
    text = "file" if run.stack.labels is None else "file, label"
    run.print_result(
        f"{len(run.stack):,} rows in {path}: {text} and {n_columns:,} columns of numbers, in {record['seconds']:.1f} s"
        f"\n\nNext, in Python: {readers[_suffix(path)]}({path!r})",
        record,
    )


def _iterate_rows(rows: Any, run: Run, label: str) -> Iterator[np.ndarray]:
    """Compute rows, and yield those of consecutive images part by part."""
    import dask
    import numpy as np

    from ...passes.progress import iterate_rows

    if not dask.is_dask_collection(rows):
        yield np.asarray(rows)
        return
    image_bytes = run.stack.dtype.itemsize * math.prod(run.stack.shape[1:])
    yield from iterate_rows(rows, image_bytes, label, progress=run.terminal.progress)


def _write_csv(
    path: str, text: dict[str, list[str]], columns: Sequence[str], dtype: np.dtype, parts: Iterable[Part]
) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow([*text, *map(as_cell, columns)])
        for words, numbers in parts:
            # NumPy writes the shortest text that gives the same number back.
            cells = [map(as_cell, column) for column in words]
            table.writerows([*names, *row] for *names, row in zip(*cells, numbers.astype(str).tolist(), strict=True))


def _write_parquet(
    path: str, text: dict[str, list[str]], columns: Sequence[str], dtype: np.dtype, parts: Iterable[Part]
) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    fields = [(name, pa.string()) for name in text] + [(name, pa.from_numpy_dtype(dtype)) for name in columns]
    schema = pa.schema(fields)
    with ParquetWriter(path, schema) as writer:
        for words, numbers in parts:
            names = [[_in_utf8(name) for name in column] for column in words]
            writer.write_table(pa.table([*names, *numbers.T], schema=schema))


def _write_npy(
    path: str, text: dict[str, list[str]], columns: Sequence[str], dtype: np.dtype, parts: Iterable[Part]
) -> None:
    import numpy as np

    widths = [(name, f"U{max(1, *map(len, column))}") for name, column in text.items()]
    table = np.lib.format.open_memmap(
        path, mode="w+", dtype=[*widths, ("values", dtype, (len(columns),))], shape=(len(text["file"]),)
    )
    start = 0
    for words, numbers in parts:
        part = table[start : start + len(numbers)]
        start += len(numbers)
        for name, column in zip(text, words, strict=True):
            part[name] = column
        part["values"] = numbers
    table.flush()


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".npy": _write_npy}


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _in_utf8(name: str) -> str:
    """Replace the bytes of a file name that are not UTF-8, which Parquet cannot hold, by escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
