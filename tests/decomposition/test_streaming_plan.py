"""Costs of the streaming solver, and its refusal of what cannot fit."""

import re

import numpy as np
import pytest

from imgstack_ml import MemoryLimitError
from imgstack_ml.decomposition import streaming_plan
from imgstack_ml.decomposition.records import FitSize
from imgstack_ml.decomposition.streaming_plan import randomized_cost, streaming_cost
from imgstack_ml.passes.memory import Allowance
from tests.lib.fits import streaming, tight
from tests.lib.stacks import counted


def test_streams_of_small_blocks_take_batches_as_large_as_there_is_room_for():
    size = FitSize.of((500, 2048**2), np.dtype("uint16"), 10, 4, max_passes=1)
    plans = {limit: streaming_cost(size, limit * 2**30, 2, kept=False) for limit in (6, 7, 10, 40)}
    assert all(plan.peak_bytes <= limit * 2**30 for limit, plan in plans.items())
    costs = [plan.multiply_adds / plans[40].multiply_adds for plan in plans.values()]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 5  # each block of four images is merged on its own
    assert costs[2] < 1.1


def test_what_cannot_fit_is_refused_with_what_would():
    """Components alone take 20 GB."""
    source = counted((np.zeros, (200, 10_000, 10_000), np.uint8), 1)
    pca = streaming(50, memory_limit="2GB")
    with pytest.raises(MemoryLimitError, match=r"100000000 values with 50 components.*Nothing was read") as refusal:
        pca.fit(source.data)
    assert not source.reads
    least = re.search(r"at least ([\d.]+) GiB", str(refusal.value))[1]
    assert float(least) * 2**30 > 50 * 4e8
    plan = tight(pca, source.data).plan(source.data)
    assert plan.solver == "randomized"
    assert plan.peak_bytes <= plan.memory_limit


def test_images_are_kept_where_that_takes_no_more_than_reading_them_again():
    size = FitSize.of((4_000, 10_000), np.dtype("uint8"), 10, 50)
    plenty = randomized_cost(size, Allowance(2**33, 2**29), 4)
    assert (plenty.keeps_images, plenty.n_passes) == (True, 1)
    again = streaming_cost(size, 80_000_000, 4, kept=False)
    little = randomized_cost(size, Allowance(80_000_000, 80_000_000), 4)
    assert (little.keeps_images, little.n_passes) == (False, 3)
    assert little.peak_bytes == again.peak_bytes <= 80_000_000
    in_memory = FitSize.of((4_000, 10_000), np.dtype("uint8"), 10, None)
    assert randomized_cost(in_memory, Allowance(80_000_000, 80_000_000), 4).keeps_images


def test_reads_are_no_more_than_allowed():
    size = FitSize.of((4_000, 10_000), np.dtype("uint8"), 10, 50, max_passes=2)
    assert streaming_cost(size, 2**33, 4, kept=False).n_passes == 2
    assert streaming_cost(size, 2**33, 4, kept=True).n_passes == 1


def test_ritz_vectors_and_the_certificate_are_part_of_the_plan(monkeypatch):
    """For 500 components of 2000 small images they take longer than the products with all images."""
    size = FitSize.of((2000, 2000), np.dtype("uint8"), 500, 100)
    plan = streaming_cost(size, 2**40, 4, kept=False)
    monkeypatch.setattr(streaming_plan, "_dense", lambda *sizes: 0.0)
    rest = streaming_cost(size, 2**40, 4, kept=False).multiply_adds
    assert plan.multiply_adds - rest > size.n * size.p * 2 * plan.counts.block * 2
