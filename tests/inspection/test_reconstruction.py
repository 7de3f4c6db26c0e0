"""Images beside their reconstructions: values, errors, limits and titles; and what is read for them."""

import os

import dask.array as da
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml.datasets import make_cells
from imgstack_ml.inspection.pictures import shrink_by
from tests.lib.images import write_folder
from tests.lib.stacks import counted, photographs


def test_reconstructions_are_those_of_scikit_learn(faces, faces_pca):
    display = im.ReconstructionDisplay.from_estimator(im.ImagePCA(30).fit(faces), faces, indices=[2, 40])
    assert display.n_components == [1, 5, 20, 30]
    scores = faces_pca.transform(faces[[2, 40]].reshape(2, -1))
    for step, k in enumerate(display.n_components):
        expected = (scores[:, :k] @ faces_pca.components_[:k] + faces_pca.mean_).reshape(2, 25, 25)
        np.testing.assert_allclose(display.reconstructions[:, step], expected, atol=0.05)
        errors = np.sqrt(((faces[[2, 40]] - expected) ** 2).mean(axis=(1, 2)))
        np.testing.assert_allclose(display.errors[:, step], errors, rtol=1e-3)
    titles = [axes.get_title() for axes in display.axes_[1]]
    assert titles[0] == "image 40"
    assert titles[1] == f"k = 1 · rms {display.errors[1, 0]:.3g}"
    assert titles[-1] == "missing"


def test_pictures_of_a_row_share_limits_and_the_difference_is_symmetric(faces):
    display = im.ReconstructionDisplay.from_estimator(im.ImagePCA(6).fit(faces), faces)
    assert display.images_.shape == display.axes_.shape == (4, 5)
    for row in display.images_:
        assert [image.get_clim() for image in row[:-1]] == [(0, 255)] * 4
    ((low, high),) = {row[-1].get_clim() for row in display.images_}  # what is missing is compared
    missing = display.images - display.reconstructions[:, -1]
    assert -low == high == pytest.approx(np.percentile(np.abs(missing), 99))
    captions = [axes.texts[0].get_text() for axes in display.axes_[0]]
    assert captions == ["0 to 255"] * 4 + [f"±{high:.3g}"]


def test_large_images_are_reduced_and_errors_are_those_of_all_pixels(monkeypatch):
    images = np.random.default_rng(0).random((9, 25, 31, 2)).astype(np.float32)
    mask = np.random.default_rng(1).random((25, 31)) < 0.8
    for options, before in (({}, []), ({"mask": mask}, []), ({"whiten": True}, []), ({}, [im.StackCenterer()])):
        pipeline = make_pipeline(*before, im.ImagePCA(3, **options)).fit(images)
        monkeypatch.setattr("imgstack_ml.inspection.reconstruction.MAX_SIDE", 512)
        whole = im.ReconstructionDisplay.from_estimator(pipeline, images, indices=[5])
        monkeypatch.setattr("imgstack_ml.inspection.reconstruction.MAX_SIDE", 12)
        small = im.ReconstructionDisplay.from_estimator(pipeline, images, indices=[5])
        np.testing.assert_allclose(small.errors, whole.errors, rtol=1e-5)
        expected = shrink_by(whole.reconstructions.reshape(2, 25, 31, 2), 3).reshape(1, 2, 8, 10, 2)
        np.testing.assert_allclose(small.reconstructions, expected, rtol=1e-4, atol=1e-5)
        assert small.axes_.shape == (2, 4)


def test_the_originals_are_as_the_last_step_without_inverse_returns_them():
    cells = make_cells(20, 16)
    pipeline = make_pipeline(im.IntensityRescaler(), im.StackCenterer(), im.ImagePCA(19)).fit(cells)
    display = im.ReconstructionDisplay.from_estimator(pipeline, da.from_array(cells, chunks=(4, -1, -1, -1)))
    rescaled = im.IntensityRescaler().fit_transform(cells)
    np.testing.assert_array_equal(display.images, rescaled[[0, 6, 13, 19]])
    np.testing.assert_allclose(display.reconstructions[:, -1], display.images, atol=0.1)


def test_only_the_images_shown_are_read(tmp_path):
    write_folder(tmp_path, 12, (9, 8))
    stack = im.open_stack(tmp_path)
    pca = im.ImagePCA(3).fit(stack)
    for index in set(range(12)) - {5, 9}:
        os.remove(stack.files[index])
    display = im.ReconstructionDisplay.from_estimator(pca, stack, indices=[9, 5])
    assert [axes.get_title() for axes in display.axes_[:, 0]] == ["img9.png", "img5.png"]
    source = counted(photographs(12, (9, 8)), 1)
    im.ReconstructionDisplay.from_estimator(pca, source.data, indices=[0, 7])
    assert sum(source.reads.values()) == 2


def test_names_with_dollars_and_long_names_are_drawn(faces):
    names = ["$\\alpha_$.png", "a" * 100 + ".png"]
    display = im.ReconstructionDisplay(faces[:2], faces[:2, None], [1], names=names).plot()
    display.figure_.canvas.draw()
    assert display.axes_[0, 0].get_title() == names[0]
    assert len(display.axes_[1, 0].get_title()) <= 21


def test_what_cannot_be_reconstructed_is_refused(faces, faces_pca):
    pca = im.ImagePCA(3).fit(faces)
    for wrong in ([4], [0], []):
        with pytest.raises(ValueError, match="numbers from 1 to 3"):
            im.ReconstructionDisplay.from_estimator(pca, faces, n_components=wrong)
    with pytest.raises(ValueError, match="rows of 625 features, of which no images"):
        im.ReconstructionDisplay.from_estimator(faces_pca, faces.reshape(60, -1))
    with pytest.raises(ValueError, match=r"images has shape \(60, 25\); needed is \(n_shown, height, width"):
        im.ReconstructionDisplay(faces[:, 0], faces[:, 0], [1])
    with pytest.raises(ValueError, match=r"needed is \(2, 1, 25, 25\)"):
        im.ReconstructionDisplay(faces[:2], faces[:2], [1])
