"""The steps together: Pipelines over lazy stacks, nothing materialised, under threads and on a cluster."""

import pickle

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from distributed import get_worker
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageFlattener, ImagePCA, IntensityRescaler, StackCenterer, open_stack, save_stack
from imgstack_ml.errors import NonFiniteError
from tests.lib.fits import EXACT, solved
from tests.lib.images import write_image
from tests.lib.stacks import assert_fitted, assert_scores, counted, photographs, reference


def four_steps(k=5, **options):
    return make_pipeline(IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(k, **options))


def lazy(X, *chunks):
    return da.from_array(X, chunks=chunks or (7, 5, 9, 2)[: X.ndim])


@pytest.mark.parametrize(
    ("shape", "solver"), [((40, 6, 5, 3), "gram"), ((60, 5, 4), "covariance_eigh"), ((40, 6, 5, 3), "tsqr")]
)
def test_the_pipeline_materialises_nothing(no_arrays, shape, solver):
    stack = lazy(photographs(shape[0], shape[1:]))
    for steps in (
        four_steps(svd_solver=solver),
        make_pipeline(StackCenterer(with_std=True), ImagePCA(5, svd_solver=solver, whiten=True)),
    ):
        scores = steps.fit(stack).transform(stack)
        assert isinstance(scores, da.Array)
        assert scores.chunks == (stack.chunks[0], (5,))
        back = steps[-1].inverse_transform(scores)
        assert isinstance(back, da.Array)
        expected = scores.compute()
        assert expected.shape == (len(stack), 5)
        at_once = clone(steps).fit_transform(stack)
        assert isinstance(at_once, da.Array)
        assert_allclose(at_once.compute(), expected, atol=1e-3 * abs(expected).max())


@pytest.mark.parametrize("shape", [(40, 9, 8), (90, 5, 4), (40, 6, 5, 3)])
def test_the_pipeline_is_the_sum_of_its_steps(shape):
    X = photographs(shape[0], shape[1:], "uint16")
    for data in (X, lazy(X)):
        steps = make_pipeline(StackCenterer(), ImageFlattener(), ImagePCA(5)).fit(data)
        rows = X.reshape(len(X), -1)
        assert_fitted_like(steps[-1], rows)
        assert_allclose(steps[0].mean_.ravel(), rows.mean(axis=0))
        assert_allclose(steps[-1].mean_, 0, atol=1e-2)
        back = steps[1].inverse_transform(steps[-1].components_)
        assert back.shape == (5, *shape[1:])
        whole = steps.inverse_transform(steps.transform(data))
        assert whole.shape == shape
        direct = ImagePCA(5).fit(X)
        assert_allclose(whole, direct.inverse_transform(direct.transform(X)), atol=1e-3 * np.ptp(X))


def assert_fitted_like(pca, rows):
    assert_allclose(pca.explained_variance_, reference(rows).explained_variance(5), rtol=1e-5)
    assert_allclose(np.abs(np.sum(pca.components_ * reference(rows).components[:5], axis=1)), 1, atol=1e-6)


def test_a_fit_reads_the_stack_once_for_every_step_that_learns():
    source = counted(photographs(40, (9, 8)), 10)
    make_pipeline(StackCenterer(), ImageFlattener(), ImagePCA(3)).fit(source.data)
    assert set(source.reads.values()) == {2}
    source.reads.clear()
    make_pipeline(ImageFlattener(), ImagePCA(3)).fit_transform(source.data).compute()
    assert set(source.reads.values()) == {1}


def test_parameters_reach_their_steps():
    X = lazy(photographs(30, (6, 5)))
    steps = four_steps(3).set_params(imagepca__n_components=2, stackcenterer__with_std=True)
    assert steps.fit(X)[-1].n_components_ == 2
    assert clone(steps).get_params()["imagepca__n_components"] == 2
    assert steps["stackcenterer"].scale_.shape == (6, 5)
    html = steps._repr_html_()
    for name in ("IntensityRescaler", "StackCenterer", "ImageFlattener", "ImagePCA"):
        assert name in html
    assert list(steps.get_feature_names_out()) == ["imagepca0", "imagepca1"]


def test_pickled_pipelines_work_without_the_files(tmp_path):
    X = photographs(9, (6, 5, 3))
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.png", image)
    stack = open_stack(tmp_path)
    steps = four_steps(3).fit(stack)
    expected = steps.transform(stack).compute()
    for file in tmp_path.iterdir():
        file.unlink()
    again = pickle.loads(pickle.dumps(steps))
    assert_allclose(again.transform(X), expected, rtol=1e-5, atol=1e-4)


def test_a_lazy_pipeline_is_one_task_a_block_the_read_included(tmp_path):
    for i, image in enumerate(photographs(30, (6, 5, 3))):
        write_image(tmp_path / f"{i}.png", image)
    stack = open_stack(tmp_path, chunks=3)
    (optimized,) = dask.optimize(four_steps(3).fit(stack).transform(stack))
    constants = 4  # the mean of the centring, and what scores are made with
    assert len(optimized.dask) == 10 + constants


@pytest.mark.parametrize("lazily", [False, True])
def test_set_output_makes_a_frame_of_the_scores_only(lazily, monkeypatch):
    X = photographs(40, (9, 8))
    stack = lazy(X) if lazily else X
    expected = np.asarray(four_steps(3).fit_transform(stack))
    drawn = []
    plain = da.Array.__array__
    monkeypatch.setattr(
        da.Array, "__array__", lambda self, *args, **kw: (drawn.append(self.shape), plain(self, *args, **kw))[1]
    )
    steps = four_steps(3).set_output(transform="pandas")
    for frame in (steps.fit_transform(stack), steps.transform(stack)):
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == ["imagepca0", "imagepca1", "imagepca2"]
        assert_allclose(frame, expected, rtol=1e-4, atol=1e-3 * abs(expected).max())
    assert set(drawn) <= {(40, 3)}


def test_classifiers_and_searches_take_stacks():
    y = np.arange(60) % 2
    X = photographs(60, (6, 5))
    X[y == 1, :3] //= 2
    model = make_pipeline(StackCenterer(), ImageFlattener(), ImagePCA(3), LogisticRegression())
    assert cross_val_score(model, X, y, cv=3).mean() > 0.8
    search = GridSearchCV(model, {"imagepca__n_components": [1, 4]}, cv=2).fit(X, y)
    assert search.best_params_["imagepca__n_components"] in (1, 4)


def test_a_shuffled_fold_of_files_is_read_once(tmp_path):
    X = photographs(12, (6, 5))
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.png", image)
    stack = open_stack(tmp_path)
    order = np.random.default_rng(0).permutation(12)[:9]
    steps = make_pipeline(StackCenterer(), ImagePCA(2)).fit(stack[order])
    assert steps[-1].n_passes_ == 1
    assert_fitted_like_whole(steps[-1], X[order])


def assert_fitted_like_whole(pca, X):
    assert_allclose(pca.explained_variance_, reference(X).explained_variance(2), rtol=1e-5)


# a cluster


@pytest.mark.parametrize(
    ("shape", "solver"),
    [((40, 9, 8), "gram"), ((90, 5, 4), "covariance_eigh"), ((90, 5, 4), "tsqr"), ((40, 9, 8), "tsqr")],
)
def test_a_cluster_gives_what_threads_give(client, shape, solver):
    X = photographs(shape[0], shape[1:], "uint16")
    pca = ImagePCA(4, svd_solver=solver)
    scores = pca.fit_transform(lazy(X))
    assert_fitted(pca, X)
    assert_scores(pca, scores.compute(), X)
    assert_scores(pca, pca.transform(lazy(X)).compute(), X)
    assert_fitted(ImagePCA(4, svd_solver=solver).fit(X), X)  # NumPy input, a client being there
    with dask.config.set(scheduler="threads"):
        assert_fitted(ImagePCA(4, svd_solver=solver).fit(lazy(X)), X)


def test_a_pipeline_on_a_cluster(client):
    X = photographs(40, (9, 8))
    on_cluster = four_steps(3).fit(lazy(X))
    with dask.config.set(scheduler="sync"):
        here = four_steps(3).fit(lazy(X))
    assert_allclose(on_cluster[-1].explained_variance_, here[-1].explained_variance_, rtol=1e-6)
    assert_allclose(on_cluster[-1].components_, here[-1].components_, atol=1e-4)
    assert_array_equal(on_cluster[1].mean_, here[1].mean_)


def test_panels_on_a_cluster(client):
    X = photographs(40, (9, 8))
    stack = lazy(X, 5, 9, 8)
    found, runner = solved("gram", stack, 4, panel=15)
    assert_allclose(found.singular_values**2, reference(X).singular_values[:4] ** 2, rtol=1e-5)
    assert runner.n_passes == 3 - 15 * 3 * 2 / 80 + 1


def test_a_bad_image_is_named_across_the_cluster(client, tmp_path):
    X = photographs(20, (6, 5), "float32")
    X[13, 2, 2] = np.nan
    with pytest.raises(NonFiniteError, match="image 13"):
        ImagePCA(2).fit(lazy(X))
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.tif", image)
    for solver in EXACT:
        with pytest.raises(NonFiniteError, match=r"image 13 \(.*13\.tif"):
            ImagePCA(2, svd_solver=solver).fit(open_stack(tmp_path, chunks=3))


def test_a_block_that_is_not_as_declared_is_named_across_the_cluster(client, tmp_path):
    X = photographs(20, (6, 5))
    model = ImagePCA(2).fit(X)
    stack = lazy(X).map_blocks(np.ma.masked_array, meta=X[:0])
    for call in (ImagePCA(2).fit, model.score, lambda stack: save_stack(stack, tmp_path / "a.zarr")):
        with pytest.raises(TypeError, match=r"^X\.blocks\[.*\] \(images .* is a masked array"):
            call(stack)


def test_pixels_are_read_on_the_workers(client):
    X = photographs(40, (9, 8))
    stack = da.map_blocks(only_on_a_worker, lazy(X), dtype=X.dtype, meta=X[:0])
    for solver in EXACT:
        assert_fitted(ImagePCA(4, svd_solver=solver).fit(stack), X)
    StackCenterer().fit(stack)
    with dask.config.set(scheduler="threads"), pytest.raises(ValueError, match="worker"):
        ImagePCA(4).fit(stack)


def only_on_a_worker(block):
    get_worker()
    return block


def centred_rows(stack, **options):
    return make_pipeline(StackCenterer(**options), ImageFlattener()).fit_transform(stack)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_pca_sees_through_centring_to_the_images(dtype):
    """A constant image changes no component: what is read and kept are the images, not four times their bytes."""
    X = photographs(40, (12, 10), dtype)
    rows = centred_rows(da.from_array(X, chunks=(7, 12, 10)))
    plain = ImagePCA(5).fit(X)
    pca = ImagePCA(5).fit(rows)
    np.testing.assert_allclose(pca.singular_values_, plain.singular_values_, rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(pca.components_ * plain.components_, axis=1)), 1, atol=1e-6)
    assert pca.components_.dtype == plain.components_.dtype
    assert pca.image_shape_ == (120,)
    assert np.abs(pca.mean_).max() <= (1e-8 if dtype == "float32" else 1e-13) * np.abs(plain.mean_).max()
    scores = np.asarray(pca.fit_transform(rows))
    np.testing.assert_allclose(pca.transform(rows), scores, rtol=0, atol=1e-5 * pca.singular_values_[0])
    assert pca.plan(rows).peak_bytes == ImagePCA(5).plan(da.from_array(X, chunks=(7, 12, 10))).peak_bytes


def test_pca_does_not_see_through_a_change():
    X = photographs(40, (12, 10), "float64")
    rows = centred_rows(da.from_array(X, chunks=(7, 12, 10)))
    rows[3] = 1000.0
    np.testing.assert_allclose(ImagePCA(5).fit(rows).singular_values_, ImagePCA(5).fit(rows.compute()).singular_values_)
    scaled = centred_rows(da.from_array(X, chunks=(7, 12, 10)), with_std=True)
    np.testing.assert_allclose(
        ImagePCA(5).fit(scaled).singular_values_, ImagePCA(5).fit(scaled.compute()).singular_values_
    )
