"""What to type about an alert: options of the command line where that was used, Python elsewhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..inspection.pipelines import estimator_steps

__all__ = ["MAX_MOVED", "Run", "remedy", "rescales"]

MAX_MOVED = 5  # images; more in one line are no help
_LEAVE_OUT = """\
keep = sorted(set(range(len(stack))) - set(report.alerts["{kind}"].images.tolist()))
model.fit(stack[keep])"""
_FIRST = """\
from sklearn.pipeline import make_pipeline
from imgstack_ml import {name}
model = make_pipeline({name}({parameters}), {steps}).fit(stack)"""
_LINES = {
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


def remedy(kind: str, estimator: Any, names: Sequence[str] = (), run: Run | None = None) -> str:
    """Write the lines that help against an alert of some kind.

    Parameters
    ----------
    kind : str
        As in `Alert`; "rescale" if the images need one range of intensities.
    estimator : ImagePCA or Pipeline
        The fitted estimator, which is ``model`` in the lines.
    names : sequence of str
        Images to leave out.
    run : Run or None
        The run of ``imgstack-ml pca`` that made the estimator. Without one, the lines are Python, where ``stack`` and
        ``report`` are the stack and its report.
    """
    if run is None or run.record["command"] != "pca":
        return _python(kind, estimator)
    options, source = run.record["parameters"], run.record["input"]["source"]  # this one is absolute, as in `command`
    again = run.command if "--overwrite" in run.command else f"{run.command} --overwrite"
    if kind == "skipped":
        recursive = ["-r"] if options.get("recursive") else []
        return shlex.join(["imgstack-ml", "scan", source, *recursive, "--verify"])
    if kind == "rescale":
        return f"{again} --rescale"
    paths = [os.path.join(source, name) for name in names]
    if 0 < len(paths) <= MAX_MOVED and all(map(os.path.isfile, paths)):
        aside = f"{source.rstrip('/')}-set-aside"  # beside the folder: within it, the images would be read again
        return f"{shlex.join(['mkdir', '-p', aside])}\n{shlex.join(['mv', '--', *paths, aside])}\n{again}"
    lines = _python(kind, estimator)
    report = "report = generate_report(model, stack)\n" * ("report." in lines)
    return f"{_opening(options, source, shlex.split(run.command))}\n{report}{lines}"


def rescales(estimator: Any) -> bool:
    """Whether a Pipeline rescales intensities."""
    return any(hasattr(step, "in_range") for step in estimator_steps(estimator))


def _python(kind: str, estimator: Any) -> str:
    if kind in _STEPS:
        name, parameters = _STEPS[kind]
        steps = "*(step for _, step in model.steps)" if hasattr(estimator, "steps") else "model"
        return _FIRST.format(name=name, parameters=parameters, steps=steps)
    lines = _LINES.get(kind, _LEAVE_OUT)
    masks = [name for name in estimator.get_params() if name.split("__")[-1] == "mask"] if kind == "pixels" else [""]
    return lines.format(kind=kind, parameter=masks[0])


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
