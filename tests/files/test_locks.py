"""Locks on outputs: one writer at a time, and none after the process has ended."""

import os
import subprocess
import sys

import pytest

from imgstack_ml.errors import StoreError
from imgstack_ml.files.locks import lock_output


def test_second_writer_is_refused(tmp_path):
    target = tmp_path / "out"
    with (
        lock_output(target),
        pytest.raises(StoreError, match=rf"out' is being written by process {os.getpid()} on .*wait until"),
    ):
        lock_output(target).__enter__()
    assert os.listdir(tmp_path) == []


def test_other_outputs_in_the_folder_have_locks_of_their_own(tmp_path):
    with lock_output(tmp_path / "other"), lock_output(tmp_path / "another"):
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == []


def test_lock_ends_with_its_process(tmp_path):
    code = """
import sys
from imgstack_ml.files.locks import lock_output
with lock_output(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""
    target = str(tmp_path / "out")
    process = subprocess.Popen(
        [sys.executable, "-c", code, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match=rf"is being written by process {process.pid} on"):
            lock_output(target).__enter__()
        process.kill()
    assert len(os.listdir(tmp_path)) == 1  # the file stays, and locks nothing
    with lock_output(target):
        pass
    assert os.listdir(tmp_path) == []
