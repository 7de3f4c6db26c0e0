"""The PCA in a Pipeline, its eigenimages and mean image, and the way of images to scores and back."""

import dask.array as da
import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    EigenimageDisplay,
    ImageFlattener,
    ImagePCA,
    IntensityRescaler,
    NonFiniteError,
    ReconstructionDisplay,
    ScoresDisplay,
    ScreeDisplay,
    StackCenterer,
)
from imgstack_ml.datasets import make_cells
from imgstack_ml.inspection.pipelines import find_eigenimages, find_mask, find_route


@pytest.mark.parametrize(
    "before",
    [[StackCenterer(), ImageFlattener()], [ImageFlattener(), StackCenterer()]],
    ids=["centred stack", "centred rows"],
)
def test_the_mean_image_is_that_of_a_centerer(before, faces):
    small = faces[:, ::2, ::2]
    pipeline = make_pipeline("passthrough", *before, PCA(2, svd_solver="full")).fit(small)
    np.testing.assert_allclose(find_eigenimages(pipeline)[1], small.mean(axis=0))


def test_eigenimages_of_colour_rows_have_the_shape_of_the_images():
    cells = make_cells(12, 16)
    pipeline = make_pipeline(ImageFlattener(), PCA(6, svd_solver="full")).fit(cells)
    eigenimages, mean_image = find_eigenimages(pipeline)
    assert eigenimages.shape == (6, 16, 16, 3)
    assert mean_image.shape == (16, 16, 3)


def test_rows_of_no_known_shape_are_refused(faces_pca):
    with pytest.raises(ValueError, match="no ImageFlattener before it knows the shape"):
        EigenimageDisplay.from_estimator(faces_pca)


@pytest.mark.parametrize(
    "estimator",
    [PCA(3), make_pipeline(ImageFlattener(), PCA(3)), ImageFlattener()],
    ids=["PCA", "Pipeline", "no PCA"],
)
def test_estimators_without_fitted_pca_are_refused(estimator, faces):
    for draw in (EigenimageDisplay.from_estimator, ScreeDisplay.from_estimator):
        with pytest.raises(NotFittedError, match="holds no fitted PCA"):
            draw(estimator)
    with pytest.raises(NotFittedError, match="holds no fitted PCA"):
        ReconstructionDisplay.from_estimator(estimator, faces)


@pytest.mark.parametrize(
    ("before", "whiten"),
    [
        ([], True),
        ([ImageFlattener()], False),
        ([StackCenterer(), ImageFlattener()], True),
        ([StackCenterer(with_std=True)], False),
        ([StackCenterer(with_std=True)], True),
    ],
    ids=["stack, white", "rows", "centred, white", "scaled", "scaled, white"],
)
def test_steps_that_can_be_inverted_are_inverted(before, whiten, faces):
    route = find_route(make_pipeline(*before, ImagePCA(59, whiten=whiten)).fit(faces))
    prepared = route.prepare(faces[[3]])
    np.testing.assert_array_equal(prepared, faces[[3]])
    np.testing.assert_allclose(route.reconstruct(route.scores(prepared)), faces[[3]], atol=0.05)


def test_images_are_reconstructed_as_the_last_step_without_inverse_returns_them():
    cells = make_cells(20, 16)
    route = find_route(make_pipeline(IntensityRescaler(), StackCenterer(), ImagePCA(19)).fit(cells))
    prepared = route.prepare(cells)
    np.testing.assert_array_equal(prepared, IntensityRescaler().fit_transform(cells))
    np.testing.assert_allclose(route.reconstruct(route.scores(prepared)), prepared, atol=0.1)


@pytest.mark.parametrize("how", ["PCA", "flattener", "both", "PCA of rows"])
def test_pixels_outside_of_masks_are_hidden(how):
    X = np.random.default_rng(0).normal(size=(30, 8, 9))
    mask = np.hypot(*np.mgrid[-4:4, -4:5]) < 4
    X[:, ~mask] = np.nan
    left = np.flatnonzero(mask)[::2]
    steps = {
        "PCA": [ImagePCA(3, mask=mask)],
        "flattener": [ImageFlattener(mask), StackCenterer(), ImagePCA(3)],
        "both": [ImageFlattener(mask), ImagePCA(3, mask=np.isin(np.flatnonzero(mask), left))],
        "PCA of rows": [ImageFlattener(), ImagePCA(3, mask=mask.ravel())],
    }[how]
    model = make_pipeline(*steps).fit(X)
    inside = np.isin(np.arange(72).reshape(8, 9), left) if how == "both" else mask
    np.testing.assert_array_equal(find_mask(model), inside)
    eigenimages, mean = find_eigenimages(model)
    for images in (*eigenimages, mean):
        np.testing.assert_array_equal(np.ma.getmaskarray(images), ~inside)
    display = EigenimageDisplay.from_estimator(model, include_mean=True)
    assert all((artist.to_rgba(artist.get_array())[..., 3] == inside).all() for artist in display.images_)
    for stack in (X, da.from_array(X, chunks=(7, 8, 9))):
        shown = ReconstructionDisplay.from_estimator(model, stack, indices=[4, 11])
        assert np.isfinite(shown.errors).all()
        assert all((one.to_rgba(one.get_array())[..., 3] == inside).all() for one in shown.images_.ravel())
        thumbnails = ScoresDisplay.from_estimator(model, stack, n_thumbnails=2).thumbnails.values()
        assert all((np.ma.getmaskarray(one) == ~inside).all() for one in thumbnails)
    X[11, *np.argwhere(inside)[0]] = np.inf
    for stack in (X, da.from_array(X, chunks=(7, 8, 9))):
        with pytest.raises(NonFiniteError, match="image 11 "):
            ReconstructionDisplay.from_estimator(model, stack, indices=[4, 11])
    pyplot.close("all")
