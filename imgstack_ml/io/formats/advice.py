"""What would read a file of a format that is not known here, or whose package is not installed."""

import importlib
from collections.abc import Mapping
from typing import Any

from ..locations.known import Known, known_by_content, known_by_name

__all__ = ["advice_for", "import_package"]


def advice_for(name: str, head: bytes, broken: Mapping[str, str]) -> str:
    """Say what a file is, as far as it can be told, and what would read it.

    Parameters
    ----------
    name : str
    head : bytes
        Its first bytes.
    broken : mapping of str to str
        Formats of other packages that could not be loaded, and why.
    """
    by_name = known_by_name(name)
    kind = known_by_content(head) or (by_name and by_name[1])
    if kind and kind.advice:
        text = f"it is {kind.phrase}, which is not read. {kind.advice}"
    elif kind and kind.extra and by_name and by_name[1] == kind:
        text = f"its name says that it is {kind.phrase}, and it begins otherwise ({head[:8]!r}): it is damaged"
    else:
        text = f"it is of no format that is read (it begins with {head[:8]!r})"
        text += ". To read it: open_stack(..., reader=function)"
    return text + "".join(f"; the format {kind!r} of another package is broken: {why}" for kind, why in broken.items())


def import_package(module: str, kind: str) -> Any:
    """Import the package that reads a kind of files.

    Parameters
    ----------
    module : str
    kind : str
        A suffix in the table of kinds, such as "czi", which says what is to be installed.

    Raises
    ------
    ValueError
        It is not installed; the message says what is to be typed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        known = known_by_name(f".{kind}")
        if known is None:
            raise
        raise ValueError(needed(known[1])) from error


def needed(kind: Known) -> str:
    """Say what is to be installed to read a kind of files."""
    return f"it is {kind.phrase}: pip install 'imgstack_ml[{kind.extra}]'"
