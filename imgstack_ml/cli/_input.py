"""Images for a command: opened with messages that name options, and described for its record."""

from __future__ import annotations

import os
import platform
import re
import warnings
from dataclasses import replace
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from .._errors import BadImageError, MixedStackError
from ._analysis import _PACKAGES, _TALK, image_names
from ._task import Terminal

if TYPE_CHECKING:
    from .. import ImageStack

__all__ = ["describe_run", "on_error_option", "open_images", "skipped_files"]

_NAMED = 5  # files left out that are named on the terminal
_PYTHON_LINE = re.compile(r"[ \n](?:To|Give) [^\n]*open_stack\(.*", re.DOTALL)  # the end of some errors of open_stack

on_error_option = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="A file whose header is not that of an image stops the run, or is left out (exit code 3). One whose pixels "
    "turn out to be damaged always stops it.",
)


def open_images(source: str, terminal: Terminal, *, recursive: bool, on_error: str, pattern: str) -> ImageStack:
    """Open the images that a command is about.

    Parameters
    ----------
    source : str
        Folder, pattern, or stored stack.
    terminal : Terminal
    recursive : bool
        Whether sub-folders are read, which become labels.
    on_error : {"raise", "skip"}
    pattern : str
        The command line that would choose files by a pattern, for a hint.

    Returns
    -------
    ImageStack

    Raises
    ------
    BadImageError, FileNotFoundError, MixedStackError, StoreError
        With what to type on the command line in place of what to write in Python.
    """
    from .. import open_stack

    terminal.status(f"reading the headers of {source}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\d+ of \d+ files cannot be read")  # said below, with names
            stack = open_stack(source, recursive=recursive, on_error=on_error)
    except BadImageError as error:
        if on_error == "raise":
            error.add_note("to leave out files that are no images: --on-error skip")
        raise
    except (FileNotFoundError, MixedStackError) as error:
        told = type(error)(_PYTHON_LINE.sub("", str(error)))
        if isinstance(error, MixedStackError):
            told.add_note(f"a pattern in quotes can choose images of one kind: {pattern}")
        elif os.path.isdir(source) and not recursive:
            told.add_note("to read the sub-folders too: --recursive")
        raise told from error
    for path, reason in stack.problems[:_NAMED]:
        terminal.warn(f"left out {path!r}: {reason}")
    if len(stack.problems) > _NAMED:
        terminal.warn(f"left out {len(stack.problems) - _NAMED:,} more")
    return stack


def skipped_files(stack: ImageStack, source: str) -> list[tuple[str, str]]:
    """Names, as those of the images, and reasons of the files that were left out.

    Parameters
    ----------
    stack : ImageStack
    source : str
        What it was opened from.

    Returns
    -------
    list of (str, str)
    """
    files = tuple(path for path, _ in stack.problems)
    if not files:
        return []
    names = image_names(replace(stack, files=files, labels=None), source)
    return [(name, reason) for name, (_, reason) in zip(names, stack.problems, strict=True)]


def describe_run(stack: ImageStack, source: str, started: float) -> dict[str, Any]:
    """Describe in JSON's terms how a command was called, and what it read.

    Parameters
    ----------
    stack : ImageStack
    source : str
        What the stack was opened from.
    started : float
        When the command began, by `time.perf_counter`.

    Returns
    -------
    dict
    """
    context = click.get_current_context()
    return {
        "command": context.info_name,
        "parameters": {name: value for name, value in context.params.items() if name not in _TALK},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "input": {
            "source": os.path.abspath(source),
            "n_images": len(stack),
            "image_shape": list(stack.shape[1:]),
            "dtype": str(stack.dtype),
            "n_skipped": len(stack.problems),
        },
        "seconds": round(perf_counter() - started, 3),
    }
