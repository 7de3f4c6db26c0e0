"""One run of a command: the images that it reads, and the record that it leaves."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ...errors import StoreError
from .line import NOT_RECORDED, command_line, typed
from .summary import summary
from .terminal import Terminal
from .words import in_options

if TYPE_CHECKING:
    from ... import ImageStack
    from .output import OutputFolder

__all__ = ["Run", "line_again", "refusing_another_run", "relative_names", "tell_finished"]

_PAGES = {"report.html": "report", "eigenimages.tif": "full_size"}  # options that only add files
_PACKAGES = ("imgstack_ml", "numpy", "dask", "scikit-learn", "pillow", "tifffile", "matplotlib")


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Parameters
    ----------
    source : str
        What the user named: a folder, a pattern, a stored stack.
    stack : ImageStack
        The images, opened from `source`.
    terminal : Terminal
    started : float
        When the command began, by `time.perf_counter`.
    """

    source: str
    stack: ImageStack
    terminal: Terminal
    started: float

    @cached_property
    def image_names(self) -> list[str]:
        """Name of each image, relative to the source."""
        return self.names(0, len(self.stack))

    def names(self, start: int, stop: int) -> list[str]:
        """Names of some of the images: of millions, all names take more memory than a part of a table."""
        return _names_below(self.stack.files[start:stop], self._root)

    @cached_property
    def _root(self) -> str:
        return _root_of(self.stack.files, self.source)

    @cached_property
    def skipped(self) -> list[tuple[str, str]]:
        """Name of each file that was left out, relative to the source, and the reason."""
        names = relative_names([path for path, _ in self.stack.problems], self.source)
        return [(name, in_options(reason)) for name, (_, reason) in zip(names, self.stack.problems, strict=True)]

    def describe(self, **found: Any) -> dict[str, Any]:
        """Describe the run in values that JSON can hold: how it was called, what it read, and what it `found`."""
        context = click.get_current_context()
        return {
            "command": context.info_name,
            "command_line": line_again(context.command, context.params),
            "parameters": {name: value for name, value in context.params.items() if name not in NOT_RECORDED},
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "input": {
                "source": _absolute(self.source),
                "n_images": len(self.stack),
                "image_shape": list(self.stack.shape[1:]),
                "dtype": str(self.stack.dtype),
                "n_skipped": len(self.stack.problems),
            },
            "seconds": round(perf_counter() - self.started, 3),
            **found,
        }

    def describe_output(self, out: str, **found: Any) -> dict[str, Any]:
        """Describe a run that writes one output, and so has no ``skipped.csv``: skipped files are in the record."""
        record = self.describe(**found, outputs=[out])
        return {**record, "skipped": [list(row) for row in self.skipped]} if self.skipped else record

    def write_skipped(self, folder: OutputFolder) -> None:
        """Write ``skipped.csv``, where files were left out."""
        if self.skipped:
            folder.write_table("skipped.csv", ["file", "reason"], zip(*self.skipped, strict=True))

    def finish(self, folder: OutputFolder, record: dict[str, Any], next_lines: str) -> None:
        """Write the record into the folder of results, and print it."""
        record = folder.finish(record)
        self.print_result(summary(record, folder.path, next_lines), record)

    def print_result(self, text: str, record: dict[str, Any]) -> None:
        """Print the result; the exit code says whether files were left out."""
        self.terminal.result(text, record, n_skipped=len(self.stack.problems))


def line_again(command: click.Command, parameters: dict[str, Any]) -> str:
    """Write the line that makes the results of a run again, in any folder; it replaces them."""
    replaces = any(parameter.name == "overwrite" for parameter in command.params)
    return command_line(command, parameters, *["--overwrite"] * replaces, anywhere=True)


def tell_finished(out: str, terminal: Terminal) -> bool:
    """Print the results in `out` and return True, where this very command has finished there.

    Raises
    ------
    StoreError
        If a run of other parameters has.
    """
    from ...passes.checkpoint import holds_checkpoint
    from .output import CHECKPOINT, read_record

    context = click.get_current_context()
    try:
        record = read_record(out)
    except StoreError:
        return False
    if holds_checkpoint(os.path.join(out, CHECKPOINT)):  # a later run, with --overwrite, that did not finish
        return False
    missing = [name for name, option in _PAGES.items() if context.params.get(option) and name not in record["outputs"]]
    others = dict.fromkeys(_PAGES.values())  # they change what is written about the results, not these
    before, now = (line_again(context.command, values | others) for values in (record["parameters"], context.params))
    if record["command"] != context.command.name or before != now or "eigenimages.tif" in missing:
        before = line_again(context.command, record["parameters"])
        raise StoreError(
            f"{out!r} holds the results of another run, which is finished: {before.removesuffix(' --overwrite')}. Name "
            "another folder, or replace them with --overwrite and without --resume"
        )
    page = f"\nIt has no page; to make it: {typed('imgstack-ml', 'report', out)}" if missing else ""
    text = summary(record, out, f"This run is finished, and nothing was computed. To repeat it: --overwrite{page}")
    terminal.result(text, record, n_skipped=record["input"]["n_skipped"])
    return True


@contextmanager
def refusing_another_run(out: str) -> Iterator[None]:
    """Keep what an unfinished run of other parameters or images has saved in `out`, where a fit would begin anew.

    Raises
    ------
    StoreError
        Naming what differs.
    """
    begins = "the fit starts again: "
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f"The checkpoint .* is not used, and {begins}")
        try:
            yield
        except UserWarning as warning:
            reason = str(warning).partition(begins)[2].removesuffix(".")
            raise StoreError(
                f"{out!r} holds a run that did not finish, which this command cannot resume: {reason}. Repeat the "
                "command of that run with --resume, name another folder, or replace it with --overwrite, without "
                "--resume"
            ) from None


def relative_names(files: Sequence[str], source: str) -> list[str]:
    """Names of files relative to a folder, with ``/`` between folders on any system.

    Parameters
    ----------
    files : sequence of str
        Absolute paths.
    source : str
        The folder. Where it does not hold all files, as a pattern or a stored stack, the names are relative to the
        deepest folder that does.

    Returns
    -------
    list of str
    """
    return _names_below(files, _root_of(files, source))


def _root_of(files: Sequence[str], source: str) -> str:
    root = _absolute(source).rstrip("/")
    for end in (os.sep, "::"):  # of a folder, local or at a URL; of an archive
        if all(file.startswith(root + end) for file in files):
            return root + end
    return os.path.commonpath({os.path.dirname(file) for file in files})


def _names_below(files: Sequence[str], root: str) -> list[str]:
    if root.endswith((os.sep, "::")):
        return [file[len(root) :].replace(os.sep, "/") for file in files]
    return [os.path.relpath(file, root).replace(os.sep, "/") for file in files]


def _absolute(source: str) -> str:
    """Name a source as `ImageStack.files` does: an absolute path, or a URL as it is."""
    from ...io.locations.names import absolute_name

    return absolute_name(source)
