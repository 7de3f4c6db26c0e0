"""Commands that Ctrl-C stops at random moments, in real processes: what they say, leave, and how they go on."""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.lib.commands import run
from tests.lib.images import write_folder

if sys.platform == "win32":
    pytest.skip("Windows has no SIGINT for one process", allow_module_level=True)

N_INTERRUPTS = 100
# From here on the command line answers; before, Python itself starts. In the background, SIGINT would be ignored.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from imgstack_ml.__main__ import main
os.write(2, b"begun\\n")
main()
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


def begin(words):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr.readline() == "begun\n"
    return process, time.monotonic()


@pytest.mark.slow
def test_random_interrupts_leave_a_line_and_no_traceback(tmp_path):
    for label in "ab":
        write_folder(tmp_path / "in" / label, 60, (128, 128, 3))
    assert run("pca", tmp_path / "in", "-r", "-k", 3, "-o", tmp_path / "model", "--no-report").exit_code == 0
    rng, ends, resumed = random.Random(0), Counter(), 0
    seconds = {}
    for number in range(N_INTERRUPTS):
        place = number % len(commands(tmp_path))
        *words, last = commands(tmp_path)[place]
        out = tmp_path / f"out{number}{'.csv' if words[0] in ('features', 'transform') else ''}"
        words += [last, out] if last == "-o" else [last]
        if place not in seconds:
            process, begun = begin(words)
            assert process.communicate(timeout=120) is not None
            seconds[place] = time.monotonic() - begun
            words = [str(word).replace(f"out{number}", f"cut{number}") for word in words]
        process, _ = begin(words)
        time.sleep(rng.uniform(0, seconds[place]))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        name = f"{number}: {shlex.join(map(str, words))}\n{err}"
        assert "Traceback" not in err, name
        assert "Exception ignored" not in err, name
        assert process.returncode in (0, 130, -signal.SIGINT), name
        ends[process.returncode] += 1
        if process.returncode != 130:
            continue
        assert "interrupted" in err.splitlines(), name
        assert not [path for path in tmp_path.rglob(".*") if path.is_file() and not path.name.endswith(".lock")], name
        line = re.search(r"^hint: to (?:resume|start again): (.*)$", err, re.MULTILINE)
        if line and number % 7 == 0:
            again = run(*shlex.split(line[1])[1:])
            assert again.exit_code == 0, (name, again.output)
            resumed += 1
        assert len(os.listdir(tmp_path / "in")) == 2
    print(f"exit codes {dict(ends)}, {resumed} lines run")
    assert ends[130] > N_INTERRUPTS / 2
