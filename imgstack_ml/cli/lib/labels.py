"""Tables that say something of each image: its label, its group, or that it is left out; and options that name them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from typing import Any

import click

from ...errors import ImgstackError
from .cells import of_cell

__all__ = ["LabelError", "TableFile", "are_kept", "labels_option", "leave_out_option", "read_table"]

_MAX_SHOWN = 5
_DELIMITERS = ",;\t"


class LabelError(ImgstackError, ValueError):
    """Labels or groups of the images from which no classifier can learn, or on which it cannot be tested."""


class TableFile(click.ParamType):
    """A CSV file, whose path becomes absolute; ``FILE:COLUMN`` names a column."""

    name = "csv"
    what = "no CSV file; give e.g. labels.csv"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value of the option."""
        path, _, column = (value, "", "") if os.path.isfile(value) else value.rpartition(":")
        if not os.path.isfile(path):
            self.fail(f"{value!r} is {self.what}", param, ctx)
        return os.path.abspath(path) + (f":{column}" if column else "")


labels_option = click.option(
    "--labels",
    metavar="CSV",
    type=TableFile(),
    help="Take the labels from a table with the columns file and label, in place of the sub-folders; FILE.csv:COLUMN "
    "names another column. A row names an image, relative to FOLDER as in scores.csv, or a folder: then it is of all "
    "images in it, such as those of a well.",
)

leave_out_option = click.option(
    "--leave-out",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    multiple=True,
    help="Leave out the images that a file names: one a line, or a CSV table with the column file. Names are as in "
    "scores.csv; that of a folder means all images in it. May be given several times.",
)


def are_kept(files: Sequence[str], names: Sequence[str]) -> list[bool]:
    """Whether each image is in none of the files that name those to leave out.

    Raises
    ------
    LabelError
        A file names what is no image here, or no image would be left.
    """
    images = [set(_keys(name)) for name in names]
    known, left_out = set[str]().union(*images), set()
    for path in files:
        named = set(_listed(path))
        if unknown := sorted(named - known):
            raise LabelError(
                f"{path!r} names {unknown[0]!r}, which is no image here. Names are relative to the folder, with / "
                f"between folders and with their suffix, such as {names[0]!r}"
            )
        left_out |= named
    kept = [left_out.isdisjoint(keys) for keys in images]
    if not any(kept):
        raise LabelError(
            f"{', '.join(map(repr, files))} leaves out all {len(names):,} images; remove some of its lines"
        )
    return kept


def _listed(path: str) -> Iterator[str]:
    """Yield the names in a list, or in the column ``file`` of a table."""
    _, header = next(_rows(path), (1, []))
    if "file" in header:
        column = header.index("file")
        cells = [row[column] for _, row in list(_rows(path))[1:] if len(row) > column]
    else:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            cells = [line.strip() for line in file]
    yield from (of_cell(cell).rstrip("/") for cell in cells if cell)


def read_table(table: str, column: str, names: Sequence[str]) -> list[str]:
    """Read what a CSV file says of each image.

    Parameters
    ----------
    table : str
        Path, or ``path:column``.
    column : str
        What is read, "label" or "group": the column of this name, or else the only one beside ``file``.
    names : sequence of str
        Of the images, relative to the source. The row of an image counts before that of its folder.

    Raises
    ------
    LabelError
        The table lacks a column, a row is incomplete, two rows differ, or an image has no row.
    """
    path, given = (table, "") if os.path.isfile(table) else table.rsplit(":", 1)
    found: dict[str, tuple[str, int]] = {}
    rows = _rows(path)
    _, header = next(rows, (1, []))
    position = _position_of(path, header, given, column)
    of_file = header.index("file")
    for line, row in rows:
        if len(row) <= max(of_file, position) or not row[position]:
            said = repr(row[of_file]) if len(row) > of_file else repr(",".join(row))
            raise LabelError(f"{path!r}, line {line}: {said} has no {column}; fill it in, or remove the line")
        name, value = of_cell(row[of_file]).rstrip("/"), of_cell(row[position])
        other, before = found.setdefault(name, (value, line))
        if other != value:
            raise LabelError(
                f"{path!r}, lines {before} and {line}: {name!r} is {other!r} and {value!r}; remove one of them"
            )
    values = [next((found[key][0] for key in _keys(name) if key in found), "") for name in names]
    if missing := [name for name, value in zip(names, values, strict=True) if not value]:
        shown = ", ".join(map(repr, missing[:_MAX_SHOWN])) + (", …" if len(missing) > _MAX_SHOWN else "")
        example = f"; its first row names {next(iter(found))!r}" if found else ""
        raise LabelError(
            f"{path!r} names no {column} for {len(missing):,} of {len(names):,} images: {shown}{example}. "
            "Names are relative to the folder, with / between folders and with their suffix"
        )
    return values


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the cells of each row that is not empty."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        first = file.readline()
        file.seek(0)
        delimiter = next((one for one in _DELIMITERS if one in first), ",")
        reader = csv.reader(file, delimiter=delimiter)
        try:
            for row in reader:
                if any(cells := [cell.strip() for cell in row]):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise LabelError(f"{path!r}, line {reader.line_num}: {error}; save it as CSV in UTF-8") from error


def _position_of(path: str, header: list[str], given: str, column: str) -> int:
    """Find the column with the labels or groups: the one that is given, the one of that name, or the only one."""
    columns = [name for name in header if name != "file"]
    if "file" not in header or not columns or (given and given not in columns):
        raise LabelError(
            f"{path!r} has the columns {header}; it needs file and {given or column}, as its first line: "
            f"file,{given or column}"
        )
    if not given and len(columns) > 1 and column not in columns:
        raise LabelError(f"{path!r} has several columns, {columns}. Name that of the {column}s: {path}:{columns[0]}")
    return header.index(given or (column if column in columns else columns[0]))


def _keys(name: str) -> Iterator[str]:
    """Yield the names under which a table may have an image: its own, that of its file, and those of its folders."""
    yield name
    if name.endswith("]"):
        name = name.rpartition("[")[0]
        yield name
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
