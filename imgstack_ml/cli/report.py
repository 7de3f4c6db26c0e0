"""``imgstack-ml report``: make the page about an earlier run again."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImgstackError, StoreError
from .lib.cells import of_cell
from .lib.images import parse_select
from .lib.model import open_model
from .lib.options import OutputPath, run_options
from .lib.output import RUN_FILE, write_record
from .lib.run import relative_names
from .lib.task import Task
from .lib.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np

    from .. import ImageStack

__all__ = ["report"]


@click.command(cls=Task, short_help="Make the report of an earlier run again.")
@click.argument("out", type=OutputPath(exists=True, file_okay=False))
@click.option(
    "--read/--no-read",
    default=True,
    show_default=True,
    help="Read the images once more, if they are still there: for alerts, intensities, and pictures of single images.",
)
@run_options(json=False)
def report(out: str, terminal: Terminal, read: bool) -> None:
    """Write OUT/report.html from what an earlier run of pca or demo left in OUT.

    The model, its scores and the record of the run are enough for most of the page: the images themselves may be gone.

    \b
    Examples:
      imgstack-ml report results
      imgstack-ml report results --no-read
    """  # noqa: D301 (click looks for the real character)
    from .. import generate_report

    run = _read_record(out)
    model = open_model(out)
    names, scores = _read_scores(os.path.join(out, "scores.csv"))
    stack = _open_images(run, names, terminal) if read else None
    if stack is not None:
        terminal.status("reading the images")
    page = generate_report(model, stack, scores=scores, names=names, run=run, progress=terminal.progress)
    path = os.path.join(out, "report.html")
    page.save_as_html(path, overwrite=True)
    _list_as_output(out, run)
    findings = "".join(f"\n  {alert.title}" for alert in page.alerts.values())
    terminal.result(f"{path}{findings}")


def _read_record(out: str) -> dict[str, Any]:
    path = os.path.join(out, RUN_FILE)
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        if {"command", "parameters", "versions", "input", "fit", "seconds", "outputs"} <= set(record):
            return record
    except FileNotFoundError:
        raise StoreError(
            f"{out!r} holds no {RUN_FILE}, so it is no finished run; make one with imgstack-ml pca FOLDER -o {out}"
        ) from None
    except (ValueError, TypeError):
        pass
    raise StoreError(f"{path!r} is damaged or not the record of a run; run imgstack-ml pca again with --overwrite")


def _read_scores(path: str) -> tuple[list[str], np.ndarray]:
    """Read names and scores of the images."""
    import numpy as np

    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        first = 2 if header[1] == "label" else 1
        return [of_cell(row[0]) for row in rows], np.array([row[first:] for row in rows], dtype=np.float64)
    except (ValueError, IndexError) as error:
        raise StoreError(f"{path!r} is damaged: {error}; run imgstack-ml pca again with --overwrite") from error


def _list_as_output(out: str, run: dict[str, Any]) -> None:
    """Add the page to the results that the record lists: a run with --overwrite then removes it with the others."""
    if "report.html" not in run["outputs"]:
        write_record(out, {**run, "outputs": ["report.html", *run["outputs"]]})


def _open_images(run: dict[str, Any], names: list[str], terminal: Terminal) -> ImageStack | None:
    """Open the images of the run; where they are gone or others are there, warn and return None."""
    from .. import open_stack

    source, options = run["input"]["source"], run["parameters"]
    recursive = options.get("recursive", run["command"] == "demo")
    try:
        shape = options.get("shape")
        stack = open_stack(
            source,
            recursive=recursive,
            mode=options.get("mode"),
            shape=tuple(shape) if shape else None,
            on_error=options.get("on_error", "raise"),
            select=parse_select(options.get("select", ())),
            level=options.get("level", 0),
        )
    except (ImgstackError, OSError) as error:
        terminal.warn(f"the report is made without the images: {error}")
        return None
    if relative_names(stack.files, source) != names or list(stack.shape[1:]) != run["input"]["image_shape"]:
        terminal.warn(f"the report is made without the images: those in {source!r} are no longer those of the run")
        return None
    return stack
