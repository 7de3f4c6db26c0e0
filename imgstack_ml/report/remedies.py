"""What to type about an alert: options of the command line where that was used, Python elsewhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..inspection.pipelines import estimator_steps

__all__ = ["LEFT_OUT", "Run", "remedy", "rescales"]

LEFT_OUT = (
    "constant",
    "blank",
    "clipped",
    "channels",
    "duplicates",
    "outliers",
    "leverage",
)  # kinds of images to leave out
_MAX_MOVED = {"all": 50}  # images; in the line about a single kind, more are no help
_LEAVE_OUT = """\
keep = sorted(set(range(len(stack))) - set(report.alerts["{kind}"].images.tolist()))
model{fewer}.fit(stack[keep])"""
_FIRST = """\
from sklearn.pipeline import make_pipeline
from imgstack_ml import {name}
model = make_pipeline({name}({parameters}), {steps}).fit(stack)"""
_LINES = {
    "all": "model{fewer}.fit(stack[report.keep])",
    "empty": """\
import numpy
mask = numpy.zeros(stack.shape[1:], dtype=bool)
mask[..., {channels}] = True  # the other channels
model.set_params({parameter}=mask).fit(stack)""",
    "skipped": "stack.problems  # the files, and what is wrong with each",
    "brightness": "scores = model.transform(stack)[:, 1:]",
    "drift": """\
import matplotlib.pyplot as plt
plt.plot(model.transform(stack)[:, :3], ".")""",
    "pixels": """\
from imgstack_ml import StackCenterer
mask = StackCenterer(with_std=True).fit(stack).scale_ != 1  # 1 stands for pixels that never change
model.set_params({parameter}=mask).fit(stack)""",
}
_STEPS = {"rescale": ("IntensityRescaler", ""), "illumination": ("StackCenterer", "with_std=True")}


class Run(NamedTuple):
    """A run of the command line: its record, as in ``run.json``, and its command as it can be typed again."""

    record: dict[str, Any]
    command: str


def remedy(
    kind: str,
    estimator: Any,
    names: Sequence[str] = (),
    run: Run | None = None,
    *,
    n_images: int | None = None,
    channels: Sequence[int] = (),
) -> str:
    """Write the lines that help against an alert of some kind.

    Parameters
    ----------
    kind : str
        As in `Alert`; "rescale" if the images need one range of intensities, "all" for images of several alerts.
    estimator : ImagePCA or Pipeline
        The fitted estimator, which is ``model`` in the lines.
    names : sequence of str
        Images to leave out.
    run : Run or None
        The run of ``imgstack-ml pca`` that made the estimator. Without one, the lines are Python, where ``stack`` and
        ``report`` are the stack and its report.
    n_images : int or None
        Of the stack.
    channels : sequence of int
        Those to keep.
    """
    n_left = None if n_images is None else n_images - len(names)
    if n_left is not None and n_left < 2 and names and kind in (*LEFT_OUT, "all"):
        return f"# without these, {n_left} of {n_images} images would be left: too few for components"
    lines = _python(kind, estimator, n_left, channels)
    if run is None or run.record["command"] != "pca":
        return lines
    options, source = run.record["parameters"], run.record["input"]["source"]  # this one is absolute, as in `command`
    again = run.command if "--overwrite" in run.command else f"{run.command} --overwrite"
    if kind == "skipped":
        recursive = ["-r"] if options.get("recursive") else []
        return shlex.join(["imgstack-ml", "scan", source, *recursive, "--verify"])
    if kind == "rescale":
        return f"{again} --rescale"
    if kind == "empty" and not options.get("select"):
        return f"{again} --select c={','.join(map(str, channels))}"
    if n_left is not None and n_left <= (options.get("n_components") or 0):
        again = f"{again} -k {n_left - 1}"
    paths = [os.path.join(source, name) for name in names]
    if 0 < len(paths) <= _MAX_MOVED.get(kind, 5) and all(map(os.path.isfile, paths)):
        aside = f"{source.rstrip('/')}-set-aside"  # beside the folder: within it, the images would be read again
        return f"{shlex.join(['mkdir', '-p', aside])}\n{shlex.join(['mv', '--', *paths, aside])}\n{again}"
    report = "report = generate_report(model, stack)\n" * ("report." in lines)
    return f"{_opening(options, source, shlex.split(run.command))}\n{report}{lines}"


def rescales(estimator: Any) -> bool:
    """Whether a Pipeline rescales intensities."""
    return any(hasattr(step, "in_range") for step in estimator_steps(estimator))


def _python(kind: str, estimator: Any, n_left: int | None, channels: Sequence[int]) -> str:
    if kind in _STEPS:
        name, parameters = _STEPS[kind]
        steps = "*(step for _, step in model.steps)" if hasattr(estimator, "steps") else "model"
        return _FIRST.format(name=name, parameters=parameters, steps=steps)
    lines = _LINES.get(kind, _LEAVE_OUT)
    parameters = {} if estimator is None else estimator.get_params()
    mask = next((name for name in parameters if name.split("__")[-1] == "mask"), "")
    many = [
        f"{name}={max(1, n_left - 1)}"
        for name, value in parameters.items()
        if name.split("__")[-1] == "n_components" and isinstance(value, int) and n_left is not None and value >= n_left
    ]
    fewer = f".set_params({', '.join(many)})" if many else ""
    return lines.format(kind=kind, parameter=mask, fewer=fewer, channels=list(channels))


def _opening(options: dict[str, Any], source: str, command: list[str]) -> str:
    """Lines that open, in any folder, what a command read and wrote."""
    words = {name: options.get(name) for name in ("recursive", "mode", "shape", "fit", "on_error", "level")}
    words = {name: tuple(value) if name == "shape" and value else value for name, value in words.items()}
    given = "".join(
        f", {name}={value!r}" for name, value in words.items() if value and value not in ("raise", "resize")
    )
    verified = ".verify()" if options.get("on_error") == "skip" else ""  # damage beyond the headers, as the command did
    out = command[command.index("-o") + 1] if "-o" in command else options["out"]
    model = os.path.join(out, "model.safetensors")
    select = [
        f"# open_stack also needs select={{...}}, as --select had it: {text}\n" for text in options.get("select") or ()
    ]
    return "".join(select) + (
        "from imgstack_ml import generate_report, load_model, open_stack\n"
        f"stack, model = open_stack({source!r}{given}){verified}, load_model({model!r})"
    )
