"""Scree plot: shares, their running sum, and bounds of both."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageFlattener, ImagePCA, ScreeDisplay
from tests.lib.stacks import photographs


def test_bars_are_shares_and_the_line_is_their_sum():
    ratio = np.array([0.5, 0.25, 0.125])
    display = ScreeDisplay(ratio).plot()
    assert [bar.get_height() for bar in display.share_] == [50, 25, 12.5]
    np.testing.assert_allclose(display.cumulative_.get_ydata(), [50, 75, 87.5])
    np.testing.assert_array_equal(display.cumulative_.get_xdata(), [1, 2, 3])
    assert display.ax_.get_xlabel() == "component"
    assert display.ax_.get_ylabel() == "explained variance (%)"
    assert display.cumulative_ax_.get_ylabel() == "cumulative (%)"
    assert display.cumulative_ax_.get_ylim()[0] == 0


@pytest.mark.parametrize("k", [1, 2, 10, 11, 41, 500])
def test_ticks_are_whole_numbers_and_everything_is_in_view(k):
    ratio = 0.5 / np.arange(1, k + 1) ** 2
    display = ScreeDisplay(ratio).plot()
    display.figure_.canvas.draw()
    low, high = display.ax_.get_xlim()
    ticks = [tick for tick in display.ax_.get_xticks() if low <= tick <= high]
    assert 1 <= len(ticks) <= 11
    assert all(tick == round(tick) for tick in ticks)
    assert low < 1 <= k < high
    assert display.ax_.get_ylim()[1] > 50
    assert display.cumulative_ax_.get_ylim()[1] > 100


def test_more_than_40_components_are_a_line():
    assert len(ScreeDisplay(np.full(40, 0.01)).plot().share_) == 40
    display = ScreeDisplay(np.full(41, 0.01)).plot()
    np.testing.assert_allclose(display.share_.get_ydata(), 1.0)
    assert not display.ax_.patches


def test_no_variance_at_all_is_drawn():
    display = ScreeDisplay(np.zeros(3)).plot()
    display.figure_.canvas.draw()
    assert display.ax_.get_ylim() == (0, 1)


def test_from_pipeline(faces, faces_pca):
    display = ScreeDisplay.from_estimator(make_pipeline(ImageFlattener().fit(faces), faces_pca))
    assert len(display.share_) == 30


@pytest.mark.parametrize("ratio", [[], 0.5, [[0.5]]], ids=["empty", "number", "matrix"])
def test_shares_that_are_no_vector_are_refused(ratio):
    with pytest.raises(ValueError, match=r"needed is \(n_components,\)"):
        ScreeDisplay(ratio)


def test_bounds_of_a_certificate_are_brackets():
    images = photographs(200, (16, 16))
    pca = ImagePCA(5, svd_solver="randomized", max_passes=2, tol=1, random_state=0, memory_limit="20MB").fit(images)
    display = ScreeDisplay.from_estimator(pca)
    certificate = pca.certificate_
    low, high = 100 * certificate.explained_variance_bounds / certificate.total_variance
    segments = display.bounds_.lines[2][0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], np.column_stack([low, high]), rtol=1e-6)
    (segment,) = display.sum_bounds_.lines[2][0].get_segments()
    bounds = [certificate.captured_variance + missed for missed in certificate.deficit_bounds]
    np.testing.assert_allclose(segment[:, 1], 100 * np.array(bounds) / certificate.total_variance, rtol=1e-6)
    true = PCA(5, svd_solver="full").fit(images.reshape(200, -1)).explained_variance_ratio_
    assert np.all(low / 100 <= true * (1 + 1e-6))
    assert np.all(true <= high / 100 * (1 + 1e-6))


def test_bounds_of_a_line_are_a_band():
    ratio = np.full(60, 0.01)
    display = ScreeDisplay(ratio, bounds=[ratio * 0.9, ratio * 1.5], sum_bounds=(0.6, 0.7)).plot()
    box = display.bounds_.get_paths()[0].get_extents()
    np.testing.assert_allclose([box.y0, box.y1], [0.9, 1.5])
    assert display.ax_.get_ylim()[1] > 1.5
    with pytest.raises(ValueError, match=r"60 components need \(2, 60\)"):
        ScreeDisplay(ratio, bounds=ratio)


def test_exact_fits_have_no_brackets(faces):
    display = ScreeDisplay.from_estimator(ImagePCA(3).fit(faces))
    assert display.bounds_ is display.sum_bounds_ is None
