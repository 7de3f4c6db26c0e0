"""The exact solver "tsqr": digits of small singular values, and peak memory."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose

from imgstack_ml import ImagePCA
from tests.lib.fits import noise, traced_peak
from tests.lib.stacks import assert_fitted, photographs, reference, stack_of_spectrum


@pytest.mark.parametrize("shape", [(60, 40, 30), (600, 5, 8)], ids=["wide", "tall"])
@pytest.mark.parametrize("lazy", [False, True])
def test_tsqr_keeps_a_graded_spectrum(shape, lazy):
    """Down to a millionth of the largest singular value, to a millionth of itself."""
    X = stack_of_spectrum(shape[0], shape[1:], np.geomspace(1, 1e-6, 13) * 300, offset=40.0)
    pca = ImagePCA(13, svd_solver="tsqr").fit(da.from_array(X, chunks=(17, *shape[1:])) if lazy else X)
    ref = reference(X)
    assert_allclose(pca.singular_values_, ref.singular_values[:13], rtol=1e-6)
    assert_allclose(np.abs(np.sum(pca.components_ * ref.components[:13], axis=1)), 1, atol=1e-6)
    assert pca.svd_solver_ == "tsqr"


def test_finite_extremes_are_not_called_infinite():
    X = photographs(8, (4, 3), "float64") * 1e150
    assert_fitted(ImagePCA(2, svd_solver="tsqr").fit(X), X)


MEMORY = {
    "wide": ((40, (192, 192), 5), 8),
    "wide, all components": ((40, (192, 192), 5), None),
    "tall": ((6_000, (8, 16), 500), 8),
}


@pytest.mark.parametrize(("shape", "k"), MEMORY.values(), ids=MEMORY.keys())
def test_numpy_takes_no_more_than_planned(shape, k):
    stack = noise(*shape)
    pca = ImagePCA(k, svd_solver="tsqr")
    planned = pca.plan(stack).peak_bytes
    ImagePCA(1, svd_solver="tsqr").fit(noise(4, (3, 2), 2))  # what is made once per process
    assert traced_peak(lambda: pca.fit(stack)) <= planned
