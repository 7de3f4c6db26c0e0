"""``imgstack-ml scan``: what is in a folder of images, and which files are bad."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import click

from ._input import source_argument
from ._task import Task, Terminal, run_options

if TYPE_CHECKING:
    from .. import ImageStack

__all__ = ["scan"]


@click.command(cls=Task, short_help="What is in a folder: shapes, types, modes, bad files.")
@source_argument
@click.option("-r", "--recursive", is_flag=True, help="Read the sub-folders of FOLDER too.")
@click.option("--mode", metavar="MODE", help="As if all images were brought to this mode, e.g. RGB or L.")
@click.option("--shape", metavar="H W", type=(int, int), help="As if all were brought to this height and width.")
@click.option("--verify", is_flag=True, help="Decode every image too, which finds files that are damaged further in.")
@run_options()
def scan(
    source: str,
    terminal: Terminal,
    recursive: bool,
    mode: str | None,
    shape: tuple[int, int] | None,
    verify: bool,
) -> None:
    """Tell what images are in FOLDER, and which files cannot be read as one.

    FOLDER is whatever imgstack_ml.open_stack takes: also a pattern in quotes, an archive, a TIFF of many pages, a
    zarr array. Headers only are read, unless --verify is given. The exit code is 3 where files are bad.

    \b
    Examples:
      imgstack-ml scan photos --recursive
      imgstack-ml scan photos.zip --json
    """  # noqa: D301 (click looks for the real character)
    from .. import open_stack

    terminal.status(f"reading the headers of {source}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ (files|images) cannot be")  # said below, with names
        try:
            stack = open_stack(source, recursive=recursive, mode=mode, shape=shape, on_error="skip")
            if verify:
                terminal.status(f"decoding {len(stack):,} images")
                stack = stack.verify(progress=terminal.progress)
        except FileNotFoundError as error:
            error.add_note("sub-folders are read with the option --recursive")
            raise
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
    }
