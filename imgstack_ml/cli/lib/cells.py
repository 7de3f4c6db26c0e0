"""Cells of CSV files: text that a spreadsheet would run as a formula gets ``./`` in front, and reads back equal.

A file may be called ``=HYPERLINK(...)``. Spreadsheets run cells that begin with ``=``, ``+``, ``-`` or ``@``; some skip
white space before that. With ``./`` in front, the name of a file leads to the same file.
"""

import re
from typing import Any

__all__ = ["as_cell", "of_cell"]

# Also the full-width forms of these characters. Text that has ./ before them already gets one more.
_FORMULA = re.compile(r"(\./)*[\s\0]*[=+\-@＝＋－＠\t\r\n\0]")


def as_cell(text: Any) -> str:
    """Return the cell that stands for a text, such as the name of a file or a label. Numbers need none."""
    text = str(text)
    return f"./{text}" if _FORMULA.match(text) else text


def of_cell(cell: str) -> str:
    """Return the text that a cell stands for."""
    return cell[2:] if cell.startswith("./") and _FORMULA.match(cell, 2) else cell
