"""Planted stacks have the components that they say they have."""

import numpy as np
import pytest

from imgstack_ml.datasets import make_planted


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6), (np.uint16, 1e-3), (np.uint8, 2e-2)]
)
@pytest.mark.parametrize("image_shape", [(9, 7), (6, 5, 3)])
def test_planted_components_are_found(dtype, tolerance, image_shape):
    planted = make_planted(60, image_shape, n_modes=4, dtype=dtype, decay=0.7)
    rows = planted.stack.reshape(60, -1).astype(np.float64)
    mean = rows.mean(axis=0)
    _, s, Vt = np.linalg.svd(rows - mean, full_matrices=False)
    modes = planted.modes.reshape(4, -1)

    assert planted.stack.dtype == dtype
    assert planted.modes.shape == (4, *image_shape)
    np.testing.assert_allclose(modes @ modes.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(s[:4], planted.singular_values, rtol=tolerance)
    np.testing.assert_allclose(np.abs(np.sum(modes * Vt[:4], axis=1)), 1, rtol=tolerance)
    np.testing.assert_allclose(mean, planted.mean.ravel(), rtol=tolerance)


def test_planted_noise_is_a_share_of_the_range():
    quiet = make_planted(200, (20, 20), dtype=np.uint16)
    noisy = make_planted(200, (20, 20), dtype=np.uint16, noise=0.01)
    noise = noisy.stack.astype(float) - quiet.stack
    assert noise.std() == pytest.approx(0.01 * 65535, rel=0.02)


def test_planted_refuses_what_it_cannot_plant():
    with pytest.raises(ValueError, match="n_modes=5 must lie between 1 and 4"):
        make_planted(5, (8, 8), n_modes=5)
    with pytest.raises(ValueError, match="unsigned integer"):
        make_planted(5, (8, 8), n_modes=2, dtype=np.int16)
