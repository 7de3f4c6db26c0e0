"""``imgstack-ml scan``: what is in a folder of images, which files are damaged, and the line that analyses them."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImgstackError, MixedStackError, StoreError
from .lib.images import (
    ImageOptions,
    fit_option,
    level_option,
    mode_option,
    recursive_option,
    select_option,
    shape_option,
    source_argument,
)
from .lib.line import command_line
from .lib.options import run_options
from .lib.output import refuse_inputs, refuse_inside
from .lib.task import Task
from .lib.terminal import Terminal
from .pca import pca

if TYPE_CHECKING:
    from .. import ImageStack

__all__ = ["scan"]


@click.command(cls=Task, short_help="What is in a folder: shapes, types, modes, bad files.")
@source_argument
@recursive_option()
@select_option
@level_option
@mode_option
@shape_option
@fit_option
@click.option(
    "--verify",
    is_flag=True,
    help="Also decode every image: that finds damage beyond the headers, and images with NaN or infinity.",
)
@run_options()
def scan(
    source: str,
    terminal: Terminal,
    recursive: bool,
    mode: str | None,
    shape: tuple[int, int] | None,
    fit: str,
    select: tuple[str, ...],
    level: int,
    verify: bool,
) -> None:
    """Print what images are in FOLDER, and which files cannot be read as images.

    FOLDER can also be a pattern in quotes, an archive, a TIFF of many pages, a zarr array: whatever
    imgstack_ml.open_stack takes. Only headers are read, unless --verify is given. The last line is the command that
    finds the principal components of these images, with the options that they need. The exit code is 3 if files
    cannot be read. Images of kinds that are not read, such as HEIC, are counted.

    \b
    Examples:
      imgstack-ml scan photos --recursive
      imgstack-ml scan photos.zip --json
    """  # noqa: D301 (click looks for the real character)
    terminal.status(f"reading the headers of {source}")
    options = ImageOptions(source, recursive, "skip", mode, shape, select, level, fit)
    stack, found = _open(options)
    found.warn_of_stretching(stack, terminal)
    if verify:
        stack = found.without_faults(stack, terminal)
    line = _next_line(found, stack)
    mixed = found is not options
    terminal.result(_text(stack, line, mixed=mixed), _record(stack, line, mixed=mixed), n_skipped=len(stack.problems))


def _open(options: ImageOptions) -> tuple[ImageStack, ImageOptions]:
    """Open the images; those of several kinds by the options that bring most of them to one, returned too."""
    try:
        return options.read_headers(), options
    except MixedStackError as error:
        opened = []
        for other in options.for_one_kind(error):
            with suppress(ImgstackError):
                opened.append((other.read_headers(), other))
        if not opened:
            raise
        return max(opened, key=lambda pair: len(pair[0]))


def _next_line(options: ImageOptions, stack: ImageStack) -> str:
    """Write the command that analyses these images, with a folder that it can write."""
    on_error = "skip" if stack.problems else "raise"
    return command_line(pca, {**asdict(options), "on_error": on_error, "out": _free_folder(options.source, stack)})


def _free_folder(source: str, stack: ImageStack) -> str:
    """Name a folder for results that does not exist: here, or, where that is in the input, beside the input."""
    beside = os.path.dirname(os.path.abspath(source))
    for number in itertools.count(1):
        name = f"results{number if number > 1 else ''}"
        for folder in (name, os.path.join(beside, name)):
            with suppress(StoreError):
                refuse_inside(folder, [source])
                refuse_inputs(folder, source, stack)
                if not os.path.lexists(folder):
                    return folder
    raise AssertionError("some number is free")


def _text(stack: ImageStack, line: str, *, mixed: bool) -> str:
    table = repr(stack.summary())
    lines = [
        f"{table}\nThese are of several kinds: the next line brings them to one." if mixed else f"{stack!r}\n{table}"
    ]
    lines += [f"bad: {path!r}: {reason}" for path, reason in stack.problems]
    return "\n".join([*lines, f"\nNext: {line}"])


def _record(stack: ImageStack, line: str, *, mixed: bool) -> dict[str, Any]:
    return {
        "n_images": len(stack),
        "image_shape": None if mixed else list(stack.shape[1:]),
        "dtype": None if mixed else str(stack.dtype),
        "kinds": [
            {
                "n_images": count,
                "shape": list(header.shape),
                "dtype": str(header.dtype),
                "format": header.format,
                "mode": header.mode,
            }
            for header, count in stack.summary().counts
        ],
        "problems": [{"file": path, "reason": reason} for path, reason in stack.problems],
        "unread": dict(stack.unread),
        "next": line,
    }
