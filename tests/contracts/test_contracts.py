"""What holds for every estimator, whatever the chunks, scheduler and order, and whatever stops, saves and loads."""

import os
import re
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline, make_pipeline

import imgstack_ml
from imgstack_ml import (
    ChannelStatistics,
    ComponentFilter,
    ImageFeatureUnion,
    ImageFlattener,
    ImageHistogram,
    ImagePCA,
    IntensityRescaler,
    StackCenterer,
    TextureFeatures,
    load_model,
    save_model,
)
from imgstack_ml.passes.checkpoint import holds_checkpoint, remove_checkpoint
from imgstack_ml.persistence import SAVABLE
from tests.lib import fit_stack
from tests.lib.fit_stack import Reads, StopError, assert_same_fit, fit
from tests.lib.stacks import photographs

DTYPES = ["uint8", "uint16", "float32", "float64"]
LEARNERS = [
    StackCenterer(with_std=True),
    IntensityRescaler(in_range="stack", out_range=(0.0, 1.0)),
    ImageHistogram(4, range="stack"),
    TextureFeatures(range="stack", levels=4),
    ImageFeatureUnion([("mean", ChannelStatistics()), ("histogram", ImageHistogram(4, range="stack"))]),
    *(ImagePCA(2, svd_solver=solver, random_state=0) for solver in ("gram", "covariance_eigh", "tsqr", "randomized")),
    make_pipeline(IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(2)),
    ComponentFilter(ImagePCA(2, svd_solver="covariance_eigh"), remove=[0]),
]


def outcome(model, X):
    """What a model makes of images; images again where there is a way back, so that no sign or rotation matters."""
    scores = model.transform(X)
    pca = model[-1] if isinstance(model, Pipeline) else model
    return pca.inverse_transform(scores) if isinstance(pca, ImagePCA) else scores


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: re.sub(r"\s+", " ", repr(learner))[:60])
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(8, 30),
    st.sampled_from([(6, 5), (4, 5, 3), (1, 30)]),
    st.sampled_from(DTYPES),
    st.sampled_from(["sync", "threads"]),
    st.data(),
)
def test_neither_chunks_nor_scheduler_nor_order_change_what_is_learned(learner, n, shape, dtype, scheduler, data):
    X = photographs(n, shape, dtype, seed=n)
    order = np.array(data.draw(st.permutations(range(n))))
    cuts = [data.draw(st.sets(st.integers(1, m), max_size=3)) if m > 1 else set() for m in X.shape]
    chunks = [tuple(np.diff(sorted({0, m, *some}))) for m, some in zip(X.shape, cuts, strict=True)]
    whole = clone(learner).fit(X)
    with dask.config.set(scheduler=scheduler):
        lazy = clone(learner).fit(da.from_array(X[order], chunks=chunks))
        found = np.asarray(outcome(lazy, da.from_array(X, chunks=chunks)))
    expected = np.asarray(outcome(whole, X))
    assert found.dtype == expected.dtype
    single = expected.dtype == np.float32 or dtype in ("uint8", "uint16", "float32")
    atol = (2e-5 if single else 1e-10) * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def public_estimators():
    for name in imgstack_ml.__all__:
        value = getattr(imgstack_ml, name)
        if isinstance(value, type) and issubclass(value, BaseEstimator):
            yield value


def test_every_public_estimator_is_checked_and_saved():
    sources = {path.name: path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("test_*.py")}
    checked = [text for text in sources.values() if "def test_scikit_learns_checks" in text]
    for estimator in public_estimators():
        assert any(f"{estimator.__name__}(" in text for text in checked), estimator
        # A function of the user's own is code, which no model file holds.
        assert (estimator.__name__ in SAVABLE) == (estimator is not imgstack_ml.ImageMap), estimator


class LifeOfAFit(RuleBasedStateMachine):
    """A fit that stops and goes on, is saved and loaded, in any order; it is always that of an untroubled life."""

    whole: dict = {}  # noqa: RUF012 (shared by all lives: what an untroubled fit gives)

    solvers = ("randomized",)

    @initialize(data=st.data())
    def begin(self, data):
        solver = data.draw(st.sampled_from(self.solvers))
        self.solver, self.model, self.saved = solver, None, False
        self.folder = Path(tempfile.mkdtemp())
        if solver not in self.whole:
            self.whole[solver] = fit(solver, Reads())
        self.expected = self.whole[solver]

    @rule(stop_after=st.integers(1, 60) | st.none())
    def go_on(self, stop_after):
        with suppress(StopError):
            self.model = fit(self.solver, Reads(stop_after), self.folder / "unfinished")

    @rule()
    def begin_with_other_parameters(self):
        there = holds_checkpoint(self.folder / "unfinished")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(StopError):
                fit(self.solver, Reads(9), self.folder / "unfinished", tol=1e-3)
        assert there == any("tol was 0.0 and is 0.001" in str(one.message) for one in seen)
        remove_checkpoint(self.folder / "unfinished")

    @precondition(lambda self: self.model is not None)
    @rule()
    def save(self):
        save_model(self.model, self.folder / "model.safetensors", overwrite=self.saved)
        self.saved = True

    @precondition(lambda self: self.saved)
    @rule(mmap_mode=st.sampled_from([None, "r"]))
    def load(self, mmap_mode):
        self.model = load_model(self.folder / "model.safetensors", mmap_mode=mmap_mode)

    @precondition(lambda self: self.model is not None)
    @rule()
    def use(self):
        images = fit_stack.pixels(fit_stack.CASES[self.solver], 0)
        np.testing.assert_array_equal(self.model.transform(images), self.expected.transform(images))

    @invariant()
    def the_model_is_that_of_an_untroubled_fit(self):
        if getattr(self, "model", None) is not None:
            assert_same_fit(self.model, self.expected)

    @invariant()
    def nothing_strays(self):
        if hasattr(self, "folder"):
            assert set(os.listdir(self.folder)) <= {"unfinished"} | ({"model.safetensors"} if self.saved else set())

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


class LifeOfAnyFit(LifeOfAFit):
    solvers = tuple(fit_stack.CASES)


@pytest.mark.parametrize(("life", "n_lives"), [(LifeOfAFit, 4), pytest.param(LifeOfAnyFit, 40, marks=pytest.mark.slow)])
def test_a_fit_may_stop_be_saved_loaded_and_go_on_in_any_order(life, n_lives, monkeypatch):
    fit_stack.save_every_wave(monkeypatch.setattr)
    rules = settings(max_examples=n_lives, stateful_step_count=6, deadline=None, derandomize=True)
    with dask.config.set(scheduler="synchronous", num_workers=2):
        run_state_machine_as_test(life, settings=rules)
