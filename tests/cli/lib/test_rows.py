"""Rows in a file, and the memory that a classifier needs."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml.cli.lib.rows import RowFile, plan_dtype
from imgstack_ml.errors import MemoryLimitError


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_come_back_in_parts(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("imgstack_ml.cli.lib.rows._PART_BYTES", 200)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((100, 7)).astype(dtype)
    with RowFile(str(tmp_path), 7, dtype) as file:
        for part in np.split(rows, [3, 50, 50]):
            file.append(part.astype("float64"))
        assert list(tmp_path.iterdir()) == []  # it has no name
        for positions in (np.arange(100), np.sort(rng.choice(100, 60, False)), np.array([0, 99]), np.array([], int)):
            taken = file.take(positions)
            assert taken.dtype == dtype
            assert_array_equal(taken, rows[positions])
            for place, part in file.parts(positions):
                assert_array_equal(part, rows[positions][place])
                assert part.nbytes <= 200


def test_the_dtype_of_rows_is_planned():
    many = {"n_images": 100_000, "n_features": 1855, "n_classes": 10}
    assert plan_dtype("logistic", n_images=1000, n_features=1855, n_classes=2, memory_limit="auto")[0] == "float64"
    dtype, n_bytes = plan_dtype("logistic", **many, memory_limit="1GB")
    assert (dtype, n_bytes < 900e6) == ("float32", True)
    assert plan_dtype("logistic", **many, memory_limit="2GB")[0] == "float64"
    for classifier, limit, more in (
        ("logistic", "500MB", {}),
        ("svm", "1GB", {}),
        ("forest", "10GB", {"n_classes": 5000}),
        ("logistic", "2GB", {"n_classes": 5000}),
    ):
        with pytest.raises(
            MemoryLimitError, match=f"the classifier '{classifier}' of 100,000 images by 1,855 features"
        ):
            plan_dtype(classifier, **{**many, **more}, memory_limit=limit)
