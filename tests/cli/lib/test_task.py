"""Errors and signals as messages and exit codes, and commands that compute on a cluster."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from distributed import LocalCluster, Scheduler, SpecCluster

import imgstack_ml as im
from tests.lib.commands import assert_refused, run, run_pca


def test_interrupt_is_exit_code_130(tmp_path):
    # So much work that it cannot end before the signal comes.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in a background job it is ignored
        "from imgstack_ml.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "sample", "cells", str(tmp_path / "cells"), "-n", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith("writing cells")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    line = f"imgstack-ml sample cells {tmp_path / 'cells'} -n 1000000"
    assert (out, err) == ("", f"interrupted\nhint: nothing was saved\nhint: to start again: {line}\n")


def test_debug_shows_the_traceback(tmp_path):
    result = run_pca(tmp_path / "nowhere", "-o", tmp_path / "out", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "FileNotFoundError: no images found" in result.stderr


def test_commands_compute_on_a_cluster(finished, faces, tmp_path):
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        on_it = ("--scheduler", cluster.scheduler_address)
        (worker,) = cluster.workers.values()
        result = run("transform", finished, faces, "-r", "-o", tmp_path / "s.npy", *on_it)
        assert result.exit_code == 0, result.output
        assert f"computing on {cluster.scheduler_address}, 1 worker; dashboard: http" in result.stderr
        executed = worker.state.executed_count
        assert executed > 0
        assert run_pca(faces, "-r", "-o", tmp_path / "out", "-k", 5, *on_it).exit_code == 0
        assert worker.state.executed_count > executed
    run("transform", finished, faces, "-r", "-o", tmp_path / "here.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), np.load(tmp_path / "here.npy"))
    one, other = (im.load_model(out / "model.safetensors")[-1] for out in (finished, tmp_path / "out"))
    np.testing.assert_allclose(one.components_, other.components_, atol=1e-6)
    assert "scheduler" not in json.loads((tmp_path / "out/run.json").read_text())["parameters"]


def test_a_cluster_without_workers(finished, faces, tmp_path):
    with SpecCluster(scheduler={"cls": Scheduler, "options": {"dashboard_address": ":0"}}) as cluster:
        address = cluster.scheduler_address
        result = run("transform", finished, faces, "-r", "-o", tmp_path / "s.npy", "--scheduler", address)
    assert_refused(result, f"dask worker {address}")


def test_a_cluster_that_is_not_there(faces, tmp_path, monkeypatch):
    monkeypatch.setattr("imgstack_ml.cli.lib.task._CONNECT_SECONDS", 0.5)
    result = run("features", faces, "-r", "-o", tmp_path / "f.csv", "--scheduler", "tcp://127.0.0.1:9")
    assert_refused(result, "tcp://127.0.0.1:9")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", [TypeError, KeyError, RuntimeError, ImportError, MemoryError, AttributeError])
def test_errors_of_all_kinds_are_messages(kind, faces, tmp_path, monkeypatch):
    def fails(*args, **options):
        raise kind("what went wrong")

    monkeypatch.setattr(im, "open_stack", fails)
    result = run("features", faces, "-o", tmp_path / "f.csv")
    expected = kind in (ImportError, MemoryError)
    said = "what went wrong" if expected else f"{kind.__name__}: "
    assert_refused(result, said, hints=[] if expected else ["--debug"])
    assert "Traceback" in run("features", faces, "-o", tmp_path / "f.csv", "--debug").stderr
