"""The folder that a command writes: refused where it could harm, each file whole, ``run.json`` last."""

import contextlib
import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..errors import StoreError
from ..files.atomic import atomic_path
from ..files.locks import lock_output

__all__ = ["OutputFolder", "make_folder", "refuse_existing", "refuse_inside"]

RUN_FILE = "run.json"
_CHECKPOINT = "checkpoint"
# What commands write besides. A run.json can list anything, and only such names are ever removed.
_OWN_FILE = re.compile(r"[a-z]+\.(csv|html|png|safetensors)|eigenimages/pc_[0-9]+\.png")
# Being written when the process was killed.
_CUT_OFF = re.compile(r"\.[a-z_0-9]+-[0-9a-f]{12}\.tmp\.[a-z]+")


class OutputFolder:
    """A new or empty folder, one whose results may be replaced, or one that an unfinished run left.

    Parameters
    ----------
    path : str
        The folder; made by `create`.
    overwrite : bool
        Whether it may hold something already. Files that are not results of an earlier run stay.
    resume : bool
        Whether it may hold what a run left that did not finish, to be gone on with.

    Attributes
    ----------
    written : list of str
        Names of the files written so far, with ``/`` between folder and name.
    checkpoint : str
        The folder in it for what a fit saves to go on from.

    Raises
    ------
    StoreError
        The folder holds something, and neither `overwrite` nor `resume` allows that.
    """

    def __init__(self, path: str, *, overwrite: bool, resume: bool = False):
        self.path = path
        self.checkpoint = os.path.join(path, _CHECKPOINT)
        self.written: list[str] = []
        self._overwrite, self._resume = overwrite, resume
        self._earlier = self._look()

    def _look(self) -> set[str]:
        """Refuse a folder whose content is not to be touched, and list what there is of an earlier run."""
        path, overwrite = self.path, self._overwrite
        unfinished = not overwrite and os.path.isdir(path) and _is_unfinished(path)
        if not overwrite and not (self._resume and unfinished) and os.path.isdir(path) and os.listdir(path):
            raise StoreError(
                f"the folder {path!r} is not empty; name a new one, or replace the results in it with --overwrite"
                + (". A run that did not finish left it: go on with --resume" if unfinished else "")
            )
        return _left_files(path) if unfinished else _earlier_files(path)

    def create(self) -> None:
        """Make the folder, before the work whose results it is to hold; a command that fails leaves no empty one.

        No other command may write to it meanwhile.
        """
        make_folder(self.path)
        click.get_current_context().with_resource(lock_output(self.path))
        self._earlier = self._look()  # again: another command may just have finished it
        click.get_current_context().call_on_close(partial(_remove_empty, [self.checkpoint]))
        if not self._resume:
            from ..passes.checkpoint import remove_checkpoint

            remove_checkpoint(self.checkpoint)

    @property
    def is_resumable(self) -> bool:
        """Whether a fit left something there to go on from."""
        from ..passes.checkpoint import holds_checkpoint

        return holds_checkpoint(self.checkpoint)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[str]:
        """Give the path of a temporary file that becomes the file `name` when the block ends without an error."""
        target = os.path.join(self.path, *name.split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with atomic_path(target) as temporary:
            yield temporary
        self.written.append(name)

    def write_table(self, name: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        """Write a CSV file in UTF-8; file names that are not keep their bytes."""
        with (
            self.writing(name) as temporary,
            open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            table = csv.writer(file)
            table.writerow(header)
            table.writerows(rows)

    def write_figure(self, name: str, figure: Any) -> None:
        """Write a matplotlib figure as a PNG file, and close it."""
        from matplotlib import pyplot

        with self.writing(name) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
        pyplot.close(figure)

    def begin(self) -> None:
        """Take the record of an earlier run away, whose results are about to be replaced one by one."""
        Path(self.path, RUN_FILE).unlink(missing_ok=True)

    def finish(self, record: dict[str, Any]) -> dict[str, Any]:
        """Remove what is left of an earlier run, and write and return the record of this one, its files added."""
        for name in self._earlier - set(self.written):
            Path(self.path, name).unlink(missing_ok=True)
        record = {**record, "outputs": [*self.written, RUN_FILE]}
        with self.writing(RUN_FILE) as temporary:
            Path(temporary).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return record


def make_folder(path: str) -> None:
    """Make a folder, and those above it, for what a command will write; those still empty at its end go again.

    Parameters
    ----------
    path : str
        The folder, which may exist; then it stays.
    """
    made = []
    folder = os.path.abspath(path)
    while not os.path.lexists(folder):
        made.append(folder)
        folder = os.path.dirname(folder)
    os.makedirs(path, exist_ok=True)
    click.get_current_context().call_on_close(partial(_remove_empty, made))


def _remove_empty(folders: Iterable[str]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it holds something, or is not there
            os.rmdir(folder)


def refuse_existing(path: str, *, overwrite: bool) -> None:
    """Refuse to write where something is, unless that was asked for; an empty folder is nothing.

    Raises
    ------
    StoreError
        Naming the path.
    """
    is_empty = os.path.isdir(path) and not os.listdir(path)
    if os.path.lexists(path) and not is_empty and not overwrite:
        raise StoreError(f"{path!r} exists already; name another one, or replace it with --overwrite")


def refuse_inside(out: str, inputs: Iterable[str]) -> None:
    """Refuse an output folder that is an input folder or lies inside one: results would become images to read.

    Parameters
    ----------
    out : str
        The output folder, which need not exist.
    inputs : iterable of str
        The folders that images are read from.

    Raises
    ------
    StoreError
        Naming both.
    """
    real_out = os.path.realpath(out)
    for folder in inputs:
        for written in (real_out, os.path.realpath(os.path.join(out, "eigenimages"))):
            if Path(written).is_relative_to(os.path.realpath(folder)):
                raise StoreError(
                    f"the results would be written in {written!r}, inside the input folder {folder!r}; "
                    "name a folder outside it"
                )


def _earlier_files(path: str) -> set[str]:
    """Files that the ``run.json`` of an earlier run lists, if there is one."""
    try:
        outputs = json.loads(Path(path, RUN_FILE).read_text(encoding="utf-8"))["outputs"]
        return {name for name in outputs if _OWN_FILE.fullmatch(name)}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return set()


def _left_files(path: str) -> set[str]:
    """All files in a folder, with ``/`` between folder and name, but those of a checkpoint."""
    names: set[str] = set()
    for parent, folders, files in os.walk(path):
        if parent == path and _CHECKPOINT in folders:
            folders.remove(_CHECKPOINT)
        names.update(os.path.relpath(os.path.join(parent, name), path).replace(os.sep, "/") for name in files)
    return names


def _is_unfinished(path: str) -> bool:
    """Tell whether a folder holds nothing but what a command leaves that is stopped before its end."""
    names = _left_files(path)
    return RUN_FILE not in names and all(
        _OWN_FILE.fullmatch(name) or _CUT_OFF.fullmatch(name.rpartition("/")[2]) for name in names
    )
