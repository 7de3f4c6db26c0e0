"""Displays of scores, reconstructions and intensities: their data, their artists, and what they read."""

import os

import dask.array as da
import matplotlib as mpl
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml.datasets import load_faces, make_cells
from imgstack_ml.inspection.scores import spread_out
from tests.lib.images import write_folder
from tests.lib.stacks import counted, photographs

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def faces():
    return load_faces()[0][:60]


def offsets(points):
    return np.asarray(points.get_offsets())


def assert_drawn_within(figure, artists):
    figure.canvas.draw()
    for artist in artists:
        box = artist.get_window_extent()
        assert box.x0 >= -1, artist
        assert box.y0 >= -1, artist
        assert box.x1 <= figure.bbox.width + 1, artist
        assert box.y1 <= figure.bbox.height + 1, artist


# Scores ------------------------------------------------------------------------------------------------


def test_points_are_the_scores_asked_for():
    scores = np.random.default_rng(0).normal(size=(50, 4))
    display = im.ScoresDisplay(scores, components=(3, 1), explained_variance_ratio=[0.5, 0.3, 1e-5, 0]).plot()
    (points,) = display.points_
    np.testing.assert_array_equal(offsets(points), scores[:, [2, 0]])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("PC 3 · <0.1 %", "PC 1 · 50.0 %")
    assert display.ax_.get_legend() is None


def test_each_label_has_a_colour_and_the_rare_ones_share_grey():
    labels = np.repeat(list("abcdefgh"), [9, 8, 7, 6, 5, 4, 2, 1])
    scores = np.random.default_rng(0).normal(size=(len(labels), 2))
    display = im.ScoresDisplay(scores, labels=labels).plot()
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert names == ["others", "a", "b", "c", "d", "e", "f"]
    assert len({tuple(points.get_facecolor()[0]) for points in display.points_}) == 7
    np.testing.assert_array_equal(offsets(display.points_[1]), scores[labels == "a"])
    np.testing.assert_array_equal(offsets(display.points_[0]), scores[np.isin(labels, ["g", "h"])])


@pytest.mark.parametrize("label", ["_hidden", "$x^2", "a" * 80, "<b>"])
def test_labels_are_shown_as_they_are(label):
    display = im.ScoresDisplay(np.eye(4), labels=[label, label, "b", "b"]).plot()
    display.figure_.canvas.draw()
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert any(text[:4] == label[:4] for text in texts)


@pytest.mark.parametrize(("n", "kind"), [(20_000, "PathCollection"), (20_001, "PolyCollection")])
def test_many_points_are_a_density(n, kind):
    scores = np.random.default_rng(0).normal(size=(n, 2))
    display = im.ScoresDisplay(scores).plot()
    points = display.points_[0] if isinstance(display.points_, list) else display.points_
    assert type(points).__name__ == kind
    if kind == "PolyCollection":
        assert points.get_array().sum() == n


def test_scores_of_a_pipeline_in_one_read_with_a_step_after_the_pca(faces):
    source = counted(faces, 10)
    labels = np.repeat(["a", "b"], 30)
    pipeline = make_pipeline(im.ImageFlattener(), im.ImagePCA(4), LogisticRegression(max_iter=5000)).fit(faces, labels)
    display = im.ScoresDisplay.from_estimator(pipeline, source.data, labels=labels)
    np.testing.assert_allclose(display.scores, pipeline[:2].transform(faces), rtol=1e-5, atol=1e-3)
    assert source.n_reads == 1
    assert len(display.points_) == 2


def test_known_scores_are_not_read_again_and_thumbnails_read_their_images_only(tmp_path):
    pixels = write_folder(tmp_path, 20, (12, 10, 3))
    stack = im.open_stack(tmp_path)
    pca = im.ImagePCA(3)
    scores = pca.fit_transform(stack).compute()
    chosen = spread_out(scores[:, :2], 4)
    for index in set(range(20)) - set(chosen):
        os.remove(stack.files[index])
    display = im.ScoresDisplay.from_estimator(pca, stack, scores=scores, n_thumbnails=4)
    assert sorted(display.thumbnails) == sorted(chosen)
    for index, picture in display.thumbnails.items():
        np.testing.assert_array_equal(picture, pixels[index])
    assert [box.xy for box in display.thumbnails_] == [tuple(scores[index, :2]) for index in chosen]
    assert_drawn_within(display.figure_, display.thumbnails_)


def test_labels_of_sub_folders_are_used(tmp_path):
    for name in ("cat", "dog"):
        write_folder(tmp_path / name, 6, (8, 8))
    stack = im.open_stack(tmp_path, recursive=True)
    display = im.ScoresDisplay.from_estimator(im.ImagePCA(2).fit(stack), stack)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["cat", "dog"]


def test_spread_out_points_are_far_apart():
    points = np.random.default_rng(0).normal(size=(500, 2))
    chosen = spread_out(points, 12)
    assert len(set(chosen)) == 12
    apart = np.linalg.norm(points[chosen, None] - points[None, chosen], axis=2)[~np.eye(12, dtype=bool)].min()
    at_random = [points[np.random.default_rng(i).choice(500, 12, replace=False)] for i in range(50)]
    best = max(np.linalg.norm(p[:, None] - p[None], axis=2)[~np.eye(12, dtype=bool)].min() for p in at_random)
    assert apart > best
    assert spread_out(np.zeros((5, 2)), 3) == [0]
    assert set(spread_out(points, 3, [4, 9, 2, 7])) < {4, 9, 2, 7}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros(5),), {}, r"shape \(5,\); needed is \(n_images, n_components\)"),
        ((np.zeros((5, 2)),), {"components": (1, 3)}, "two numbers from 1 to 2"),
        ((np.zeros((5, 2)),), {"components": (0, 1)}, "two numbers from 1 to 2"),
        ((np.zeros((5, 2)),), {"labels": ["a"]}, r"labels has shape \(1,\); 5 images"),
    ],
)
def test_scores_that_cannot_be_drawn_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        im.ScoresDisplay(*arguments, **options)


# Reconstructions ---------------------------------------------------------------------------------------


def test_reconstructions_are_those_of_scikit_learn(faces):
    pca = PCA(30, svd_solver="full").fit(faces.reshape(60, -1))
    display = im.ReconstructionDisplay.from_estimator(im.ImagePCA(30).fit(faces), faces, indices=[2, 40])
    assert display.n_components == [1, 5, 20, 30]
    scores = pca.transform(faces[[2, 40]].reshape(2, -1))
    for step, k in enumerate(display.n_components):
        expected = (scores[:, :k] @ pca.components_[:k] + pca.mean_).reshape(2, 25, 25)
        np.testing.assert_allclose(display.reconstructions[:, step], expected, atol=0.05)
        errors = np.sqrt(((faces[[2, 40]] - expected) ** 2).mean(axis=(1, 2)))
        np.testing.assert_allclose(display.errors[:, step], errors, rtol=1e-3)
    titles = [axes.get_title() for axes in display.axes_[1]]
    assert titles[0] == "image 40"
    assert titles[1] == f"k = 1 · {display.errors[1, 0]:.3g}"
    assert titles[-1] == "missing"


def test_pictures_of_a_row_share_limits_and_the_difference_is_symmetric(faces):
    display = im.ReconstructionDisplay.from_estimator(im.ImagePCA(6).fit(faces), faces)
    assert display.images_.shape == display.axes_.shape == (4, 5)
    for row in display.images_:
        assert [image.get_clim() for image in row[:-1]] == [(0, 255)] * 4
        low, high = row[-1].get_clim()
        assert low == -high


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(
    "before",
    [
        [],
        [im.ImageFlattener()],
        [im.StackCenterer(), im.ImageFlattener()],
        [im.StackCenterer(with_std=True)],
    ],
    ids=["stack", "rows", "centred", "scaled"],
)
def test_steps_that_can_be_undone_are(before, whiten, faces):
    pipeline = make_pipeline(*before, im.ImagePCA(59, whiten=whiten)).fit(faces)
    display = im.ReconstructionDisplay.from_estimator(pipeline, faces, indices=[3], n_components=[59])
    np.testing.assert_array_equal(display.images[0], faces[3])
    np.testing.assert_allclose(display.reconstructions[0, 0], faces[3], atol=0.05)


def test_after_a_step_that_cannot_be_undone_images_are_as_it_leaves_them():
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


def test_what_cannot_be_reconstructed_is_refused(faces):
    pca = im.ImagePCA(3).fit(faces)
    for wrong in ([4], [0], []):
        with pytest.raises(ValueError, match="numbers from 1 to 3"):
            im.ReconstructionDisplay.from_estimator(pca, faces, n_components=wrong)
    rows = faces.reshape(60, -1)
    with pytest.raises(ValueError, match="rows of 625 features, of which no images"):
        im.ReconstructionDisplay.from_estimator(PCA(3).fit(rows), rows)
    with pytest.raises(ValueError, match=r"needed is \(2, 1, 25, 25\)"):
        im.ReconstructionDisplay(faces[:2], faces[:2], [1])
    with pytest.raises(NotFittedError, match="holds no fitted PCA"):
        im.ReconstructionDisplay.from_estimator(im.ImagePCA(3), faces)


# Intensities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [7, 60])
def test_intensities_are_the_tutorials_in_one_read(chunks):
    cells = make_cells(60, 24)
    source = counted(cells, chunks)
    display = im.IntensityDisplay.from_stack(source.data)
    assert source.n_reads == 1
    for channel in range(3):
        np.testing.assert_array_equal(display.maxima_[channel].get_ydata(), cells.max(axis=(1, 2))[:, channel])
        np.testing.assert_allclose(display.means_[channel].get_ydata(), cells.mean(axis=(1, 2))[:, channel])
        np.testing.assert_array_equal(display.maxima_[channel].get_xdata(), np.arange(60))
    np.testing.assert_allclose(display.plane_.get_data(), cells.mean(axis=(1, 2)).T[:2])
    assert display.axes_[2].get_xlabel() == "mean red"
    assert [text.get_text() for text in display.axes_[0].get_legend().get_texts()] == ["red", "green", "blue"]


def test_marked_images_have_rings_in_all_three_plots():
    cells = make_cells(60, 24)
    display = im.IntensityDisplay.from_stack(cells)
    assert len(display.marked) > 0
    assert [len(rings.get_xdata()) for rings in display.marked_] == 3 * [len(display.marked)]
    np.testing.assert_array_equal(display.marked_[0].get_xdata(), display.marked)


def test_grey_images_and_rows(faces):
    for images in (faces, faces.reshape(60, -1)):
        display = im.IntensityDisplay.from_stack(images)
        np.testing.assert_allclose(display.means[:, 0], faces.mean(axis=(1, 2)))
        assert display.axes_[2].get_ylabel() == "largest intensity"
        assert len(display.marked_) == 0


def test_few_marked_files_are_named(tmp_path):
    from tests.lib.images import write_image

    for i, image in enumerate(photographs(20, (10, 10))):
        write_image(tmp_path / f"${i}.png", image // 10 if i == 4 else image)
    display = im.IntensityDisplay.from_stack(im.open_stack(tmp_path))
    assert [text.get_text() for text in display.axes_[0].texts] == ["$4.png"]
    display.figure_.canvas.draw()


def test_constant_and_negative_intensities_are_drawn():
    for values in (np.zeros((5, 4, 4)), -np.repeat(np.arange(5.0), 16).reshape(5, 4, 4) - 1):
        display = im.IntensityDisplay.from_stack(values)
        display.figure_.canvas.draw()
        low, high = display.axes_[0].get_ylim()
        assert low <= values.min()
        assert high > values.max()


def test_intensities_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be alike"):
        im.IntensityDisplay(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"needed is \(n_images, n_channels\)"):
        im.IntensityDisplay(np.zeros((4, 3, 2)), np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match="IntensityDisplay got an array of shape"):
        im.IntensityDisplay.from_stack(np.zeros((2, 3, 4, 5, 6)))


# All ---------------------------------------------------------------------------------------------------


def test_sheets_take_the_place_of_a_subplot(faces):
    pca = im.ImagePCA(6).fit(faces)
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    displays = [
        im.ScoresDisplay.from_estimator(pca, faces, ax=axes[0, 0]),
        im.IntensityDisplay.from_stack(faces, ax=axes[0, 1]),
        im.ReconstructionDisplay.from_estimator(pca, faces, ax=axes[1, 0]),
        im.ScreeDisplay.from_estimator(pca, ax=axes[1, 1]),
    ]
    assert all(display.figure_ is figure for display in displays)
    assert displays[0].ax_ is axes[0, 0]
    figure.canvas.draw()
    middle = axes[0, 0].get_position().x1
    assert min(ax.get_position().x0 for ax in displays[1].axes_) > middle
    with pytest.raises(ValueError, match="ax must be a subplot"):
        im.IntensityDisplay.from_stack(faces, ax=plt.figure().add_axes((0, 0, 1, 1)))


def test_certificates_are_brackets_on_the_scree_plot():
    images = photographs(200, (16, 16))
    pca = im.ImagePCA(5, svd_solver="randomized", max_passes=2, tol=1, random_state=0, memory_limit="20MB").fit(images)
    display = im.ScreeDisplay.from_estimator(pca)
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
    display = im.ScreeDisplay(ratio, bounds=[ratio * 0.9, ratio * 1.5], sum_bounds=(0.6, 0.7)).plot()
    box = display.bounds_.get_paths()[0].get_extents()
    np.testing.assert_allclose([box.y0, box.y1], [0.9, 1.5])
    assert display.ax_.get_ylim()[1] > 1.5
    with pytest.raises(ValueError, match=r"60 components need \(2, 60\)"):
        im.ScreeDisplay(ratio, bounds=ratio)


def test_exact_fits_have_no_brackets(faces):
    display = im.ScreeDisplay.from_estimator(im.ImagePCA(3).fit(faces))
    assert display.bounds_ is display.sum_bounds_ is None
