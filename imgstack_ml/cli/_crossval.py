"""Cross-validation of a classifier on features of images, as the command ``classify`` needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._table import compute_rows
from ._task import Terminal

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from .. import ImageFeatureUnion, ImagePCA, ImageStack

__all__ = ["CLASSIFIERS", "Outcome", "cross_validate", "fit_model"]

CLASSIFIERS = ("logistic", "svm", "forest")


class Outcome(NamedTuple):
    """For each image the label predicted without it, (n_images,), and the number of the fold that left it out."""

    predicted: np.ndarray
    fold: np.ndarray


def fit_model(
    features: ImageFeatureUnion, classifier: str, stack: ImageStack, *, balanced: bool, seed: int, terminal: Terminal
) -> tuple[Pipeline, np.ndarray]:
    """Fit features and classifier to all images.

    Parameters
    ----------
    features : ImageFeatureUnion
    classifier : str
        One of `CLASSIFIERS`.
    stack : ImageStack
        With labels.
    balanced : bool
        Whether each class counts as much as any other.
    seed : int
    terminal : Terminal

    Returns
    -------
    model : Pipeline
        Features, scaling, classifier.
    rows : ndarray of shape (n_images, n_features)
        The features of all images.
    """
    from sklearn.pipeline import Pipeline

    rows = compute_rows(features.fit_transform(stack), stack, terminal, "features")
    tail = _classifier(classifier, balanced, seed).fit(rows, stack.labels)
    return Pipeline([("features", features), *tail.steps]), rows


def cross_validate(
    model: Pipeline, rows: np.ndarray, stack: ImageStack, *, n_folds: int, seed: int, terminal: Terminal
) -> Outcome:
    """Predict each image by a model that has not seen it, all of it fitted anew to the images of the other folds.

    The result is that of scikit-learn's `cross_val_predict` for the whole Pipeline. What describes an image
    without regard to others is the same in every fold, and taken from `rows`; principal components are not. The one
    exception: histograms and textures of floating-point images have the range of all images.

    Parameters
    ----------
    model : Pipeline
        As `fit_model` gives it.
    rows : ndarray of shape (n_images, n_features)
        Also from there.
    stack : ImageStack
        With labels.
    n_folds, seed : int
    terminal : Terminal

    Returns
    -------
    Outcome
    """
    import numpy as np
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    name, last = model[0].transformer_list[-1]
    pca = last if name == "pca" else None
    labels = stack.labels
    assert labels is not None, "the command has checked them"
    predicted, folds = np.empty_like(labels), np.empty(len(labels), dtype=int)
    parts = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(rows, labels)
    for number, (train, test) in enumerate(parts, start=1):
        terminal.status(f"fold {number} of {n_folds}")
        known, unknown = rows[train], rows[test]
        if pca is not None:
            k = pca.n_components_
            known[:, -k:], unknown[:, -k:] = _scores(clone(pca), stack[train], stack[test], terminal)
        predicted[test] = clone(model[1:]).fit(known, labels[train]).predict(unknown)
        folds[test] = number
    return Outcome(predicted, folds)


def _scores(pca: ImagePCA, known: ImageStack, unknown: ImageStack, terminal: Terminal) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the images that the PCA is fitted to, and of others."""
    return (
        compute_rows(pca.fit_transform(known), known, terminal, "pca"),
        compute_rows(pca.transform(unknown), unknown, terminal, "pca"),
    )


def _classifier(name: str, balanced: bool, seed: int) -> Pipeline:
    """Scaling, so that features of any unit count alike, and a classifier."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    weight = "balanced" if balanced else None
    makers: dict[str, Callable[[], Any]] = {
        "logistic": lambda: LogisticRegression(max_iter=1000, class_weight=weight),
        "svm": lambda: SVC(class_weight=weight),
        "forest": lambda: RandomForestClassifier(200, class_weight=weight, random_state=seed),
    }
    return Pipeline([("scale", StandardScaler()), ("classify", makers[name]())])
