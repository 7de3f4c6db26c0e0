"""The folder that a command writes: refused where it could harm, each file whole, ``run.json`` last."""

import contextlib
import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .._errors import StoreError
from .._files import atomic_path

__all__ = ["OutputFolder", "new_folder", "refuse_inside"]

RUN_FILE = "run.json"
# What commands write besides. A run.json can list anything, and only such names are ever removed.
_OWN_FILE = re.compile(r"[a-z]+\.(csv|png|safetensors)|eigenimages/pc_[0-9]+\.png")


class OutputFolder:
    """A new or empty folder, or one whose results may be replaced.

    Parameters
    ----------
    path : str
        The folder; made by `create`.
    overwrite : bool
        Whether it may hold something already. Files that are not results of an earlier run stay.

    Attributes
    ----------
    written : list of str
        Names of the files written so far, with ``/`` between folder and name.

    Raises
    ------
    StoreError
        The folder holds something, and `overwrite` is False.
    """

    def __init__(self, path: str, *, overwrite: bool):
        if not overwrite and os.path.isdir(path) and os.listdir(path):
            raise StoreError(
                f"the folder {path!r} is not empty; name a new one, or replace the results in it with --overwrite"
            )
        self.path = path
        self.written: list[str] = []
        self._earlier = _earlier_files(path)

    def create(self) -> None:
        """Make the folder, before the work whose results it is to hold."""
        os.makedirs(self.path, exist_ok=True)

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


@contextlib.contextmanager
def new_folder(path: str) -> Iterator[None]:
    """Make a folder, and those above it, for what the block writes; what is empty when it fails goes again.

    Parameters
    ----------
    path : str
        The folder, which may exist.
    """
    missing = []
    folder = os.path.abspath(path)
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    os.makedirs(path, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # somebody put something into it
            for folder in missing:
                os.rmdir(folder)
        raise


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
