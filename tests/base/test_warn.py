"""`warn` names the line of the user, whatever runs between that line and the warning."""

import runpy
import threading
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from dask_ml.wrappers import Incremental
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline, make_union

import imgstack_ml
from imgstack_ml.base.lazy import map_images
from imgstack_ml.base.warn import warn

# Code that seems to lie in the package: what it calls must not be blamed on it.
SOURCE = """
from imgstack_ml.base.transformer import StackTransformer
from imgstack_ml.base.warn import warn

class Warner(StackTransformer):
    def fit(self, X, y=None):
        warn("fit")
        self.n_features_in_ = X.shape[1]
        return self

    def partial_fit(self, X, y=None):
        return self.fit(X)

    def score(self, X, y=None):
        return 0.0

    def transform(self, X):
        warn("transform")
        return X

    def inverse_transform(self, X):
        warn("back")
        return X

def warned(block):
    warn("block", RuntimeWarning)
    return block
"""
INSIDE = {"__name__": "imgstack_ml.inside"}
exec(compile(SOURCE, str(Path(imgstack_ml.__file__).with_name("inside.py")), "exec"), INSIDE)
Warner, warned = INSIDE["Warner"], INSIDE["warned"]

X, Y = np.random.default_rng(0).random((12, 3)), np.arange(12.0)
LAZY = map_images(warned, da.from_array(X, chunks=(4, -1)), image_shape=(3,), dtype=X.dtype)


def in_a_thread(call):
    thread = threading.Thread(target=lambda: call())
    thread.start()
    thread.join()


# Each on one line, which is where the warning must point.
CALLS = {
    "warn": lambda: warn("directly"),
    "fit": lambda: Warner().fit(X),
    "fit_transform": lambda: Warner().fit_transform(X),
    "inverse_transform": lambda: Warner().inverse_transform(X),
    "set_output": lambda: Warner().set_output(transform="pandas").fit_transform(X),
    "Pipeline.fit": lambda: make_pipeline(Warner(), LinearRegression()).fit(X, Y),
    "Pipeline.fit_transform": lambda: make_pipeline(Warner(), Warner()).fit_transform(X),
    "Pipeline.inverse_transform": lambda: make_pipeline(Warner()).fit(X).inverse_transform(X),
    "FeatureUnion": lambda: make_union(Warner(), Warner()).fit_transform(X),
    "ColumnTransformer": lambda: make_column_transformer((Warner(), [0, 1])).fit_transform(X),
    "GridSearchCV": lambda: GridSearchCV(make_pipeline(Warner(), LinearRegression()), {}, cv=2, n_jobs=1).fit(X, Y),
    "cross_val_score": lambda: cross_val_score(make_pipeline(Warner(), LinearRegression()), X, Y, cv=2),
    "dask-ml": lambda: Incremental(Warner()).fit(da.from_array(X, chunks=(4, -1))),
    "NumPy": lambda: map_images(warned, X, image_shape=(3,), dtype=X.dtype),
    "compute": lambda: LAZY.compute(),
    "dask.compute": lambda: dask.compute(LAZY),
    "compute, one thread": lambda: LAZY.compute(scheduler="sync"),
    "the user's thread": lambda: in_a_thread(lambda: LAZY.compute(scheduler="sync")),
}


@pytest.mark.parametrize("name", CALLS)
def test_points_at_the_line_of_the_call(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[name]()
    assert caught
    assert {(warning.filename, warning.lineno) for warning in caught} == {
        (__file__, CALLS[name].__code__.co_firstlineno)
    }


def test_message_and_category():
    with pytest.warns(FutureWarning, match=r"^soon$"):
        warn("soon", FutureWarning)
    with pytest.warns(UserWarning, match=r"^now$"):
        warn("now")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=r"^block$"):
            warned(X)


def test_one_line_is_warned_once_by_default():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            Warner().fit(X)
        Warner().fit(X)
    assert len(caught) == 2


def test_filters_by_module_see_the_users_module():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
        Warner().fit(X)
    assert not caught


def test_an_import_is_a_line_of_the_user(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "\n\nfrom imgstack_ml import ImageFeatures\n\n\nimgstack_ml = __import__('imgstack_ml').ImageFeatures\n"
    )
    with pytest.warns(FutureWarning, match="ImageFeatureUnion") as caught:
        runpy.run_path(str(script))
    assert {(warning.filename, warning.lineno) for warning in caught} == {(str(script), 3), (str(script), 6)}
