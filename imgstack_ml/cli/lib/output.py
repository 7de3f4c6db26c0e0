"""The folder that a command writes: refused where that could do harm, each file whole, ``run.json`` last."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import StoreError
from ...files.atomic import atomic_path
from ...files.locks import lock_output
from .cells import as_cell
from .signals import SAVED

if TYPE_CHECKING:
    from ... import ImageStack

__all__ = [
    "CHECKPOINT",
    "RUN_FILE",
    "OutputFolder",
    "make_folder",
    "pyplot_without_windows",
    "read_record",
    "refuse_existing",
    "refuse_inputs",
    "refuse_inside",
    "write_record",
]

RUN_FILE = "run.json"
CHECKPOINT, CHECKPOINT_FILE = "checkpoint", "fit.json"  # see passes.checkpoint.holds_checkpoint
# Names of the other files that commands write. A run.json can list any path; only files of these names are removed.
_RESULT_FILE = re.compile(r"[a-z]+\.(csv|html|npy|png|safetensors|tif)|eigenimages/pc_[0-9]+(_[A-Za-z0-9.-]+)?\.png")
# Name of a file that was not complete when the process was killed.
_TEMPORARY_FILE = re.compile(r"\.[a-z_0-9]+-[0-9a-f]{12}\.tmp\.[a-z]+")


class OutputFolder:
    """A folder for results: new or empty, or one whose earlier results may be replaced or completed.

    Parameters
    ----------
    path : str
        The folder; `create` makes it.
    overwrite : bool
        Whether it may hold something. Files that are not results of an earlier run stay.
    resume : bool
        Whether it may hold the files of a run that did not finish, which is to be resumed.

    Attributes
    ----------
    written : list of str
        Names of the files written so far, with ``/`` between folder and name.
    checkpoint : str
        The folder in it for the checkpoint of a fit.

    Raises
    ------
    StoreError
        The folder holds something, and neither `overwrite` nor `resume` allows that.
    """

    def __init__(self, path: str, *, overwrite: bool, resume: bool = False):
        self.path = path
        self.checkpoint = os.path.join(path, CHECKPOINT)
        self.written: list[str] = []
        self._overwrite, self._resume = overwrite, resume
        self._earlier = self._earlier_results()
        click.get_current_context().meta[SAVED] = self.describe_saved

    def _earlier_results(self) -> set[str]:
        """Names of the results of an earlier run, which this one replaces; a folder that must not change is refused."""
        path, overwrite = self.path, self._overwrite
        unfinished = not overwrite and os.path.isdir(path) and _is_unfinished(path)
        if not overwrite and not (self._resume and unfinished) and os.path.isdir(path) and os.listdir(path):
            raise StoreError(
                f"the folder {path!r} is not empty; name a new one, or replace the results in it with --overwrite"
                + (". A run that did not finish left it: resume it with --resume" if unfinished else "")
            )
        return _files_in(path) if unfinished else _recorded_files(path)

    def create(self) -> None:
        """Make the folder, and lock it against other commands until this one ends.

        A command that fails before it writes a file removes the folder again.
        """
        make_folder(self.path)
        click.get_current_context().with_resource(lock_output(self.path))
        self._earlier = self._earlier_results()  # again: another command may have finished it before we got the lock
        click.get_current_context().call_on_close(partial(_remove_empty, [self.checkpoint]))
        if not self._resume:
            from ...passes.checkpoint import remove_checkpoint

            remove_checkpoint(self.checkpoint)

    def describe_saved(self) -> tuple[str, list[str]]:
        """Say what a run that is stopped now has saved, and with which options its command goes on."""
        options = ["--resume"] if self._takes_resume else ["--overwrite"]
        if os.path.exists(os.path.join(self.path, RUN_FILE)) and RUN_FILE in self.written:
            return f"all results are in {self.path!r}", options
        if self.is_resumable:
            return f"what was computed from the images read so far is saved in {self.checkpoint!r}", options
        if self.written:
            return (
                f"{', '.join(self.written)} {'are' if len(self.written) > 1 else 'is'} saved in {self.path!r}",
                options,
            )
        return "nothing was saved", []

    @property
    def _takes_resume(self) -> bool:
        return any(parameter.name == "resume" for parameter in click.get_current_context().command.params)

    @property
    def is_resumable(self) -> bool:
        """Whether the folder holds a checkpoint from which a fit can be resumed."""
        # Asked for when a command is stopped: an import of NumPy that Ctrl-C has cut off must not be repeated.
        return os.path.exists(os.path.join(self.checkpoint, CHECKPOINT_FILE))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[str]:
        """Give the path of a temporary file, which becomes the file `name` if the block ends without an error."""
        target = os.path.join(self.path, *name.split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with atomic_path(target) as temporary:
            yield temporary
        self.written.append(name)

    def write_table(
        self, name: str, header: Iterable[str], texts: Iterable[Iterable[str]], numbers: Iterable[Iterable[Any]] = ()
    ) -> None:
        """Write a CSV file in UTF-8, with columns of `texts` and then of `numbers`.

        File names that are not UTF-8 keep their bytes; see `cells` for those that a spreadsheet would run.
        """
        columns = [*(map(as_cell, column) for column in texts), *numbers]
        with (
            self.writing(name) as temporary,
            open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            table = csv.writer(file)
            table.writerow(header)
            table.writerows(zip(*columns, strict=True))

    def write_figure(self, name: str, figure: Any) -> None:
        """Write a matplotlib figure as a PNG file, and close it."""
        from matplotlib import pyplot

        with self.writing(name) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
        pyplot.close(figure)

    def remove_record(self) -> None:
        """Remove ``run.json`` of an earlier run before its results are replaced: a mixture must not look finished."""
        Path(self.path, RUN_FILE).unlink(missing_ok=True)

    def finish(self, record: dict[str, Any]) -> dict[str, Any]:
        """Remove the other results of an earlier run; write and return `record` with the list of files added."""
        for name in self._earlier - set(self.written):
            Path(self.path, name).unlink(missing_ok=True)
        record = {**record, "outputs": [*self.written, RUN_FILE]}
        write_record(self.path, record)
        self.written.append(RUN_FILE)
        return record


def read_record(folder: str) -> dict[str, Any]:
    """Read the record of a finished run.

    Raises
    ------
    StoreError
        If the folder holds none, or it is damaged.
    """
    path = os.path.join(folder, RUN_FILE)
    try:
        record: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if {"command", "parameters", "versions", "input", "seconds", "outputs"} <= set(record):
            return record
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"{folder!r} holds no {RUN_FILE}, so it is no finished run; make one: imgstack-ml pca FOLDER -o "
            f"{shlex.quote(folder)}. To see what images are in it: imgstack-ml scan {shlex.quote(folder)}"
        ) from None
    except (ValueError, TypeError):
        pass
    raise StoreError(f"{path!r} is damaged or not the record of a run; repeat the run with --overwrite")


def write_record(folder: str, record: dict[str, Any]) -> None:
    """Write the record of a run, ``run.json``, into the folder of its results."""
    with atomic_path(os.path.join(folder, RUN_FILE)) as temporary:
        Path(temporary).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def make_folder(path: str) -> None:
    """Make a folder, and those above it; the new ones that are empty when the command ends are removed again."""
    made = []
    folder = os.path.abspath(path)
    while not os.path.lexists(folder):
        made.append(folder)
        folder = os.path.dirname(folder)
    os.makedirs(path, exist_ok=True)
    click.get_current_context().call_on_close(partial(_remove_empty, made))


def _remove_empty(folders: Iterable[str]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it holds something, or does not exist
            os.rmdir(folder)


def refuse_existing(path: str, *, overwrite: bool) -> None:
    """Refuse to replace a file or folder without `overwrite`; an empty folder may be replaced."""
    is_empty = os.path.isdir(path) and not os.listdir(path)
    if os.path.lexists(path) and not is_empty and not overwrite:
        raise StoreError(f"{path!r} exists already; name another one, or replace it with --overwrite")


def refuse_inside(out: str, inputs: Iterable[str]) -> None:
    """Refuse an output folder that is, or lies inside, an input folder: results would be read as images."""
    for folder in inputs:
        for path in _written_folders(out):
            if Path(path).is_relative_to(os.path.realpath(folder)):
                raise StoreError(
                    f"the results would be written in {path!r}, inside the input folder {folder!r}; "
                    "name a folder outside it"
                )


def refuse_inputs(out: str, source: str, stack: ImageStack) -> None:
    """Refuse an output folder in a folder that images are read from; beside a file that is read alone, it may lie."""
    folders = sorted({path if os.path.isdir(path) else os.path.dirname(path) for path in stack.inputs})
    if not os.path.isfile(source):
        refuse_inside(out, folders)
    elif os.path.realpath(os.path.dirname(source)) in _written_folders(out):
        raise StoreError(f"{out!r} holds the input {source!r}, which results could replace; name another folder")


def _written_folders(out: str) -> list[str]:
    """Folders that results are written to: images may also be read from the sub-folder."""
    return [os.path.realpath(out), os.path.realpath(os.path.join(out, "eigenimages"))]


def pyplot_without_windows() -> Any:
    """Import matplotlib's pyplot for writing files, which works where there is no window system."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def _recorded_files(path: str) -> set[str]:
    """Results that the ``run.json`` in a folder lists; none where it is missing or damaged."""
    try:
        outputs = json.loads(Path(path, RUN_FILE).read_text(encoding="utf-8"))["outputs"]
        return {name for name in outputs if _RESULT_FILE.fullmatch(name)}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return set()


def _files_in(path: str) -> set[str]:
    """Names of all files in a folder except those of its checkpoint, with ``/`` between folder and name."""
    names: set[str] = set()
    for parent, folders, files in os.walk(path):
        if parent == path and CHECKPOINT in folders:
            folders.remove(CHECKPOINT)
        names.update(os.path.relpath(os.path.join(parent, name), path).replace(os.sep, "/") for name in files)
    return names


def _is_unfinished(path: str) -> bool:
    """Whether a folder holds only files that an interrupted run can have left; an empty folder counts too."""
    names = _files_in(path)
    return RUN_FILE not in names and all(
        _RESULT_FILE.fullmatch(name) or _TEMPORARY_FILE.fullmatch(name.rpartition("/")[2]) for name in names
    )
