import contextlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from asv_runner.discovery import disc_benchmarks
from PIL import ImageFile

from imgstack_ml.passes import checkpoint as _checkpoint

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # benchmarks is a package of the repository that is not installed

from benchmarks.comparisons import (  # noqa: E402
    checkpoint,
    formats,
    image_sizes,
    incomplete,
    larger_than_memory,
    peers,
    results,
    scaling,
    streaming,
    tutorial,
)
from benchmarks.lib import floors, measure, pages, stacks, truth  # noqa: E402
from benchmarks.lib import suite as suite_module  # noqa: E402
from benchmarks.suites import sizes, solvers  # noqa: E402
from tests.lib.suites import benchmark_names, run_suite, suites  # noqa: E402

COMPARISONS = checkpoint, formats, image_sizes, incomplete, larger_than_memory
COMPARISONS += peers, results, scaling, streaming, tutorial
WORKFLOWS = list(streaming.WORKFLOWS)
IN_FRESH_PROCESS = ["dask-ml PCA, tsqr"]  # it asks for more memory than there is
# What a tracked value can be on the smallest data; every track_ benchmark needs a line.
SANE = {
    "Centering.track_mean_error": (0, 1e-9),
    "DaskImread.track_images_per_second": (1, 1e6),
    "DaskImread.track_megabytes_per_second": (0.1, 1e5),
    "Regret.track_time_over_that_of_the_better_solver": (0, 100),  # a busy machine
    "ExactSolvers.track_subspace_error": (0, 1e-2),  # its square goes into a variance, which tol is about
    "ExactSolvers.track_variance_error": (0, 1e-5),
    "Features.track_difference": (0, 0),
    "Flattening.track_num_tasks": (1, 100),
    "Formats.track_time": (0.01, 1000),  # of 12 images of 32 × 32, where opening counts most
    "Graphs.track_num_tasks": (0, 2),  # what all blocks share
    "Graphs.track_pickled_size": (1, 200_000),
    "ImageSizes.track_ratio": (0.01, 100),
    "MappingOverhead.track_ratio": (0.01, 100),
    "Models.track_difference": (0, 0),
    "Models.track_file_size": (100, 1e6),
    "OpenStack.track_images_per_second": (1, 1e6),
    "OpenStack.track_megabytes_per_second": (0.1, 1e5),
    "Rescaling.track_difference": (0, 0),
    "SharedReads.track_num_tasks": (1, 10),
    "SolverCosts.track_n_passes": (1, 1),
    "SolverCosts.track_num_tasks": (1, 300),
    "Masks.track_time_over_that_of_all_pixels": (0.05, 10),
    "Products.track_inner_products": (1e7, 1e13),
    "Products.track_weighted_sums": (1e7, 1e13),
    "Stacks.track_difference": (0, 0),
    "Stacks.track_speed": (0.01, 1e5),
}


@pytest.fixture(scope="module")
def cache_of(tmp_path_factory):
    """Return the folder that the `setup_cache` of a suite fills; suites with the same function share it, as in asv."""
    folders = {}

    def folder_of(suite):
        if suite.setup_cache not in folders:
            folders[suite.setup_cache] = tmp_path_factory.mktemp("cache")
            with contextlib.chdir(folders[suite.setup_cache]), pytest.MonkeyPatch.context() as patch:
                patch.setattr(solvers, "SHAPES", solvers.SHAPES[:1])  # the only one that is used
                patch.setattr(sizes, "SIZES", sizes.SIZES[:1])
                patch.setattr(sizes, "N_BYTES", 2**18)
                suite().setup_cache()
        return folders[suite.setup_cache]

    return folder_of


@pytest.fixture
def solved_once(monkeypatch):
    """The benchmarks of one solver use one fit."""
    solve, answers = solvers._variance_and_components, {}

    def solve_once(solver, stack, k):
        if (solver, k) not in answers:
            answers[solver, k] = solve(solver, stack, k)
        return answers[solver, k]

    monkeypatch.setattr(solvers, "_variance_and_components", solve_once)


@pytest.mark.parametrize("suite", suites(), ids=lambda suite: suite.__name__)
def test_every_benchmark_runs_and_tracks_sane_values(suite, cache_of, solved_once):
    outcomes = list(run_suite(suite, cache_of(suite)))
    assert {outcome.params[0] for outcome in outcomes} == set(suite.params[0])
    for outcome in outcomes:
        low, high = SANE[outcome.name] if ".track_" in outcome.name else (0, np.inf)
        assert low <= outcome.value <= high, outcome


def test_suites_are_what_asv_would_run(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    expected = {
        f"{suite.__module__}.{suite.__name__}.{name}".removeprefix("benchmarks.suites.")
        for suite in suites()
        for name in benchmark_names(suite)
    }
    assert {benchmark.name for benchmark in disc_benchmarks(str(ROOT / "benchmarks" / "suites"))} == expected


def test_the_page_lists_each_suite_and_comparison_with_its_question():
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    files = [
        path for room in ("suites", "comparisons") for path in sorted((ROOT / "benchmarks" / room).glob("[!_]*.py"))
    ]
    for path in files:
        question = path.read_text(encoding="utf-8").splitlines()[0].removeprefix('"""')
        assert question.endswith("?")
        assert f"| [{path.stem}]({path.parent.name}/{path.name}) | {question} |" in page
    assert {path.stem for path in files if path.parent.name == "comparisons"} == {
        module.__name__.split(".")[-1] for module in COMPARISONS
    }


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.__name__.split(".")[-1])
def test_help_has_command_question_and_cost(comparison, capsys):
    with pytest.raises(SystemExit) as ended:
        comparison.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: python -m {comparison.__name__} ")
    question, _, cost = comparison.__doc__.splitlines()[:3]
    assert question in printed
    assert cost in printed
    assert re.match("Takes .*(second|minute|hour)", cost)


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("IMGSTACK_BENCH", "huge")
    spec = importlib.util.spec_from_file_location("benchmarks.lib.suite_again", suite_module.__file__)
    with pytest.raises(ValueError, match="IMGSTACK_BENCH='huge' must be one of"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.fixture
def in_this_process(monkeypatch):
    """Comparisons run their workflows here instead of in processes of their own, which import everything anew."""

    def run(command, **options):
        _, _, module, _, workflow, *_ = command
        if workflow in IN_FRESH_PROCESS:
            return subprocess.run(command, **options)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            sys.modules[module].main(command[3:])
        return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr(measure, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))
    monkeypatch.setattr(ImageFile.ImageFile, "load", ImageFile.ImageFile.load)  # restored after it counts


def test_streaming_measures_all_workflows_and_the_floor(tmp_path, capsys, in_this_process):
    streaming.main(["--n", "1024", "--size", "32", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    ours, dask_s = (
        next(line for line in printed.splitlines() if line.startswith(name)) for name in (WORKFLOWS[0], WORKFLOWS[2])
    )
    assert float(ours.split()[-1]) < 1e-4
    assert float(dask_s.split()[-1]) < 0.1
    assert "times it" in printed.splitlines()[-1]


@pytest.mark.slow
def test_checkpoint_measures_both(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_checkpoint, "_SHARE", np.inf)  # such a short fit would save nothing
    options = ["--n", "2560", "--size", "64", "--memory-limit", "75MB", "--rounds", "1", "--folder", str(tmp_path)]
    checkpoint.main(options)
    *_, times, saved = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"without a checkpoint [\d.]+ s, with one [\d.]+ s: [+-][\d.]+%", times)
    n_saves, megabytes = map(float, re.fullmatch(r"saved ([\d.]+) times a fit, (\d+) MB", saved).groups())
    assert n_saves >= 2
    assert megabytes >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["planted-2560-64.zarr", "planted-2560-64.zarr.whole"]


@pytest.mark.slow
def test_tutorial_measures_all_workflows_and_components_agree(tmp_path, capsys, in_this_process):
    folder = tmp_path / "cells"
    tutorial.main(["--n", "30", "--size", "24", "--folder", str(folder)])
    printed = capsys.readouterr().out
    assert all(f"\n{name}" in printed for name in tutorial.WORKFLOWS)
    last_lines = {line[:24].strip(): line[24:].split() for line in printed.splitlines()[-2:]}
    angle, error = map(float, last_lines["ImagePCA(10)"])
    assert angle < 1e-6
    assert error < 1e-5
    assert len(list(folder.glob("*.jpg"))) == 30


def test_tutorial_reuses_its_images_and_refuses_others(tmp_path):
    tutorial.write_images(tmp_path, 3, 16)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    tutorial.write_images(tmp_path, 3, 16)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    with pytest.raises(SystemExit, match="holds other images"):
        tutorial.write_images(tmp_path, 3, 32)


def test_formats_measures_every_reader(capsys):
    formats.main(["--n", "4", "--pages", "3", "--rounds", "1"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["images", "a", "second"]
    assert [line[:4].strip() for line in lines] == ["JPG", "PNG", "TIF", "PNG", "TIFF"]
    assert all(0 < float(line.split()[-1]) < 1000 for line in lines)


def test_disagreement_of_components():
    rng = np.random.default_rng(0)
    modes = np.linalg.qr(rng.standard_normal((50, 3)))[0].T
    expected = {"variance": np.array([9.0, 4.0, 1.0]), "components": modes}
    answer = {"variance": np.array([9.0, 4.0, 1.21]), "components": -modes}
    angle, error = tutorial.disagreement(answer, expected)
    assert angle < 1e-12
    assert error == pytest.approx(0.1)
    swapped = {**expected, "components": modes[[1, 0, 2]]}
    assert tutorial.disagreement(swapped, expected)[0] == pytest.approx(1)


@pytest.fixture
def planted(tmp_path):
    path = tmp_path / "planted.zarr"
    stacks.write_planted(path, 130, (9, 10), "uint16", 40)
    return path


def rows_of(path):
    return stacks.read_rows(path, "float64")


@pytest.mark.parametrize("route", ["_from_products_of_images", "_from_products_of_values", "_by_subspace_iteration"])
def test_every_route_to_the_truth_is_numpys(planted, route):
    rows, source = rows_of(planted), stacks.Source(planted)
    centred = rows - rows.mean(axis=0)
    _, s, Vt = np.linalg.svd(centred, full_matrices=False)
    found = getattr(truth, route)(source, truth._mean(source), 4)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.variance, s[:4] ** 2 / 129, rtol=1e-12)
    assert np.abs(np.einsum("ij,ij->i", found.components, Vt[:4])).min() > 1 - 1e-12


def test_truth_is_stored_and_accuracy_measures_errors(planted):
    true = truth.truth_of(planted, 4)
    assert np.array_equal(truth.truth_of(planted, 4).components, true.components)
    right = {"variance": true.variance, "components": -true.components}
    exact = truth.accuracy(planted, right, true)
    assert max(exact) < 1e-7
    assert exact.variance == 0
    _, _, Vt = np.linalg.svd(rows_of(planted) - true.mean, full_matrices=False)
    turned = true.components.copy()
    turned[3] = np.cos(0.01) * Vt[3] + np.sin(0.01) * Vt[4]
    worse = truth.accuracy(planted, {"variance": true.variance * 1.02, "components": turned}, true)
    assert worse.variance == pytest.approx(0.02)
    assert worse.angle == pytest.approx(0.01, rel=1e-6)
    s = np.linalg.svd(rows_of(planted) - true.mean, compute_uv=False)
    lost = np.sin(0.01) ** 2 * (s[3] ** 2 - s[4] ** 2) / (s[:4] ** 2).sum()
    assert worse.lost == pytest.approx(lost, rel=1e-6)


def test_bare_loops_make_the_products_they_stand_for(planted, monkeypatch, tmp_path):
    stacks.write_planted(tmp_path / "bytes.zarr", 60, (10, 9), "uint8", 15)
    for path in (planted, tmp_path / "bytes.zarr"):
        rows, in_bytes = rows_of(path), path is not planted
        rtol = 1e-15 if in_bytes else 1e-5
        with monkeypatch.context() as patch:
            patch.setattr(floors, "are_fast", lambda dtype: dtype == np.uint8)
            gram = np.triu(floors.multiply_stack(path))
            np.testing.assert_allclose(gram, np.triu(rows @ rows.T), rtol=rtol)
            patch.setattr(floors, "FEW_IMAGES", 0)
            np.testing.assert_allclose(np.triu(floors.multiply_stack(path)), np.triu(rows.T @ rows), rtol=rtol)
            patch.setattr(floors, "FEW_VALUES", 0)
            if in_bytes:  # of the first images
                first = floors.multiply_stack(path)
                np.testing.assert_array_equal(first, (rows @ rows.T)[: len(first), : len(first)])
    rows = rows_of(planted)
    monkeypatch.setattr(floors, "FEW_IMAGES", 0)
    monkeypatch.setattr(floors, "FEW_VALUES", 0)
    vectors = np.random.default_rng(0).standard_normal((floors.N_VECTORS, 90), dtype=np.float32)
    expected = ((rows - 128) @ vectors.T).T @ (rows - 128)
    np.testing.assert_allclose(floors.multiply_stack(planted), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_planted_variances_are_those_of_the_stack(tmp_path):
    path = tmp_path / "many.zarr"
    stacks.write_planted(path, 4000, (12, 12), "uint8", 500)
    found = truth.truth_of(path, 5).variance
    planted = stacks.planted_variances(4000, 144, "uint8", 500)[:5]
    deviation = 2 * stacks.NOISE / np.sqrt(4000 * planted)  # of what noise and modes have in common by chance
    assert deviation.max() < 4e-3
    assert (np.abs(found / planted - 1) < 4 * deviation).all()


@pytest.mark.slow
def test_peers_shows_figures_failures_and_floors(tmp_path, capsys, monkeypatch, in_this_process):
    fits = [peers.READING_AND_MULTIPLYING, peers.OWN, *IN_FRESH_PROCESS]
    page, picture = tmp_path / "benchmarks.md", tmp_path / "peers.png"
    page.write_text("<!-- peers tutorial -->\n<!-- end of peers tutorial -->\n")
    monkeypatch.setattr(stacks, "MIN_IMAGES", 24)
    monkeypatch.setattr(peers, "PAGE", page)
    monkeypatch.setattr(peers, "PICTURE", picture)
    monkeypatch.setattr(peers, "RESULTS", tmp_path / "peers.json")
    options = ["--stacks", "tutorial", "--scale", "0.01", "--rounds", "1", "--docs", "--folder", str(tmp_path)]
    peers.main([*options, "--fits", *fits])
    text = page.read_text()
    assert text.split("-->")[1].split("<!--")[0].strip() in capsys.readouterr().out
    floor, own, failed = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[6:9])
    assert [floor[0], own[0], failed[0]] == [fits[0], f"**{fits[1]}**", fits[2]]
    assert floor[2] == "1.00"
    assert float(own[5]) == 1.0
    assert max(map(float, own[6:9])) < 1e-5
    assert "failed: " in failed[1]
    assert "Unable to allocate 288" in failed[1]
    assert picture.stat().st_size > 10_000


def test_a_fresh_process_is_measured_after_its_imports(planted):
    run = measure.measure(peers.MODULE, peers.READING, planted)
    assert run.seconds > 0
    assert run.peak >= run.baseline > 50  # MB
    assert 0 <= run.bytes_read - stacks.Source(planted).file_bytes < 100_000  # what else is read: metadata
    assert (run.decoded, run.answer) == (0, {})


def test_a_run_that_takes_too_long_is_ended_with_its_reason(planted):
    with pytest.raises(measure.WorkflowError, match=r"no result in 0\.1 s"):
        measure.measure(peers.MODULE, peers.READING, planted, seconds=0.1)


def test_the_page_has_a_place_for_every_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(pages.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    names = [f"peers {name}" for name in stacks.STACKS] + ["image sizes", "incomplete", "larger than memory", "scaling"]
    for name in 2 * names:  # a second time, what was there is replaced
        pages.replace_between_markers(page, name, f"table of {name}")
    assert [page.read_text(encoding="utf-8").count(f"table of {name}\n") for name in names] == [1] * len(names)
    with pytest.raises(SystemExit, match="needs the lines"):
        pages.replace_between_markers(page, "nothing", "")


@pytest.fixture
def small_images(monkeypatch):
    monkeypatch.setattr(larger_than_memory, "IMAGE_SHAPE", (32, 32, 3))
    monkeypatch.setattr(larger_than_memory, "MARGIN", 0)


def test_larger_than_memory_prints_and_removes(tmp_path, capsys, small_images, in_this_process):
    larger_than_memory.main(["--bytes", "5e5", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "192 images of 32 × 32 × 3" in printed
    assert re.search(r"reads \| 1 \(1(\.\d+)? by bytes read\)", printed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_larger_than_memory_removes_when_it_ends_early(tmp_path, monkeypatch, small_images, error):
    def fail(*_):
        assert list(tmp_path.glob("*/stack.zarr"))
        raise error

    monkeypatch.setattr(larger_than_memory, "measure", fail)
    with pytest.raises(error):
        larger_than_memory.measure_stack(tmp_path, 64)
    assert not list(tmp_path.iterdir())


def test_larger_than_memory_removes_when_it_is_terminated(tmp_path):
    command = [sys.executable, "-m", larger_than_memory.MODULE, "--bytes", "5e9", "--folder", str(tmp_path)]
    if shutil.disk_usage(tmp_path).free < 16e9:
        pytest.skip("needs 16 GB of free disk, of which it writes little")
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        while process.poll() is None and not list(tmp_path.glob("*/stack.zarr/c")):
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=120) == 143
    finally:
        process.kill()
    assert not list(tmp_path.iterdir())


def test_larger_than_memory_refuses_a_full_disk(tmp_path):
    with pytest.raises(SystemExit, match="GB free, and the stack takes"):
        larger_than_memory.measure_stack(tmp_path, larger_than_memory.n_images(1e18))
    assert not list(tmp_path.iterdir())


def test_exponents_and_the_bottleneck():
    sizes = [1, 2, 4, 8]
    assert scaling.Series("squares", sizes, [3.0 * size**2 for size in sizes]).exponent == pytest.approx(2)
    # One second, a tenth of each second, and 5 ms a task.
    half = scaling.Run(workers=1, images=500, seconds=7.0, tasks=110, own_cpu=2.25, sent=0)
    whole = half._replace(images=1000, seconds=11.5, tasks=210, own_cpu=3.2)
    of_two = (
        half._replace(workers=2, seconds=4.0, own_cpu=1.95),
        whole._replace(workers=2, seconds=6.0, own_cpu=2.65, sent=10**6),
    )
    model = scaling.Model(half, whole, *of_two, image_bytes=1000, file_seconds=1e-4, n=10**6, workers=10)
    opening, scheduling, computing = model.parts().values()
    assert (opening, scheduling, computing) == pytest.approx((100, 1000, 900))
    assert model.scaled_up("tasks") == pytest.approx(200_000)
    told = model.summary()
    assert "The bottleneck is graphs and scheduling" in told
    assert "9 workers do the work" in told
    assert "to the client | 2 GB |" in told
    assert "The bottleneck is opening" in model._replace(file_seconds=1e-2).summary()


@pytest.mark.slow
def test_incomplete_images_are_measured_and_right(capsys):
    incomplete.main(["--n", "300", "--size", "48", "--rounds", "1"])
    errors = re.findall(r"'name': '(.*?)'.*'error': (\S+),", capsys.readouterr().out)
    assert all(error == "None" or float(error) < 1e-6 for _, error in errors)
    assert len(errors) == len(incomplete.FITS)


@pytest.mark.slow
def test_scaling_measures_all_series(capsys, tmp_path):
    scaling.main(["--scale", "0.05", "--rounds", "1", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "The bottleneck is" in printed
    assert not list(tmp_path.iterdir())
