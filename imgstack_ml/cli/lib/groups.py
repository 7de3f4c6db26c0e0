"""The option ``--group-by``: images of one plate, well or donor, which cross-validation keeps together."""

from __future__ import annotations

import csv
import os
import warnings
from typing import TYPE_CHECKING, Any

import click

from ...errors import ImgstackError
from .cells import of_cell
from .run import relative_names

if TYPE_CHECKING:
    import numpy as np

    from ... import ImageStack

__all__ = ["LabelError", "group_option", "grouped", "make_folds"]

_N_DRAWS = 20  # of folds, until each class is among the images that every model learns from
_MAX_SHOWN = 5


class LabelError(ImgstackError, ValueError):
    """Labels or groups of the images from which no classifier can learn, or on which it cannot be tested."""


class GroupBy(click.ParamType):
    """A level of folders, from 1, or a CSV file, whose path becomes absolute; ``FILE:COLUMN`` names a column."""

    name = "level or csv"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value of the option."""
        if value.isdecimal() and int(value):
            return str(int(value))
        path, _, column = (value, "", "") if os.path.isfile(value) else value.rpartition(":")
        if not os.path.isfile(path):
            self.fail(f"{value!r} is neither a level of folders, from 1, nor a CSV file, e.g. donors.csv", param, ctx)
        return os.path.abspath(path) + (f":{column}" if column else "")


group_option = click.option(
    "--group-by",
    metavar="LEVEL|CSV",
    type=GroupBy(),
    help="Keep images of one group, such as a plate, well or donor, in one fold, so that each is predicted by a model "
    "that has not seen its group. A level of folders: 1 for FOLDER/PLATE/CLASS, 2 for FOLDER/CLASS/DONOR; the other "
    "folders are the label. Or a CSV file with the columns file, as in predictions.csv, and the group; FILE.csv:COLUMN "
    "names one of several.",
)


def grouped(stack: ImageStack, source: str, group_by: str | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return labels and groups of the images, (n_images,) each; None where there are none.

    Raises
    ------
    LabelError
        There are no folders of that level, or others are missing for the labels; or the table does not name all images.
    """
    import numpy as np

    labels = stack.labels
    if group_by is None or labels is None:
        return labels, None
    if not group_by.isdecimal():
        return labels, np.array(_groups_of_table(group_by, relative_names(stack.files, source)))
    level = int(group_by)
    parts = [[] if label == "." else label.split("/") for label in labels.tolist()]
    for folders, file in zip(parts, stack.files, strict=True):
        if len(folders) < max(level, 2):
            raise LabelError(
                f"--group-by {level} needs a folder for the group and one for the class above each image, as "
                f"{'FOLDER/GROUP/CLASS/a.png' if level == 1 else 'FOLDER/CLASS/GROUP/a.png'}; {file!r} lies in "
                f"{len(folders)}. Give another level, or a CSV file with the columns file and group"
            )
    rest = ["/".join(folders[: level - 1] + folders[level:]) for folders in parts]
    return np.array(rest), np.array([folders[level - 1] for folders in parts])


def _groups_of_table(group_by: str, names: list[str]) -> list[str]:
    """Read the group of each named image from a CSV file."""
    path, column = (group_by, "") if os.path.isfile(group_by) else group_by.rsplit(":", 1)
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    columns = [name for name in header if name != "file"]
    if "file" not in header or not columns or (column and column not in columns):
        raise LabelError(f"{path!r} has the columns {header}; it needs file and {column or 'one with the groups'}")
    if not column and len(columns) > 1:
        raise LabelError(f"{path!r} has several columns, {columns}. Name that of the groups: {path}:{columns[0]}")
    of_file, of_group = header.index("file"), header.index(column or columns[0])
    groups = {of_cell(row[of_file]): row[of_group] for row in rows if len(row) == len(header)}
    missing = [name for name in names if not groups.get(name)]
    if missing:
        shown = ", ".join(map(repr, missing[:_MAX_SHOWN])) + (", …" if len(missing) > _MAX_SHOWN else "")
        raise LabelError(
            f"{path!r} names no group for {len(missing):,} of {len(names):,} images: {shown}. Names are relative to "
            "the folder, with / between folders"
        )
    return [groups[name] for name in names]


def make_folds(
    labels: np.ndarray, groups: np.ndarray | None, n_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide images into folds with about the same share of each class, and with whole groups.

    Returns
    -------
    list of (ndarray, ndarray)
        Positions of the images to learn from and to test on, in ascending order.

    Raises
    ------
    LabelError
        There are fewer groups than folds; or a class is in one group alone, or in one fold alone whatever is drawn.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if groups is None:
        return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels))
    names = np.unique(groups)
    if len(names) < n_folds:
        raise LabelError(
            f"{n_folds} folds need {n_folds} groups, and there {'are' if len(names) > 1 else 'is'} {len(names)}. "
            + (f"Divide into fewer: --folds {len(names)}" if len(names) > 1 else "Give images of other groups too")
        )
    for label in np.unique(labels).tolist():
        alone = np.unique(groups[labels == label])
        if len(alone) < 2:
            raise LabelError(
                f"all images of the class {label!r} are of the group {str(alone[0])!r}: a model that has not seen this "
                "group does not know the class. Give images of it from another group"
            )
    for draw in range(_N_DRAWS):
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed + draw)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            parts = list(folds.split(labels, labels, groups))
        n_classes = len(np.unique(labels))
        if all(len(test) and len(np.unique(labels[train])) == n_classes for train, test in parts):
            return parts
    raise LabelError(
        f"with {n_folds} folds of {len(names)} groups, some model would learn without a class. Divide into more folds, "
        "or give images of each class from more groups"
    )
