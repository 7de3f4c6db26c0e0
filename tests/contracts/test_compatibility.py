"""What scikit-learn and dask-ml do with lazy stacks: each row of the table in docs/compatibility.md is run.

It counts the reads of the stack, which refuses `__array__`. To print the table:
``python -m tests.contracts.test_compatibility``.
"""

import re
import threading
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
from dask_ml.cluster import KMeans as DaskKMeans
from dask_ml.linear_model import LinearRegression as DaskLinearRegression
from dask_ml.linear_model import LogisticRegression as DaskLogisticRegression
from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV
from dask_ml.model_selection import RandomizedSearchCV as DaskRandomizedSearchCV
from dask_ml.model_selection import train_test_split
from dask_ml.naive_bayes import GaussianNB
from dask_ml.preprocessing import StandardScaler as DaskStandardScaler
from dask_ml.wrappers import Incremental, ParallelPostFit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from imgstack_ml import ImageHistogram, ImagePCA, ImageStack
from imgstack_ml.datasets import load_faces
from tests.lib.stacks import counted

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
SCIPY = "before 1.18" if tuple(map(int, version("scipy").split(".")[:2])) < (1, 18) else "1.18 or newer"
PACKAGES = ("scikit-learn", "dask-ml", "dask", "numpy", "pandas", "polars")
N_IMAGES = 200
ORDER = np.random.default_rng(0).permutation(N_IMAGES)  # folds that are not shuffled then hold both classes
FACES, LABELS = (array[ORDER] for array in load_faces())
Y = (LABELS == "face").astype(int)
LAZY_Y = da.from_array(Y, chunks=20)


class Witness(TransformerMixin, BaseEstimator):
    """A first step of a Pipeline that returns its input, and records whether that was in memory."""

    in_memory = False

    def fit(self, X, y=None):
        Witness.in_memory |= isinstance(X, np.ndarray)
        return self

    def transform(self, X):
        return self.fit(X) and X

    def __sklearn_is_fitted__(self):
        return True


class CountingReader:
    """Reader of an ImageStack that counts its reads."""

    shape, dtype, images_per_chunk = FACES.shape[1:], FACES.dtype, 1

    def __init__(self):
        self.reads, self._lock = Counter(), threading.Lock()

    def __dask_tokenize__(self):
        return id(self)

    def read(self, keys):
        with self._lock:
            self.reads.update(keys.tolist())
        return FACES[keys]


def dask_stack():
    source = counted(FACES, 20)
    return source.data, source.reads


def image_stack():
    reader = CountingReader()
    return ImageStack(reader, tuple(f"{i}.png" for i in range(N_IMAGES)), np.arange(N_IMAGES), chunks=20), reader.reads


def pca(*last):
    return make_pipeline(Witness(), ImagePCA(8, whiten=True), *(last or [LogisticRegression()]))


def histogram(*last):
    return make_pipeline(Witness(), ImageHistogram(8, density=True), *last)


def assert_right(predicted, least=0.8):
    assert (np.asarray(predicted) == Y).mean() > least


def fit_and_predict(model, y=Y, least=0.8, lazily=False, **params):
    def run(stack):
        predicted = model.fit(stack, y, **params).predict(stack)
        assert isinstance(predicted, da.Array) == lazily
        assert_right(predicted, least)

    return run


def scores(folds):
    def run(stack):
        assert cross_val_score(pca(), stack, Y, cv=folds).mean() > 0.8

    return run


def search(cls, **params):
    def run(stack):
        found = cls(pca(), {"imagepca__n_components": [2, 8]}, cv=3, **params).fit(stack, Y)
        assert found.best_params_["imagepca__n_components"] in (2, 8)
        assert found.best_score_ > 0.8

    return run


def frames(container):
    def run(stack):
        rows = ImageHistogram(8, density=True).set_output(transform=container).fit_transform(stack)
        assert type(rows).__module__.partition(".")[0] == container
        assert rows.shape == (N_IMAGES, 8)

    return run


def clusters(model, stored=False):
    def run(stack):
        rows = ImageHistogram(8, density=True).fit_transform(stack)
        rows = rows.persist() if stored else rows
        labels = np.asarray(model.fit(rows).labels_)
        assert len(np.unique(labels)) == 3

    return run


def regression(stack):
    model = pca(DaskLinearRegression(max_iter=10)).fit(stack, LAZY_Y.astype(float))
    assert_right(np.asarray(model.predict(stack)) > 0.5)


def split(stack):
    train, test = train_test_split(stack, random_state=0, shuffle=True)
    assert (len(train), len(test)) == (180, 20)


class Row(NamedTuple):
    library: str
    what: str
    run: object
    make_stack: object = dask_stack


SHUFFLED = StratifiedKFold(3, shuffle=True, random_state=0)
SKLEARN, DASK_ML = "scikit-learn", "dask-ml"
ROWS = [
    Row(SKLEARN, "`ImagePCA(whiten=True)` → `LogisticRegression`: `fit`, `predict`", fit_and_predict(pca())),
    Row(
        SKLEARN,
        "`ImageHistogram` → `StandardScaler` → `LogisticRegression`: `fit`, `predict`",
        fit_and_predict(histogram(StandardScaler(), LogisticRegression())),
    ),
    Row(
        SKLEARN,
        'the same, with `ImageHistogram().set_output(transform="pandas")`',
        fit_and_predict(
            make_pipeline(
                Witness(),
                ImageHistogram(8, density=True).set_output(transform="pandas"),
                StandardScaler(),
                LogisticRegression(),
            )
        ),
    ),
    Row(SKLEARN, '`set_output(transform="pandas")`: `fit_transform` of `ImageHistogram`', frames("pandas")),
    Row(SKLEARN, '`set_output(transform="polars")`: `fit_transform` of `ImageHistogram`', frames("polars")),
    Row(SKLEARN, "`cross_val_score`, 3 shuffled folds of an `ImageStack`", scores(SHUFFLED), image_stack),
    Row(SKLEARN, "`cross_val_score`, 3 shuffled folds of a Dask array", scores(SHUFFLED)),
    Row(SKLEARN, "`cross_val_score`, 3 folds of neighbours of a Dask array", scores(KFold(3))),
    Row(SKLEARN, "`GridSearchCV`, 2 values, 3 folds, of an `ImageStack`", search(GridSearchCV), image_stack),
    Row(SKLEARN, "`GridSearchCV`, 2 values, 3 folds, of a Dask array", search(GridSearchCV)),
    Row(
        SKLEARN,
        "`HalvingGridSearchCV`, 2 values, 3 folds, of an `ImageStack`",
        search(HalvingGridSearchCV, min_resources=60, random_state=0),
        image_stack,
    ),
    Row(
        SKLEARN,
        "`HalvingGridSearchCV`, 2 values, 3 folds, of a Dask array",
        search(HalvingGridSearchCV, min_resources=60, random_state=0),
    ),
    Row(SKLEARN, "`cluster.KMeans` of lazy histograms", clusters(KMeans(3, random_state=0))),
    Row(
        DASK_ML,
        "`wrappers.ParallelPostFit(LogisticRegression())` after `ImagePCA`: `fit`, lazy `predict`",
        fit_and_predict(pca(ParallelPostFit(LogisticRegression())), lazily=True),
    ),
    Row(
        DASK_ML,
        "`wrappers.Incremental(SGDClassifier())` after `ImagePCA`: `fit`, lazy `predict`",
        fit_and_predict(
            pca(Incremental(SGDClassifier(random_state=0), assume_equal_chunks=True)),
            LAZY_Y,
            lazily=True,
            incremental__classes=[0, 1],
        ),
    ),
    Row(DASK_ML, "`model_selection.GridSearchCV`", search(DaskGridSearchCV)),
    Row(DASK_ML, "`model_selection.RandomizedSearchCV`", search(DaskRandomizedSearchCV, n_iter=2, random_state=0)),
    Row(DASK_ML, "`model_selection.train_test_split(stack)`, block by block", split),
    Row(DASK_ML, "`cluster.KMeans` of lazy histograms", clusters(DaskKMeans(3, random_state=0))),
    Row(DASK_ML, "`cluster.KMeans` of `histograms.persist()`", clusters(DaskKMeans(3, random_state=0), stored=True)),
    Row(
        DASK_ML,
        '`cluster.KMeans(init="k-means++")`',
        clusters(DaskKMeans(3, init="k-means++", random_state=0), stored=True),
    ),
    Row(
        DASK_ML,
        '`linear_model.LogisticRegression(solver="admm")` after `ImagePCA`',
        fit_and_predict(pca(DaskLogisticRegression(solver="admm", max_iter=30)), LAZY_Y, lazily=True),
    ),
    Row(
        DASK_ML,
        f'`linear_model.LogisticRegression(solver="lbfgs")` after `ImagePCA`, SciPy {SCIPY}',
        fit_and_predict(pca(DaskLogisticRegression(solver="lbfgs", max_iter=30)), LAZY_Y, lazily=True),
    ),
    Row(DASK_ML, "`linear_model.LinearRegression` after `ImagePCA`", regression),
    Row(
        DASK_ML,
        "`preprocessing.StandardScaler` of lazy histograms → `LogisticRegression`",
        fit_and_predict(histogram(DaskStandardScaler(), LogisticRegression())),
    ),
    Row(DASK_ML, "`naive_bayes.GaussianNB` of lazy histograms", fit_and_predict(histogram(GaussianNB()), LAZY_Y)),
]
WARNS = re.compile(r"; warns \([^)]*\)")
MANY = 5  # reads; iterative clustering makes more, and their exact number says nothing


def versions():
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def outcome(row):
    """Run a row; return what happens, and the mean number of reads of an image, as the table has them."""
    stack, reads = row.make_stack()
    Witness.in_memory = False
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            with dask.config.set(scheduler="threads"):
                row.run(stack)
        except TypeError as error:  # an AssertionError is not caught: it fails the test
            return f"**fails**: {' '.join(str(error).split())}", "–"
    words = "works"
    if Witness.in_memory:
        words += "; **loads the whole stack into memory**"
    if raised:
        kinds = sorted({warning.category.__name__ for warning in raised})
        words += f"; warns ({', '.join(kinds)})"
    mean = sum(reads.values()) / N_IMAGES
    return words, f"{mean:.3g}" if mean <= MANY or "KMeans" not in row.what else f"more than {MANY}"


def line(row):
    return f"| {row.library} | {row.what} | {' | '.join(outcome(row))} |"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what.replace("`", "")[:60])
def test_the_table_says_what_happens(row, monkeypatch):
    plain = da.Array.__array__

    def refuse(self, *args, **kwargs):
        assert self.ndim < 3, "a lazy stack was materialised"
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(da.Array, "__array__", refuse)
    page = PAGE.read_text(encoding="utf-8")
    if versions() in page:
        assert line(row) in page.splitlines()
    else:  # other versions of the libraries may warn elsewhere
        assert WARNS.sub("", line(row)) in WARNS.sub("", page).splitlines()


def test_the_table_has_no_other_rows():
    lines = [
        text
        for text in PAGE.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| (scikit-learn|dask-ml) \|", text) and ("SciPy" not in text or f"SciPy {SCIPY}" in text)
    ]
    assert [text.split(" | ")[1] for text in lines] == [row.what for row in ROWS]


def test_the_page_names_versions():
    text = PAGE.read_text(encoding="utf-8")
    for name in PACKAGES:
        assert re.search(rf"{name} \d+\.\d+", text), name


if __name__ == "__main__":
    print(versions())
    print("\n".join(["| library | what | outcome | reads of each image |", "|---|---|---|---|", *map(line, ROWS)]))
