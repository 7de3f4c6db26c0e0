"""``imgstack-ml scan``: what is in a folder of images, and which files are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .lib.images import (
    ImageOptions,
    level_option,
    mode_option,
    parse_select,
    recursive_option,
    select_option,
    shape_option,
    source_argument,
    without_skip_warnings,
)
from .lib.options import run_options
from .lib.task import Task
from .lib.terminal import Terminal

if TYPE_CHECKING:
    from .. import ImageStack

__all__ = ["scan"]


class _Scan(Task):
    """The command; it still takes ``--shape H W``, as in version 0.1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        for i in range(len(args) - 2):
            if args[i] == "--shape" and args[i + 1].isdecimal() and args[i + 2].isdecimal():
                args = [*args[: i + 1], f"{args[i + 1]}x{args[i + 2]}", *args[i + 3 :]]
                break
        return super().parse_args(ctx, args)


@click.command(cls=_Scan, short_help="What is in a folder: shapes, types, modes, bad files.")
@source_argument
@recursive_option()
@select_option
@level_option
@mode_option
@shape_option
@click.option("--verify", is_flag=True, help="Also decode every image: that finds damage beyond the headers.")
@run_options()
def scan(
    source: str,
    terminal: Terminal,
    recursive: bool,
    mode: str | None,
    shape: tuple[int, int] | None,
    select: tuple[str, ...],
    level: int,
    verify: bool,
) -> None:
    """Print what images are in FOLDER, and which files cannot be read as images.

    FOLDER can also be a pattern in quotes, an archive, a TIFF of many pages, a zarr array: whatever
    imgstack_ml.open_stack takes. Only headers are read, unless --verify is given. The exit code is 3 if files cannot
    be read. Images of kinds that are not read, such as HEIC, are counted.

    \b
    Examples:
      imgstack-ml scan photos --recursive
      imgstack-ml scan photos.zip --json
    """  # noqa: D301 (click looks for the real character)
    from .. import open_stack

    terminal.status(f"reading the headers of {source}")
    options = ImageOptions(source, recursive, "skip", mode, shape, select, level)
    with options.errors_that_name_options(), without_skip_warnings():
        stack = open_stack(
            source,
            recursive=recursive,
            mode=mode,
            shape=shape,
            on_error="skip",
            select=parse_select(select),
            level=level,
        )
        if verify:
            terminal.status(f"decoding {len(stack):,} images")
            stack = stack.verify(progress=terminal.progress)
    terminal.result(_text(stack), _record(stack), n_skipped=len(stack.problems))


def _text(stack: ImageStack) -> str:
    lines = [repr(stack), repr(stack.summary())]
    lines += [f"bad: {path!r}: {reason}" for path, reason in stack.problems]
    return "\n".join(lines)


def _record(stack: ImageStack) -> dict[str, Any]:
    return {
        "n_images": len(stack),
        "image_shape": list(stack.shape[1:]),
        "dtype": str(stack.dtype),
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
    }
