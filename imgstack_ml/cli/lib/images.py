"""The images that a command reads: their options, and opening them with messages that name options."""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ...errors import BadImageError, MixedStackError
from .labels import are_kept, labels_option, leave_out_option, read_table
from .options import add_options
from .output import refuse_inputs, refuse_inside
from .run import Run, relative_names
from .terminal import Terminal
from .words import in_options

if TYPE_CHECKING:
    from ... import ImageStack

__all__ = [
    "ImageOptions",
    "fit_option",
    "image_options",
    "level_option",
    "mode_option",
    "parse_select",
    "recursive_option",
    "select_option",
    "shape_option",
    "source_argument",
    "sub_folders",
    "without_skip_warnings",
]

_MAX_STRETCH = 0.02  # of the ratio of height to width: less is rounding
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
    help="Bring all images to this height and width first, e.g. 256x256; for folders of images of different sizes.",
)
fit_option = click.option(
    "--fit",
    type=click.Choice(["resize", "crop", "pad"]),
    default="resize",
    show_default=True,
    help="How to bring images to --shape. resize: by averaging, which stretches those of another ratio of height to "
    "width; crop: keep the middle of images that are as large or larger; pad: add a border of 0 to images that are as "
    "small or smaller.",
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


def recursive_option(*, labels: bool = False, always: bool = False) -> Callable:
    """Make the option that reads sub-folders: they become a column of the output, or are `always` read."""
    text = "Read the sub-folders of FOLDER too" + ("; their names become the column label." if labels else ".")
    text = "Read the sub-folders of FOLDER: here they always are, and the option may be left out." if always else text
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
    fit : {"resize", "crop", "pad"}
        As in `imgstack_ml.open_stack`.
    labels : str, optional
        The table that the labels come from, as `labels.read_table` takes it.
    leave_out : sequence of str
        Files that name the images to leave out, as `labels.are_kept` takes them.
    """

    source: str
    recursive: bool
    on_error: str
    mode: str | None = None
    shape: tuple[int, int] | None = None
    select: Sequence[str] = ()
    level: int = 0
    fit: str = "resize"
    labels: str | None = None
    leave_out: Sequence[str] = ()

    def open(
        self,
        terminal: Terminal,
        started: float,
        *,
        out: str | None = None,
        check: Callable[[ImageStack], Any] | None = None,
    ) -> Run:
        """Open the images for a run that began at `started`.

        The folder `out`, if given, will be written: it must lie outside the folders that are read. `check` is called
        with the stack before any image is decoded, and refuses what the run cannot do. Errors say what to type on the
        command line, instead of what to write in Python.
        """
        if out is not None:
            refuse_inside(out, [self.source])
        terminal.status(f"reading the headers of {self.source}")
        stack = self.read_headers()
        self.warn_of_stretching(stack, terminal)
        if self.on_error == "skip":
            if check is not None:
                check(stack)
            stack = self.without_faults(stack, terminal)
        for path, reason in stack.problems[:_MAX_NAMED]:
            terminal.warn(f"left out {path!r}: {in_options(reason)}")
        if len(stack.problems) > _MAX_NAMED:
            terminal.warn(f"left out {len(stack.problems) - _MAX_NAMED:,} more")
        if out is not None:
            refuse_inputs(out, self.source, stack)
        return Run(self.source, stack, terminal, started)

    def read_headers(self) -> ImageStack:
        """Open the stack by its headers."""
        from ... import open_stack

        with self.errors_that_name_options(), without_skip_warnings():
            stack = open_stack(
                self.source,
                recursive=self.recursive,
                mode=self.mode,
                shape=self.shape,
                fit=self.fit,
                on_error=self.on_error,
                select=parse_select(self.select),
                level=self.level,
            )
        if self.leave_out:
            stack = stack[are_kept(self.leave_out, relative_names(stack.files, self.source))]
        return stack if self.labels is None else self._with_labels(stack, self.labels)

    def _with_labels(self, stack: ImageStack, table: str) -> ImageStack:
        import numpy as np

        return replace(stack, labels=np.array(read_table(table, "label", relative_names(stack.files, self.source))))

    def without_faults(self, stack: ImageStack, terminal: Terminal) -> ImageStack:
        """Decode all images once, and leave out those that are damaged or hold NaN or infinity."""
        from ...io.stack import without_faults

        terminal.status(f"decoding {len(stack):,} images once, to find those that are damaged")
        with self.errors_that_name_options(), without_skip_warnings():
            return without_faults(stack, finite=True, progress=terminal.progress)

    def for_one_kind(self, error: MixedStackError) -> Iterator[ImageOptions]:
        """Give options that may bring images of several kinds to one, the best first; `error` counts the kinds."""
        headers = [header for header, _ in error.counts]
        shape, fit = self.shape, self.fit
        if shape is None and len({header.shape[:2] for header in headers}) > 1:
            shape, fit = headers[0].shape[:2], "resize"
        one_type = len({(header.shape[2:], header.dtype) for header in headers}) == 1
        colour = headers[0].shape[2:] in ((3,), (4,))
        modes = ("RGB", "RGBA", "L", "F") if colour else ("L", "I;16", "I", "F", "RGB")
        for mode in [self.mode] if self.mode or one_type else modes:
            yield replace(self, mode=mode, shape=shape, fit=fit)

    def warn_of_stretching(self, stack: ImageStack, terminal: Terminal) -> None:
        """Warn of images whose ratio of height to width is another one in the stack."""
        if self.shape is None or self.fit != "resize":
            return
        height, width = self.shape
        counts = [(header.shape[:2], count) for header, count in stack.summary().counts]
        if not counts:  # an array
            counts = [(getattr(stack.reader, "reader", stack.reader).shape[:2], len(stack))]
        changed = [(h, w, n) for (h, w), n in counts if abs(h * width / (w * height) - 1) > _MAX_STRETCH]
        if changed:
            heights, widths = ([shape[axis] for shape, _ in counts] for axis in (0, 1))
            least, most = (f"{chosen(heights)}x{chosen(widths)}" for chosen in (min, max))
            names = " and ".join(_smallest(stack, min(heights), min(widths)))
            way = f"--shape {least} --fit crop (the size of {names}), or --shape {most} --fit pad"
            if least == most:
                factor = min(height / heights[0], width / widths[0])
                way = f"--shape {max(1, round(factor * heights[0]))}x{max(1, round(factor * widths[0]))}"
            terminal.warn(
                f"--shape {height}x{width} stretches {sum(n for *_, n in changed):,} of {len(stack):,} images, such as "
                f"those of {changed[0][0]} × {changed[0][1]}. To keep the ratio of height to width: {way}"
            )

    @contextmanager
    def errors_that_name_options(self) -> Iterator[None]:
        """Replace the advice of errors, which is Python, by what to type."""
        try:
            yield
        except BadImageError as error:
            vars(error).pop("__notes__", None)
            if self.on_error == "raise":
                error.add_note("to leave out files that are damaged or no images: --on-error skip")
            raise
        except (FileNotFoundError, MixedStackError) as error:
            text = str(error)
            told = type(error)(_PYTHON_ADVICE.sub("", text))
            vars(told).update(vars(error))
            if isinstance(error, MixedStackError):
                told.add_note("bring them to one kind by --mode, e.g. --mode RGB, or --shape, e.g. --shape 256x256")
                told.add_note("or choose images of one kind by a pattern in quotes, such as 'FOLDER/a*.png'")
            elif "recursive=True" in text and not self.recursive:
                told.add_note("to read the sub-folders too: --recursive")
            raise told from error


def _smallest(stack: ImageStack, height: int, width: int) -> list[str]:
    """Name the image of this height and width, or two where none has both, one for each."""
    assert stack.kinds is not None, "images of several sizes come from files"
    shapes = [header.shape for header in stack.kinds.headers]
    both, tall, wide = (
        next((i for i, shape in enumerate(shapes) if fits(shape)), None)
        for fits in (
            lambda shape: shape[:2] == (height, width),
            lambda shape: shape[0] == height,
            lambda shape: shape[1] == width,
        )
    )
    kinds = [both] if both is not None else [tall, wide]
    return [repr(os.path.basename(stack.files[stack.kinds.numbers.tolist().index(kind)])) for kind in kinds]


def image_options(*, recursive: bool = True, labels: bool = False) -> Callable[[Callable], Callable]:
    """Make the decorator that adds the options about images, and passes them to the command as its `images`.

    Parameters
    ----------
    recursive : bool, default=True
        Whether sub-folders are read only where the option says so; else they are always read.
    labels : bool, default=False
        As in `recursive_option`.
    """
    options = [source_argument, recursive_option(labels=labels, always=not recursive), labels_option]
    options += [select_option, level_option, mode_option, shape_option, fit_option, _on_error_option, leave_out_option]

    always = not recursive

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
            fit: str,
            recursive: bool,
            labels: str | None,
            leave_out: tuple[str, ...],
            **others: Any,
        ) -> Any:
            kinds = mode, shape, select, level, fit
            images = ImageOptions(source, recursive or always, on_error, *kinds, labels, leave_out)
            return command(images=images, **others)

        return add_options(options, with_images)

    return decorate


def sub_folders(folder: str) -> list[str]:
    """Names of the sub-folders of a folder on this machine that are not hidden; none of anything else."""
    from ...io.locations.names import is_hidden

    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))


@contextmanager
def without_skip_warnings() -> Iterator[None]:
    """Silence the warning of `open_stack` that files are skipped: commands print their names instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ (files|images) cannot be")
        yield
