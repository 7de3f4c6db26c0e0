"""What the transformers that return a value for every pixel have in common."""

import pickle

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from imgstack_ml import ImageFlattener, StackCenterer, open_stack
from tests.lib.grids import chunked
from tests.lib.images import write_image
from tests.lib.stacks import images

ESTIMATORS = [ImageFlattener(), StackCenterer(), StackCenterer(with_std=True)]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_the_input_is_never_changed_and_may_be_read_only(estimator, dtype):
    X = images((20, 6, 5), dtype)
    X.setflags(write=False)
    for data in (X, chunked(X, "pixels")):
        out = clone(estimator).fit(data).transform(data)
        clone(estimator).fit(data).inverse_transform(out)
        np.asarray(out)
    assert_array_equal(X, images((20, 6, 5), dtype))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_wrong_input_is_refused(estimator):
    X = images((20, 6, 5))
    with pytest.raises(NotFittedError):
        clone(estimator).transform(X)
    with pytest.raises(NotFittedError):
        clone(estimator).inverse_transform(X)
    fitted = clone(estimator).fit(X)
    for bad in (images((4, 5, 6)), images((4, 30)), da.from_array(images((4, 6, 5, 3)))):
        with pytest.raises(ValueError, match=r"fitted on images of shape \(6, 5\)"):
            fitted.transform(bad)
    with pytest.raises(ValueError, match=r"shape \(6, 5\) of one image.*X\[None\]"):
        fitted.transform(X[0])
    unknown = chunked(X, "uneven")[da.from_array(np.arange(20) > 4, chunks=5)]
    for method in (fitted.transform, clone(estimator).fit):
        with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
            method(unknown)
    for bad in (np.zeros(5), np.zeros((2, 2, 2, 2, 2)), np.zeros((0, 4, 4)), da.zeros((3, 0, 2))):
        with pytest.raises(ValueError):
            clone(estimator).fit(bad)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_image_stacks_go_in_like_arrays(estimator, tmp_path):
    X = images((9, 6, 5, 3))
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.png", image)
    stack = open_stack(tmp_path)
    fitted = clone(estimator).fit(stack)
    out = fitted.transform(stack)
    assert isinstance(out, da.Array)
    assert_allclose(out, clone(estimator).fit(X).transform(X))
    assert_allclose(pickle.loads(pickle.dumps(fitted)).transform(X), out)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_set_output_frames_rows_and_passes_stacks(estimator):
    framed = clone(estimator).set_output(transform="pandas")
    X = images((20, 6, 5), "float64")
    assert isinstance(framed.fit_transform(X), np.ndarray)
    assert isinstance(framed.fit_transform(chunked(X, "pixels")), da.Array)
    table = pd.DataFrame(X.reshape(20, -1), columns=[f"v{j}" for j in range(30)])
    out = framed.fit_transform(table)
    assert isinstance(out, pd.DataFrame)
    assert list(out.columns) == list(table.columns) == list(framed.get_feature_names_out())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_html_and_feature_names(estimator):
    fitted = clone(estimator).fit(images((20, 6, 5)))
    assert type(estimator).__name__ in fitted._repr_html_()
    assert list(fitted.get_feature_names_out())[:2] == ["x0", "x1"]
    assert len(fitted.get_feature_names_out()) == 30
