"""Rows of numbers about images: computed under a bar that counts images, and written as a table."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...files.atomic import atomic_path
from .cells import as_cell
from .options import OutputPath
from .run import Run

if TYPE_CHECKING:
    import numpy as np

    from ... import ImageStack

__all__ = [
    "Classes",
    "compute_rows",
    "in_small_blocks",
    "iterate_rows",
    "print_table_written",
    "table_option",
    "write_csv",
    "write_table",
]

_NUMBER_BYTES = 8
_TEXT_BYTES = 20  # of a number of 17 digits
_BLOCK_BYTES = 2**20  # of the rows of a block
_CHUNK_BYTES = 2**25  # of the rows of a stored chunk that is not divided
_NUMBERS_AT_ONCE = 2**17  # made text
_NAMES_AT_ONCE = 10_000
_NAME_BYTES = 500  # of the name of an image and its label, as text in Python and NumPy
_GROUP_BYTES = 2**26  # of a row group in a Parquet file
_PIXEL_BYTES = 64  # a feature makes up to eight arrays of float64 of an image


class Classes(NamedTuple):
    """What the columns of numbers stand for: the largest number of a row tells its class, or the least, its cluster.

    Attributes
    ----------
    names : list of str
        One for each column of numbers.
    column : str, default="predicted"
        Name of the column of text that tells the class.
    least : bool, default=False
        Whether the least number tells it, as a distance does.
    """

    names: list[str]
    column: str = "predicted"
    least: bool = False

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Position of the class of each row."""
        found: np.ndarray = rows.argmin(axis=1) if self.least else rows.argmax(axis=1)
        return found


Part = tuple[list[list[Any]], "np.ndarray"]  # columns of text or positions, and rows, of consecutive images


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


def in_small_blocks(stack: ImageStack, n_columns: int) -> ImageStack:
    """Return a stack in blocks of which rows of `n_columns` numbers take little memory: rows can be wider than images.

    Blocks are whole chunks of a stored stack, unless the rows of one chunk take too much. It is then decoded for each
    of its blocks.
    """
    row_bytes = _NAME_BYTES + _NUMBER_BYTES * n_columns
    n_images, together = max(1, _BLOCK_BYTES // row_bytes), stack.reader.images_per_chunk
    if together * row_bytes <= _CHUNK_BYTES:
        n_images = max(1, n_images // together) * together
    return stack if max(stack.data.chunks[0]) <= n_images else replace(stack, chunks=n_images)


def iterate_rows(rows: Any, run: Run, label: str, *, row_bytes: int | None = None) -> Iterator[np.ndarray]:
    """Compute rows about images, and yield those of consecutive images part by part.

    Parameters
    ----------
    rows : ndarray or dask array of shape (n_images, ...)
    run : Run
        The run whose images they describe.
    label : str
        Text before the bar.
    row_bytes : int, optional
        Bytes of one row, if its dtype does not say.
    """
    import dask
    import numpy as np

    from ...passes.memory import allowance
    from ...passes.progress import iterate_rows

    if not dask.is_dask_collection(rows):
        yield np.asarray(rows)
        return
    n_values = math.prod(run.stack.shape[1:])
    image_bytes = run.stack.dtype.itemsize * n_values
    with dask.config.set(num_workers=_n_threads(n_values, allowance("auto").limit)):
        yield from iterate_rows(rows, image_bytes, label, progress=run.terminal.progress, row_bytes=row_bytes)


def _n_threads(n_values: int, memory: int) -> int:
    """Choose as many threads as there is memory for the features of images of `n_values` values."""
    from dask.system import CPU_COUNT

    return max(1, min(CPU_COUNT, memory // (_PIXEL_BYTES * n_values)))


def compute_rows(rows: Any, run: Run, label: str) -> np.ndarray:
    """Compute rows about images, (n_images, n_columns), under a bar with the text `label` before it."""
    import numpy as np

    found = np.empty(rows.shape, rows.dtype)
    start = 0
    for part in iterate_rows(rows, run, label):
        found[start : start + len(part)] = part
        start += len(part)
    return found


def write_table(
    path: str, columns: Sequence[str], rows: Any, run: Run, label: str, *, classes: Classes | None = None
) -> None:
    """Write a table with a row for each image, part by part: neither table nor images need to fit into memory.

    Parameters
    ----------
    path : str
        Its suffix chooses the format: ``.csv``; ``.parquet``; or ``.npy``, a structured array of the fields ``file``,
        ``label`` where the stack has labels, those of the axes of its files, and ``values`` (n_columns,).
    columns : sequence of str
        Names of the columns of numbers. Before them come the file; the label, where the stack has labels; and, where
        its files have axes, the positions along them, such as ``t`` of a movie.
    rows : ndarray or dask array of shape (n_images, n_columns)
        Of a stack from `in_small_blocks`.
    run : Run
        The run whose images they describe.
    label : str
        Text before the bar.
    classes : Classes, optional
        What the columns of numbers stand for, and the column of text before them that tells it.
    """
    with atomic_path(path) as temporary:
        _WRITERS[_suffix(path)](temporary, columns, rows, run, label, classes)


def write_csv(
    path: str,
    columns: Sequence[str],
    rows: Any,
    run: Run,
    label: str = "",
    classes: Classes | None = None,
) -> None:
    """Write a table as CSV; see `write_table`. The text of the numbers is made in the tasks that compute them."""
    import dask.array as da
    import numpy as np

    if isinstance(rows, np.ndarray):
        rows = da.from_array(rows, chunks=(max(1, _BLOCK_BYTES // rows[:1].nbytes), -1), name=False)
    rows = rows.rechunk({1: -1})
    lines = rows.map_blocks(lines_of, classes, dtype=object, drop_axis=1, meta=np.empty(0, object))
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow([*_text_columns(run, classes), *map(as_cell, columns)])
        beginnings: list[str] = []
        words = csv.writer(
            SimpleNamespace(write=lambda line: beginnings.append(line[:-2]))
        )  # without the end of a line
        for names, numbers in _parts(lines, run, label, row_bytes=_TEXT_BYTES * rows.shape[1]):
            words.writerows(zip(*(map(as_cell, column) for column in names), strict=True))
            file.writelines(f"{begin},{line}\r\n" for begin, line in zip(beginnings, numbers, strict=True))
            beginnings.clear()


def lines_of(rows: np.ndarray, classes: Classes | None = None) -> np.ndarray:
    """Write each row (n, n_columns) as numbers between commas: the shortest text that gives the same number back.

    With `classes`, the name of that of the row comes first.
    """
    import numpy as np

    lines = np.empty(len(rows), object)
    step = max(1, _NUMBERS_AT_ONCE // max(1, rows.shape[1]))
    for i in range(0, len(rows), step):
        lines[i : i + step] = _joined_numbers(rows[i : i + step])
    if classes is not None:
        cells: list[str] = []
        to_cells = csv.writer(SimpleNamespace(write=lambda line: cells.append(line[:-2])))
        to_cells.writerows([as_cell(c)] for c in classes.names)
        lines = np.array(cells, object)[classes.positions(rows)] + "," + lines
    return lines


def _joined_numbers(rows: np.ndarray) -> list[str]:
    try:
        import pyarrow
        from pyarrow.compute import binary_join
    except ImportError:
        pyarrow = None
    if pyarrow is None or rows.dtype.char not in "fd":
        return [",".join(row) for row in rows.astype(str).tolist()]
    # Ten times as fast as NumPy, and threads run side by side.
    texts = pyarrow.array(rows.ravel()).cast(pyarrow.string())
    ends = pyarrow.array(range(0, rows.size + 1, rows.shape[1]), pyarrow.int32())
    lines: list[str] = binary_join(pyarrow.ListArray.from_arrays(ends, texts), ",").to_pylist()
    return lines


def print_table_written(
    path: str, n_columns: int, run: Run, record: dict[str, Any], *, classes: Classes | None = None
) -> None:
    """Print what a table holds and the line of Python that reads it, or the record."""
    readers = {".csv": "pandas.read_csv", ".parquet": "pandas.read_parquet", ".npy": "numpy.load"}
    names, seconds = ", ".join(_text_columns(run, classes)), record["seconds"]
    run.print_result(
        f"{len(run.stack):,} rows in {path}: {names} and {n_columns:,} columns of numbers, in {seconds:.1f} s"
        f"\n\nNext, in Python: {readers[_suffix(path)]}({path!r})",
        record,
    )


def _text_columns(run: Run, classes: Classes | None = None) -> list[str]:
    """Names of the columns before the numbers; those of axes, such as the frame ``t`` of a movie, are positions."""
    labels = ["label"] * (run.stack.labels is not None)
    return ["file", *labels, *run.stack.coords, *([] if classes is None else [classes.column])]


def _parts(
    rows: Any, run: Run, label: str, classes: Classes | None = None, *, row_bytes: int | None = None
) -> Iterator[Part]:
    """Compute rows, and yield those of consecutive images with the columns of text before them."""
    start = 0
    row_bytes = _NAME_BYTES + (row_bytes or rows.dtype.itemsize * rows.shape[1])
    for numbers in iterate_rows(rows, run, label, row_bytes=row_bytes):
        stop = start + len(numbers)
        labels = [] if run.stack.labels is None else [run.stack.labels[start:stop].tolist()]
        predicted = [] if classes is None else [[classes.names[i] for i in classes.positions(numbers).tolist()]]
        axes = [places[start:stop].tolist() for places in run.stack.coords.values()]
        yield [run.names(start, stop), *labels, *axes, *predicted], numbers
        start = stop


def _write_parquet(path: str, columns: Sequence[str], rows: Any, run: Run, label: str, classes: Classes | None) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    axes = run.stack.coords
    fields = [(name, pa.int64() if name in axes else pa.string()) for name in _text_columns(run, classes)]
    schema = pa.schema(fields + [(name, pa.from_numpy_dtype(rows.dtype)) for name in columns])
    # The file's index of each column of each group stays in memory, about 2 KB: groups are large, and filled in place.
    size = max(1, min(len(rows), _GROUP_BYTES // (rows.dtype.itemsize * len(columns))))
    group, n_filled = np.empty((len(columns), size), rows.dtype), 0
    names: list[list[Any]] = [[] for _ in fields]
    with ParquetWriter(path, schema) as writer:
        for words, numbers in _parts(rows, run, label, classes):
            start = 0
            while start < len(numbers):
                stop = min(start + size - n_filled, len(numbers))
                group[:, n_filled : n_filled + stop - start] = numbers[start:stop].T
                for column, word in zip(names, words, strict=True):
                    column.extend(map(_in_utf8, word[start:stop]))
                n_filled, start = n_filled + stop - start, stop
                if n_filled == size:
                    writer.write_table(pa.table([*names, *group], schema=schema))
                    n_filled, names = 0, [[] for _ in fields]
        if n_filled:
            writer.write_table(pa.table([*names, *group[:, :n_filled]], schema=schema))


def _write_npy(path: str, columns: Sequence[str], rows: Any, run: Run, label: str, classes: Classes | None) -> None:
    import numpy as np

    names = (run.names(start, start + _NAMES_AT_ONCE) for start in range(0, len(run.stack), _NAMES_AT_ONCE))
    longest = max(max(map(len, some)) for some in names)
    widths = [("file", f"U{max(1, longest)}")]
    if run.stack.labels is not None:
        widths.append(("label", run.stack.labels.dtype.str[1:]))
    widths += [(axis, "i8") for axis in run.stack.coords]
    if classes is not None:
        widths.append((classes.column, f"U{max(map(len, classes.names))}"))
    dtype = np.dtype([*widths, ("values", rows.dtype, (len(columns),))])
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (len(run.stack),)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for words, numbers in _parts(
            rows, run, label, classes
        ):  # not in a memory map, whose pages would stay in memory
            part = np.empty(len(numbers), dtype)
            for (name, _), column in zip(widths, words, strict=True):
                part[name] = column
            part["values"] = numbers
            part.tofile(file)


_WRITERS = {".csv": write_csv, ".parquet": _write_parquet, ".npy": _write_npy}


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _in_utf8(name: Any) -> Any:
    """Replace the bytes of a file name that are not UTF-8, which Parquet cannot hold, by escapes."""
    return name if isinstance(name, int) else os.fsencode(name).decode("utf-8", "backslashreplace")
