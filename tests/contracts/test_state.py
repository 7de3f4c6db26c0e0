"""A fit that fails, whenever and however, leaves the estimator as it was; fits in several threads do not meet."""

import pickle
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    ChannelStatistics,
    ComponentFilter,
    HOGFeatures,
    ImageFeatureUnion,
    ImageFlattener,
    ImageHistogram,
    ImageMap,
    ImagePCA,
    IntensityRescaler,
    MemoryLimitError,
    NonFiniteError,
    RankWarning,
    StackCenterer,
    TextureFeatures,
    fit_together,
)
from tests.contracts.test_contracts import public_estimators
from tests.lib import fit_stack
from tests.lib.stacks import photographs

X = photographs(12, (6, 8), "uint8").astype(np.float32)
OTHER = photographs(12, (8, 9), "uint8").astype(np.float32)
FRAME = pd.DataFrame(X.reshape(12, -1)).rename(columns="p{}".format)
OTHER_FRAME = pd.DataFrame(np.zeros((12, 7), "M8[s]")).rename(columns="q{}".format)
READ_IN_FIT = [
    StackCenterer(with_std=True),
    IntensityRescaler(in_range="stack"),
    ImageHistogram(4, range="stack"),
    TextureFeatures(range="stack"),
    *(ImagePCA(2, svd_solver=solver) for solver in ("gram", "covariance_eigh", "tsqr", "randomized")),
    ImageFeatureUnion([("flat", ImageFlattener()), ("mean", StackCenterer()), ("pca", ImagePCA(2))]).set_params(
        mean="drop"
    ),
    ComponentFilter(ImagePCA(2), remove=[0]),
]
READ_LATER = [
    ImageFlattener(),
    ImageMap(np.max),
    ChannelStatistics(),
    HOGFeatures(pixels_per_cell=(1, 4), cells_per_block=(1, 1)),
]


@pytest.fixture
def rank_errors():
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("error", RankWarning)
        yield


def state(*estimators):
    """Bytes of all that estimators and their members hold, by name."""
    members = [m for one in estimators for m in (one, *one.get_params().values()) if isinstance(m, BaseEstimator)]
    return {(i, name): pickle.dumps(value) for i, one in enumerate(members) for name, value in vars(one).items()}


def assert_unchanged(error, call, *estimators):
    before = state(*estimators)
    with pytest.raises(error):
        call()
    assert state(*estimators) == before


def failing_at(number, error, data=OTHER):
    """A stack of four blocks, of another shape than `X`, of which read `number` raises `error`."""
    reads = iter(range(1, 1000))

    def read(block):
        if next(reads) == number:
            raise error
        return block

    return da.from_array(data, chunks=(3, -1, -1)).map_blocks(read, meta=data[:0])


def of(estimator):
    return f"{type(estimator).__name__} {getattr(estimator, 'svd_solver', '')}"


def test_all_public_estimators_are_here():
    assert {type(one) for one in READ_IN_FIT + READ_LATER} == set(public_estimators())


@pytest.mark.parametrize("estimator", READ_IN_FIT + READ_LATER, ids=of)
def test_a_refit_that_fails_in_a_check_leaves_the_estimator_as_it_was(estimator):
    fitted = clone(estimator).fit(FRAME)
    assert_unchanged(ValueError, partial(fitted.fit, OTHER_FRAME), fitted)
    assert_unchanged(ValueError, partial(fitted.fit_transform, OTHER_FRAME), fitted)
    assert_unchanged(ValueError, partial(fitted.fit, da.from_array(OTHER)[:, :0]), fitted)
    assert_unchanged(TypeError, partial(fitted.fit, np.ma.masked_array(OTHER)), fitted)
    fresh = clone(estimator)
    assert_unchanged(ValueError, partial(fresh.fit, OTHER_FRAME), fresh)


@pytest.mark.parametrize("estimator", READ_IN_FIT, ids=of)
def test_a_refit_that_fails_in_a_read_leaves_the_estimator_as_it_was(estimator):
    bad = OTHER.copy()
    bad[7] = np.nan
    fitted = clone(estimator).fit(FRAME)
    with dask.config.set(scheduler="synchronous"):
        for fit in (fitted.fit, fitted.fit_transform):
            assert_unchanged(KeyboardInterrupt, lambda fit=fit: fit(failing_at(3, KeyboardInterrupt)), fitted)
            assert_unchanged(NonFiniteError, lambda fit=fit: fit(failing_at(0, OSError, bad)), fitted)
        assert_unchanged(OSError, lambda: fit_together([StackCenterer(), fitted], failing_at(3, OSError)), fitted)


@pytest.mark.usefixtures("rank_errors")
def test_a_refit_that_fails_later_leaves_the_estimator_as_it_was():
    pca, constant = ImagePCA(2).fit(X).partial_fit(X[:5]), np.ones((4, 6, 8))
    assert_unchanged(RankWarning, lambda: pca.fit(constant), pca)
    assert_unchanged(RankWarning, lambda: clone(pca).partial_fit(constant), pca)
    assert_unchanged(NonFiniteError, lambda: pca.partial_fit(X * np.nan), pca)
    assert_unchanged(KeyboardInterrupt, lambda: pca.partial_fit(failing_at(2, KeyboardInterrupt, X)), pca)
    assert_unchanged(ValueError, lambda: pca.partial_fit(OTHER), pca)
    pca.set_params(memory_limit=1000)
    assert_unchanged(MemoryLimitError, lambda: pca.fit(OTHER), pca)
    pca.set_params(**fit_stack.estimator("randomized").get_params())  # the second of three reads fails
    stack = fit_stack.stack("randomized", fit_stack.Reads(30).make)
    assert_unchanged(fit_stack.StopError, lambda: pca.fit(stack), pca)
    # The scores of a table are computed after the fit.
    pca = ImagePCA(2, svd_solver="covariance_eigh").fit(X).set_output(transform="pandas")
    assert_unchanged(OSError, lambda: pca.fit_transform(failing_at(6, OSError)), pca)
    hog = HOGFeatures(pixels_per_cell=(3, 4), cells_per_block=(1, 1), transform_sqrt=True).fit(X)
    assert_unchanged(NonFiniteError, lambda: hog.fit_transform(-OTHER), hog)


@pytest.mark.usefixtures("rank_errors")
def test_members_that_are_fitted_when_another_fails_are_as_they_were():
    pipeline = make_pipeline(StackCenterer(), ImagePCA(2))
    union = ImageFeatureUnion([("mean", ChannelStatistics()), ("pca", pipeline)]).fit(X)
    assert_unchanged(OSError, lambda: union.fit(failing_at(7, OSError)), union)
    assert_unchanged(OSError, lambda: union.fit_transform(failing_at(7, OSError)), union)
    several = [StackCenterer().fit(X), clone(pipeline).fit(X), ImagePCA(2).fit(X)]
    assert_unchanged(OSError, lambda: fit_together(several, failing_at(10, OSError)), *several)
    assert_unchanged(MemoryLimitError, lambda: fit_together(several, OTHER, memory_limit=1000), *several)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)], ids=["None", "RandomState"])
def test_only_the_streaming_solver_draws_random_numbers(random_state):
    def drawn(call):
        generators = np.random.mtrand._rand, random_state or np.random.RandomState(1)
        before = [pickle.dumps(one.get_state()) for one in generators]
        call()
        return [pickle.dumps(one.get_state()) for one in generators] != before

    stack = da.from_array(X, chunks=(5, 6, 8))
    for solver in ("auto", "gram", "covariance_eigh", "tsqr"):
        pca = ImagePCA(2, svd_solver=solver, random_state=random_state)
        assert not drawn(lambda pca=pca: pca.fit(stack).partial_fit(X).transform(stack))
    assert drawn(lambda: ImagePCA(2, svd_solver="randomized", random_state=random_state).fit(X))


@pytest.mark.parametrize("estimator", READ_IN_FIT + READ_LATER, ids=of)
def test_two_fits_and_two_transforms_at_once(estimator):
    if isinstance(estimator, ImagePCA):
        estimator = clone(estimator).set_params(random_state=0)
    stacks = [da.from_array(data.reshape(12, 1, -1), chunks=(3, 1, -1)) for data in (X, OTHER)]
    alone = [clone(estimator).fit(stack) for stack in stacks]
    expected = [one.transform(stack).compute() for one, stack in zip(alone, stacks, strict=True)]

    def fit(i):
        return clone(estimator).fit(stacks[i]).transform(stacks[i]).compute()

    def transform(i):
        return alone[i].transform(stacks[i]).compute()

    with ThreadPoolExecutor(4) as pool:
        found = [(i, pool.submit(call, i)) for call in (fit, transform) for i in (0, 1, 0)]
    for i, result in found:
        scale = np.abs(expected[i]).max()
        np.testing.assert_allclose(result.result(), expected[i], rtol=1e-6, atol=1e-6 * scale)


def test_bars_of_two_fits_at_once_reach_their_ends(capsys):
    stack = da.from_array(X, chunks=(1, 6, 8)).map_blocks(lambda block: time.sleep(0.002) or block, meta=X[:0])
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: ImagePCA(2, svd_solver="gram", progress=True).fit(stack), range(3)))
    assert capsys.readouterr().err.count("12/12") >= 3
