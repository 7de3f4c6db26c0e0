"""Commands that Ctrl-C stops at random moments, in real processes: what they say, leave, and how they go on."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest

from tests.lib.commands import run
from tests.lib.images import write_folder

if sys.platform == "win32":
    pytest.skip("Windows has no SIGINT for one process", allow_module_level=True)

N_INTERRUPTS, N_COLD = 100, 20  # cold: Ctrl-C may also come while modules are imported
# From main on the command line answers; before, Python itself starts. In the background, SIGINT would be ignored.
COLD = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from imgstack_ml.__main__ import main
os.write(2, b"begun\\n")
main()
"""
# Runs each command in a copy of this process, whose imports are done.
WARM = """
import json, os, signal, sys
import dask_ml.cluster, dask_ml.wrappers, matplotlib.pyplot, sklearn.decomposition, sklearn.linear_model
import sklearn.metrics, sklearn.pipeline, tifffile, zarr
import imgstack_ml.features, imgstack_ml.report, imgstack_ml.cli.lib.clustering, imgstack_ml.cli.lib.reconstruction
from imgstack_ml.__main__ import main
for line in sys.stdin:
    words, log = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["imgstack-ml", *words]
        os.write(2, b"begun\\n")
        main()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def commands(folder):
    images, model = folder / "in", folder / "model"
    return [
        ["pca", images, "-r", "-k", 3, "--solver", "randomized", "--memory-limit", "256MB", "-o"],
        ["pca", images, "-r", "-k", 3, "--rescale", "--no-report", "-o"],
        ["pca", images, "-r", "-k", 3, "--on-error", "skip", "--no-report", "-o"],
        ["classify", images, "-f", "stats", "-f", "hist", "--folds", 2, "-o"],
        ["cluster", images, "-r", "-k", 2, "-f", "stats", "-o"],
        ["features", images, "-r", "-f", "stats", "-f", "texture", "-o"],
        ["transform", model, images, "-r", "-o"],
        ["reconstruct", model, images, "-r", "-o"],
        ["scan", images, "-r", "--verify"],
    ]


class Warm:
    """Commands in copies of a process that has imported all that they need."""

    def __init__(self, folder):
        self._log, self._n = folder, 0
        self._server = subprocess.Popen(
            [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, words, delay):
        """Send SIGINT after `delay` seconds, or never; return exit code, what was said on stderr, and seconds."""
        self._n += 1
        log = self._log / f"{self._n}.log"
        self._server.stdin.write(json.dumps([words, str(log)]) + "\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        while not (log.exists() and log.stat().st_size):
            time.sleep(0.001)
        begun = time.monotonic()
        if delay is not None:
            time.sleep(delay)
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGINT)
        code = int(self._server.stdout.readline())
        return code, log.read_text(), time.monotonic() - begun

    def close(self):
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()


def run_cold(words, delay):
    process = subprocess.Popen(
        [sys.executable, "-c", COLD, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr.readline() == "begun\n"
    begun = time.monotonic()
    if delay is not None:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=120)[1]
    return process.returncode, err, time.monotonic() - begun


@pytest.mark.slow
def test_random_interrupts_leave_a_line_and_no_traceback(tmp_path):
    for label in "ab":
        write_folder(tmp_path / "in" / label, 30, (96, 96, 3))
    assert run("pca", tmp_path / "in", "-r", "-k", 3, "-o", tmp_path / "model", "--no-report").exit_code == 0
    (tmp_path / "logs").mkdir()
    warm, rng, ends, n_again = Warm(tmp_path / "logs"), random.Random(0), Counter(), 0
    all_commands, seconds = commands(tmp_path), {}
    for number in range(N_INTERRUPTS):
        place = number % len(all_commands)
        cold = (number + number // len(all_commands)) % (N_INTERRUPTS // N_COLD) == 0  # each command in its turn
        words = [str(word) for word in all_commands[place]]
        if words[-1] == "-o":
            words.append(str(tmp_path / f"out{number}{'.csv' if words[0] in ('features', 'transform') else ''}"))
        if place not in seconds:
            whole = [word.replace(f"out{number}", f"whole{number}") for word in words]
            code, err, seconds[place] = warm.run(whole, None)
            assert code == 0, err
        delay = rng.uniform(0, seconds[place] + 3 * cold)
        code, err, _ = (run_cold if cold else warm.run)(words, delay)
        name = f"{number}: {shlex.join(words)}\n{err}"
        assert "Traceback" not in err, name
        assert "Exception ignored" not in err, name
        assert code in (0, 130, -signal.SIGINT), name  # the last: at the very end of Python
        ends[code] += 1
        print(number + 1, dict(ends), flush=True)
        if code != 130:
            continue
        assert "interrupted" in err.splitlines(), name
        assert not [path for path in tmp_path.rglob(".*") if path.is_file() and not path.name.endswith(".lock")], name
        line = re.search(r"^hint: to (?:resume|start again): (.*)$", err, re.MULTILINE)
        if line and number % 3 == 0:
            code, err, _ = warm.run(shlex.split(line[1])[1:], None)
            assert code == 0, (name, err)
            n_again += 1
    warm.close()
    print(f"exit codes {dict(ends)}; {n_again} lines were run")
    assert ends[130] >= N_INTERRUPTS / 5  # the others had ended, or were ending
