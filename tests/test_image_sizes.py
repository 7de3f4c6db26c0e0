"""The comparison of image sizes, and the bare loops that it compares with."""

import re
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.lib.images import random_pixels

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks is a package of the repository that is not installed

from benchmarks.comparisons import image_sizes
from benchmarks.suites.sizes import FITS, LOOPS


def test_image_sizes_measures_all_passes(capsys):
    image_sizes.main(["--sizes", "28", "--megabytes", "1", "--rounds", "1"])
    printed = capsys.readouterr().out
    for dtype in ("uint8", "float32"):
        assert re.search(rf"\n\| [\d,]+ of 28 × 28, {dtype}( \| [\d.]+ · [\d.]+){{4}} \|\n", printed)


@pytest.mark.parametrize("shape", [(60, 6, 6), (20, 9, 9)], ids=["many", "few"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_loops_give_what_fits_give(shape, dtype):
    pixels = (random_pixels(shape) * np.linspace(0.2, 1, shape[1])).astype(dtype)
    stack = da.from_array(pixels, chunks=(7, -1, -1))
    assert_allclose(LOOPS["mean"](stack), pixels.mean(axis=0, dtype=float), rtol=1e-12)
    assert_allclose(LOOPS["mean, deviation"](stack), pixels.std(axis=0, dtype=float), rtol=1e-9)
    assert_allclose(np.abs(LOOPS["pca"](stack)[::-1] @ FITS["pca"](stack).components_.T), np.eye(4), atol=1e-4)
