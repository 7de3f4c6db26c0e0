"""How images change with their order, against scipy, and on series that are made."""

import numpy as np
import pytest
from scipy.stats import rankdata

from imgstack_ml.report.trends import _ranks_within, changes_slowly, steady_change


def test_ranks_within_groups_are_scipys():
    rng = np.random.default_rng(0)
    values, groups = rng.integers(0, 30, 500).astype(float), rng.integers(0, 9, 500)
    expected = np.empty(500)
    for group in range(9):
        inside = groups == group
        expected[inside] = (rankdata(values[inside]) - 0.5) / inside.sum() - 0.5
    np.testing.assert_allclose(_ranks_within(values, groups), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("series", "is_steady"),
    [("rising", True), ("falling", True), ("three classes", False), ("a jump", False), ("noise", False)],
)
def test_steady_changes_go_on_within_all_quarters(series, is_steady):
    order = np.arange(200.0)
    made = {"rising": order, "falling": -order, "three classes": 70 * (order // 67), "a jump": 200 * (order > 90)}
    values = made.get(series, 0) + np.random.default_rng(0).normal(0, 25, 200)
    found = steady_change(values, np.zeros(200))
    assert np.sign(found) == is_steady * (1 - 2 * (series == "falling"))


def test_movies_change_slowly_whatever_their_order_of_classes():
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(100, 4)).cumsum(axis=0)
    assert changes_slowly(walk)
    assert not changes_slowly(walk[rng.permutation(100)])
    assert not changes_slowly(rng.normal(size=(100, 4)) + np.repeat(np.eye(4), 25, axis=0))
    assert not changes_slowly(walk[:7])
