"""Cross-validation of a classifier on features of images, for the command ``classify``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from .logistic import fit_logistic
from .rows import RowFile
from .run import Run
from .table import compute_rows, in_small_blocks, iterate_rows

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from ... import ImageFeatureUnion, ImagePCA
    from ...report.classification import FeatureWeights

__all__ = ["CLASSIFIERS", "Outcome", "cross_validate", "feature_weights", "fit_model", "with_kept_pixels"]

CLASSIFIERS = ("logistic", "svm", "forest")
_PART_BYTES = 2**24  # of rows that are scaled at a time


class Outcome(NamedTuple):
    """For each image what the model of the other folds predicts.

    Attributes
    ----------
    predicted : ndarray of shape (n_images,)
        The label.
    fold : ndarray of shape (n_images,)
        Fold of the image, from 1.
    chances : ndarray of shape (n_images, 2), or None
        Probabilities of the predicted and of the true label, where the classifier gives them.
    """

    predicted: np.ndarray
    fold: np.ndarray
    chances: np.ndarray | None = None


class _KeptReader:
    """Give images that are kept in memory, by their positions."""

    images_per_chunk = 1

    def __init__(self, images: np.ndarray):
        self.images, self.shape, self.dtype = images, images.shape[1:], images.dtype
        self._token = uuid4().hex

    def __dask_tokenize__(self) -> str:
        return self._token

    def read(self, keys: Any) -> np.ndarray:
        """Copy the images at some positions into one block."""
        images: np.ndarray = self.images[keys]
        return images


def with_kept_pixels(run: Run, n_bytes: int) -> Run:
    """Return the run with its images decoded and kept, if they take at most `n_bytes`: small files are slow to read.

    On a cluster nothing is kept, for every task would carry the images to its worker.
    """
    import numpy as np

    from ...passes.executors import LocalExecutor, executor_for

    stack = run.stack
    n_needed = math.prod(stack.shape) * stack.dtype.itemsize
    if n_needed > n_bytes or not isinstance(executor_for(stack.data), LocalExecutor):
        return run
    reader = _KeptReader(compute_rows(stack.data, run, "images"))
    return replace(run, stack=replace(stack, reader=reader, keys=np.arange(len(stack))))


def fit_model(
    features: ImageFeatureUnion, classifier: str, rows: RowFile, run: Run, *, balanced: bool, seed: int
) -> Pipeline:
    """Fit features and classifier to all images, which have labels.

    Parameters
    ----------
    features : ImageFeatureUnion
    classifier : str
        One of `CLASSIFIERS`.
    rows : RowFile
        An empty file, which gets the features of all images.
    run : Run
    balanced : bool
        Whether every class counts the same.
    seed : int

    Returns
    -------
    model : Pipeline
        Features, scaling, classifier.
    """
    import numpy as np
    from sklearn.pipeline import Pipeline

    features.fit(run.stack)
    lazy = features.transform(in_small_blocks(run.stack, rows.n_columns))
    for part in iterate_rows(lazy, run, "features"):
        rows.append(part)
    assert run.stack.labels is not None, "the command checks that there are labels"
    run.terminal.status(f"fitting the classifier to {len(run.stack):,} images")
    steps = _fit(
        _classifier(classifier, balanced, seed, rows.dtype), rows.take(np.arange(len(run.stack))), run.stack.labels
    )
    return Pipeline([("features", features), *steps.steps])


def cross_validate(model: Pipeline, rows: RowFile, run: Run, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Outcome:
    """Predict the label of each image by a model that is fitted to the images of the other folds.

    The result is that of scikit-learn's `cross_val_predict` for the whole Pipeline. Features that depend on one image
    alone are the same in every fold, and come from `rows`; principal components are fitted in each fold. One
    exception: histograms and textures use the range of all images, where they learn it.

    `model` and `rows` are the results of `fit_model`; `parts` are the positions of the images that each model is fitted
    to, and of those that it predicts.
    """
    import numpy as np
    from sklearn.base import clone

    name, last = model[0].transformer_list[-1]
    pca = last if name == "pca" else None
    stack, labels = run.stack, run.stack.labels
    assert labels is not None, "the command checks that there are labels"
    predicted, folds = np.empty_like(labels), np.empty(len(labels), dtype=int)
    chances = np.empty((len(labels), 2)) if hasattr(model[-1], "predict_proba") else None
    for number, (train, test) in enumerate(parts, start=1):
        run.terminal.status(f"fold {number} of {len(parts)}")
        scores = None if pca is None else _scores(clone(pca), stack[train], stack[test], run)
        known = rows.take(train)
        if scores is not None:
            known[:, -scores[0].shape[1] :] = scores[0]
        steps = _fit(clone(model[1:]), known, labels[train])
        del known
        for place, unknown in rows.parts(test):
            if scores is not None:
                unknown[:, -scores[1].shape[1] :] = scores[1][place]
            predicted[test[place]] = steps.predict(unknown)
            if chances is not None:
                chances[test[place]] = _chances(steps, unknown, predicted[test[place]], labels[test[place]])
        folds[test] = number
    return Outcome(predicted, folds, chances)


def _chances(steps: Pipeline, rows: np.ndarray, *names: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, 2) of two labels of each row; of all classes only for a few rows at a time."""
    import numpy as np

    places = [np.searchsorted(steps.classes_, some) for some in names]
    step = max(1, _PART_BYTES // (8 * len(steps.classes_)))
    found = []
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        shares = steps.predict_proba(rows[part])
        found.append(np.column_stack([shares[np.arange(len(shares)), place[part]] for place in places]))
    return np.concatenate(found)


def feature_weights(model: Pipeline) -> FeatureWeights | None:
    """Return how much each feature counts in the classifier of `fit_model`; None if it does not tell."""
    import numpy as np

    from ...report.classification import FeatureWeights

    names, last = model[0].get_feature_names_out().tolist(), model[-1]
    if hasattr(last, "feature_importances_"):
        return FeatureWeights(names, last.feature_importances_, None)
    if not hasattr(last, "coef_") or last.coef_.shape[1] != len(names):
        return None
    if len(last.coef_) == 1:
        return FeatureWeights(names, np.abs(last.coef_[0]), last.classes_[(last.coef_[0] > 0).astype(int)])
    return FeatureWeights(names, np.linalg.norm(last.coef_, axis=0), last.classes_[last.coef_.argmax(axis=0)])


def _fit(steps: Pipeline, rows: np.ndarray, labels: np.ndarray) -> Pipeline:
    """Fit scaling and classifier; `rows` are scaled in place, a part at a time: StandardScaler would make copies."""
    from sklearn.linear_model import LogisticRegression

    scaler, classifier = steps["scale"], steps["classify"]
    step = max(1, _PART_BYTES // rows[:1].nbytes)
    parts = [rows[i : i + step] for i in range(0, len(rows), step)]
    for part in parts:
        scaler.partial_fit(part)
    for part in parts:
        part -= scaler.mean_
        part /= scaler.scale_
    if isinstance(classifier, LogisticRegression):
        fit_logistic(classifier, rows, labels)
    else:
        classifier.fit(rows, labels)
    return steps


def _scores(pca: ImagePCA, known: Any, unknown: Any, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the images that the PCA is fitted to, and of others."""
    return compute_rows(pca.fit_transform(known), run, "pca"), compute_rows(pca.transform(unknown), run, "pca")


def _classifier(name: str, balanced: bool, seed: int, dtype: np.dtype) -> Pipeline:
    """Make a Pipeline of scaling, so that the units of features do not matter, and a classifier."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    weight = "balanced" if balanced else None
    tol = 1e-4 if dtype == "float32" else 1e-5
    makers: dict[str, Callable[[], Any]] = {
        "logistic": lambda: LogisticRegression(max_iter=1000, tol=tol, class_weight=weight),
        "svm": lambda: SVC(class_weight=weight),
        "forest": lambda: RandomForestClassifier(200, class_weight=weight, random_state=seed),
    }
    return Pipeline([("scale", StandardScaler()), ("classify", makers[name]())])
