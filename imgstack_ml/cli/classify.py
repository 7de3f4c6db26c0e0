"""``imgstack-ml classify``: a classifier of images in sub-folders, and how good it is."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import MemoryLimitError
from ..files.space import explain_full_disk
from .lib.crossval import CLASSIFIERS, Outcome, cross_validate, feature_weights, fit_model, with_kept_pixels
from .lib.features import count_features, features_option, make_features
from .lib.groups import group_option, grouped, make_folds
from .lib.images import ImageOptions, image_options, sub_folders
from .lib.labels import LabelError
from .lib.line import typed
from .lib.model import MODEL_FILE
from .lib.options import (
    memory_limit_option,
    n_components_option,
    overwrite_option,
    results_option,
    run_options,
    seed_option,
)
from .lib.output import OutputFolder, pyplot_without_windows
from .lib.rows import RowFile, plan_dtype
from .lib.run import Run, relative_names
from .lib.task import Task, hint
from .lib.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from .. import ImageFeatureUnion, ImageStack

__all__ = ["classify"]

_MAX_NUMBERED = 25  # with more classes, the numbers in the confusion matrix would be too small to read
_LESS_MEMORY = "here these are the options --memory-limit and -k; or take fewer features: -f stats; or -c logistic"
_WELLS = (
    "if the sub-folders are wells, plates or donors, give the classes in a table, file and label, with a row for each "
    "image or folder: --labels platemap.csv"
)
_MANY_CLASSES, _FEW_IMAGES = 20, 20  # of each: where sub-folders may be wells
_MAX_SHOWN = 100  # of more classes, the confusion matrix shows those with the most errors


@click.command(cls=Task, short_help="Learn to tell sub-folders of images apart.")
@results_option()
@features_option("all")
@click.option(
    "-c",
    "--classifier",
    type=click.Choice(CLASSIFIERS),
    default="logistic",
    show_default=True,
    help="logistic: linear; svm: with a radial kernel; forest: 200 trees. Only logistic can be saved; of "
    "the others, the features are.",
)
@n_components_option()
@click.option(
    "--folds",
    metavar="N",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Parts into which the images are divided; each is predicted by a model fitted to the others.",
)
@group_option
@click.option("--balanced", is_flag=True, help="Let rare classes count as much as frequent ones.")
@seed_option("Seed of folds and trees.")
@memory_limit_option
@image_options(recursive=False)
@overwrite_option()
@run_options()
def classify(
    images: ImageOptions,
    terminal: Terminal,
    out: str,
    features: tuple[str, ...],
    classifier: str,
    n_components: int | None,
    folds: int,
    group_by: str | None,
    balanced: bool,
    seed: int,
    memory_limit: str,
    overwrite: bool,
) -> None:
    """Learn to tell the sub-folders of FOLDER apart by their images, and measure how well that works.

    The name of a sub-folder is the label of the images in it, unless --labels names a table of labels. Accuracy is
    measured by stratified cross-validation:
    each image is predicted by a model fitted without it, principal components and scaling included; with --group-by,
    by a model fitted without all images of its plate, well or donor. The share of the
    most frequent class is printed for comparison. Only the range of intensities, which hist and texture learn for
    images of more than 8 bits, comes from all images. The model that is saved is fitted to all images.

    \b
    Examples:
      imgstack-ml sample textures textures
      imgstack-ml classify textures -o results
      imgstack-ml classify plates -f texture -f hist -c svm -o results
      imgstack-ml classify photos --labels labels.csv -o results
      imgstack-ml classify wells --group-by 2 -o results
      imgstack-ml classify wells --group-by donors.csv:donor -o results
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    folder = OutputFolder(out, overwrite=overwrite)

    def plan(stack: ImageStack) -> _Plan:
        labels, groups = grouped(stack, images.source, group_by, has_table=images.labels is not None)
        stack = replace(stack, labels=labels)
        _check_labels(stack, images, 2 if groups is not None else folds)
        parts = make_folds(stack.labels, groups, folds, seed)  # type: ignore[arg-type]
        n_fitted = min(len(train) for train, _ in parts)
        transformer = make_features(
            features, stack, n_components=n_components, n_fitted=n_fitted, memory_limit=memory_limit
        )
        return _Plan(stack, groups, parts, transformer, *_plan_rows(classifier, transformer, stack, memory_limit))

    run = images.open(terminal, started, out=out, check=plan)
    stack, groups, parts, transformer, n_features, dtype, n_bytes = plan(run.stack)
    run = replace(run, stack=stack)
    n_classes = len(set(stack.labels.tolist()))  # type: ignore[union-attr]
    if images.labels is None and n_classes > _MANY_CLASSES and len(stack) < _FEW_IMAGES * n_classes:
        terminal.status(f"{n_classes:,} classes, with {len(stack) / n_classes:.3g} images on average; {_WELLS}")
    from dask.utils import format_bytes

    from ..passes.memory import allowance

    with hint(MemoryLimitError, _LESS_MEMORY):
        folder.create()
        terminal.status(f"describing {len(stack):,} images by {', '.join(features)}")
        planned = f"the classifier takes at most {format_bytes(n_bytes)}"
        terminal.status(f"{n_features:,} features an image, in {dtype}; {planned}")
        with RowFile(out, n_features, dtype) as rows, explain_full_disk(out, rows.n_bytes(len(stack))):
            if "pca" in features:  # all others together take one read
                room = min(rows.n_bytes(len(stack)) // folds, allowance(memory_limit).limit - n_bytes)
                run = with_kept_pixels(run, room)
            model = fit_model(transformer, classifier, rows, run, balanced=balanced, seed=seed)
            outcome = cross_validate(model, rows, run, parts)
    folder.remove_record()
    found = _accuracy(stack.labels, outcome, folds)
    found |= {"name": classifier, "saved": classifier == "logistic", "n_features": n_features}
    if groups is not None:
        found |= {"n_groups": len(set(groups.tolist()))}
    _write_results(folder, model, outcome, groups, found, run)
    record = _write_report(folder, model, outcome, run, features=list(features), classifier=found)
    run.finish(folder, record, _next_lines(out, classifier))


def _next_lines(out: str, classifier: str) -> str:
    others = f"\nor, for other images: {typed('imgstack-ml', 'transform', out)} FOLDER -o predicted.csv"
    path = os.path.join(out, MODEL_FILE)
    return f"Next, in Python: model = imgstack_ml.load_model({path!r})" + others * (classifier == "logistic")


class _Plan(NamedTuple):
    """The labelled stack, its groups, the folds, the features (not fitted), their number, dtype and memory."""

    stack: ImageStack
    groups: np.ndarray | None
    parts: list[tuple[np.ndarray, np.ndarray]]
    transformer: ImageFeatureUnion
    n_features: int
    dtype: str
    n_bytes: int


def _plan_rows(
    classifier: str, transformer: ImageFeatureUnion, stack: ImageStack, memory_limit: str
) -> tuple[int, str, int]:
    """Plan the rows that the classifier learns from: their width, dtype and the memory that they take."""
    n_features = count_features(transformer, stack)
    n_classes = len(set(stack.labels.tolist()))  # type: ignore[union-attr]
    size = {"n_images": len(stack), "n_features": n_features, "n_classes": n_classes}
    with hint(MemoryLimitError, _LESS_MEMORY):
        return n_features, *plan_dtype(classifier, **size, memory_limit=memory_limit)


def _check_labels(stack: ImageStack, images: ImageOptions, n_folds: int) -> None:
    """Refuse labels from which no classifier can learn, or on which cross-validation cannot test it."""
    if images.labels is None:
        _check_sub_folders(stack, images.source)
    assert stack.labels is not None, "there is a table, or sub-folders"
    counts, table = Counter(stack.labels.tolist()), images.labels
    if len(counts) == 1:
        raise LabelError(
            f"all {len(stack):,} images are labelled {str(stack.labels[0])!r}, and a classifier needs two classes. "
            + (
                "Give the folder above, or put images of another class into a sub-folder beside it"
                if table is None
                else f"Give other labels in {table!r}, or another of its columns: --labels {table}:COLUMN"
            )
        )
    small = {label: n for label, n in sorted(counts.items()) if n < n_folds}
    if not small:
        return
    if (fewest := min(small.values())) >= 2:
        error = LabelError(
            f"{n_folds} folds need {n_folds} images of each class, and there are {_counts_text(small)}. Add images, or "
            f"divide them into fewer parts: --folds {fewest}"
        )
    else:
        cure = "move the sub-folders of these classes elsewhere" if table is None else "give these other labels"
        error = LabelError(
            f"a class needs 2 images, one to learn from and one to test, and there are {_counts_text(small)}. Add "
            f"images, or {cure}"
        )
    if table is None and len(small) > len(counts) // 2:
        error.add_note(_WELLS)
    raise error


def _check_sub_folders(stack: ImageStack, source: str) -> None:
    """Refuse a folder whose sub-folders do not give a label to each image, and an image to each label."""
    if stack.labels is None:
        raise LabelError(
            f"{source!r} gives no labels. Give a folder whose sub-folders hold the images, one for each class; or a "
            "table with the columns file and label: --labels labels.csv"
        )
    labels = stack.labels.tolist()
    if loose := labels.count("."):
        raise LabelError(
            f"{source!r} itself holds {loose:,} of the images, such as "
            f"{os.path.basename(stack.files[labels.index('.')])!r}, without a label. Move each into the sub-folder of "
            "its class, or give the labels of all images in a table: --labels labels.csv"
        )
    if empty := _empty_sub_folders(stack, source):
        raise LabelError(
            f"no image was found in {_sub_folders_text(empty)}. Put images there, or move the sub-folder elsewhere "
            "(links to folders are not followed)"
        )


def _empty_sub_folders(stack: ImageStack, source: str) -> list[str]:
    """Names of the sub-folders without an image in the stack."""
    if os.path.abspath(source) in stack.inputs:
        return []
    with_images = {name.partition("/")[0] for name in relative_names(stack.files, source)}
    return [name for name in sub_folders(source) if name not in with_images]


def _sub_folders_text(names: list[str]) -> str:
    return (
        f"the sub-folder{'s' if len(names) > 1 else ''} " + ", ".join(map(repr, names[:5])) + (", …" * (len(names) > 5))
    )


def _counts_text(counts: dict[str, int]) -> str:
    shown = [f"{n} of {label!r}" for label, n in list(counts.items())[:5]]
    return ", ".join(shown) + (f" and {len(counts) - 5} more classes" if len(counts) > 5 else "")


def _accuracy(labels: Any, outcome: Outcome, n_folds: int) -> dict[str, Any]:
    """Compute how often the predictions are right, and the rates to compare that with."""
    import numpy as np
    from sklearn.metrics import confusion_matrix

    predicted, fold = outcome[:2]
    right = predicted == labels
    accuracy = [right[fold == i].mean() for i in range(1, n_folds + 1)]
    classes, counts = np.unique(labels, return_counts=True)
    # Without a matrix of classes x classes, of which there can be thousands.
    rights, taken = (
        np.bincount(np.searchsorted(classes, some), minlength=len(classes)) for some in (labels[right], predicted)
    )
    n_wrong = counts + taken - 2 * rights
    shown = classes[np.sort(np.argsort(-n_wrong, kind="stable")[:_MAX_SHOWN])].tolist()
    return {
        "classes": dict(zip(classes.tolist(), counts.tolist(), strict=True)),
        "n_folds": n_folds,
        "accuracy_mean": float(np.mean(accuracy)),
        "accuracy_std": float(np.std(accuracy)),
        "balanced_accuracy": float((rights / counts).mean()),
        "majority_rate": int(counts.max()) / len(labels),
        "n_right": int(right.sum()),
        "confusion": confusion_matrix(labels, predicted, labels=shown).tolist(),
        "confusion_classes": shown,
    }


def _write_results(
    folder: OutputFolder,
    model: Pipeline,
    outcome: Outcome,
    groups: np.ndarray | None,
    found: dict[str, Any],
    run: Run,
) -> None:
    from .. import save_model
    from ..report.classification import CHANCES

    texts: Any = [run.image_names, run.stack.labels, outcome.predicted]
    header = ["file", "label", "predicted", "fold"]
    if groups is not None:
        texts.append(groups)
        header.insert(3, "group")
    chances = [] if outcome.chances is None else outcome.chances.T.tolist()
    header += CHANCES[: len(chances)]
    folder.write_table("predictions.csv", header, texts, [outcome.fold, *chances])
    run.write_skipped(folder)
    with folder.writing(MODEL_FILE) as temporary:
        # Of a linear model the coefficients are saved. The others could only be saved as code, by pickle.
        save_model(_without_scaling(model) if found["saved"] else model[:1], temporary)
    _draw_confusion(folder, found)


def _write_report(
    folder: OutputFolder,
    model: Pipeline,
    outcome: Outcome,
    run: Run,
    *,
    features: list[str],
    classifier: dict[str, Any],
) -> dict[str, Any]:
    """Write the page about the classifier, and return the record; only images that it shows are read once more."""
    from ..report.classification import Predictions, classification_report, described_weights

    weights = described_weights(feature_weights(model))
    record = run.describe(features=features, classifier={**classifier, "weights": weights})
    labels: Any = run.stack.labels
    predictions = Predictions(run.image_names, labels, outcome.predicted, outcome.chances)
    page = classification_report(run.stack, predictions, record)
    with folder.writing("report.html") as temporary:
        page.save_as_html(temporary)
    return record


def _without_scaling(model: Pipeline) -> Pipeline:
    """Put the scaling into the coefficients of the linear model: the same predictions, without the scaling step.

    With that step in the Pipeline, a prediction would read a lazy stack twice.
    """
    from sklearn.base import clone
    from sklearn.pipeline import Pipeline

    scaler, linear = model["scale"], model["classify"]
    merged = clone(linear)
    vars(merged).update(vars(linear))
    merged.coef_ = linear.coef_ / scaler.scale_
    merged.intercept_ = linear.intercept_ - merged.coef_ @ scaler.mean_
    return Pipeline([("features", model["features"]), ("classify", merged)])


def _draw_confusion(folder: OutputFolder, found: dict[str, Any]) -> None:
    """Draw the confusion matrix: shares of each label as colours, numbers of images in the cells."""
    import numpy as np

    plt = pyplot_without_windows()
    classes, counts = found["confusion_classes"], np.array(found["confusion"])
    share = counts / np.array([[found["classes"][name]] for name in classes])
    side = min(12.0, 2.6 + 0.5 * len(classes))
    figure, ax = plt.subplots(figsize=(side, side), layout="constrained")
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= _MAX_NUMBERED:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if share[i, j] > 0.5 else "black" if count else "0.7"
            ax.text(j, i, f"{count:,}", ha="center", va="center", color=colour)
    upright = sum(map(len, classes)) > 8 * side  # names side by side would overlap
    ax.set_xticks(range(len(classes)), classes, rotation=90 if upright else 0, parse_math=False)
    ax.set_yticks(range(len(classes)), classes, parse_math=False)
    ax.set(xlabel="predicted", ylabel="label; colour: share of its images")
    n_images, n_classes = sum(found["classes"].values()), len(found["classes"])
    most_wrong = (
        f"\nthe {len(classes)} of {n_classes:,} classes with the most errors" if n_classes > len(classes) else ""
    )
    ax.set_title(f"{100 * found['n_right'] / n_images:.1f} % of {n_images:,} right{most_wrong}")
    folder.write_figure("confusion.png", figure)
