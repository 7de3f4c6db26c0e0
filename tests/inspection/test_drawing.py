"""What several Displays share: columns of a sheet, and places in a given figure."""

import matplotlib.pyplot as plt
import pytest

import imgstack_ml as im
from imgstack_ml.inspection._drawing import choose_columns


@pytest.mark.parametrize(("n_tiles", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (16, 4), (30, 6), (500, 8)])
def test_columns(n_tiles, columns):
    assert choose_columns(n_tiles, 8) == columns


def test_sheets_have_few_gaps_and_no_more_columns_than_asked_for():
    for n_tiles in range(1, 120):
        columns = choose_columns(n_tiles, 8)
        assert 1 <= columns <= min(8, n_tiles)
        assert -n_tiles % columns <= max(1, n_tiles // 4)


def test_displays_take_the_place_of_a_subplot(faces):
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
    assert displays[3].ax_ is axes[1, 1]
    figure.canvas.draw()
    middle = axes[0, 0].get_position().x1
    assert min(ax.get_position().x0 for ax in displays[1].axes_) > middle
    with pytest.raises(ValueError, match="ax must be a subplot"):
        im.IntensityDisplay.from_stack(faces, ax=plt.figure().add_axes((0, 0, 1, 1)))


def test_plots_are_vectors_and_pictures_have_one_image_each(faces, tmp_path):
    pca = im.ImagePCA(3).fit(faces)
    displays = {
        "scores": (im.ScoresDisplay.from_estimator(pca, faces, n_thumbnails=3), 3),
        "intensity": (im.IntensityDisplay.from_stack(faces), 0),
        "eigenimages": (im.EigenimageDisplay.from_estimator(pca), 3),
    }
    for name, (display, n_images) in displays.items():
        display.figure_.savefig(tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.svg").read_text().count("<image ") == n_images


def test_unknown_keywords_name_what_was_called(faces):
    pca = im.ImagePCA(3).fit(faces)
    for display, given in ((im.EigenimageDisplay, (pca,)), (im.ReconstructionDisplay, (pca, faces))):
        with pytest.raises(TypeError, match=rf"{display.__name__}.from_estimator\(\) got .* 'colour'"):
            display.from_estimator(*given, colour="RdBu")
