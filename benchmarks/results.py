"""Real images, real labels: what features and components are worth, beside scikit-learn in memory.

    python -m benchmarks.results                # the tables of docs/results.md, a minute

Everything is cross-validated with the whole Pipeline fitted anew in every fold. Patches of a photograph are divided
into bands of it, so that a model is not judged on patches from amidst those it was fitted to.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
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

N_BLOCKS = 12
BANDS = 4


class Task(NamedTuple):
    """Images to be told apart: in blocks, labels, and the folds."""

    stack: da.Array
    labels: np.ndarray
    folds: list[tuple[np.ndarray, np.ndarray]]


def digits() -> Task:
    """Give 1,797 handwritten digits, 8 x 8, ten classes."""
    return _shuffled(*load_digits())


def faces() -> Task:
    """Give 200 faces and non-faces, 25 x 25."""
    return _shuffled(*load_faces())


def textures(patch: int = 64) -> Task:
    """Give patches of brick, grass and gravel; a fold is a band of each of the photographs."""
    images, labels = load_textures(patch)
    rows = np.arange(len(images)) % (len(images) // 3) // (512 // patch)  # of the photograph, top to bottom
    folds = list(GroupKFold(BANDS).split(images, labels, groups=rows * BANDS // (512 // patch)))
    return Task(_lazy(images), labels, folds)


def accuracy(model: Any, task: Task) -> float:
    """Mean share of right predictions over the folds."""
    return float(np.mean(cross_val_score(model, task.stack, task.labels, cv=task.folds)))


def accuracy_in_memory(model: Any, task: Task) -> float:
    """Find the same for a model of scikit-learn alone, on rows in memory."""
    rows = task.stack.compute().reshape(len(task.stack), -1).astype(float)
    return float(np.mean(cross_val_score(model, rows, task.labels, cv=task.folds)))


def ours(k: int, classifier: Any) -> Pipeline:
    """Make the Pipeline of this package."""
    return make_pipeline(ImageFlattener(), ImagePCA(k, whiten=True, random_state=0), classifier)


def theirs(k: int, classifier: Any) -> Pipeline:
    """Make the same Pipeline of scikit-learn."""
    return make_pipeline(PCA(k, whiten=True, svd_solver="full"), classifier)


def with_features(features: Any, classifier: Any) -> Pipeline:
    """Put scaling and a classifier after features, which come as a table: read once."""
    return make_pipeline(features.set_output(transform="pandas"), StandardScaler(), classifier)


def gradients(cell: int) -> HOGFeatures:
    """Make gradients for small images."""
    return HOGFeatures(pixels_per_cell=(cell, cell), cells_per_block=(2, 2))


def logistic() -> LogisticRegression:
    """Make the linear classifier that stands after all features."""
    return LogisticRegression(max_iter=2000)


FEATURES: dict[str, Callable[[], Any]] = {
    "statistics": lambda: ChannelStatistics(percentiles=(5, 25, 50, 75, 95)),
    "histogram": lambda: ImageHistogram(32, density=True),
    "texture": TextureFeatures,
    "gradients": lambda: gradients(8),
    "statistics, histogram, texture": lambda: ImageFeatureUnion(
        [(name, FEATURES[name]()) for name in ("statistics", "histogram", "texture")]
    ),
}


def agreement(rows: np.ndarray, labels: np.ndarray) -> float:
    """Cluster rows, and return the adjusted Rand index with the labels: 0 by chance, 1 for the labels themselves."""
    clusters = KMeans(len(np.unique(labels)), n_init=10, random_state=0).fit_predict(
        StandardScaler().fit_transform(rows)
    )
    return float(adjusted_rand_score(labels, clusters))


def clusters_of_textures() -> dict[str, float]:
    """Cluster the patches without their labels: agreement with them, by what describes a patch."""
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


def _tables() -> Iterator[str]:
    yield "| digits: components, classifier | this package, lazy | scikit-learn, in memory |\n|---|---|---|"
    task = digits()
    for k, classifier in ((16, logistic()), (32, logistic()), (32, SVC())):
        name = type(classifier).__name__
        both = accuracy(ours(k, classifier), task), accuracy_in_memory(theirs(k, classifier), task)
        yield f"| {k}, {name} | " + " | ".join(f"{100 * a:.2f} %" for a in both) + " |"
    patches = {"faces": faces(), "textures, 64 × 64": textures(64), "textures, 32 × 32": textures(32)}
    yield f"\n| what stands before the classifier | {' | '.join(patches)} |\n|---|" + "---|" * len(patches)
    models = {f"{k} principal components": ours(k, logistic()) for k in (16, 32)}
    models |= {name: with_features(make(), logistic()) for name, make in FEATURES.items()}
    for name, model in models.items():
        yield f"| {name} | " + " | ".join(f"{100 * accuracy(model, task):.1f} %" for task in patches.values()) + " |"
    yield "\n| three clusters of texture patches, 64 × 64, by | adjusted Rand index |\n|---|---|"
    for name, value in clusters_of_textures().items():
        yield f"| {name} | {value:.2f} |"


if __name__ == "__main__":
    for text in _tables():
        print(text, flush=True)
