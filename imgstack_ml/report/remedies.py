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
    "sharpness",
    "channels",
    "turned",
    "duplicates",
    "outliers",
    "leverage",
)  # kinds of images to leave out
_MAX_LISTED = {"all": 50}  # images; in the line about a single kind, more are no help
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
    if 0 < len(names) <= _MAX_LISTED.get(kind, 5) and all(name.isprintable() for name in names):
        listed = shlex.quote(f"{_results_of(run)}-left-out.txt")
        option = "" if f"--leave-out {listed}" in again else f" --leave-out {listed}"
        return shlex.join(["printf", "%s\\n", *names]) + f" >> {listed}\n{again}{option}"
    report = "report = generate_report(model, stack)\n" * ("report." in lines)
    return f"{_opening(options, source, _results_of(run))}\n{report}{lines}"


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


def _results_of(run: Run) -> str:
    """Folder of the results of a run, without a slash at its end."""
    command = shlex.split(run.command)
    out: str = command[command.index("-o") + 1] if "-o" in command else run.record["parameters"]["out"]
    return out.rstrip("/")


def _opening(options: dict[str, Any], source: str, out: str) -> str:
    """Lines that open, in any folder, what a command read and wrote."""
    words = {name: options.get(name) for name in ("recursive", "mode", "shape", "fit", "on_error", "level")}
    words = {name: tuple(value) if name == "shape" and value else value for name, value in words.items()}
    given = "".join(
        f", {name}={value!r}" for name, value in words.items() if value and value not in ("raise", "resize")
    )
    verified = ".verify()" if options.get("on_error") == "skip" else ""  # damage beyond the headers, as the command did
    model = os.path.join(out, "model.safetensors")
    select = [
        f"# open_stack also needs select={{...}}, as --select had it: {text}\n" for text in options.get("select") or ()
    ]
    select += [
        f"# the images in {path!r} are read, too, which --leave-out had\n" for path in options.get("leave_out") or ()
    ]
    select += [f"# without the labels that --labels had: {options['labels']!r}\n"] if options.get("labels") else []
    return "".join(select) + (
        "from imgstack_ml import generate_report, load_model, open_stack\n"
        f"stack, model = open_stack({source!r}{given}){verified}, load_model({model!r})"
    )
