"""``imgstack-ml report``: make the page about an earlier run again."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImgstackError, StoreError
from .lib.cells import of_cell
from .lib.images import ImageOptions
from .lib.model import open_model
from .lib.options import OutputPath, run_options
from .lib.output import read_record, write_record
from .lib.run import line_again, relative_names
from .lib.summary import summary
from .lib.task import Task
from .lib.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np

    from .. import ImageStack, Report
    from ..report.classification import Predictions

__all__ = ["report"]

_PREDICTED = ("file", "label", "predicted")


@click.command(cls=Task, short_help="Make the report of an earlier run again.")
@click.argument("out", type=OutputPath(exists=True))
@click.option(
    "--read/--no-read",
    default=True,
    show_default=True,
    help="Read the images once more, if they are still there: for alerts, intensities, and pictures of single images.",
)
@run_options(json=False)
def report(out: str, terminal: Terminal, read: bool) -> None:
    """Write OUT/report.html from what an earlier run of pca, demo or classify left in OUT.

    The model, its scores and the record of the run are enough for most of the page: the images themselves may be gone.
    The page of classify shows images, which have to be there. Of commands without a page, such as cluster, what they
    found and the files to look at are printed again.

    \b
    Examples:
      imgstack-ml report results
      imgstack-ml report results --no-read
    """  # noqa: D301 (click looks for the real character)
    from .. import generate_report

    if os.path.isfile(out):
        raise StoreError(
            f"{out!r} is a file, and the report is about the folder of results of pca, demo, classify or cluster; a "
            "table has no page"
        )
    run = _with_line(read_record(out))
    if "fit" not in run:
        if not _classification(out, run, terminal, read=read):
            _tell(out, run, terminal)
        return
    model = open_model(out)
    names, scores = _read_scores(os.path.join(out, "scores.csv"))
    stack = _open_images(run, names, terminal) if read else None
    if stack is not None:
        terminal.status("reading the images")
    page = generate_report(model, stack, scores=scores, names=names, run=run, progress=terminal.progress)
    path = _save(page, out, run)
    findings = "".join(f"\n  {alert.title}" for alert in page.alerts.values())
    terminal.result(f"{path}{findings}")


def _save(page: Report, out: str, run: dict[str, Any]) -> str:
    """Write the page, and add it to the results that the record lists: with --overwrite, a run removes these."""
    path = os.path.join(out, "report.html")
    page.save_as_html(path, overwrite=True)
    if "report.html" not in run["outputs"]:
        write_record(out, {**run, "outputs": ["report.html", *run["outputs"]]})
    return path


def _classification(out: str, run: dict[str, Any], terminal: Terminal, *, read: bool) -> bool:
    """Make the page of classify again, and tell whether that could be done; earlier versions kept too little."""
    if not read or "weights" not in run.get("classifier", ()):
        return False
    from ..report.classification import classification_report

    predictions = _read_predictions(os.path.join(out, "predictions.csv"))
    stack = _open_images(run, list(predictions.names), terminal)
    if stack is None:
        return False
    terminal.result(_save(classification_report(stack, predictions, run), out, run))
    return True


def _read_predictions(path: str) -> Predictions:
    """Read what classify predicted."""
    import numpy as np

    from ..report.classification import CHANCES, Predictions

    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        places = [header.index(name) for name in _PREDICTED]
        names, labels, predicted = ([of_cell(row[place]) for row in rows] for place in places)
        chances = None
        if CHANCES[0] in header:
            chances = np.array([row[header.index(CHANCES[0]) :] for row in rows], dtype=np.float64)
        return Predictions(names, np.array(labels), np.array(predicted), chances)
    except (ValueError, IndexError) as error:
        raise StoreError(f"{path!r} is damaged: {error}; run imgstack-ml classify again with --overwrite") from error


def _tell(out: str, run: dict[str, Any], terminal: Terminal) -> None:
    """Print again what a command found whose page is not made again from its files."""
    text = "there is no page about it"
    if "report.html" in run["outputs"]:
        again = f"; all is made again by: {run['command_line']}" if "command_line" in run else ""
        text = f"report.html is its page, which shows images{again}"
    terminal.result(summary(run, out, f"These files show what a run of {run['command']} found; {text}"))


def _with_line(record: dict[str, Any]) -> dict[str, Any]:
    """Add the line to type, which records of earlier versions lack."""
    context = click.get_current_context()
    group = context.parent.command if context.parent else None
    command = group.get_command(context, record["command"]) if isinstance(group, click.Group) else None
    again = {} if command is None else {"command_line": line_again(command, record["parameters"])}
    return {**again, **record}


def _read_scores(path: str) -> tuple[list[str], np.ndarray]:
    """Read names and scores of the images."""
    import numpy as np

    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        first = header.index("PC1")  # after file, label and the axes of a movie
        return [of_cell(row[0]) for row in rows], np.array([row[first:] for row in rows], dtype=np.float64)
    except (ValueError, IndexError) as error:
        raise StoreError(f"{path!r} is damaged: {error}; run imgstack-ml pca again with --overwrite") from error


def _open_images(run: dict[str, Any], names: list[str], terminal: Terminal) -> ImageStack | None:
    """Open the images of the run; where they are gone or others are there, warn and return None."""
    source, options = run["input"]["source"], run["parameters"]
    names_of_options = ("mode", "shape", "select", "level", "fit", "labels", "leave_out")
    given = {name: options[name] for name in names_of_options if options.get(name) is not None}
    # demo and classify read sub-folders always.
    recursive = options.get("recursive", False) or run["command"] in ("demo", "classify")
    try:
        stack = ImageOptions(source, recursive, options.get("on_error", "raise"), **given).read_headers()
    except (ImgstackError, OSError) as error:
        terminal.warn(f"the report is made without the images: {error}")
        return None
    if relative_names(stack.files, source) != names or list(stack.shape[1:]) != run["input"]["image_shape"]:
        terminal.warn(f"the report is made without the images: those in {source!r} are no longer those of the run")
        return None
    return stack
