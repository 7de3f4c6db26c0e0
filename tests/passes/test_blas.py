"""One thread of BLAS for each task, however tasks overlap, and the old number afterwards."""

import sys
import threading
from types import ModuleType

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from imgstack_ml.passes import blas
from imgstack_ml.passes.blas import in_threads, one_blas_thread

pytestmark = pytest.mark.usefixtures("two_blas_threads")


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_one_thread_within_and_the_old_number_after():
    before = blas_threads()
    assert set(before) == {2}
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_the_old_number_comes_back_after_an_error():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError
    assert blas_threads() == before


def test_the_old_number_comes_back_where_the_first_task_ends_first():
    before = blas_threads()
    entered, may_leave = threading.Event(), threading.Event()

    def first():
        with one_blas_thread():
            entered.set()
            may_leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with one_blas_thread():
        may_leave.set()
        thread.join(10)
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_libraries_are_looked_for_once_and_again_after_an_import(monkeypatch):
    searches, find = [], blas.ThreadpoolController
    monkeypatch.setattr(blas, "ThreadpoolController", lambda: searches.append(1) or find())
    blas._blas_libraries.cache_clear()
    for n_searches, new in ((1, None), (1, "another_library"), (2, None)):
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert len(searches) == n_searches
        if new:
            monkeypatch.setitem(sys.modules, new, ModuleType(new))


@pytest.mark.parametrize("n", [1, 3, 50])
def test_pixels_are_divided_among_threads_in_order(n):
    blocks = [np.arange(24).reshape(2, 3, 4), np.arange(12).reshape(1, 3, 4)]

    def step(parts, lo, hi):
        assert set(blas_threads()) <= {1}
        return [part.reshape(len(part), -1)[:, lo:hi] for part in parts]

    found = in_threads(n)(step, lambda a, b: [np.hstack(pair) for pair in zip(a, b, strict=True)], blocks)
    for one, block in zip(found, blocks, strict=True):
        np.testing.assert_array_equal(one, block.reshape(len(block), -1))
