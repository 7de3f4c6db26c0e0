"""Rows of numbers about images: computed under one bar of images, and written as a table."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..files.atomic import atomic_path
from ._task import Terminal

if TYPE_CHECKING:
    import numpy as np

    from .. import ImageStack

__all__ = ["compute_rows", "reading_line", "table_option", "write_table"]

Part = tuple[list[list[str]], "np.ndarray"]  # columns of text, and rows of numbers, of some images


def _known_format(ctx: click.Context, param: click.Parameter, path: str) -> str:
    """Refuse at once what could not be written in the end."""
    suffix = _suffix(path)
    if suffix not in _WRITERS:
        raise click.BadParameter(f"{path!r} is of no known format; give a name that ends in .csv, .parquet or .npy")
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
    type=click.Path(dir_okay=False),
    callback=_known_format,
    help="The table to write: a name that ends in .csv, .parquet (which needs pyarrow) or .npy.",
)


def compute_rows(rows: Any, stack: ImageStack, terminal: Terminal, what: str) -> np.ndarray:
    """Compute rows about the images of a stack, with a bar for a person who watches.

    Parameters
    ----------
    rows : ndarray or dask array of shape (n_images, n_columns)
    stack : ImageStack
        The images, whose bytes the bar counts.
    terminal : Terminal
    what : str
        Words before the bar.

    Returns
    -------
    ndarray of shape (n_images, n_columns)
    """
    import numpy as np

    return np.concatenate(list(_computed(rows, stack, terminal, what)))


def write_table(
    path: str,
    columns: Sequence[str],
    rows: Any,
    stack: ImageStack,
    names: list[str],
    terminal: Terminal,
    what: str,
) -> None:
    """Write a table of one row an image part by part, so that neither it nor the images need fit into memory.

    Parameters
    ----------
    path : str
        Its suffix says how: ``.csv``; ``.parquet``; or ``.npy``, a structured array of the fields ``file``, perhaps
        ``label``, and ``values`` (n_columns,).
    columns : sequence of str
        Names of the columns of numbers. Before them come the file and, where the stack has labels, the label.
    rows : ndarray or dask array of shape (n_images, n_columns)
    stack : ImageStack
        What they are about.
    names : list of str
        A name for each image.
    terminal : Terminal
    what : str
        Words before the bar.
    """
    labels = None if stack.labels is None else stack.labels.tolist()
    text = {"file": names} if labels is None else {"file": names, "label": labels}

    def parts() -> Iterator[Part]:
        start = 0
        for numbers in _computed(rows, stack, terminal, what):
            some = slice(start, start + len(numbers))
            start = some.stop
            yield [column[some] for column in text.values()], numbers

    with atomic_path(path) as temporary:
        _WRITERS[_suffix(path)](temporary, text, columns, rows.dtype, parts())


def reading_line(path: str) -> str:
    """Write the line of Python that reads a table."""
    readers = {".csv": "pandas.read_csv", ".parquet": "pandas.read_parquet", ".npy": "numpy.load"}
    return f"{readers[_suffix(path)]}({path!r})"


def _computed(rows: Any, stack: ImageStack, terminal: Terminal, what: str) -> Iterator[np.ndarray]:
    """Yield the rows of some images after the other."""
    import dask
    import numpy as np

    from ..passes.progress import iterate_rows

    if not dask.is_dask_collection(rows):
        yield np.asarray(rows)
        return
    image_bytes = stack.dtype.itemsize * math.prod(stack.shape[1:])
    yield from iterate_rows(rows, image_bytes, what, progress=terminal.progress)


def _write_csv(
    path: str, text: dict[str, list[str]], columns: Sequence[str], dtype: np.dtype, parts: Iterable[Part]
) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow([*text, *columns])
        for words, numbers in parts:
            # As NumPy writes them: the shortest text that gives the same number back.
            table.writerows([*names, *row] for *names, row in zip(*words, numbers.astype(str).tolist(), strict=True))


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
        some = table[start : start + len(numbers)]
        start += len(numbers)
        for name, column in zip(text, words, strict=True):
            some[name] = column
        some["values"] = numbers
    table.flush()


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".npy": _write_npy}


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _in_utf8(name: str) -> str:
    """Write bytes of a file name that are not UTF-8, which Parquet cannot hold, by their numbers."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
