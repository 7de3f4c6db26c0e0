"""What stands on the page, for images of any kind, and without images."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

import imgstack_ml as im
from tests.lib.pages import assert_sound
from tests.lib.stacks import counted, photographs

SECTIONS = ["images", "variance", "eigenimages", "scores", "reconstructions", "fit", "reproduce"]


def test_a_report_with_images_reads_them_once_and_has_every_section(faces_report):
    assert faces_report.n_reads == 1
    page = assert_sound(faces_report.report)
    assert [name for name in page.sections if name != "alerts"] == SECTIONS
    assert "8 components explain" in page.text
    assert "50 of 25 × 25, uint8" in page.text
    assert "fingerprint of the pixels" in page.text
    assert "ImagePCA(n_components=8)" in page.text


def test_a_report_without_images_reads_nothing(faces):
    source = counted(faces, 10)
    pca = im.ImagePCA(8).fit(source.data)
    before = source.n_reads
    page = assert_sound(im.generate_report(pca))
    assert source.n_reads == before
    assert page.sections == ["variance", "eigenimages", "fit", "reproduce"]
    scores = np.random.default_rng(0).normal(size=(50, 8))
    assert "scores" in assert_sound(im.generate_report(pca, scores=scores)).sections
    with pytest.raises(ValueError, match=r"the PCA has 8 components and needs \(n_images, 8\)"):
        im.generate_report(pca, scores=scores[:, :3])
    with pytest.raises(ValueError, match="3 names were given for 50 images"):
        im.generate_report(pca, scores=scores, names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((20, 16, 1), "uint16"),
        ((20, 16, 4), "uint8"),
        ((20, 16, 2), "float32"),
        ((1, 1), "uint8"),
    ],
    ids=["grey", "alpha", "two channels", "one pixel"],
)
def test_images_of_any_kind(shape, dtype):
    images = photographs(30, shape, dtype)
    k = min(3, int(np.prod(shape)))
    page = assert_sound(im.generate_report(im.ImagePCA(k).fit(images), images))
    assert "eigenimages" in page.sections


def test_a_pca_of_rows_has_no_pictures(faces):
    rows = faces.reshape(50, -1)[:, ::5].astype(float)
    page = assert_sound(im.generate_report(PCA(3).fit(rows), rows))
    assert page.sections[-5:] == ["images", "variance", "scores", "fit", "reproduce"]


def test_bounds_of_a_certificate_are_on_the_page():
    images = photographs(60, (16, 16))
    pca = im.ImagePCA(4, svd_solver="randomized", random_state=0).fit(images)
    page = assert_sound(im.generate_report(pca))
    assert "missed, for certain" in page.text


def test_large_noisy_images_stay_within_8_mb():
    # No picture on the page is larger than 160 pixels a side.
    images = np.random.default_rng(0).integers(0, 256, (66, 160, 160, 3), dtype=np.uint8)
    report = im.generate_report(im.ImagePCA(64).fit(images), images)
    page = assert_sound(report)
    assert "40 more are in eigenimages_" in page.text


def test_very_many_points_stay_small():
    pca = im.ImagePCA(2).fit(np.random.default_rng(0).random((10, 4, 4)))
    images = np.random.default_rng(1).random((20_100, 4, 4))
    assert len(assert_sound(im.generate_report(pca, images)).text) < 1e5


def test_unfitted_estimators_are_refused(faces):
    with pytest.raises(NotFittedError, match="holds no fitted PCA"):
        im.generate_report(im.ImagePCA(2), faces)
