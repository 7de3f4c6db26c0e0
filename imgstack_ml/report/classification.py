"""The page about a classifier: what it confuses, which images it misjudges, and by which features it decides."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from ..base.channels import channel_names_of
from ..inspection.channels import whole_pictures
from ..inspection.pictures import shrink, visible_channels
from ..inspection.stacks import printable, read_images
from .page import render
from .report import Report
from .tables import Table, command_line, versions_table
from .tiles import Tile, _tile

__all__ = ["CHANCES", "FeatureWeights", "Predictions", "classification_report", "described_weights"]

CHANCES = ("chance_of_predicted", "chance_of_label")  # columns of the table of predictions
_MAX_CLASSES = 12  # of more, the confusion matrix shows those with the most errors
_MAX_CONFUSIONS = 8
_N_EXAMPLES = 6
_MAX_TYPICAL = 8  # classes of which typical images are shown
_N_TYPICAL = 3
_MAX_MISJUDGED = 24
_MAX_FEATURES = 20
_SIDE = 96
_READ_BYTES = 2**24  # of images at a time


class Predictions(NamedTuple):
    """What was predicted for each image, by a model fitted without it.

    Attributes
    ----------
    names : sequence of str
    labels, predicted : ndarray of shape (n_images,)
    chances : ndarray of shape (n_images, 2), or None
        Probabilities of the predicted label and of the true one, where the classifier tells them.
    """

    names: Any
    labels: np.ndarray
    predicted: np.ndarray
    chances: np.ndarray | None


class FeatureWeights(NamedTuple):
    """By which features a classifier decides.

    Attributes
    ----------
    names : sequence of str
    sizes : ndarray of shape (n_features,)
        Weight of each; at least 0.
    classes : ndarray of shape (n_features,), or None
        The class that speaks most clearly, for or against, if larger values do so for one.
    """

    names: Any
    sizes: np.ndarray
    classes: np.ndarray | None


class Cell(NamedTuple):
    """Number of images of a label that were predicted to be of another or the same, and its share of the label."""

    n_images: int
    share: float
    is_right: bool


class Group(NamedTuple):
    """Pictures of images under a heading."""

    heading: str
    tiles: list[Tile]


def classification_report(stack: Any, predictions: Predictions, run: dict[str, Any]) -> Report:
    """Make a page about a classifier. Of the images, only those that it shows are read: at most 96.

    Parameters
    ----------
    stack : ImageStack
        The images.
    predictions : Predictions
    run : dict
        As in the ``run.json`` of ``imgstack-ml classify``; `described_weights` are in it.

    Returns
    -------
    Report
        Without alerts.
    """
    found = run["classifier"]
    confusions, typical, misjudged = _confusions(predictions), _typical(predictions), _misjudged(predictions)
    positions = sorted({at for _, some in [*confusions, *typical] for at in some} | set(misjudged))
    tiles = dict(zip(positions, _tiles(stack, positions, predictions), strict=True))
    n_wrong = len(predictions.labels) - found["n_right"]
    page = render(
        "classification.html.j2",
        title=f"A classifier of {len(predictions.labels):,} images in {len(found['classes']):,} classes",
        verdict=_verdict(found),
        is_good=not n_wrong,
        summary=_summary(found, run),
        classes=[printable(name) for name in found["confusion_classes"][:_MAX_CLASSES]],
        n_more_classes=max(0, len(found["classes"]) - _MAX_CLASSES),
        matrix=_matrix(found),
        confusions=[Group(heading, [tiles[at] for at in some]) for heading, some in confusions],
        typical=[Group(heading, [tiles[at] for at in some]) for heading, some in typical],
        misjudged=[tiles[at] for at in misjudged],
        n_more_misjudged=n_wrong - len(misjudged),
        has_chances=predictions.chances is not None,
        features=found["weights"]["features"],
        groups=found["weights"]["kinds"],
        classifier=found["name"],
        command=command_line(run),
        versions=versions_table(run),
    )
    return Report({}, page)


def _verdict(found: dict[str, Any]) -> str:
    n_images = sum(found["classes"].values())
    right, most = (f"{100 * share:.1f} %" for share in (found["n_right"] / n_images, found["majority_rate"]))
    return f"{right} are right, each predicted by a model fitted without it; naming the most frequent class: {most}."


def _summary(found: dict[str, Any], run: dict[str, Any]) -> Table:
    mean, std, balanced = (100 * found[key] for key in ("accuracy_mean", "accuracy_std", "balanced_accuracy"))
    return [
        ("source", printable(run["input"]["source"])),
        ("classifier", f"{found['name']}, on {found['n_features']:,} features: {', '.join(run['features'])}"),
        ("accuracy", f"{mean:.1f} ± {std:.1f} % over {found['n_folds']} folds"),
        ("balanced accuracy", f"{balanced:.1f} %, where every class counts the same"),
        ("time", f"{run['seconds']:.1f} s"),
    ]


def _matrix(found: dict[str, Any]) -> list[list[Cell]]:
    names = found["confusion_classes"][:_MAX_CLASSES]
    rows = [row[: len(names)] for row in found["confusion"][: len(names)]]
    return [
        [Cell(count, count / found["classes"][name], i == j) for j, count in enumerate(row)]
        for i, (name, row) in enumerate(zip(names, rows, strict=True))
    ]


def _by_certainty(predictions: Predictions, positions: np.ndarray) -> list[int]:
    """Sort images, those first whose predicted label is most probable compared with the true one."""
    if predictions.chances is None:
        return positions.tolist()
    certain = predictions.chances[positions]
    # Of images that are right, both probabilities are the same one.
    lead = np.where(predictions.predicted[positions] == predictions.labels[positions], certain[:, 0], -certain[:, 1])
    return positions[np.lexsort([positions, -certain[:, 0], -lead])].tolist()


def _confusions(predictions: Predictions) -> list[tuple[str, list[int]]]:
    """Choose examples of the most frequent confusions."""
    labels, predicted = predictions.labels, predictions.predicted
    wrong = np.flatnonzero(labels != predicted)
    pairs = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    found = []
    for (label, other), count in pairs.most_common(_MAX_CONFUSIONS):
        some = wrong[(labels[wrong] == label) & (predicted[wrong] == other)]
        heading = f"“{printable(label)}” taken for “{printable(other)}”: {count:,} of {(labels == label).sum():,}"
        found.append((heading, _by_certainty(predictions, some)[:_N_EXAMPLES]))
    return found


def _typical(predictions: Predictions) -> list[tuple[str, list[int]]]:
    """Choose images that are right, of each class, the most certain first."""
    labels = predictions.labels
    found = []
    for label in np.unique(labels)[:_MAX_TYPICAL]:
        some = np.flatnonzero((labels == label) & (predictions.predicted == label))
        if len(some):
            found.append((printable(str(label)), _by_certainty(predictions, some)[:_N_TYPICAL]))
    return found


def _misjudged(predictions: Predictions) -> list[int]:
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    return _by_certainty(predictions, wrong)[:_MAX_MISJUDGED]


def _tiles(stack: Any, positions: list[int], predictions: Predictions) -> list[Tile]:
    """Read some images, a few at a time, and draw them on one scale."""
    step = max(1, _READ_BYTES // max(1, int(np.prod(stack.shape[1:])) * stack.dtype.itemsize))
    small: list[np.ndarray] = []
    for first in range(0, len(positions), step):
        images = read_images("classify", stack, positions[first : first + step])
        small += list(shrink(visible_channels(images), _SIDE))
    if not small:
        return []
    pictures = whole_pictures(small, channel_names_of(stack, stack.shape[1:], stack.dtype))
    return [
        _tile(picture, printable(predictions.names[at]), _caption(predictions, at))
        for at, picture in zip(positions, pictures, strict=True)
    ]


def _caption(predictions: Predictions, at: int) -> str:
    label, predicted = (printable(str(names[at])) for names in (predictions.labels, predictions.predicted))
    name = printable(predictions.names[at])
    if predictions.chances is None:
        return name if label == predicted else f"{name} · taken for {predicted}"
    of_predicted, of_label = (f"{100 * chance:.0f} %" for chance in predictions.chances[at])
    if label == predicted:
        return f"{name} · {of_label}"
    return f"{name} · {predicted} {of_predicted}, {label} {of_label}"


def described_weights(weights: FeatureWeights | None) -> dict[str, list[Any]]:
    """Describe weights for the record of a run: the largest ones, and the shares of each kind of feature.

    Both lists are empty if the classifier has no weights of features.
    """
    if weights is None or not weights.sizes.any():
        return {"features": [], "kinds": []}
    return {"features": _largest(weights), "kinds": _kinds_of_features(weights)}


def _largest(weights: FeatureWeights) -> list[tuple[str, float, str]]:
    """List name, size (1 for the largest) and class of the features of largest weight."""
    order = np.argsort(-weights.sizes, kind="stable")[:_MAX_FEATURES].tolist()
    classes = [""] * len(weights.sizes) if weights.classes is None else weights.classes
    return [
        (weights.names[i], float(weights.sizes[i] / weights.sizes.max()), printable(str(classes[i]))) for i in order
    ]


def _kinds_of_features(weights: FeatureWeights) -> Table:
    """Add up the squares of the weights in each kind of feature, as shares of all."""
    kinds = np.array([name.partition("__")[0] for name in weights.names])
    squares = weights.sizes**2 / (weights.sizes**2).sum()
    shares = {kind: float(squares[kinds == kind].sum()) for kind in dict.fromkeys(kinds.tolist())}
    return [(kind, f"{100 * share:.0f} %") for kind, share in sorted(shares.items(), key=lambda item: -item[1])]
