"""What a memory limit allows, and where it comes from."""

import pytest

from imgstack_ml.passes import memory
from imgstack_ml.passes.memory import Allowance, allowance, within_plan


@pytest.mark.parametrize(("given", "expected"), [("1GB", 10**9), ("2 MiB", 2**21), (5e6, 5_000_000), (1, 1)])
def test_a_given_limit_is_used_in_full(given, expected):
    assert allowance(given) == Allowance(expected, expected)


@pytest.mark.parametrize(("available", "limit", "keep"), [(2**20, 2**19, 2**19), (2**40, 2**39, 2**29)])
def test_auto_is_half_of_what_is_available(monkeypatch, available, limit, keep):
    monkeypatch.setattr(memory, "_available", lambda: available)
    assert allowance("auto") == Allowance(limit, keep)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lots", "is not a size"),
        (0, "leaves no memory"),
        ("-1GB", "leaves no memory"),
        (True, "must be 'auto', bytes"),
        (None, "must be 'auto', bytes"),
    ],
)
def test_other_limits_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        allowance(given)


def test_images_are_kept_within_keep_or_what_another_fit_would_take():
    allowed = Allowance(limit=100, keep=10)
    assert [allowed.room_to_keep(otherwise) for otherwise in (5, 50, 500)] == [10, 50, 100]


def test_limits_of_the_process_count(monkeypatch):
    monkeypatch.setattr(memory, "_left_by_limits", lambda: [12_345, 10**18])
    assert memory._available() == 12_345
    monkeypatch.setattr(memory, "_left_by_limits", lambda: [-1])
    assert memory._available() == 0


def test_soft_limits_less_what_is_taken():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = 2**45 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        assert any(0 < left < most for left in memory._left_by_limits())
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_glibc_reuses_memory_again_after_a_plan(monkeypatch):
    thresholds = []
    monkeypatch.setattr(memory, "_may_tune_glibc", lambda: True)
    monkeypatch.setattr(memory, "_set_thresholds", thresholds.append)
    monkeypatch.setattr(memory, "reuse_freed_memory", lambda: None)
    monkeypatch.setattr(memory, "_POLL_SECONDS", 1e-3)
    with within_plan(2**20):
        taken = bytearray(b"x") * 2**26  # larger than what glibc takes from memory that the process holds already
        for _ in range(1000):
            if thresholds:
                break
            memory.threading.Event().wait(0.01)
    assert len(taken) == 2**26
    *while_it_ran, last = thresholds
    assert set(while_it_ran) == {memory._RETURN}  # once, or again as more is taken
    assert last == memory._REUSE
    thresholds.clear()
    with within_plan(2**40):
        pass
    assert not thresholds  # there was room: nothing was changed
