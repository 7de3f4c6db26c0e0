import matplotlib as mpl
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from imgstack_ml.datasets import load_faces, make_cells
from imgstack_ml.decomposition import ImagePCA
from imgstack_ml.inspection import EigenimageDisplay, ScreeDisplay
from imgstack_ml.inspection._drawing import choose_columns
from imgstack_ml.preprocessing import ImageFlattener, StackCenterer

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def faces():
    return load_faces()[0][:60]


def random_images(shape):
    return np.random.default_rng(0).standard_normal(shape)


# Eigenimages


@pytest.mark.parametrize("k", [1, 5, 16, 30])
def test_one_picture_a_component_with_its_share(k):
    display = EigenimageDisplay(random_images((k, 6, 9)), np.linspace(0.234, 0.02, k)).plot()
    assert len(display.axes_) == len(display.figure_.axes) == k
    assert display.axes_[0].get_title() == "PC 1 · 23.4 %"
    assert display.axes_[-1].get_title().startswith(f"PC {k} · ")


def test_titles_without_shares_and_with_tiny_ones():
    plain = EigenimageDisplay(random_images((2, 4, 4))).plot()
    assert [axes.get_title() for axes in plain.axes_] == ["PC 1", "PC 2"]
    tiny = EigenimageDisplay(random_images((2, 4, 4)), [1e-5, 0]).plot()
    assert [axes.get_title() for axes in tiny.axes_] == ["PC 1 · <0.1 %", "PC 2 · variance 0"]


@pytest.mark.parametrize("channel", [(), (1,)])
def test_grey_limits_are_symmetric_and_each_picture_has_its_own(channel):
    eigenimages = random_images((3, 20, 20, *channel)) * np.array([1, 10, 100]).reshape(3, 1, 1, *channel)
    display = EigenimageDisplay(eigenimages).plot(cmap="PuOr")
    limits = [image.get_clim() for image in display.images_]
    for (low, high), eigenimage in zip(limits, eigenimages, strict=True):
        assert low == -high
        assert np.mean(np.abs(eigenimage) <= high) == pytest.approx(0.99, abs=0.005)
    assert limits[2][1] > 50 * limits[0][1]
    assert display.images_[0].get_cmap().name == "PuOr"


def test_colour_pictures_have_zero_at_mid_grey():
    eigenimages = random_images((2, 8, 8, 3))
    eigenimages[:, 0, 0] = 0
    display = EigenimageDisplay(eigenimages).plot()
    for image, eigenimage in zip(display.images_, eigenimages, strict=True):
        shown = image.get_array()
        assert np.all(shown[0, 0] == 0.5)
        assert np.abs(shown - 0.5).max() == 0.5
        assert np.all((shown > 0.5) == (eigenimage > 0))


def test_alpha_is_not_shown():
    (image,) = EigenimageDisplay(random_images((1, 8, 8, 4))).plot().images_
    assert image.get_array().shape == (8, 8, 3)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("value", [0.0, -2.0])
def test_constant_pictures_are_drawn(channels, value):
    flat = np.full((2, 5, 5, *channels), value)
    display = EigenimageDisplay(flat, [0, 0], flat[0]).plot()
    display.figure_.canvas.draw()
    assert np.isfinite(display.images_[0].get_array()).all()
    assert np.isfinite(display.images_[1].get_array()).all()


def test_a_few_pixels_that_are_not_zero_set_the_limit():
    eigenimage = np.zeros((1, 40, 40))
    eigenimage[0, 3, 4] = -0.5
    (image,) = EigenimageDisplay(eigenimage).plot().images_
    assert image.get_clim() == (-0.5, 0.5)


def test_mean_image_comes_first(faces):
    mean = faces.mean(axis=0)
    display = EigenimageDisplay(random_images((3, 25, 25)), mean_image=mean).plot()
    assert [axes.get_title() for axes in display.axes_] == ["mean · 0 to 169", "PC 1", "PC 2", "PC 3"]
    assert display.images_[0].get_clim() == (0, mean.max())
    assert np.array_equal(display.images_[0].get_array(), mean)


@pytest.mark.parametrize(("n_tiles", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (16, 4), (30, 6), (500, 8)])
def test_columns(n_tiles, columns):
    assert choose_columns(n_tiles, 8) == columns


def test_sheets_waste_little_and_stay_within_bounds():
    for n_tiles in range(1, 120):
        columns = choose_columns(n_tiles, 8)
        assert 1 <= columns <= min(8, n_tiles)
        assert -n_tiles % columns <= max(1, n_tiles // 4)


def test_no_title_touches_a_picture_or_another_title():
    display = EigenimageDisplay(random_images((10, 12, 30)), np.full(10, 0.1)).plot()
    display.figure_.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in display.axes_]
    boxes += [image.get_window_extent() for image in display.images_]
    for position, box in enumerate(boxes):
        assert box.count_overlaps(boxes[position + 1 :]) == 0
    assert all(box.x0 >= 0 and box.y1 <= display.figure_.bbox.height for box in boxes)


def test_sheet_in_a_given_subplot():
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    display = EigenimageDisplay(random_images((4, 5, 5))).plot(ax=right)
    figure.canvas.draw()
    assert display.figure_ is figure
    assert len(figure.axes) == 2 + 4
    assert min(axes.get_position().x0 for axes in display.axes_) > left.get_position().x1
    with pytest.raises(ValueError, match="ax must be a subplot"):
        EigenimageDisplay(random_images((4, 5, 5))).plot(ax=plt.figure().add_axes((0, 0, 1, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((random_images((3, 25)),), r"shape \(3, 25\); needed is \(k, height, width"),
        ((random_images((3, 5, 5, 2)),), r"2 channels cannot be shown as colours; choose one"),
        ((random_images((3, 5, 5)), [0.5]), r"shape \(1,\); 3 eigenimages need \(3,\)"),
        ((random_images((3, 5, 5)), None, np.zeros(25)), r"shape \(25,\); the eigenimages need \(5, 5\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EigenimageDisplay(*arguments)


def test_from_pipeline_turns_rows_into_images(faces):
    pipeline = make_pipeline(ImageFlattener(), PCA(4, svd_solver="full")).fit(faces)
    display = EigenimageDisplay.from_estimator(pipeline, n_components=3, include_mean=True)
    pca = pipeline[-1]
    np.testing.assert_array_equal(display.eigenimages.reshape(3, -1), pca.components_[:3])
    np.testing.assert_array_equal(display.explained_variance_ratio, pca.explained_variance_ratio_[:3])
    np.testing.assert_allclose(display.mean_image, faces.mean(axis=0))
    assert len(display.axes_) == 4


@pytest.mark.parametrize("before", [[], [ImageFlattener()]], ids=["stack", "rows"])
def test_image_pca_of_stacks_and_of_rows_look_the_same(before, faces):
    pipeline = make_pipeline(*before, ImagePCA(3)).fit(faces)
    display = EigenimageDisplay.from_estimator(pipeline, include_mean=True)
    expected = PCA(3, svd_solver="full").fit(faces.reshape(60, -1))
    overlap = np.sum(display.eigenimages.reshape(3, -1) * expected.components_, axis=1)
    np.testing.assert_allclose(np.abs(overlap), 1, rtol=1e-5)
    np.testing.assert_allclose(display.mean_image, faces.mean(axis=0))
    assert display.axes_[1].get_title() == f"PC 1 · {100 * expected.explained_variance_ratio_[0]:.1f} %"


@pytest.mark.parametrize("centre_first", [True, False])
def test_mean_is_the_one_taken_off_first(centre_first, faces):
    before = [StackCenterer(), ImageFlattener()] if centre_first else [ImageFlattener(), StackCenterer()]
    pipeline = make_pipeline("passthrough", *before, PCA(2, svd_solver="full")).fit(faces)
    display = EigenimageDisplay.from_estimator(pipeline, include_mean=True)
    np.testing.assert_allclose(display.mean_image, faces.mean(axis=0))


def test_from_estimator_passes_options_on():
    cells = make_cells(12, 16)
    pipeline = make_pipeline(ImageFlattener(), PCA(6, svd_solver="full")).fit(cells)
    display = EigenimageDisplay.from_estimator(pipeline, max_columns=2)
    assert display.eigenimages.shape == (6, 16, 16, 3)
    assert display.axes_[0].get_gridspec().ncols == 2


def test_rows_of_no_known_shape_are_refused(faces):
    pca = PCA(3).fit(faces.reshape(60, -1))
    with pytest.raises(ValueError, match="no ImageFlattener before it knows the shape"):
        EigenimageDisplay.from_estimator(pca)


@pytest.mark.parametrize("display", [EigenimageDisplay, ScreeDisplay])
def test_estimators_without_fitted_pca_are_refused(display):
    for estimator in (PCA(3), make_pipeline(ImageFlattener(), PCA(3)), ImageFlattener()):
        with pytest.raises(NotFittedError, match="holds no fitted PCA"):
            display.from_estimator(estimator)


# Scree


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


@pytest.mark.parametrize("k", [1, 2, 10, 11, 40, 41, 500])
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


def test_many_components_are_a_line():
    ratio = np.full(60, 0.01)
    display = ScreeDisplay(ratio).plot()
    np.testing.assert_allclose(display.share_.get_ydata(), 1.0)
    assert not display.ax_.patches


def test_no_variance_at_all_is_drawn():
    display = ScreeDisplay(np.zeros(3)).plot()
    display.figure_.canvas.draw()
    assert display.ax_.get_ylim() == (0, 1)


def test_scree_in_given_axes_from_pipeline(faces):
    pipeline = make_pipeline(ImageFlattener(), PCA(4, svd_solver="full")).fit(faces)
    figure, ax = plt.subplots()
    display = ScreeDisplay.from_estimator(pipeline, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert len(display.share_) == 4


@pytest.mark.parametrize("ratio", [[], 0.5, [[0.5]]])
def test_scree_needs_a_vector(ratio):
    with pytest.raises(ValueError, match=r"needed is \(n_components,\)"):
        ScreeDisplay(ratio)


def test_importing_displays_imports_no_matplotlib():
    import subprocess
    import sys

    code = "import sys, imgstack_ml.inspection; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
