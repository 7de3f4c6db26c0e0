"""Real images: shapes, labels, and the pixels of the originals."""

import numpy as np
import pytest

from imgstack_ml.datasets import load_digits, load_faces, load_textures, load_tissue


@pytest.mark.parametrize(
    ("load", "shape", "names"),
    [
        (load_faces, (200, 25, 25), {"face", "nonface"}),
        (load_digits, (1797, 8, 8), set("0123456789")),
        (load_textures, (192, 64, 64), {"brick", "grass", "gravel"}),
    ],
)
def test_labelled_samples(load, shape, names):
    stack, labels = load()
    assert stack.shape == shape
    assert stack.dtype == np.uint8
    assert stack.max() > 200
    assert labels.shape == shape[:1]
    assert set(labels) == names


def test_digits_keep_their_17_levels():
    from sklearn.datasets import load_digits as reference

    stack, labels = load_digits()
    assert np.array_equal(np.rint(stack / 255 * 16), reference().images)
    assert np.array_equal(labels.astype(int), reference().target)


def test_patches_put_together_are_the_photograph():
    from skimage.data import immunohistochemistry

    patches = load_tissue(128)
    assert patches.shape == (16, 128, 128, 3)
    rows = [np.hstack(patches[row : row + 4]) for row in range(0, 16, 4)]
    assert np.array_equal(np.vstack(rows), immunohistochemistry())


@pytest.mark.parametrize("patch", [0, 513])
def test_patch_must_fit(patch):
    with pytest.raises(ValueError, match=f"patch={patch} must lie between 1 and 512"):
        load_textures(patch)
