"""The certificate of a streaming fit: what it says, and that it is saved. Its bounds are in tests/linalg."""

import numpy as np
import pytest

from imgstack_ml import ImagePCA, load_model, save_model
from imgstack_ml.decomposition.certificate import Certificate
from tests.lib.stacks import photographs


def certificate(**changes):
    figures = {
        "captured_variance": 6.0,
        "total_variance": 8.0,
        "estimated_deficit": 0.08,
        "deficit_bounds": (0.04, 0.4),
        "explained_variance_bounds": [[4.0, 1.0], [5.0, 2.0]],
        "estimated_errors": [0.01, 0.03],
        "residual_norms": [0.1, 0.2],
        "is_exact": True,
        "converged": True,
    }
    return Certificate(**(figures | changes))


def test_shares_of_the_total_are_shown():
    assert repr(certificate()).splitlines() == [
        "Certificate: within tol",
        "  captured variance   75.000000% of the total",
        "  missed (estimate)   0.01 of the total",
        "  missed (certain)    0.005 to 0.05 of the total",
        "  largest relative error of an explained variance (estimate)  0.03",
    ]


def test_after_a_single_read_there_are_bounds_only():
    one = certificate(
        is_exact=False, converged=False, estimated_deficit=None, estimated_errors=None, residual_norms=None
    )
    assert "not known to be within tol" in repr(one)
    assert "at least 75" in repr(one)
    assert "estimate" not in repr(one)
    assert one.largest_error == float("inf")
    page = one._repr_html_()
    assert page.count("not estimated: the images were read once") == 2
    assert "at least 75.0000 % of the total" in page
    assert "75.0000 % of the total, exact" in certificate()._repr_html_()
    assert "None" not in page
    assert "inf" not in page


def test_largest_error():
    assert certificate().largest_error == 0.03
    assert certificate(estimated_errors=[]).largest_error == 0


def test_a_stack_without_variance_is_shown():
    assert "captured variance   0.000000%" in repr(certificate(captured_variance=0.0, total_variance=0.0))


def test_lists_become_arrays():
    assert certificate().explained_variance_bounds.dtype == np.float64
    assert certificate(estimated_errors=None).estimated_errors is None


@pytest.mark.parametrize("max_passes", [1, 6])
def test_a_certificate_is_saved_with_the_model(max_passes, tmp_path):
    pca = ImagePCA(3, svd_solver="randomized", random_state=0, max_passes=max_passes).fit(photographs(90, (9, 9)))
    save_model(pca, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors").certificate_
    assert repr(loaded) == repr(pca.certificate_)
    assert np.array_equal(loaded.explained_variance_bounds, pca.certificate_.explained_variance_bounds)
