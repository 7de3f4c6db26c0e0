"""Which blocks one task takes, and which tasks stand in one graph: numbers only."""

from itertools import accumulate

import pytest

from imgstack_ml.base.validation import Images
from imgstack_ml.errors import MemoryLimitError
from imgstack_ml.passes import batches as _batches
from imgstack_ml.passes.batches import Batch, Groups, Layout, batch_rows, plan_groups, read_bytes_within
from imgstack_ml.passes.memory import Allowance
from tests.lib.stacks import photographs

MB = 2**20
LIMITS = [1, 25, 300, 2**40]


def layout(*sizes, image_bytes=10):
    return Layout([0, *accumulate(sizes)], image_bytes)


def test_a_layout_counts_images_and_bytes():
    found = layout(3, 1, 4)
    assert (found.n_blocks, found.largest) == (3, 4)
    assert found.n_images(Batch(0, 2)) == 4
    assert found.n_images(Batch(0, 1), Batch(2, 3)) == 7
    assert found.n_bytes(Batch(1, 3)) == 50


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [
        (1, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        (40, [(0, 2), (2, 3), (3, 4)]),
        (50, [(0, 2), (2, 4)]),
        (79, [(0, 2), (2, 4)]),
        (90, [(0, 4)]),
    ],
)
def test_consecutive_blocks_are_joined_up_to_so_many_bytes(n_bytes, expected):
    assert layout(3, 1, 4, 1).batches(Batch(0, 4), n_bytes) == [Batch(*one) for one in expected]


def test_batches_of_a_part_of_the_stack():
    assert layout(3, 1, 4, 1).batches(Batch(1, 4), 50) == [Batch(1, 3), Batch(3, 4)]


@pytest.mark.parametrize("read_bytes", LIMITS)
@pytest.mark.parametrize("partial_bytes", [0, 7])
def test_groups_cover_the_span_in_order_and_fit_the_bytes_for_reading(read_bytes, partial_bytes):
    blocks = layout(*[2, 5, 1, 1, 3] * 4)
    groups, together = plan_groups(blocks, Batch(3, 19), read_bytes, partial_bytes)
    flat = [batch for group in groups for batch in group]
    assert [batch.first for batch in flat] == [3, *(batch.stop for batch in flat[:-1])]
    assert flat[-1].stop == 19
    assert all(len(group) == together for group in groups[:-1])
    for group in groups:
        assert len(group) == 1 or sum(blocks.n_bytes(one) + partial_bytes for one in group) <= read_bytes


def test_a_batch_takes_half_of_the_bytes_for_reading_with_its_result():
    assert plan_groups(layout(*[1] * 8), Batch(0, 8), 80, 10).groups[0] == [Batch(0, 3), Batch(3, 6)]


def test_batches_are_no_larger_than_pays_unless_results_are_large(monkeypatch):
    monkeypatch.setattr(_batches, "BATCH_BYTES", 20)
    blocks = layout(*[1] * 12)
    assert plan_groups(blocks, Batch(0, 12), 10_000).groups[0][0] == Batch(0, 2)
    assert plan_groups(blocks, Batch(0, 12), 10_000, batch_bytes=50).groups[0][0] == Batch(0, 5)
    assert plan_groups(blocks, Batch(0, 12), 60, batch_bytes=50).groups[0][0] == Batch(0, 3)


def test_no_more_results_than_planned_where_blocks_make_batches_smaller():
    blocks = layout(*[5] * 10)  # two of them are too large for a batch of 80 bytes
    assert plan_groups(blocks, Batch(0, 10), 170, 5).together == 3
    assert plan_groups(blocks, Batch(0, 10), 170, 5, batch_bytes=1).together == 2


@pytest.mark.parametrize(("together", "n_groups"), [(1, 3), (3, 3), (4, 48), (9, 48)])
def test_a_wave_is_long_where_a_group_has_two_batches_a_thread(together, n_groups):
    assert Groups([], together).per_wave(n_processes=3, n_threads=2) == n_groups


def test_rows_of_a_numpy_batch():
    assert batch_rows(Images(photographs(2, (4, 4), "uint16"), None)) == _batches.BATCH_BYTES // 32


# bytes for reading within a memory limit


def within(limit, partial_bytes=0, n_threads=2, reads=True, sizes=(4, 6)):
    blocks = layout(*sizes, image_bytes=MB)
    return read_bytes_within(Allowance(limit, limit), blocks, partial_bytes, n_threads, reads=reads)


def test_threads_and_their_results_come_off_the_limit():
    assert within(100 * MB) == (100 - 2 * 8) * MB
    assert within(100 * MB, 3 * MB) == (100 - 2 * (8 + 3) - 3) * MB
    assert within(100 * MB, n_threads=1) == 92 * MB
    assert within(2**40) == _batches.READ_BYTES


def test_a_limit_too_small_for_a_block_is_refused_with_one_that_works():
    least = (2 * (8 + 3) + 3 + 6 + 3) * MB
    assert within(least, 3 * MB) == 9 * MB
    with pytest.raises(MemoryLimitError, match=r"blocks of 6 images needs at least 34\.00 MiB.*chunks=3\)") as refusal:
        within(least - 1, 3 * MB)
    assert f"memory_limit='{-(-least // 10**6)}MB'" in str(refusal.value)


def test_smaller_blocks_are_not_proposed_where_they_would_not_help():
    for options in ({"sizes": (1, 1)}, {"reads": False}):
        with pytest.raises(MemoryLimitError) as refusal:
            within(MB, **options)
        assert "chunks=" not in str(refusal.value)
        assert ". Give fit_together" in str(refusal.value)
    assert within(16 * MB, reads=False) == 0
