"""ComponentFilter: what ImagePCA draws and leaves, as a step of Pipelines."""

import dask
import dask.array as da
import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from imgstack_ml import ComponentFilter, ImageFlattener, ImagePCA, IntensityRescaler, open_stack, save_stack
from tests.lib.grids import chunked
from tests.lib.images import write_folder
from tests.lib.stacks import counted, photographs


@parametrize_with_checks([ComponentFilter(ImagePCA(1), remove=[0])])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("shape", "dtype", "how"),
    [
        ((4, 5, 3), "uint8", "pixels"),
        ((6, 5), "uint16", "uneven"),
        ((30,), "float64", "empty"),
        ((6, 5), "float32", "numpy"),
    ],
    ids=str,
)
def test_components_are_kept_or_removed(shape, dtype, how):
    X = photographs(40, shape, dtype)
    data = chunked(X, how)
    kept, removed, all_kept = (
        ComponentFilter(ImagePCA(4), **one).fit(data) for one in ({"keep": [0, -1]}, {"remove": (1, 2)}, {})
    )
    pca = ImagePCA(4).fit(X)
    A = X.reshape(40, -1).astype(np.float64) - pca.mean_
    axes = pca.components_.astype(np.float64)
    atol = (1e-12 if dtype == "float64" else 2e-6) * X.max()
    for model, expected in (
        (kept, pca.mean_ + A @ axes[[0, 3]].T @ axes[[0, 3]]),
        (removed, A + pca.mean_ - A @ axes[1:3].T @ axes[1:3]),
        (all_kept, pca.mean_ + A @ axes.T @ axes),
    ):
        found = model.transform(data)
        assert found.dtype == pca.components_.dtype
        assert isinstance(found, da.Array) == (how != "numpy")
        assert_allclose(np.asarray(found), expected.reshape(X.shape), rtol=0, atol=atol)


def test_a_frozen_estimator_reads_nothing():
    X = photographs(30, (6, 5))
    pca, source = ImagePCA(3).fit(X), counted(X, 7)
    model = ComponentFilter(FrozenEstimator(pca), remove=[0]).fit(source.data)
    assert model.estimator_.estimator is pca
    lazy = model.fit_transform(source.data)
    assert not source.reads
    assert_allclose(lazy.compute(), pca.residuals(X, [0]) + pca.mean_image_, atol=1e-4)
    assert set(source.reads.values()) == {1}
    fitted = ComponentFilter(pca, remove=[0]).fit(source.data)
    assert fitted.estimator_ is not pca
    assert_array_equal(fitted.estimator.components_, pca.components_)


def test_in_pipelines(client):
    """On a cluster, too: with rescaled images before, and a PCA of what is left after."""
    X = photographs(40, (6, 5))
    lazy = da.from_array(X, chunks=(9, 6, 5))
    model = make_pipeline(IntensityRescaler(), ComponentFilter(ImagePCA(4), remove=[0]), ImageFlattener(), ImagePCA(2))
    found = model.fit(lazy).transform(lazy)
    rescaled = IntensityRescaler().fit_transform(X)
    rest = ComponentFilter(ImagePCA(4), remove=[0]).fit_transform(rescaled)
    expected = ImagePCA(2).fit_transform(rest)
    assert_allclose(abs(found.compute()), abs(expected), atol=1e-4 * abs(expected).max())
    model.set_params(
        componentfilter__remove=None, componentfilter__keep=[1], componentfilter__estimator__n_components=2
    )
    copy = clone(model).fit(X)
    assert copy[1].estimator_.n_components_ == 2
    assert not hasattr(clone(copy[1]), "estimator_")


def test_names_and_tables(tmp_path):
    write_folder(tmp_path / "in", 5, shape=(8, 6))
    stack = open_stack(tmp_path / "in")
    left = ComponentFilter(ImagePCA(2), remove=[0]).set_output(transform="pandas").fit_transform(stack)
    assert isinstance(left, da.Array)
    assert open_stack(save_stack(left, tmp_path / "left.zarr")).files == stack.files
    rows = photographs(20, (6,), "float64")
    model = ComponentFilter(ImagePCA(2), keep=[0]).set_output(transform="pandas").fit(rows)
    assert model.get_feature_names_out().tolist() == model.transform(rows).columns.tolist()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (ComponentFilter(ImagePCA(2), keep=[0], remove=[1]), ValueError, "both given"),
        (ComponentFilter(ImagePCA(2), keep=[2]), IndexError, "no component 2 of 2"),
        (ComponentFilter(ImagePCA(2), remove=[True, False]), TypeError, "flatnonzero"),
        (ComponentFilter(ImagePCA(2), remove=[1, -1]), ValueError, "component 1 twice"),
        (ComponentFilter(StandardScaler()), TypeError, r"no ImagePCA.*FrozenEstimator\(pca\)"),
        (ComponentFilter(Pipeline([("pca", ImagePCA(2))])), TypeError, "steps before it"),
        (ComponentFilter(FrozenEstimator(ImagePCA(2))), NotFittedError, "not fitted"),
        (ComponentFilter(FrozenEstimator(ImagePCA(2).fit(np.eye(5)))), ValueError, r"shape \(6, 5\).*\(5,\)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_filtered_is_refused(model, error, message):
    before = vars(model).copy()
    with pytest.raises(error, match=message):
        model.fit(photographs(12, (6, 5)))
    assert vars(model) == before
    with pytest.raises(NotFittedError):
        model.transform(photographs(12, (6, 5)))


class Weighted(ImagePCA):
    def fit(self, X, y=None, shade=None):
        self.shade_ = shade
        return super().fit(X)


def test_metadata_reaches_the_estimator():
    X = photographs(12, (6, 5))
    with sklearn.config_context(enable_metadata_routing=True):
        model = ComponentFilter(Weighted(2).set_fit_request(shade=True))
        assert model.fit(X, shade="dark").estimator_.shade_ == "dark"
        pipeline = make_pipeline(IntensityRescaler(), model).fit(X, shade="dim")
        assert pipeline[-1].estimator_.shade_ == "dim"
        with pytest.raises(TypeError, match="shade"):
            ComponentFilter(ImagePCA(2)).fit(X, shade="dark")
    with pytest.raises(ValueError, match="enable_metadata_routing=True"):
        ComponentFilter(Weighted(2)).fit(X, shade="dark")


@pytest.mark.parametrize("name", ["keep", "remove"])
def test_wrong_positions_are_refused_by_their_parameter_before_anything_is_read(name):
    source = counted(photographs(12, (6, 5)), 4)
    for value, error, message in (
        ("0", TypeError, f"{name}='0' is no list"),
        ([True], TypeError, rf"{name} has True.*numpy\.flatnonzero\({name}\)"),
        ([3], IndexError, f"{name}: there is no component 3 of 3"),
        ([1, -2], ValueError, rf"{name}=\[1, -2\] has component 1 twice"),
    ):
        with pytest.raises(error, match=message):
            ComponentFilter(ImagePCA(3), **{name: value}).fit(source.data)
    assert source.n_reads == 0
    with pytest.raises(IndexError, match=f"{name}: there is no component 12 of 12"):
        ComponentFilter(ImagePCA(), **{name: [12]}).fit(source.data)


def test_blocks_are_checked():
    X = photographs(12, (6, 5)).astype(np.float32)
    model = ComponentFilter(ImagePCA(2), remove=[0]).fit(X)
    X[7, 2] = np.nan
    with dask.config.set(scheduler="synchronous"), pytest.raises(ValueError, match="image 7"):
        model.transform(da.from_array(X, chunks=(5, 6, 5))).compute()
