"""``imgstack-ml classify``: a classifier of images in sub-folders, and how good it is."""

from __future__ import annotations

import os
from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImgstackError, MemoryLimitError
from ._crossval import CLASSIFIERS, Outcome, cross_validate, fit_model
from ._features import features_option, make_features, n_components_option
from ._input import ImageOptions, describe_run, image_names, image_options, input_folders, skipped_files
from ._output import OutputFolder, refuse_inside
from ._summary import summary
from ._task import Task, Terminal, memory_limit_option, run_options

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from .. import ImageStack

__all__ = ["classify"]

_MAX_NUMBERS = 25  # classes whose counts are written into the confusion matrix; more would not be read


class LabelError(ImgstackError, ValueError):
    """The sub-folders do not make classes that a classifier can learn and be judged on."""


@click.command(cls=Task, short_help="Learn to tell sub-folders of images apart.")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder for the results.")
@features_option("all")
@click.option(
    "-c",
    "--classifier",
    type=click.Choice(CLASSIFIERS),
    default="logistic",
    show_default=True,
    help="logistic: linear, and the one that is saved with the features; svm: with a radial kernel; forest: 200 trees.",
)
@n_components_option
@click.option(
    "--folds",
    metavar="N",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Parts into which the images are divided, each judged by a model fitted to the others.",
)
@click.option("--balanced", is_flag=True, help="Let rare classes count as much as frequent ones.")
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of folds and trees."
)
@memory_limit_option
@image_options(recursive=None)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@run_options()
def classify(
    images: ImageOptions,
    terminal: Terminal,
    out: str,
    features: tuple[str, ...],
    classifier: str,
    n_components: int | None,
    folds: int,
    balanced: bool,
    seed: int,
    memory_limit: str,
    overwrite: bool,
) -> None:
    """Learn to tell the sub-folders of FOLDER apart by their images, and say how well that works.

    The name of a sub-folder is the label of the images in it. Accuracy is that of stratified cross-validation:
    each image is judged by a model fitted without it, principal components and scaling included, and the share of the
    most frequent class stands beside it. Only the range of floating-point images is that of all of them. The model
    that is saved is fitted to all images.

    \b
    Examples:
      imgstack-ml sample textures textures && imgstack-ml classify textures -o results
      imgstack-ml classify plates -f texture -f hist -c svm --balanced -o results
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    folder = OutputFolder(out, overwrite=overwrite)
    refuse_inside(out, [images.source])
    stack = images.open(terminal)
    refuse_inside(out, input_folders(stack))
    _check_labels(stack, images.source, folds)
    n_fitted = len(stack) - -(-len(stack) // folds)
    transformer = make_features(
        features, stack, n_components=n_components, n_fitted=n_fitted, memory_limit=memory_limit
    )
    folder.create()
    terminal.status(f"describing {len(stack)} images by {', '.join(features)}")
    try:
        model, rows = fit_model(transformer, classifier, stack, balanced=balanced, seed=seed, terminal=terminal)
        outcome = cross_validate(model, rows, stack, n_folds=folds, seed=seed, terminal=terminal)
    except MemoryLimitError as error:
        error.add_note("here these are the options --memory-limit and -k; or name features without pca, e.g. -f hist")
        raise
    folder.begin()
    found = _judge(stack.labels, outcome, folds)
    found |= {"name": classifier, "saved": classifier == "logistic", "n_features": rows.shape[1]}
    _write_results(folder, model, outcome, found, stack, images.source)
    record = folder.finish(
        {**describe_run(stack, images.source, started), "features": list(features), "classifier": found}
    )
    path = os.path.join(out, "model.safetensors")
    terminal.result(
        summary(record, out, f"Next, in Python: model = imgstack_ml.load_model({path!r})"),
        record,
        n_skipped=len(stack.problems),
    )


def _check_labels(stack: ImageStack, source: str, n_folds: int) -> None:
    """Refuse what no classifier could learn, or what cross-validation could not judge."""
    if stack.labels is None:
        raise LabelError(f"{source!r} gives no labels. Give a folder whose sub-folders, one a class, hold the images")
    counts = Counter(stack.labels.tolist())
    if loose := counts["."]:
        first = stack.files[stack.labels.tolist().index(".")]
        raise LabelError(
            f"{source!r} itself holds {loose:,} of the images, such as {os.path.basename(first)!r}, without a label. "
            "Move each into a sub-folder that is called what the image shows"
        )
    if empty := _empty_sub_folders(stack, source):
        raise LabelError(
            f"no image was found in {_listed(empty)}. Put images there, or move the sub-folder elsewhere (links to "
            "folders are not followed)"
        )
    if len(counts) == 1:
        raise LabelError(
            f"all {len(stack):,} images are labelled {str(stack.labels[0])!r}, and telling apart takes two classes. "
            "Give the folder above, or put images of another class into a sub-folder beside it"
        )
    small = {label: n for label, n in sorted(counts.items()) if n < n_folds}
    if small and (fewest := min(small.values())) >= 2:
        raise LabelError(
            f"{n_folds} folds take {n_folds} images of each class, and there are {_counted(small)}. Add images, or "
            f"divide them into fewer parts: --folds {fewest}"
        )
    if small:
        raise LabelError(
            f"a class needs 2 images, one to learn from and one to judge, and there are {_counted(small)}. Add "
            "images, or move such a sub-folder elsewhere"
        )


def _empty_sub_folders(stack: ImageStack, source: str) -> list[str]:
    """Names of the sub-folders of which no image came into the stack."""
    if os.path.abspath(source) in stack.inputs or stack.labels is None or not os.path.isdir(source):
        return []
    seen = {label.partition("/")[0] for label in stack.labels.tolist()}
    with os.scandir(source) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name not in seen)


def _listed(names: list[str]) -> str:
    return (
        f"the sub-folder{'s' if len(names) > 1 else ''} " + ", ".join(map(repr, names[:5])) + (", …" * (len(names) > 5))
    )


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{n} of {label!r}" for label, n in list(counts.items())[:5]]
    return ", ".join(shown) + (f" and {len(counts) - 5} more such classes" if len(counts) > 5 else "")


def _judge(labels: Any, outcome: Outcome, n_folds: int) -> dict[str, Any]:
    """Say how often the predictions are right, and what to compare that with."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

    predicted, fold = outcome
    accuracy = [accuracy_score(labels[fold == i], predicted[fold == i]) for i in range(1, n_folds + 1)]
    classes = Counter(sorted(labels.tolist()))
    mean = sum(accuracy) / n_folds
    return {
        "classes": dict(classes),
        "n_folds": n_folds,
        "accuracy_mean": mean,
        "accuracy_std": (sum((a - mean) ** 2 for a in accuracy) / n_folds) ** 0.5,
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "majority_rate": max(classes.values()) / len(labels),
        "n_right": int((predicted == labels).sum()),
        "confusion": confusion_matrix(labels, predicted, labels=list(classes)).tolist(),
    }


def _write_results(
    out: OutputFolder, model: Pipeline, outcome: Outcome, found: dict[str, Any], stack: ImageStack, source: str
) -> None:
    from .. import save_model

    rows = zip(image_names(stack, source), stack.labels, *outcome, strict=True)  # type: ignore[arg-type]
    out.write_table("predictions.csv", ["file", "label", "predicted", "fold"], rows)
    if stack.problems:
        out.write_table("skipped.csv", ["file", "reason"], skipped_files(stack, source))
    with out.writing("model.safetensors") as temporary:
        save_model(_one_scale(model) if found["saved"] else model[:1], temporary)
    _draw_confusion(out, found)


def _one_scale(model: Pipeline) -> Pipeline:
    """Put the scaling into the coefficients of the linear model, which are then those of the features as they are.

    The same numbers without a step that would have a lazy stack read twice.
    """
    from sklearn.base import clone
    from sklearn.pipeline import Pipeline

    scaler, linear = model["scale"], model["classify"]
    merged = clone(linear)
    vars(merged).update(vars(linear))
    merged.coef_ = linear.coef_ / scaler.scale_
    merged.intercept_ = linear.intercept_ - merged.coef_ @ scaler.mean_
    return Pipeline([("features", model["features"]), ("classify", merged)])


def _draw_confusion(out: OutputFolder, found: dict[str, Any]) -> None:
    """Draw which class was taken for which: shares of a row as colours, numbers of images in the cells."""
    import matplotlib
    import numpy as np

    matplotlib.use("agg")  # no window system is needed to write files
    from matplotlib import pyplot as plt

    classes, counts = list(found["classes"]), np.array(found["confusion"])
    share = counts / counts.sum(axis=1, keepdims=True)
    side = min(12.0, 2.6 + 0.5 * len(classes))
    figure, ax = plt.subplots(figsize=(side, side), layout="constrained")
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= _MAX_NUMBERS:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if share[i, j] > 0.5 else "black" if count else "0.7"
            ax.text(j, i, f"{count:,}", ha="center", va="center", color=colour)
    upright = sum(map(len, classes)) > 8 * side  # names side by side would run into each other
    ax.set_xticks(range(len(classes)), classes, rotation=90 if upright else 0, parse_math=False)
    ax.set_yticks(range(len(classes)), classes, parse_math=False)
    ax.set(xlabel="predicted", ylabel="label, its images shared out in colour")
    ax.set_title(f"{100 * found['n_right'] / counts.sum():.1f} % of {counts.sum():,} right")
    out.write_figure("confusion.png", figure)
