"""Many threads: the plan stays small, and results are those of few threads."""

import dask
import numpy as np
import pytest
from numpy.testing import assert_allclose

from imgstack_ml.decomposition.plan import plan_fit
from imgstack_ml.decomposition.records import FitSize
from imgstack_ml.passes.blas import in_threads
from imgstack_ml.passes.memory import Allowance
from tests.lib.fits import streamed
from tests.lib.stacks import counted, photographs


@pytest.mark.parametrize("reads", [1, 6])
def test_memory_in_flight_does_not_grow_with_threads(reads):
    size = FitSize.of((20_032, 196_608), np.dtype("uint8"), 10, 64, max_passes=reads)
    peaks = []
    for n_threads in (2, 8, 16, 32):
        with dask.config.set(num_workers=n_threads):
            peaks.append(plan_fit(size, "randomized", Allowance(2**34, 2**29)).peak_bytes)
    assert peaks == sorted(peaks)
    assert peaks[-1] <= 1.5e9


def test_many_threads_find_what_few_do(monkeypatch):
    images = photographs(700, (40, 30), "uint8")
    fitted, divided = [], []
    monkeypatch.setattr("imgstack_ml.passes.batches.MOST_IN_FLIGHT", 2)  # a small stack has few batches
    monkeypatch.setattr("imgstack_ml.passes.runner.in_threads", lambda n: divided.append(n) or in_threads(n))
    for n_threads in (2, 24):
        source = counted(images, 50)
        with dask.config.set(scheduler="threads", num_workers=n_threads):
            factors, runner = streamed(source.data, 3)
        assert set(source.reads.values()) == {round(runner.n_passes)}
        fitted.append(factors)
    assert min(divided) > 1
    few, many = fitted
    assert_allclose(many.singular_values, few.singular_values, rtol=1e-6)
    assert_allclose(np.abs(many.components @ few.components.T), np.eye(3), atol=1e-4)
