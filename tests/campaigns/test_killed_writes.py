"""Writes that are killed, at random moments, in real processes."""

import os
import random
import shutil
import signal
import time

import dask
import numpy as np
import pytest

from imgstack_ml import open_stack, save_stack
from imgstack_ml.errors import StoreError
from tests.lib import workers, write_stack

SECONDS_A_BLOCK = 0.01  # so that most kills meet the writing, not the imports


def start(target, log, resume):
    return workers.start(write_stack.write, str(target), str(log), resume, SECONDS_A_BLOCK)


def kill_while_writing(target, log, resume, rng):
    """Kill a writing process some time after its first block; tell whether it was still alive."""
    log.unlink(missing_ok=True)
    process = start(target, log, resume)
    while not log.exists() and process.is_alive():
        time.sleep(0.001)
    process.join(rng.uniform(0, 0.7 * SECONDS_A_BLOCK * write_stack.N_BLOCKS))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def check_target(target, old, new):
    """The target is the old store or the new one, whole, or is not there where there was none."""
    if old is None and not os.path.exists(target):
        return "none"
    found = open_stack(target).data.compute()
    if np.array_equal(found, new):
        return "new"
    np.testing.assert_array_equal(found, old)
    return "old"


@pytest.mark.parametrize("n_kills", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_writes_are_old_or_new_and_go_on(tmp_path, n_kills):
    rng = random.Random(n_kills + 1)
    new, old = write_stack.everything(), np.ones((3, 5, 5))
    target, log, seen = tmp_path / "out" / "stack.zarr", tmp_path / "log", []
    target.parent.mkdir()
    for i in range(n_kills):
        before = old if i % 2 else None
        for name in os.listdir(target.parent):
            path = target.parent / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if before is not None:
            save_stack(before, target)
        killed = kill_while_writing(target, log, True, rng)
        seen.append((killed, check_target(target, before, new)))
        whole = whole_blocks(target)
        in_flight = set(map(int, log.read_text().split())) - whole
        log.unlink()
        if not killed or seen[-1][1] == "new":
            continue
        assert len(in_flight) <= 2  # that many threads
        with dask.config.set(scheduler="threads", num_workers=2):
            save_stack(write_stack.stack(str(log), 0), target, overwrite=True, resume=True)
        np.testing.assert_array_equal(open_stack(target).data.compute(), new)
        again = sorted(map(int, log.read_text().split())) if log.exists() else []
        assert again == sorted(set(range(write_stack.N_BLOCKS)) - whole)
        assert os.listdir(target.parent) == ["stack.zarr"]
    print(f"\n{n_kills} writes killed: {len([1 for killed, _ in seen if killed])} while they ran, all went on")
    assert sum(killed for killed, _ in seen) >= n_kills // 2


def whole_blocks(target):
    """Blocks whose chunk has its name, and so is whole, in what a killed process left."""
    return {
        int(chunk.parent.parent.name)
        for chunk in target.parent.glob(".stack-*.tmp.zarr/c/*/0/0")
        if not (target.exists() and chunk.is_relative_to(target))
    }


def test_killed_plain_write_is_begun_anew(tmp_path):
    target, log, old = tmp_path / "out" / "stack.zarr", tmp_path / "log", np.ones((3, 5, 5))
    target.parent.mkdir()
    save_stack(old, target)
    assert kill_while_writing(target, log, False, random.Random(1))
    np.testing.assert_array_equal(open_stack(target).data.compute(), old)
    (unfinished,) = target.parent.glob(".stack-*.zarr")
    with pytest.raises(StoreError, match="is incomplete"):
        open_stack(unfinished)
    log.unlink()
    with dask.config.set(scheduler="threads", num_workers=2):
        save_stack(write_stack.stack(str(log), 0), target, overwrite=True)
    assert len(log.read_text().split()) == write_stack.N_BLOCKS
    assert os.listdir(target.parent) == ["stack.zarr"]


def test_second_run_is_refused_while_the_first_one_writes(tmp_path):
    target, log = tmp_path / "stack.zarr", tmp_path / "log"
    process = start(target, log, False)
    while not log.exists():
        time.sleep(0.001)
    with pytest.raises(StoreError, match=rf"is being written by process {process.pid} on"):
        save_stack(np.ones((2, 3, 3)), target)
    process.join()
    assert process.exitcode == 0
    np.testing.assert_array_equal(open_stack(target).data.compute(), write_stack.everything())
