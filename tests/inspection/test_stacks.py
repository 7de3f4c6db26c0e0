"""Images of a stack: which are chosen, and what they are called."""

import os

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.inspection.stacks import evenly_spaced, image_names, read_images, short_name
from tests.lib.images import write_folder


@pytest.mark.parametrize(
    ("n_images", "n_chosen", "positions"), [(1, 4, [0]), (3, 4, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (20, 2, [0, 19])]
)
def test_evenly_spaced_images_include_the_first_and_the_last(n_images, n_chosen, positions):
    assert evenly_spaced(n_images, n_chosen) == positions


def test_names_are_files_below_the_folder_that_all_share(tmp_path):
    for folder in ("a", "b"):
        write_folder(tmp_path / "deep" / folder, 2)
    assert image_names(open_stack(tmp_path, recursive=True), 4) == [
        "a/img0.png",
        "a/img1.png",
        "b/img0.png",
        "b/img1.png",
    ]
    assert image_names(open_stack(tmp_path / "deep" / "a"), 2) == ["img0.png", "img1.png"]
    assert image_names(np.zeros((2, 3, 3)), 2) == ["image 0", "image 1"]


def test_names_that_are_not_utf8_are_printable(tmp_path):
    write_folder(tmp_path, 2)
    os.rename(tmp_path / "img1.png", os.fsencode(tmp_path) + b"/img\xff.png")
    assert set(image_names(open_stack(tmp_path), 2)) == {"img0.png", "img\\udcff.png"}


def test_long_names_keep_both_ends():
    assert short_name("a" * 24) == "a" * 24
    assert short_name("a" * 30 + "b" * 30) == "a" * 11 + "…" + "b" * 12


def test_images_beyond_the_stack_are_refused():
    with pytest.raises(IndexError):
        read_images("Display", np.zeros((2, 3, 3)), [2])
