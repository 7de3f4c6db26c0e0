"""Eigenimages as a sheet: one picture each, its title, its limits, its place."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from imgstack_ml import EigenimageDisplay, ImageFlattener, ImagePCA

COLOURS = ("red", "green", "blue")


def random_images(shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("k", [1, 5, 16])
def test_one_picture_for_each_component_with_its_share(k):
    display = EigenimageDisplay(random_images((k, 6, 9)), np.linspace(0.234, 0.02, k)).plot()
    assert len(display.axes_) == len(display.figure_.axes) == k
    assert display.axes_[0].get_title() == "PC 1 · 23.4 %"
    assert display.axes_[-1].get_title().startswith(f"PC {k} · ")


def test_titles_without_shares_and_with_tiny_shares():
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
    display = EigenimageDisplay(eigenimages, channel_names=COLOURS).plot()
    for image, eigenimage in zip(display.images_, eigenimages, strict=True):
        shown = image.get_array()
        assert np.all(shown[0, 0] == 0.5)
        assert np.abs(shown - 0.5).max() == 0.5
        assert np.all((shown > 0.5) == (eigenimage > 0))


def test_alpha_is_not_shown():
    (image,) = EigenimageDisplay(random_images((1, 8, 8, 4)), channel_names=(*COLOURS, "alpha")).plot().images_
    assert image.get_array().shape == (8, 8, 3)


def test_each_channel_is_a_picture_on_the_scale_of_its_component():
    """A component whose energy is in the fourth channel was drawn as a grey square."""
    eigenimages = random_images((2, 8, 8, 4)) * [1e-3, 1e-3, 1e-3, 1]
    mean = 100 + np.arange(4) * 1000 + random_images((8, 8, 4))
    display = EigenimageDisplay(eigenimages, [0.9, 0.1], mean, channel_names=["DAPI", "GFP", "c", "d"]).plot()
    assert [axes.get_title() for axes in display.axes_[[0, 3, 4, 11]]] == [
        "mean · DAPI",
        "mean · d",
        "PC 1 · DAPI",
        "PC 2 · d",
    ]
    assert display.axes_[4].texts[0].get_text() == f"90.0 %, ±{display.images_[4].get_clim()[1]:.2g}"
    assert display.axes_[3].texts[0].get_text() == "3100 to 3100"
    for k in range(2):
        pictures = display.images_[4 + 4 * k : 8 + 4 * k]
        assert len({picture.get_clim() for picture in pictures}) == 1
        np.testing.assert_array_equal(np.stack([one.get_array() for one in pictures], axis=-1), eigenimages[k])
        assert np.abs(pictures[3].get_array()).max() >= pictures[3].get_clim()[1]
    chosen = EigenimageDisplay(eigenimages).plot(channels=["c3", 0])
    assert [axes.get_title() for axes in chosen.axes_] == ["PC 1 · c3", "PC 1 · c0", "PC 2 · c3", "PC 2 · c0"]


def test_a_composite_adds_up_channels_in_their_colours():
    eigenimages = np.zeros((1, 2, 2, 4))
    eigenimages[0, 0, 0, 2], eigenimages[0, 1, 1, 3] = 5.0, -0.1
    display = EigenimageDisplay(eigenimages).plot(channels=["c2", "c3"], composite=True)
    (image,) = display.images_
    np.testing.assert_allclose(image.get_array(), [[[1, 0.5, 0.5], [0.5] * 3], [[0.5] * 3, [0.5, 0, 0.5]]])
    assert [text.get_text() for text in display.figure_.legends[0].get_texts()] == ["c2", "c3"]


def test_large_images_are_drawn_reduced():
    eigenimages = np.zeros((3, 1100, 2100), np.float32)
    eigenimages[:, :2] = 3
    display = EigenimageDisplay(eigenimages, mean_image=eigenimages[0]).plot()
    assert {image.get_array().shape for image in display.images_} == {(366, 700)}
    np.testing.assert_allclose(display.images_[1].get_array()[0], 2)


@pytest.mark.parametrize(("channels", "value"), [((), 0.0), ((), -2.0), ((3,), 0.0), ((3,), -2.0)])
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


def test_the_mean_image_is_the_first_picture(faces):
    mean = faces.mean(axis=0)
    display = EigenimageDisplay(random_images((3, 25, 25)), mean_image=mean).plot()
    assert [axes.get_title() for axes in display.axes_] == ["mean", "PC 1", "PC 2", "PC 3"]
    low, high = np.percentile(mean, (0.5, 99.5))
    assert display.images_[0].get_clim() == (low, high)
    assert display.axes_[0].texts[0].get_text() == f"{low:.3g} to {high:.3g}"
    assert np.array_equal(display.images_[0].get_array(), mean)


def test_no_title_touches_a_picture_or_another_title():
    display = EigenimageDisplay(random_images((10, 12, 30)), np.full(10, 0.1)).plot()
    display.figure_.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in display.axes_]
    boxes += [image.get_window_extent() for image in display.images_]
    boxes += [axes.texts[0].get_window_extent() for axes in display.axes_]
    for position, box in enumerate(boxes):
        assert box.count_overlaps(boxes[position + 1 :]) == 0
    assert all(box.x0 >= 0 and box.y1 <= display.figure_.bbox.height for box in boxes)


def test_a_sheet_takes_the_place_of_a_subplot():
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
        ((random_images((3, 5, 5)), [0.5]), r"shape \(1,\); 3 eigenimages need \(3,\)"),
        ((random_images((3, 5, 5)), None, np.zeros(25)), r"shape \(25,\); the eigenimages need \(5, 5\)"),
    ],
    ids=["rows", "shares", "mean"],
)
def test_wrong_shapes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EigenimageDisplay(*arguments)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (["x"], "there is no channel 'x'; there are c0, c1"),
        ([2], "there is no channel 2"),
        ("c0", "must be a list of names"),
        (None, r"600 pictures, and at most 256 are drawn. Choose some: channels=\['c0', 'c1'\]"),
    ],
)
def test_channels_that_cannot_be_drawn_are_refused(channels, message):
    n_channels = 2 if channels else 200
    with pytest.raises(ValueError, match=message):
        EigenimageDisplay(random_images((3, 5, 5, n_channels))).plot(channels=channels)
    with pytest.raises(ValueError, match="a name for each of the 2 channels"):
        EigenimageDisplay(random_images((3, 5, 5, 2)), channel_names=["a"])


def test_from_estimator_draws_the_first_components_and_the_mean(faces, faces_pca):
    pipeline = make_pipeline(ImageFlattener().fit(faces), faces_pca)
    display = EigenimageDisplay.from_estimator(pipeline, n_components=3, include_mean=True, max_columns=2)
    np.testing.assert_array_equal(display.eigenimages.reshape(3, -1), faces_pca.components_[:3])
    np.testing.assert_array_equal(display.explained_variance_ratio, faces_pca.explained_variance_ratio_[:3])
    np.testing.assert_allclose(display.mean_image, faces.mean(axis=0))
    assert len(display.axes_) == 4
    assert display.axes_[0].get_gridspec().ncols == 2
    assert len(EigenimageDisplay.from_estimator(pipeline).axes_) == 30


@pytest.mark.parametrize("before", [[], [ImageFlattener()]], ids=["stack", "rows"])
def test_image_pca_of_stacks_and_of_rows_look_the_same(before, faces, faces_pca):
    pipeline = make_pipeline(*before, ImagePCA(3)).fit(faces)
    display = EigenimageDisplay.from_estimator(pipeline, include_mean=True)
    overlap = np.sum(display.eigenimages.reshape(3, -1) * faces_pca.components_[:3], axis=1)
    np.testing.assert_allclose(np.abs(overlap), 1, rtol=1e-5)
    np.testing.assert_allclose(display.mean_image, faces.mean(axis=0))
    assert display.axes_[1].get_title() == f"PC 1 · {100 * faces_pca.explained_variance_ratio_[0]:.1f} %"
