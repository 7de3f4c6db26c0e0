"""The option ``--group-by``: images of one plate, well or donor, which cross-validation keeps together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import click

from .labels import LabelError, TableFile, read_table
from .run import relative_names

if TYPE_CHECKING:
    import numpy as np

    from ... import ImageStack

__all__ = ["group_option", "grouped", "make_folds"]

_N_DRAWS = 20  # of folds, until each class is among the images that every model learns from


class GroupBy(TableFile):
    """A level of folders, from 1, or a CSV file."""

    name = "level or csv"
    what = "neither a level of folders, from 1, nor a CSV file, e.g. donors.csv"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value of the option."""
        return str(int(value)) if value.isdecimal() and int(value) else super().convert(value, param, ctx)


group_option = click.option(
    "--group-by",
    metavar="LEVEL|CSV",
    type=GroupBy(),
    help="Keep images of one group, such as a plate, well or donor, in one fold, so that each is predicted by a model "
    "that has not seen its group. A level of folders: 1 for FOLDER/PLATE/CLASS, 2 for FOLDER/CLASS/DONOR; the other "
    "folders are the label. Or a CSV file with the columns file, as in predictions.csv, and the group; FILE.csv:COLUMN "
    "names one of several.",
)


def grouped(
    stack: ImageStack, source: str, group_by: str | None, *, has_table: bool = False
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return labels and groups of the images, (n_images,) each; None where there are none.

    Parameters
    ----------
    stack : ImageStack
    source : str
    group_by : str or None
        As the option gives it.
    has_table : bool, default=False
        Whether the labels come from a table; else they are folders, without those of the level of the groups.

    Raises
    ------
    LabelError
        There are no folders of that level, or others are missing for the labels; or the table does not name all images.
    """
    import numpy as np

    labels = stack.labels
    if group_by is None or labels is None:
        return labels, None
    names = relative_names(stack.files, source)
    if not group_by.isdecimal():
        return labels, np.array(read_table(group_by, "group", names))
    level, least = int(group_by), 1 if has_table else 2
    paths = [name.rpartition("/")[0] for name in names] if has_table else labels.tolist()
    parts = [[] if path in ("", ".") else path.split("/") for path in paths]
    for folders, file in zip(parts, stack.files, strict=True):
        if len(folders) < max(level, least):
            example = f"FOLDER/{'GROUP/CLASS' if level == 1 else 'CLASS/GROUP'}/a.png"
            needed = f"a folder for the group and one for the class above each image, as {example}"
            raise LabelError(
                f"--group-by {level} needs {f'{level} folders above each image' if has_table else needed}; {file!r} "
                f"lies in {len(folders)}. Give another level, or a CSV file with the columns file and group"
            )
    groups = np.array([folders[level - 1] for folders in parts])
    if has_table:
        return labels, groups
    return np.array(["/".join(folders[: level - 1] + folders[level:]) for folders in parts]), groups


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
