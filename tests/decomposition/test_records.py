"""Sizes of a fit, from which its costs follow."""

import numpy as np
import pytest

from imgstack_ml.decomposition.records import FEW_PRODUCTS, FitSize
from imgstack_ml.linalg.tiles import TILE_BYTES
from imgstack_ml.passes.memory import Allowance

UINT8, DOUBLE = np.dtype("uint8"), np.dtype("float64")


@pytest.mark.parametrize(
    ("n_components", "k", "share"), [(7, 7, False), (np.int64(7), 7, False), (None, 40, False), (0.9, 40, True)]
)
def test_components_of_a_size(n_components, k, share):
    size = FitSize.of((40, 500), UINT8, n_components, 10)
    assert (size.k, size.share) == (k, share)


def test_a_size_of_images_in_memory_has_blocks_of_its_own():
    assert FitSize.of((40, 500), UINT8, 3, None).block == 40
    large = FitSize.of((4_000, 2**20), DOUBLE, 3, None)
    assert (large.block, large.in_memory) == (4, True)
    assert not FitSize.of((4_000, 2**20), DOUBLE, 3, 1).in_memory


def test_bytes():
    size = FitSize.of((40, 500), np.dtype("uint16"), 3, 10)
    assert (size.raw_bytes, size.image_bytes) == (40_000, 1_000)
    assert (size.itemsize, size.dtype, size.integers) == (2, np.float32, True)
    assert size.tile_bytes == 8 * 40 * 500
    assert size.result_bytes == 2 * 3 * 500 * 4 + 40 * 500
    assert FitSize.of((10**5, 10**5), DOUBLE, 3, 10).tile_bytes == TILE_BYTES


@pytest.mark.parametrize(
    ("limit", "rest", "expected"),
    [(10**9, 0, 40_000), (100_000, 20_000, 20_000), (70_000, 20_000, 12_500), (1, 0, 10_000)],
)
def test_a_quarter_of_the_memory_that_is_left_is_for_reading(limit, rest, expected):
    """But no less than two blocks, and no more than all images."""
    size = FitSize.of((40, 500), np.dtype("uint16"), 3, 5)
    assert size.reading_bytes(Allowance(limit, limit), rest, 4) == expected


def test_rows_of_the_streaming_solver():
    short, long = (FitSize.of((n, 10**6), UINT8, 10, 10).row_counts() for n in (4_096, 4_097))
    assert (short.k, short.summary, short.draws, short.block) == (10, 72, 8, 32)
    assert long == long._replace(k=10, summary=20, draws=8, block=32)
    assert FitSize.of((4_096, 10**6), UINT8, 10, 10).row_counts(kept=True).summary == 20
    assert FitSize.of((4_096, 10**6), UINT8, 0.5, 10).row_counts().k == 32
    assert FitSize.of((4_096, 10**6), UINT8, 10, 10, n_oversamples=30).row_counts().block == 48
    few = FitSize.of((9, 10**6), UINT8, 9, 9).row_counts()
    assert (few.summary, few.block) == (8, 16)


def test_few_products_are_computed_in_double_precision():
    n = int(FEW_PRODUCTS / 72 / 1_000)
    sizes = [FitSize.of((1_000, p), UINT8, 10, 10).row_counts().dtype for p in (n - 1, n + 1)]
    assert sizes == [np.float64, np.float32]


def test_seconds_count_products_and_casts():
    size = FitSize.of((40, 500), UINT8, 3, 10)
    assert size.seconds(1e11, 1e9, np.dtype(np.float32)) == pytest.approx(2 + 0.9)
    assert size.seconds(1e11, 1e9, DOUBLE) == pytest.approx(2 * (2 + 0.9))
    assert size.seconds(1e11, 0) == pytest.approx(1)
