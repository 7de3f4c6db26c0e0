"""Intensities by image: their values in one read, the plane of two channels, and the marked images."""

import numpy as np
import pytest

from imgstack_ml import IntensityDisplay, open_stack
from imgstack_ml.datasets import make_cells
from tests.lib.images import write_image
from tests.lib.stacks import counted, photographs


@pytest.mark.parametrize("chunks", [7, 60])
def test_intensities_are_those_of_numpy_in_one_read(chunks):
    cells = make_cells(60, 24)
    source = counted(cells, chunks)
    display = IntensityDisplay.from_stack(source.data)
    assert source.n_reads == 1
    for channel in range(3):
        np.testing.assert_array_equal(display.maxima_[channel].get_ydata(), cells.max(axis=(1, 2))[:, channel])
        np.testing.assert_allclose(display.means_[channel].get_ydata(), cells.mean(axis=(1, 2))[:, channel])
        np.testing.assert_array_equal(display.maxima_[channel].get_xdata(), np.arange(60))
    np.testing.assert_allclose(display.plane_.get_data(), cells.mean(axis=(1, 2)).T[:2])
    assert display.axes_[2].get_xlabel() == "mean intensity, red"
    assert [text.get_text() for text in display.axes_[0].get_legend().get_texts()] == ["red", "green", "blue"]


def test_marked_images_have_rings_in_all_three_plots():
    cells = make_cells(60, 24)
    display = IntensityDisplay.from_stack(cells)
    assert len(display.marked) > 0
    assert [len(rings.get_xdata()) for rings in display.marked_] == 3 * [len(display.marked)]
    np.testing.assert_array_equal(display.marked_[0].get_xdata(), display.marked)


def test_black_images_are_marked_where_they_are_few(faces):
    images = faces.copy()
    images[[7, 30]] = 0
    assert IntensityDisplay.from_stack(images).marked.tolist() == [7, 30]
    images[20:] = 0
    assert 30 not in IntensityDisplay.from_stack(images).marked


def test_grey_images_and_rows(faces):
    for images in (faces, faces.reshape(60, -1), faces[:7]):
        display = IntensityDisplay.from_stack(images)
        assert all(tick == int(tick) for tick in display.axes_[1].get_xticks())
        np.testing.assert_allclose(display.means[:, 0], faces[: len(images)].mean(axis=(1, 2)))
        assert display.axes_[2].get_ylabel() == "largest intensity"
        assert len(display.marked_) == 0


def test_channels_have_their_names_and_are_chosen():
    values = np.random.default_rng(0).random((20, 4))
    names = ["DAPI", "GFP", "Cy5", "c"]
    display = IntensityDisplay(values, values, channel_names=names).plot(channels=["GFP", 3])
    assert [text.get_text() for text in display.axes_[0].get_legend().get_texts()] == ["GFP", "c"]
    assert (display.axes_[2].get_xlabel(), display.axes_[2].get_ylabel()) == (
        "mean intensity, GFP",
        "mean intensity, c",
    )
    np.testing.assert_array_equal(display.means_[1].get_ydata(), values[:, 3])


def test_names_and_rings_do_not_touch_and_dots_at_zero_are_whole():
    values = np.zeros(100)
    marked = [40, 41, 43, 90, 91, 92]
    display = IntensityDisplay(
        values, values, marked=marked, names=[f"image {i} of a plate.tif" for i in range(100)]
    ).plot()
    display.figure_.canvas.draw()
    boxes = [text.get_window_extent() for text in display.axes_[0].texts]
    assert len(boxes) == 6
    assert all(box.count_overlaps(boxes[i + 1 :]) == 0 for i, box in enumerate(boxes))
    radius = display.maxima_[0].get_markersize() / 2 * display.figure_.dpi / 72
    for axes in display.axes_[:2]:
        assert axes.transData.transform((0, 0))[1] - radius >= axes.get_window_extent().y0


def test_few_marked_files_are_named(tmp_path):
    for i, image in enumerate(photographs(20, (10, 10))):
        write_image(tmp_path / f"${i}.png", image // 10 if i == 4 else image)
    display = IntensityDisplay.from_stack(open_stack(tmp_path))
    assert [text.get_text() for text in display.axes_[0].texts] == ["$4.png"]
    display.figure_.canvas.draw()


def test_constant_and_negative_intensities_are_drawn():
    for values in (np.zeros((5, 4, 4)), -np.repeat(np.arange(5.0), 16).reshape(5, 4, 4) - 1):
        display = IntensityDisplay.from_stack(values)
        display.figure_.canvas.draw()
        low, high = display.axes_[0].get_ylim()
        assert low <= values.min()
        assert high > values.max()


def test_intensities_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        IntensityDisplay(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"needed is \(n_images, n_channels\)"):
        IntensityDisplay(np.zeros((4, 3, 2)), np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match="IntensityDisplay got an array of shape"):
        IntensityDisplay.from_stack(np.zeros((2, 3, 4, 5, 6)))
