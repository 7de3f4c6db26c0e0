"""The images that a command reads: their options, and opening them with messages that name options."""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ...errors import BadImageError, MixedStackError
from .options import add_options
from .output import refuse_inside
from .run import Run
from .terminal import Terminal

if TYPE_CHECKING:
    from ... import ImageStack

__all__ = [
    "ImageOptions",
    "image_options",
    "level_option",
    "mode_option",
    "parse_select",
    "recursive_option",
    "select_option",
    "shape_option",
    "source_argument",
    "without_skip_warnings",
]

_MAX_NAMED = 5  # skipped files that are named on the terminal
# The advice at the end of some errors of open_stack, which is Python.
_PYTHON_ADVICE = re.compile(r"[ \n](?:To|Give) [^\n]*open_stack\(.*", re.DOTALL)

source_argument = click.argument("source", metavar="FOLDER", type=click.Path())  # shells complete a Path
_on_error_option = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="What to do about a damaged file, one that is no image, or an image with NaN or infinity. raise: stop. skip: "
    "decode all images once first, and leave these out (exit code 3).",
)
mode_option = click.option(
    "--mode",
    type=click.Choice(["L", "LA", "RGB", "RGBA", "I;16", "I", "F"]),
    help="Convert all images to this mode first: grey, grey and alpha, colour, ...; for folders that mix them.",
)


def _height_and_width(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.BadParameter(f"{value!r} is no height and width; give e.g. 256x256")
    return int(sides[0]), int(sides[1])


shape_option = click.option(
    "--shape",
    metavar="HxW",
    callback=_height_and_width,
    help="Resize all images to this height and width first, e.g. 256x256; for folders of images of different sizes.",
)


def parse_select(texts: Sequence[str]) -> dict[str, Any] | None:
    """Read what images and channels to take, such as ``("c=DAPI,z=3", "t=0:100:10")``; None where nothing is said."""
    found: dict[str, list[Any]] = {}
    axis = ""
    for part in (part for text in texts for part in text.split(",")):
        before, given, value = part.partition("=")
        axis = before.strip() if given else axis
        value = (value if given else before).strip()
        if not axis or not value:
            raise click.BadParameter(f"{part!r} is no axis and choice; give e.g. c=DAPI,z=3 or t=0:100:10")
        found.setdefault(axis, []).append(_choice(value))
    if mixed := [
        axis for axis, values in found.items() if len(values) > 1 and any(isinstance(v, slice) for v in values)
    ]:
        raise click.BadParameter(f"along {mixed[0]!r} a range and other choices are given; give one of them")
    return {axis: values[0] if len(values) == 1 else values for axis, values in found.items()} or None


def _choice(value: str) -> int | str | slice:
    if re.fullmatch(r"-?\d+", value):
        return int(value)
    if re.fullmatch(r"(-?\d*):(-?\d*)(:-?\d*)?", value):
        return slice(*(int(part) if part else None for part in value.split(":")))
    return value


select_option = click.option(
    "--select",
    metavar="AXIS=CHOICE",
    multiple=True,
    callback=lambda ctx, param, value: (parse_select(value), value)[1],
    help="Images and channels to take of files with more axes: c=DAPI,z=3 (a name, positions from 0), t=0:100:10 "
    "(from, up to, step), c=DAPI,GFP (several). Axes: t, z, c, s (scene), p (position), and what files name.",
)


level_option = click.option(
    "--level",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Level of the pyramids of OME-Zarr and TIFF; 0 is the full resolution.",
)


def recursive_option(*, labels: bool = False) -> Callable:
    """Make the option that reads sub-folders; `labels` says that they become a column of the output."""
    text = "Read the sub-folders of FOLDER too" + ("; their names become the column label." if labels else ".")
    return click.option("-r", "--recursive", is_flag=True, help=text)


@dataclass(frozen=True)
class ImageOptions:
    """What the options of a command say about its images.

    Parameters
    ----------
    source : str
        Folder, pattern, or stored stack.
    recursive : bool
        Whether sub-folders are read; their names become labels.
    on_error : {"raise", "skip"}
        With "skip", all images are decoded once, to find those that are damaged or have NaN or infinity.
    mode : str, optional
    shape : (int, int), optional
        As in `imgstack_ml.open_stack`.
    select : sequence of str
        See `parse_select`.
    level : int
        As in `imgstack_ml.open_stack`.
    """

    source: str
    recursive: bool
    on_error: str
    mode: str | None = None
    shape: tuple[int, int] | None = None
    select: Sequence[str] = ()
    level: int = 0

    def open(self, terminal: Terminal, started: float, *, out: str | None = None) -> Run:
        """Open the images for a run that began at `started`.

        The folder `out`, if given, will be written: it must lie outside the folders that are read. Errors say what to
        type on the command line, instead of what to write in Python.
        """
        if out is not None:
            refuse_inside(out, [self.source])
        terminal.status(f"reading the headers of {self.source}")
        with self.errors_that_name_options(), without_skip_warnings():
            stack = self._open(terminal)
        for path, reason in stack.problems[:_MAX_NAMED]:
            terminal.warn(f"left out {path!r}: {reason}")
        if len(stack.problems) > _MAX_NAMED:
            terminal.warn(f"left out {len(stack.problems) - _MAX_NAMED:,} more")
        if out is not None:
            refuse_inside(out, _folders_of(stack))
        return Run(self.source, stack, terminal, started)

    def _open(self, terminal: Terminal) -> ImageStack:
        from ... import open_stack
        from ...io.stack import without_faults

        stack = open_stack(
            self.source,
            recursive=self.recursive,
            mode=self.mode,
            shape=self.shape,
            on_error=self.on_error,
            select=parse_select(self.select),
            level=self.level,
        )
        if self.on_error != "skip":
            return stack
        terminal.status(f"decoding {len(stack):,} images once, to find those that are damaged")
        return without_faults(stack, finite=True, progress=terminal.progress)

    @contextmanager
    def errors_that_name_options(self) -> Iterator[None]:
        """Replace the advice of errors, which is Python, by what to type."""
        try:
            yield
        except BadImageError as error:
            if self.on_error == "raise":
                error.add_note("to leave out files that are damaged or no images: --on-error skip")
            raise
        except (FileNotFoundError, MixedStackError) as error:
            text = str(error)
            told = type(error)(_PYTHON_ADVICE.sub("", text))
            if isinstance(error, MixedStackError):
                told.add_note("bring them to one kind by --mode, e.g. --mode RGB, or --shape, e.g. --shape 256x256")
                told.add_note("or choose images of one kind by a pattern in quotes, such as 'FOLDER/a*.png'")
            elif "recursive=True" in text and not self.recursive:
                told.add_note("to read the sub-folders too: --recursive")
            raise told from error


def image_options(*, recursive: bool = True, labels: bool = False) -> Callable[[Callable], Callable]:
    """Make the decorator that adds the options about images, and passes them to the command as its `images`.

    Parameters
    ----------
    recursive : bool, default=True
        Whether there is an option to read sub-folders; without it they are always read.
    labels : bool, default=False
        As in `recursive_option`.
    """
    options = [source_argument, select_option, level_option, mode_option, shape_option, _on_error_option]
    if recursive:
        options.insert(1, recursive_option(labels=labels))

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def with_images(
            *,
            source: str,
            on_error: str,
            mode: str | None,
            shape: tuple[int, int] | None,
            select: tuple[str, ...],
            level: int,
            recursive: bool = True,
            **others: Any,
        ) -> Any:
            return command(images=ImageOptions(source, recursive, on_error, mode, shape, select, level), **others)

        return add_options(options, with_images)

    return decorate


@contextmanager
def without_skip_warnings() -> Iterator[None]:
    """Silence the warning of `open_stack` that files are skipped: commands print their names instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ (files|images) cannot be")
        yield


def _folders_of(stack: ImageStack) -> list[str]:
    """Folders that a stack is read from."""
    return sorted({path if os.path.isdir(path) else os.path.dirname(path) for path in stack.inputs})
