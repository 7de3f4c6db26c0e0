"""How well do components and features classify and cluster real images, beside scikit-learn in memory?

Takes a minute, 1 GB of memory, no disk. Prints the tables of docs/results.md; --docs writes them.

Accuracies are cross-validated; the whole Pipeline is fitted anew in each fold. A photograph that is cut into patches is
divided into bands, and a fold is a band of each photograph: a model is never tested on a patch whose neighbours on all
sides it was fitted to.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from imgstack_ml import (
    ChannelStatistics,
    HOGFeatures,
    ImageFeatureUnion,
    ImageFlattener,
    ImageHistogram,
    ImagePCA,
    TextureFeatures,
)
from imgstack_ml.datasets import load_digits, load_faces, load_textures

from ..lib.command import command_parser
from ..lib.pages import PAGE, markdown_table, replace_between_markers

N_BLOCKS = 12
BANDS = 4  # of each photograph
RESULTS = PAGE.parent / "results.json"
COLUMNS = {  # of each table, after the form of its figures
    "digits": ("{:.2f} %", "digits: components, classifier", "this package, lazy", "scikit-learn, in memory"),
    "features": ("{:.1f} %", "what stands before the classifier", "faces", "textures, 64 × 64", "textures, 32 × 32"),
    "clusters": ("{:.2f}", "three clusters of texture patches, 64 × 64, by", "adjusted Rand index"),
}


class Task(NamedTuple):
    """Images to classify, in blocks; their labels; and for each fold, positions to fit and to test."""

    stack: da.Array
    labels: np.ndarray
    folds: list[tuple[np.ndarray, np.ndarray]]


def digits() -> Task:
    """Return 1,797 handwritten digits, 8 x 8, ten classes."""
    return _shuffled(*load_digits())


def faces() -> Task:
    """Return 100 faces and 100 non-faces, 25 x 25."""
    return _shuffled(*load_faces())


def textures(patch: int = 64) -> Task:
    """Return patches of photographs of brick, grass and gravel; a fold is a band of each photograph."""
    images, labels = load_textures(patch)
    rows = np.arange(len(images)) % (len(images) // 3) // (512 // patch)  # in the photograph, from the top
    folds = list(GroupKFold(BANDS).split(images, labels, groups=rows * BANDS // (512 // patch)))
    return Task(_lazy(images), labels, folds)


def accuracy(model: Any, task: Task) -> float:
    """Return the mean share of right predictions over the folds."""
    return float(np.mean(cross_val_score(model, task.stack, task.labels, cv=task.folds)))


def accuracy_in_memory(model: Any, task: Task) -> float:
    """Return the same for a model of scikit-learn, on rows in memory."""
    rows = task.stack.compute().reshape(len(task.stack), -1).astype(float)
    return float(np.mean(cross_val_score(model, rows, task.labels, cv=task.folds)))


def lazy_pipeline(k: int, classifier: Any) -> Pipeline:
    """Return a Pipeline of this package: components, then a classifier."""
    return make_pipeline(ImageFlattener(), ImagePCA(k, whiten=True, random_state=0), classifier)


def pipeline_in_memory(k: int, classifier: Any) -> Pipeline:
    """Return the same Pipeline of scikit-learn."""
    return make_pipeline(PCA(k, whiten=True, svd_solver="full"), classifier)


def feature_pipeline(features: Any, classifier: Any) -> Pipeline:
    """Return features, scaling and a classifier. Features are computed as a table, so that images are read once."""
    return make_pipeline(features.set_output(transform="pandas"), StandardScaler(), classifier)


def logistic() -> LogisticRegression:
    """Return the linear classifier of most tables."""
    return LogisticRegression(max_iter=2000)


FEATURES: dict[str, Callable[[], Any]] = {
    "statistics": lambda: ChannelStatistics(percentiles=(5, 25, 50, 75, 95)),
    "histogram": lambda: ImageHistogram(32, density=True),
    "texture": TextureFeatures,
    "gradients": lambda: HOGFeatures(pixels_per_cell=(8, 8), cells_per_block=(2, 2)),
    "statistics, histogram, texture": lambda: ImageFeatureUnion(
        [(name, FEATURES[name]()) for name in ("statistics", "histogram", "texture")]
    ),
}


def agreement(rows: np.ndarray, labels: np.ndarray) -> float:
    """Cluster rows, and return the adjusted Rand index with the labels: 0 by chance, 1 for equal groups."""
    clusters = KMeans(len(np.unique(labels)), n_init=10, random_state=0).fit_predict(
        StandardScaler().fit_transform(rows)
    )
    return float(adjusted_rand_score(labels, clusters))


def agreement_of_texture_clusters() -> dict[str, float]:
    """Cluster texture patches without their labels, and return the agreement with them, by description of a patch."""
    task = textures()
    describe = {
        "16 principal components": ImagePCA(16, random_state=0),
        "histogram": FEATURES["histogram"](),
        "texture": FEATURES["texture"](),
    }
    return {name: agreement(np.asarray(step.fit_transform(task.stack)), task.labels) for name, step in describe.items()}


def _lazy(images: np.ndarray) -> da.Array:
    return da.from_array(images, chunks=(-(-len(images) // N_BLOCKS), *images.shape[1:]))


def _shuffled(images: np.ndarray, labels: np.ndarray) -> Task:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return Task(_lazy(images), labels, list(folds.split(images, labels)))


def measure() -> dict[str, dict[str, list[float]]]:
    """Return the rows of each table: percentages of right predictions, and agreements of clusters."""
    task = digits()
    by_digits = {
        f"{k}, {type(classifier).__name__}": [
            100 * accuracy(lazy_pipeline(k, classifier), task),
            100 * accuracy_in_memory(pipeline_in_memory(k, classifier), task),
        ]
        for k, classifier in ((16, logistic()), (32, logistic()), (32, SVC()))
    }
    tasks = [faces(), textures(64), textures(32)]
    models = {"always the same class": make_pipeline(ImageFlattener(), DummyClassifier())}
    models |= {f"{k} principal components": lazy_pipeline(k, logistic()) for k in (16, 32)}
    models |= {name: feature_pipeline(make(), logistic()) for name, make in FEATURES.items()}
    by_features = {name: [100 * accuracy(model, task) for task in tasks] for name, model in models.items()}
    clusters = {name: [value] for name, value in agreement_of_texture_clusters().items()}
    return {"digits": by_digits, "features": by_features, "clusters": clusters}


def tables_of(results: dict[str, dict[str, list[float]]]) -> dict[str, str]:
    """Return the tables of docs/results.md."""
    return {
        name: markdown_table(
            columns, [[row, *(form.format(x) for x in values)] for row, values in results[name].items()]
        )
        for name, (form, *columns) in COLUMNS.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, or store the figures and write the tables into the page."""
    parser = command_parser("benchmarks.comparisons.results", __doc__)
    parser.add_argument("--docs", action="store_true", help="write docs/results.json and the tables of docs/results.md")
    given = parser.parse_args(argv)
    results = measure()
    if given.docs:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, table in tables_of(results).items():
        print(table, end="\n\n")
        if given.docs:
            replace_between_markers(RESULTS.with_suffix(".md"), name, table)


if __name__ == "__main__":
    main()
