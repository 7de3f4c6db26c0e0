"""Fits that are killed, at random moments, in real processes, and then resumed."""

import csv
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import dask
import numpy as np
import pytest
from click.testing import CliRunner

import imgstack_ml
from imgstack_ml.cli import main
from tests.lib import fit_stack, workers

SECONDS_A_BLOCK = 0.002


@pytest.fixture(autouse=True, scope="module")
def two_threads():
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="threads", num_workers=2):
        fit_stack.save_every_wave(patch.setattr)
        yield


def fit(solver, folder, log):
    """Fit in this process; return what was learned, and the number of blocks read."""
    log.unlink(missing_ok=True)
    pca = fit_stack.estimator(solver, folder).fit(fit_stack.stack(solver, log=str(log)))
    return pca, n_lines(log)


def n_lines(log):
    return log.read_bytes().count(b"\n") if log.exists() else 0


def kill_while_fitting(solver, folder, log, rng, n_blocks):
    """Kill a fitting process a moment after some block; return how many it read, and whether it was still alive."""
    log.unlink(missing_ok=True)
    process = workers.start(fit_stack.fit_slowly, solver, str(folder), str(log), SECONDS_A_BLOCK)
    last = rng.randint(1, n_blocks)
    while n_lines(log) < last and process.is_alive():
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.02))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    killed = process.exitcode != 0
    return n_lines(log), killed


@pytest.mark.filterwarnings("ignore:After . products")  # tol=0, so that all passes are made
@pytest.mark.parametrize("n_kills", [1, pytest.param(102, marks=pytest.mark.slow)])
def test_killed_fits_go_on(tmp_path, n_kills):
    rng = random.Random(n_kills)
    log, folder = tmp_path / "log", tmp_path / "out" / "unfinished"
    folder.parent.mkdir()
    whole = cache(lambda solver: fit(solver, None, log))
    killed, survived, redone_blocks = 0, 0, []
    while killed < n_kills:
        solver = rng.choice(list(fit_stack.CASES))
        expected, n_blocks = whole(solver)
        read, kills = 0, 0
        for _ in range(rng.choice([1, 1, 2])):  # some are killed again on their way
            more, alive = kill_while_fitting(solver, folder, log, rng, n_blocks - read)
            kills += alive
            if not alive:
                break
            read += more
            if read >= n_blocks and not (folder / "fit.json").exists():
                read = 0  # it had ended, and the process with it: what follows is another fit
        resumed, more = fit(solver, folder, log)
        np.testing.assert_allclose(resumed.components_, expected.components_, rtol=0, atol=1e-10)
        np.testing.assert_allclose(resumed.explained_variance_, expected.explained_variance_, rtol=1e-10)
        np.testing.assert_allclose(resumed.mean_, expected.mean_, rtol=1e-10)
        assert (resumed.n_passes_, resumed.n_iter_) == (expected.n_passes_, expected.n_iter_)
        assert os.listdir(folder.parent) == []
        redone_blocks.append(read + more - n_blocks)
        assert 0 <= redone_blocks[-1] <= kills * fit_stack.READ_AGAIN[solver]
        killed += kills
        survived += bool(np.array_equal(resumed.components_, expected.components_))
    print(
        f"\n{killed} kills in {len(redone_blocks)} fits: all went on, {survived} bit-identical, "
        f"{np.mean(redone_blocks):.1f} blocks read again on average, {max(redone_blocks)} at most"
    )


# The command line


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images that the memory limit below has no room for."""
    folder = tmp_path_factory.mktemp("photos") / "images"
    rng = np.random.default_rng(0)
    images = rng.random((256, 128, 192), np.float32) * np.linspace(1, 9, 192, dtype=np.float32)
    imgstack_ml.write_images(images, folder, format="tiff")
    return folder


PROGRAM = """
import sys, time
sys.path.append(sys.argv[1])
import dask
from tests.lib import fit_stack
from imgstack_ml.io.readers import FileReader
fit_stack.save_every_wave()
dask.config.set(num_workers=2)
read = FileReader.read
def slowly(*args):
    time.sleep(0.05)
    return read(*args)
FileReader.read = slowly
from imgstack_ml.cli import main
main(sys.argv[2:])
"""


def arguments(photos, out, *options):
    limits = ["--solver", "gram", "--memory-limit", "48MB", "-k", "4", "--no-report"]
    return ["pca", str(photos), "-o", str(out), *limits, *options]


def pca_command(photos, out, *options):
    """Run the command in this process."""
    return CliRunner().invoke(main, arguments(photos, out, *options))


def stopped(photos, out, how, *options):
    """Run the command in a process of its own, slowly, until it has saved something, and stop it."""
    program = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[2]), *arguments(photos, out, *options)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not list(Path(out).glob("checkpoint/pass-0001.safetensors")):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.005)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def results(out):
    record = json.loads((out / "run.json").read_text())
    with open(out / "scores.csv", newline="") as file:
        return record["fit"], list(csv.reader(file)), (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole_run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    done = pca_command(photos, out)
    assert done.exit_code == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["fit"]["n_passes"] > 2
    return out


@pytest.mark.parametrize(
    ("how", "code", "word", "options"),
    [
        (signal.SIGTERM, 143, "terminated", []),
        pytest.param(signal.SIGTERM, 143, "terminated", ["--rescale"], marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "interrupted", [], marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, None, [], marks=pytest.mark.slow),
    ],
    ids=["SIGTERM", "SIGTERM-rescale", "SIGINT", "SIGKILL"],
)
def test_a_stopped_command_goes_on(how, code, word, options, photos, whole_run, tmp_path):
    out = tmp_path / "out"
    returned, said, err = stopped(photos, out, how, *options)
    assert (returned, said) == (code, "")
    assert "Traceback" not in err
    line = shlex.join(["imgstack-ml", *arguments(photos, out, *options, "--resume")])
    if word:
        said_word, saved, to_resume = err.splitlines()[-3:]
        assert said_word == word
        assert saved == f"hint: what was computed from the images read so far is saved in {str(out / 'checkpoint')!r}"
        line = to_resume.removeprefix("hint: to resume: ")
    assert not (out / "run.json").exists()

    again = pca_command(photos, out, *options)
    assert again.exit_code == 1
    assert "A run that did not finish left it: resume it with --resume" in again.stderr

    resumed = CliRunner().invoke(main, shlex.split(line)[1:])
    assert resumed.exit_code == 0, resumed.stderr
    assert "warning" not in resumed.stderr
    assert not (out / "checkpoint").exists()
    assert not [name for name in os.listdir(out) if name.startswith(".")]
    if not options:
        (one, scores, model), (other, expected, same) = results(out), results(whole_run)
        assert one | {"seconds": 0} == other | {"seconds": 0}
        assert scores == expected
        assert model == same


@pytest.mark.slow
def test_a_new_run_forgets_the_unfinished_one(photos, whole_run, tmp_path):
    out = tmp_path / "out"
    assert stopped(photos, out, signal.SIGTERM)[0] == 143
    anew = pca_command(photos, out, "--overwrite")
    assert anew.exit_code == 0, anew.stderr
    assert not (out / "checkpoint").exists()
    assert results(out)[1:] == results(whole_run)[1:]


@pytest.mark.slow
def test_resuming_with_another_option_is_refused(photos, whole_run, tmp_path):
    out = tmp_path / "out"
    stopped(photos, out, signal.SIGINT)
    again = [sys.executable, "-m", "imgstack_ml", *arguments(photos, out, "--resume", "-k", "5")]
    refused = subprocess.run(again, capture_output=True, text=True)  # where warnings are no errors
    assert refused.returncode == 1, refused.stderr
    assert "this command cannot resume: n_components was 4 and is 5" in refused.stderr
    resumed = pca_command(photos, out, "--resume")  # nothing is lost
    assert resumed.exit_code == 0, resumed.stderr
    assert results(out)[1:] == results(whole_run)[1:]


def test_results_cut_off_are_made_again(photos, whole_run, tmp_path):
    """Killed between the fit and run.json, with a file half written."""
    out = tmp_path / "out"
    (out / "eigenimages").mkdir(parents=True)
    (out / "mean.png").write_bytes(b"old")
    (out / "eigenimages" / "pc_099.png").write_bytes(b"old")
    (out / ".model-0123456789ab.tmp.safetensors").write_bytes(b"half")
    resumed = pca_command(photos, out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert {p.name for p in out.rglob("*")} == {p.name for p in whole_run.rglob("*")}


def test_a_finished_run_is_left_as_it_is(photos, whole_run):
    before = (whole_run / "run.json").stat()
    again = pca_command(photos, whole_run, "--resume")
    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1] == "This run is finished, and nothing was computed. To repeat it: --overwrite"
    assert (whole_run / "run.json").stat() == before
    other = pca_command(photos, whole_run, "--resume", "--rescale")
    assert other.exit_code == 1
    assert "holds the results of another run, which is finished: imgstack-ml pca" in other.stderr
