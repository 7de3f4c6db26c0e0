"""Cross-validation of a classifier on features of images, for the command ``classify``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .run import Run
from .table import compute_rows

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from ... import ImageFeatureUnion, ImagePCA, ImageStack

__all__ = ["CLASSIFIERS", "Outcome", "cross_validate", "fit_model"]

CLASSIFIERS = ("logistic", "svm", "forest")


class Outcome(NamedTuple):
    """For each image the label predicted by the model of the other folds, (n_images,), and its fold, from 1."""

    predicted: np.ndarray
    fold: np.ndarray


def fit_model(
    features: ImageFeatureUnion, classifier: str, run: Run, *, balanced: bool, seed: int
) -> tuple[Pipeline, np.ndarray]:
    """Fit features and classifier to all images, which have labels.

    Parameters
    ----------
    features : ImageFeatureUnion
    classifier : str
        One of `CLASSIFIERS`.
    run : Run
    balanced : bool
        Whether every class counts the same.
    seed : int

    Returns
    -------
    model : Pipeline
        Features, scaling, classifier.
    rows : ndarray of shape (n_images, n_features)
        The features of all images.
    """
    from sklearn.pipeline import Pipeline

    rows = compute_rows(features.fit_transform(run.stack), run, "features")
    scale_and_classify = _classifier(classifier, balanced, seed).fit(rows, run.stack.labels)
    return Pipeline([("features", features), *scale_and_classify.steps]), rows


def cross_validate(model: Pipeline, rows: np.ndarray, run: Run, *, n_folds: int, seed: int) -> Outcome:
    """Predict the label of each image by a model that is fitted to the images of the other folds.

    The result is that of scikit-learn's `cross_val_predict` for the whole Pipeline. Features that depend on one image
    alone are the same in every fold, and come from `rows`; principal components are fitted in each fold. One
    exception: histograms and textures of floating-point images use the range of all images.

    `model` and `rows` are the results of `fit_model`.
    """
    import numpy as np
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    name, last = model[0].transformer_list[-1]
    pca = last if name == "pca" else None
    stack, labels = run.stack, run.stack.labels
    assert labels is not None, "the command checks that there are labels"
    predicted, folds = np.empty_like(labels), np.empty(len(labels), dtype=int)
    parts = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(rows, labels)
    for number, (train, test) in enumerate(parts, start=1):
        run.terminal.status(f"fold {number} of {n_folds}")
        known, unknown = rows[train], rows[test]
        if pca is not None:
            k = pca.n_components_
            known[:, -k:], unknown[:, -k:] = _scores(clone(pca), stack[train], stack[test], run)
        predicted[test] = clone(model[1:]).fit(known, labels[train]).predict(unknown)
        folds[test] = number
    return Outcome(predicted, folds)


def _scores(pca: ImagePCA, known: ImageStack, unknown: ImageStack, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the images that the PCA is fitted to, and of others."""
    return compute_rows(pca.fit_transform(known), run, "pca"), compute_rows(pca.transform(unknown), run, "pca")


def _classifier(name: str, balanced: bool, seed: int) -> Pipeline:
    """Make a Pipeline of scaling, so that the units of features do not matter, and a classifier."""
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
