"""Images for a command: opened with messages that name options, and described for its record."""

from __future__ import annotations

import functools
import os
import platform
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadImageError, MixedStackError
from ._task import Terminal

if TYPE_CHECKING:
    from .. import ImageStack

__all__ = [
    "ImageOptions",
    "describe_run",
    "image_names",
    "image_options",
    "input_folders",
    "skipped_files",
    "source_argument",
]

_TALK = ("as_json", "quiet", "debug", "resume", "scheduler", "plan")  # parameters that change no result
_PACKAGES = ("imgstack_ml", "numpy", "dask", "scikit-learn", "pillow", "tifffile", "matplotlib")
_NAMED = 5  # files left out that are named on the terminal
_PYTHON_LINE = re.compile(r"[ \n](?:To|Give) [^\n]*open_stack\(.*", re.DOTALL)  # the end of some errors of open_stack

source_argument = click.argument("source", metavar="FOLDER", type=click.Path())  # a Path is completed by shells
_on_error_option = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="A damaged file, or one that is no image, stops the run; or all images are decoded once first, and such files "
    "are left out (exit code 3).",
)
_mode_option = click.option(
    "--mode",
    type=click.Choice(["L", "LA", "RGB", "RGBA", "I;16", "I", "F"]),
    help="Bring all images to this mode first: grey, grey and alpha, colour, ...; for folders that mix them.",
)


def _height_and_width(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.BadParameter(f"{value!r} is no height and width; give e.g. 256x256")
    return int(sides[0]), int(sides[1])


_shape_option = click.option(
    "--shape",
    metavar="HxW",
    callback=_height_and_width,
    help="Bring all images to this height and width first, e.g. 256x256; for folders of images of different sizes.",
)


@dataclass(frozen=True)
class ImageOptions:
    """What the options of a command say about its images.

    Parameters
    ----------
    source : str
        Folder, pattern, or stored stack.
    recursive : bool
        Whether sub-folders are read, which become labels.
    on_error : {"raise", "skip"}
        Where files are skipped, all images are decoded once, to find those that are damaged.
    mode : str, optional
    shape : (int, int), optional
        As in `imgstack_ml.open_stack`.
    """

    source: str
    recursive: bool
    on_error: str
    mode: str | None = None
    shape: tuple[int, int] | None = None

    def open(self, terminal: Terminal) -> ImageStack:
        """Open the images.

        Raises
        ------
        BadImageError, FileNotFoundError, MixedStackError, StoreError
            With what to type on the command line in place of what to write in Python.
        """
        from .. import open_stack

        terminal.status(f"reading the headers of {self.source}")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"\d+ of \d+ (files|images) cannot be")  # said below, with names
                stack = open_stack(
                    self.source, recursive=self.recursive, mode=self.mode, shape=self.shape, on_error=self.on_error
                )
                if self.on_error == "skip":
                    terminal.status(f"decoding {len(stack):,} images once, to find those that are damaged")
                    stack = stack.verify(progress=terminal.progress)
        except BadImageError as error:
            if self.on_error == "raise":
                error.add_note("to leave out files that are damaged or no images: --on-error skip")
            raise
        except (FileNotFoundError, MixedStackError) as error:
            raise _in_terms_of_options(error, self.recursive) from error
        for path, reason in stack.problems[:_NAMED]:
            terminal.warn(f"left out {path!r}: {reason}")
        if len(stack.problems) > _NAMED:
            terminal.warn(f"left out {len(stack.problems) - _NAMED:,} more")
        return stack


def image_options(recursive: str | None = "Read the sub-folders of FOLDER too.") -> Callable[[Callable], Callable]:
    """Make the decorator that adds the options about images, and hands the command one argument `images` for them.

    Parameters
    ----------
    recursive : str or None
        Help of ``--recursive``; None for commands that always read sub-folders.
    """
    options: list[Callable] = [source_argument]
    if recursive is not None:
        options += [click.option("-r", "--recursive", is_flag=True, help=recursive)]
    options += [_mode_option, _shape_option, _on_error_option]

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def collected(
            *,
            source: str,
            on_error: str,
            mode: str | None,
            shape: tuple[int, int] | None,
            recursive: bool = True,
            **others: Any,
        ) -> Any:
            return command(images=ImageOptions(source, recursive, on_error, mode, shape), **others)

        return functools.reduce(lambda done, option: option(done), reversed(options), collected)

    return decorate


def _in_terms_of_options(error: Exception, recursive: bool) -> Exception:
    """Cut what to write in Python off a message, and say what to type."""
    text = str(error)
    told = type(error)(_PYTHON_LINE.sub("", text))
    if isinstance(error, MixedStackError):
        told.add_note("bring them to one kind by --mode, e.g. --mode RGB, or --shape, e.g. --shape 256x256")
        told.add_note("or choose images of one kind by a pattern in quotes, such as 'FOLDER/a*.png'")
    elif "recursive=True" in text and not recursive:
        told.add_note("to read the sub-folders too: --recursive")
    return told


def input_folders(stack: ImageStack) -> list[str]:
    """Folders that a stack is read from."""
    return sorted({path if os.path.isdir(path) else os.path.dirname(path) for path in stack.inputs})


def image_names(stack: ImageStack, source: str) -> list[str]:
    """Names of the images relative to their folder, with ``/`` between folders on any system.

    Parameters
    ----------
    stack : ImageStack
    source : str
        What the stack was opened from. For a pattern or a stored stack, the folder that all files share counts.

    Returns
    -------
    list of str
    """
    root = _root(stack.files, source)
    return [_relative(file, root) for file in stack.files]


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
    root = _root([path for path, _ in stack.problems], source)
    return [(_relative(path, root), reason) for path, reason in stack.problems]


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


def _root(files: Sequence[str], source: str) -> str:
    folder = os.path.join(os.path.abspath(source), "")
    if all(file.startswith(folder) for file in files):
        return folder
    return os.path.commonpath([os.path.dirname(file) for file in files])


def _relative(file: str, root: str) -> str:
    return os.path.relpath(file, root).replace(os.sep, "/")
