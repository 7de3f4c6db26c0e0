"""Parameters that ImagePCA refuses, by name and before anything is read."""

import re

import dask.array as da
import numpy as np
import pytest

from imgstack_ml import ImagePCA, StackCenterer
from imgstack_ml.base.validation import Images
from imgstack_ml.cli.pca import pca
from imgstack_ml.decomposition.checks import SOLVER_NAMES, check_parameters, fit_size, uncentred
from imgstack_ml.decomposition.plan import COSTS
from imgstack_ml.decomposition.solvers import SOLVERS
from tests.lib.stacks import assert_fitted, counted, photographs


@pytest.mark.parametrize("k", [21, 10**6, 0, -1, 1.5, 1.0, 0.0, -0.5, np.nan, "mle", True, False, [3]])
@pytest.mark.parametrize("lazy", [False, True])
def test_bad_n_components_are_refused_by_name_before_reading(k, lazy):
    source = counted(photographs(20, (6, 5)), 10)
    with pytest.raises(ValueError, match="n_components="):
        ImagePCA(k).fit(source.data if lazy else photographs(20, (6, 5)))
    assert not source.reads


@pytest.mark.parametrize("k", [np.int64(3), np.uint8(3), np.float64(0.5), np.float32(0.5)])
def test_numpys_numbers_are_numbers(k):
    assert ImagePCA(k).fit(photographs(20, (6, 5))).n_components_ >= 1


@pytest.mark.parametrize("solver", ["full", None])
def test_unknown_solvers(solver):
    with pytest.raises(ValueError, match=r"svd_solver=.*gram"):
        ImagePCA(2, svd_solver=solver).fit(photographs(20, (6, 5)))


@pytest.mark.parametrize("limit", ["lots", 0, -1, True, None])
def test_a_memory_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match=re.escape(f"memory_limit={limit!r}") + ".*'1GB'"):
        ImagePCA(2, memory_limit=limit).fit(photographs(20, (6, 5)))


@pytest.mark.parametrize("limit", [0, -5, "0MB"])
def test_no_memory_is_no_limit(limit):
    with pytest.raises(ValueError, match="memory"):
        ImagePCA(2, memory_limit=limit).fit(photographs(10, (4, 4)))


@pytest.mark.parametrize("limit", ["auto", "1GB", 10**9, 1e9, np.int64(10**9)])
def test_ways_to_write_a_limit(limit):
    X = photographs(10, (4, 4))
    assert_fitted(ImagePCA(2, memory_limit=limit).fit(X), X)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_passes", value) for value in (0, 2.5, True)),
        ("n_oversamples", -1),
        *(("tol", value) for value in (-1.0, "small", np.nan)),
        *(("checkpoint", value) for value in (3, True, b"bytes")),
    ],
)
def test_bad_parameters_are_named(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value!r} must be"):
        ImagePCA(2, **{name: value}).fit(photographs(20, (6, 5)))


@pytest.mark.parametrize(("name", "value"), [("max_passes", 1), ("n_oversamples", 0), ("tol", 0)])
def test_the_least_values_are_taken(name, value):
    check_parameters(ImagePCA(**{name: value}).get_params())


def test_the_size_of_a_fit():
    X, params = photographs(20, (6, 5)), ImagePCA(3, n_oversamples=4, max_passes=2).get_params()
    lazy = fit_size(Images(da.from_array(X, chunks=((3, 9, 8), 6, 5)), None), params)
    assert (lazy.n, lazy.p, lazy.k, lazy.block, lazy.in_memory) == (20, 30, 3, 9, False)
    assert (lazy.n_oversamples, lazy.max_passes) == (4, 2)
    assert fit_size(Images(X, None), params).in_memory
    copied = fit_size(Images(X[:, ::-1].transpose(0, 2, 1), None), params)  # block by block
    assert (copied.block, copied.in_memory) == (20, False)


def test_images_before_a_constant_image_was_subtracted():
    X = photographs(20, (6, 5))
    lazy = da.from_array(X, chunks=(5, 6, 5))
    images, shift = uncentred(Images(StackCenterer().fit(X).transform(lazy), ["a"] * 20))
    assert images.data.name == lazy.name
    assert images.files == ["a"] * 20
    np.testing.assert_allclose(np.ravel(shift), X.mean(axis=0).ravel())
    for plain in (Images(X, None), Images(lazy, None)):
        found, shift = uncentred(plain)
        assert found.data is plain.data
        assert not np.any(shift)


def test_every_solver_has_a_cost_and_is_an_option_of_the_command_line():
    option = next(option for option in pca.params if option.name == "solver")
    assert set(SOLVERS) == set(COSTS)
    assert set(option.type.choices) == set(SOLVER_NAMES) == {"auto", *SOLVERS}
