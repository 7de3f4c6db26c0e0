import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from asv_runner.discovery import disc_benchmarks

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # benchmarks is a package of the repository that is not installed

from benchmarks import formats, smallest, streaming, tutorial  # noqa: E402

WORKFLOWS = list(streaming.WORKFLOWS)
# What a tracked value can be on the smallest data; every track_ benchmark needs a line.
SANE = {
    "Centering.track_mean_error": (0, 1e-9),
    "DaskImread.track_images_per_second": (1, 1e6),
    "ExactSolvers.track_variance_error": (0, 1e-5),
    "Features.track_difference": (0, 0),
    "Flattening.track_num_tasks": (1, 100),
    "MappingOverhead.track_ratio": (0.01, 100),
    "OpenStack.track_images_per_second": (1, 1e6),
    "Rescaling.track_difference": (0, 0),
    "SharedReads.track_num_tasks": (1, 10),
    "SolverCosts.track_n_passes": (1, 1),
    "SolverCosts.track_num_tasks": (1, 300),
}


@pytest.mark.parametrize("suite", smallest.suites(), ids=lambda suite: suite.__name__)
def test_every_benchmark_runs_and_tracks_sane_values(suite):
    outcomes = list(smallest.run_suite(suite))
    assert {outcome.params[0] for outcome in outcomes} == set(suite.params[0])
    for outcome in outcomes:
        low, high = SANE[outcome.name] if ".track_" in outcome.name else (0, np.inf)
        assert low <= outcome.value <= high, outcome


def test_smallest_runs_what_asv_would():
    expected = {
        f"{suite.__module__}.{suite.__name__}.{name}".removeprefix("benchmarks.")
        for suite in smallest.suites()
        for name in smallest.benchmark_names(suite)
    }
    assert {benchmark.name for benchmark in disc_benchmarks(str(ROOT / "benchmarks"))} == expected


def test_smallest_fails_when_a_benchmark_raises(monkeypatch):
    def fail(*_):
        raise OSError("a benchmark failed")

    monkeypatch.setattr("benchmarks.reader.DaskImread.time_open", fail)
    with pytest.raises(OSError, match="a benchmark failed"):
        smallest.main()


def test_an_unknown_profile_is_refused():
    command = [sys.executable, "-c", "import benchmarks.reader"]
    done = subprocess.run(
        command, cwd=ROOT, env={"IMGSTACK_BENCH": "huge", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "IMGSTACK_BENCH='huge'" in done.stderr


def test_streaming_measures_all_workflows_and_the_floor(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["streaming", "--n", "1024", "--size", "32", "--folder", str(tmp_path)])
    streaming.main()
    printed = capsys.readouterr().out
    ours, dask_s = (
        next(line for line in printed.splitlines() if line.startswith(name)) for name in (WORKFLOWS[0], WORKFLOWS[2])
    )
    assert float(ours.split()[-1]) < 1e-4
    assert float(dask_s.split()[-1]) < 0.1
    assert "times it" in printed.splitlines()[-1]


def test_tutorial_measures_all_workflows_and_modes_agree(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "cells"
    monkeypatch.setattr(sys, "argv", ["tutorial", "--n", "30", "--size", "24", "--folder", str(folder)])
    tutorial.main()
    printed = capsys.readouterr().out
    assert all(f"\n{name}" in printed for name in tutorial.WORKFLOWS)
    last_lines = {line[:24].strip(): line[24:].split() for line in printed.splitlines()[-2:]}
    angle, error = map(float, last_lines["ImagePCA(10)"])
    assert angle < 1e-6
    assert error < 1e-5
    assert len(list(folder.glob("*.jpg"))) == 30


def test_tutorial_reuses_its_images_and_refuses_others(tmp_path):
    tutorial.prepare(tmp_path, 3, 16)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    tutorial.prepare(tmp_path, 3, 16)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    with pytest.raises(SystemExit, match="holds other images"):
        tutorial.prepare(tmp_path, 3, 32)


def test_formats_measures_every_way(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["formats", "--n", "4", "--pages", "3", "--rounds", "1"])
    formats.main()
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["images", "a", "second"]
    assert [line[:4].strip() for line in lines] == ["JPG", "PNG", "TIF", "PNG", "TIFF"]
    assert all(0 < float(line.split()[-1]) < 1000 for line in lines)


def test_disagreement_of_modes():
    rng = np.random.default_rng(0)
    modes = np.linalg.qr(rng.standard_normal((50, 3)))[0].T
    expected = {"variance": np.array([9.0, 4.0, 1.0]), "components": modes}
    found = {"variance": np.array([9.0, 4.0, 1.21]), "components": -modes}
    angle, error = tutorial.disagreement(found, expected)
    assert angle < 1e-12
    assert error == pytest.approx(0.1)
    swapped = {**expected, "components": modes[[1, 0, 2]]}
    assert tutorial.disagreement(swapped, expected)[0] == pytest.approx(1)
