"""The PCA in a Pipeline, its eigenimages and mean image, and the way of images to scores and back."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    EigenimageDisplay,
    ImageFlattener,
    ImagePCA,
    IntensityRescaler,
    ReconstructionDisplay,
    ScreeDisplay,
    StackCenterer,
)
from imgstack_ml.datasets import make_cells
from imgstack_ml.inspection.pipelines import find_eigenimages, find_route


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
