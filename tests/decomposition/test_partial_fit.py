"""ImagePCA.partial_fit: batches that come one by one."""

import re
import warnings

import dask.array as da
import numpy as np
import pytest
from dask_ml.wrappers import Incremental
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageFlattener, ImagePCA, RankWarning, StackCenterer, load_model, save_model
from tests.lib.brackets import check_bracket
from tests.lib.fits import streamed
from tests.lib.stacks import counted, photographs, reference, stack_of_spectrum


@pytest.mark.parametrize("size", [1, 7, 60, 150])
def test_any_split_into_batches_agrees_with_one_fit(size):
    X = stack_of_spectrum(150, (12, 12, 3), 1e3 * 0.8 ** np.arange(60), dtype="float32", offset=50.0)
    pca = ImagePCA(5)
    for start in range(0, len(X), size):
        batch = X[start : start + size]
        pca.partial_fit(da.from_array(batch, chunks=(5, -1, -1, -1)) if start % 2 else batch)
    whole = ImagePCA(5, svd_solver="gram").fit(X)
    assert pca.n_samples_ == 150
    assert_allclose(pca.explained_variance_, whole.explained_variance_, rtol=1e-3)
    assert_allclose(pca.explained_variance_ratio_, whole.explained_variance_ratio_, rtol=1e-3)
    assert_allclose(pca.mean_, whole.mean_, rtol=0, atol=1e-4)
    assert_allclose(np.abs(np.sum(pca.components_ * whole.components_, axis=1)), 1, rtol=0, atol=1e-3)
    assert np.all(pca.certificate_.explained_variance_bounds[1] >= whole.explained_variance_)


def test_partial_fit_goes_on_after_fit_and_after_load(tmp_path):
    X = stack_of_spectrum(400, (12, 12), 1e3 * 0.6 ** np.arange(40), offset=50.0)
    whole = ImagePCA(5).fit(X)
    fitted = ImagePCA(5).fit(X[:250])
    save_model(fitted, tmp_path / "half.safetensors")
    for pca in (fitted, load_model(tmp_path / "half.safetensors")):
        pca.partial_fit(X[250:])
        assert pca.n_samples_ == 400
        assert_allclose(pca.explained_variance_[:3], whole.explained_variance_[:3], rtol=2e-2)
        assert_allclose(pca.mean_, whole.mean_, rtol=0, atol=1e-9)


def test_saved_and_loaded_between_batches_equals_one_process(tmp_path):
    X = stack_of_spectrum(300, (12, 12), 1e3 * 0.9 ** np.arange(80), offset=50.0, images="drift", dtype="float32")
    path, whole, daily = tmp_path / "model.safetensors", ImagePCA(5), ImagePCA(5)
    for batch in np.array_split(X, 6):
        whole.partial_fit(batch)
        save_model(daily.partial_fit(batch), path, overwrite=True)
        daily = load_model(path, mmap_mode="r")
    assert np.array_equal(daily.components_, whole.components_)
    assert np.array_equal(daily.explained_variance_, whole.explained_variance_)
    assert check_bracket(daily, X) == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("svd_solver", ["randomized", "gram"])
def test_bounds_stay_true_after_a_fit(svd_solver, dtype):
    """Ritz vectors that have not converged, or are rounded to float32, explain less than they seem to."""
    for seed in range(6):
        X = stack_of_spectrum(150, (200,), 100 * np.ones(39), offset=30.0, seed=seed)
        X[:140] = X[:140].astype(dtype)
        pca = ImagePCA(3, svd_solver=svd_solver, max_passes=2, random_state=seed, memory_limit="20MB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            pca.fit(da.from_array(X[:140].astype(dtype), chunks=(25, -1)))
        assert check_bracket(pca.partial_fit(X[140:]), X) == []


def test_a_share_of_the_variance_is_reached_or_missed_with_a_warning():
    X = np.random.default_rng(0).standard_normal((900, 12, 10)).astype(np.float32)
    pca, counts = ImagePCA(0.8), []
    with pytest.warns(ConvergenceWarning, match=r"n_components=0\.8: 42 components explain 0\.\d+ .* n_oversamples"):
        pca.partial_fit(X[:300])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        counts += [pca.partial_fit(X[start : start + 50]).n_components_ for start in range(300, 900, 50)]
    assert max(counts) > 42  # later batches keep more directions
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = ImagePCA(0.8, n_oversamples=84)  # what the first warning tells
        for start in range(0, 900, 50):
            told.partial_fit(X[start : start + 50])
    assert told.explained_variance_ratio_.sum() > 0.8
    assert check_bracket(told, X) == []


def test_a_share_that_a_single_read_misses_is_told():
    X = np.random.default_rng(0).standard_normal((300, 280))
    with pytest.warns(ConvergenceWarning, match="a single read"):
        streamed(da.from_array(X, chunks=(50, -1)), 0.95, max_passes=1)


def test_fit_begins_anew_after_partial_fit():
    X = photographs(100, (9, 9))
    pca = ImagePCA(3).partial_fit(X[:50] // 2)
    pca.fit(X)
    assert pca.n_samples_ == 100
    assert_allclose(pca.explained_variance_, reference(X).explained_variance(3), rtol=1e-6)


def test_each_batch_is_read_once():
    source = counted(photographs(60, (9, 9)), 10)
    pca = ImagePCA(3).partial_fit(source.data[:40])
    pca.partial_fit(source.data[40:])
    assert set(source.reads.values()) == {1}
    assert (pca.n_passes_, pca.svd_solver_, pca.n_samples_) == (1.0, "randomized", 60)


def test_a_constant_image_that_was_subtracted_is_part_of_the_mean():
    X = photographs(60, (9, 9), "float64")
    lazy = da.from_array(X, chunks=(10, 9, 9))
    shifted = ImagePCA(3).partial_fit(lazy - X[0]).partial_fit(lazy - X[0])
    assert_allclose(shifted.mean_, (X.mean(axis=0) - X[0]).ravel(), rtol=0, atol=1e-9)


def test_as_many_components_as_the_first_batch_has_images_unless_told():
    X = photographs(60, (9, 9))
    pca = ImagePCA().partial_fit(X[:7])
    assert pca.n_components_ == 7
    assert pca.partial_fit(X[7:]).n_components_ == 7
    assert ImagePCA(0.5).partial_fit(X).n_components_ < 7


def test_a_batch_of_too_few_images_points_at_the_line_that_gave_it():
    with pytest.warns(RankWarning, match="3 images have 1 independent") as record:
        ImagePCA(2).partial_fit(photographs(2, (9, 9))[[0, 1, 1]])
    assert record[0].filename == __file__


def test_batches_of_another_shape_are_refused():
    pca = ImagePCA(3).partial_fit(photographs(50, (9, 9)))
    with pytest.raises(ValueError, match="9"):
        pca.partial_fit(photographs(50, (8, 9)))


def test_more_components_than_values_are_refused():
    with pytest.raises(ValueError, match=r"^n_components=5 must be between 1 and n_features=4\.$"):
        ImagePCA(5).partial_fit(photographs(50, (2, 2)))


def test_centred_batches_keep_their_mean():
    """A lazily centred batch is read from its source, and its mean is that of the centred images."""
    X = photographs(40, (6, 5))
    batch = StackCenterer().fit_transform(da.from_array(X, chunks=(10, 6, 5)))
    pca = ImagePCA(3).partial_fit(batch)
    assert_allclose(pca.mean_, 0, atol=1e-4)
    assert_allclose(pca.transform(batch), pca.transform(batch.compute()), rtol=0, atol=1e-2)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1)])
def test_dask_mls_incremental_takes_rows_and_says_so(shape):
    X = da.from_array(photographs(40, shape), chunks=(20, *shape))
    with pytest.raises(TypeError, match=r"key of a block.*of 2-D arrays only") as caught:
        Incremental(ImagePCA(3)).fit(X)
    said = re.search(r"make_pipeline\(.*\)(?=; or)", str(caught.value)).group()
    names = {"make_pipeline": make_pipeline, "ImageFlattener": ImageFlattener}
    model = eval(said, {**globals(), **names}).fit(X)  # the line that the message names
    assert_allclose(model[-1].mean_, np.asarray(X).mean(axis=0).ravel(), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::imgstack_ml.RankWarning")
@pytest.mark.parametrize("later", [0.0, 1.0])
def test_batches_whose_difference_has_no_square_name_the_largest_value(later):
    """Each batch alone is constant, and has the variance 0."""
    pca = ImagePCA(1).partial_fit(np.full((3, 4, 5), 1e160))
    with pytest.raises(ValueError, match=r"values of up to 1e\+160.*X / 1e\+160"):
        pca.partial_fit(np.full((3, 4, 5), later))
