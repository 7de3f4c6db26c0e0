"""``imgstack-ml scan``: what is in a folder of images, which files are damaged, and the line that analyses them."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

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
    sub_folders,
)
from .lib.line import command_line
from .lib.options import run_options
from .lib.output import refuse_inputs, refuse_inside
from .lib.task import Task
from .lib.terminal import Terminal
from .lib.words import in_options
from .pca import pca

if TYPE_CHECKING:
    from .. import ImageStack
    from ..io.summary import StackSummary

__all__ = ["scan"]

_MOST_VALUES = 2**27  # of images that are tried for colours


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
    imgstack_ml.open_stack takes. Only headers are read, and three images in colour, to see whether they are grey;
    --verify decodes all. The last line is the command that
    finds the principal components of these images, with the options that they need. The exit code is 3 if files
    cannot be read. Images of kinds that are not read, such as HEIC, are counted.

    \b
    Examples:
      imgstack-ml scan photos --recursive
      imgstack-ml scan photos.zip --json
    """  # noqa: D301 (click looks for the real character)
    terminal.status(f"reading the headers of {source}")
    found = _open(ImageOptions(source, recursive, "skip", mode, shape, select, level, fit))
    if (stack := found.stack) is not None:
        found.options.warn_of_stretching(stack, terminal)
        stack = found.options.without_faults(stack, terminal) if verify else stack
        found = found._replace(stack=stack, are_grey=_are_grey(stack))
    problems = () if stack is None else stack.problems
    terminal.result(_text(found), _record(found), n_skipped=len(problems))


class _Found(NamedTuple):
    """What is there: a table of kinds, and the stack with options that give it; None where no options do."""

    stack: ImageStack | None
    options: ImageOptions
    summary: StackSummary
    is_mixed: bool = True
    are_grey: bool = False

    @property
    def not_searched(self) -> list[str]:
        """Sub-folders beside the images that are not read."""
        stack, source = self.stack, self.options.source
        is_store = stack is not None and os.path.abspath(source) in stack.inputs
        return [] if self.options.recursive or is_store else sub_folders(source)

    @property
    def next_line(self) -> str | None:
        """The command that analyses these images, with a folder that it can write."""
        if self.stack is None or len(self.stack) < 2:  # one image has no components
            return None
        on_error = "skip" if self.stack.problems else "raise"
        out = _free_folder(self.options.source, self.stack)
        return command_line(pca, {**asdict(self.options), "on_error": on_error, "out": out})


def _open(options: ImageOptions) -> _Found:
    """Open the images; those of several kinds by the options that bring most of them to one."""
    from ..io.summary import StackSummary

    try:
        try:
            stack = options.read_headers()
        except FileNotFoundError:
            if options.recursive or not os.path.isdir(options.source):
                raise
            options = replace(options, recursive=True)  # images may lie in sub-folders only
            with suppress(FileNotFoundError):
                stack = options.read_headers()
                return _Found(stack, options, stack.summary(), is_mixed=False)
            raise
        return _Found(stack, options, stack.summary(), is_mixed=False)
    except MixedStackError as error:
        opened = []
        for other in options.for_one_kind(error):
            with suppress(ImgstackError), warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* they are left out: ")  # said when the folder was listed first
                opened.append((other.read_headers(), other))
        if not opened:
            return _Found(None, options, StackSummary(error.counts, 0))
        stack, other = max(opened, key=lambda pair: len(pair[0]))
        n_unfit = sum(count for _, count in error.counts) - len(stack)  # no problem of the file
        return _Found(stack, other, StackSummary(error.counts, len(stack.problems) - n_unfit, stack.unread))


def _are_grey(stack: ImageStack) -> bool:
    """Whether three images in colour, which are decoded for it, have no colours; False where they are large."""
    import numpy as np

    if stack.shape[3:] != (3,) or stack.dtype != "uint8" or 3 * math.prod(stack.shape[1:]) > _MOST_VALUES:
        return False
    n_images, is_film = len(stack), getattr(stack.keys, "runs", None) is not None
    some = (0, 1, 2) if is_film else (0, n_images // 2, n_images - 1)  # a film is decoded up to its images
    try:
        images = stack[sorted({min(one, n_images - 1) for one in some})].data.compute()
    except (ImgstackError, OSError, ValueError):
        return False
    return bool(np.all(images == images[..., :1]))


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


def _text(found: _Found) -> str:
    stack, line = found.stack, found.next_line
    lines = [repr(found.summary).replace(", see .problems", ", see below")]
    if not found.is_mixed:
        lines.insert(0, repr(stack))
    elif stack is None:
        lines.append("No option brings these to one kind: choose some by a pattern in quotes, such as 'FOLDER/a*.png'.")
    else:
        lines.append("These are of several kinds: the next line brings them to one.")
    lines += [f"bad: {path!r}: {in_options(reason)}" for path, reason in (stack.problems if stack is not None else ())]
    if folders := found.not_searched:
        context = click.get_current_context()
        again = command_line(context.command, {**context.params, "recursive": True})
        lines.append(
            f"not searched: {len(folders):,} sub-folder{'s' if len(folders) > 1 else ''}, such as {folders[0]!r}. With "
            f"{'them' if len(folders) > 1 else 'it'}: {again}"
        )
    if found.are_grey:
        lines.append("grey: red, green and blue are equal in the images tried. One channel takes a third: --mode L")
    return "\n".join(lines if line is None else [*lines, f"\nNext: {line}"])


def _record(found: _Found) -> dict[str, Any]:
    stack = None if found.is_mixed else found.stack
    problems = () if found.stack is None else found.stack.problems
    return {
        "n_images": sum(count for _, count in found.summary.counts) if stack is None else len(stack),
        "image_shape": None if stack is None else list(stack.shape[1:]),
        "dtype": None if stack is None else str(stack.dtype),
        "kinds": [
            {
                "n_images": count,
                "shape": list(header.shape),
                "dtype": str(header.dtype),
                "format": header.format,
                "mode": header.mode,
            }
            for header, count in found.summary.counts
        ],
        "problems": [{"file": path, "reason": reason} for path, reason in problems],
        "not_searched": found.not_searched,
        "are_grey": found.are_grey,
        "unread": dict(found.summary.unread),
        "next": found.next_line,
    }
