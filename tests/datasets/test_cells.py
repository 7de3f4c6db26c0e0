"""Generated cells: repeatable, and like those of a microscope in brightness, colours and spectrum."""

import numpy as np
import pytest

from imgstack_ml.datasets import cell_image, make_cells


@pytest.fixture(scope="module")
def stack():
    return make_cells(200, 48)


def test_cell_image_depends_on_its_arguments_alone():
    stack = make_cells(4, 32, seed=7)
    assert stack.dtype == np.uint8
    assert np.array_equal(stack[3], cell_image(3, 32, seed=7))
    assert np.array_equal(stack[:2], make_cells(2, 32, seed=7))
    assert not np.array_equal(stack[0], stack[1])
    assert not np.array_equal(stack[0], cell_image(0, 32, seed=8))


def test_cells_have_what_the_tutorial_finds_in_its_own(stack):
    brightest = stack.max(axis=(1, 2, 3))
    red, green, _ = stack.mean(axis=(1, 2)).T
    assert 0.05 < np.mean(brightest < 150) < 0.2  # a very different intensity range
    assert np.median(brightest) == 255
    assert 0.25 < np.mean(red < green) < 0.75
    # Dark background, bright cells.
    assert np.median(stack) < 50


def test_spectrum_of_cells_decays_but_is_not_of_low_rank(stack):
    rows = stack[:120].reshape(120, -1).astype(np.float64)
    rows -= rows.mean(axis=0)
    values = np.linalg.eigvalsh(rows @ rows.T)[::-1]
    share = values / values.sum()
    assert share[0] > 0.1
    assert share[:10].sum() < 0.7
    assert np.all(share[:119] > 1e-5)  # 120 centred images have rank 119 at most
