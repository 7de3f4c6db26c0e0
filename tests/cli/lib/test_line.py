"""Lines to type: they run as they are printed."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from imgstack_ml.cli import main
from imgstack_ml.cli.lib.line import command_line, typed
from tests.lib.commands import read_scores, run, run_pca
from tests.lib.images import write_folder


def test_a_line_gives_the_same_parameters():
    """Options in all forms that click has, values that need quotes, and a name that looks like an option."""
    given = [
        "pca", "./-odd $name", "-o", "it's", "-k", "3", "-r", "--rescale", "--no-report", "--shape", "5x6",
        "--fit", "pad", "--select", "c=DAPI", "--select", "t=0:9", "--level", "1",
        "--memory-limit", "2GB", "--mode", "I;16",
    ]  # fmt: skip
    command = main.commands["pca"]
    parameters = command.make_context("pca", given[1:]).params
    line = command_line(command, parameters)
    assert command.make_context("pca", shlex.split(line)[2:]).params == parameters
    assert command_line(command, {"source": "in", "out": "out"}, "--resume") == "imgstack-ml pca in -o out --resume"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_what_cannot_be_typed_is_what_bash_reads():
    words = ["plain", "a b", "é'\\", os.fsdecode(b"x\xff'\\\n\te")]
    program = f"printf '%s\\0' {typed(*words)}"
    assert typed(*words).isprintable()
    said = subprocess.run(["bash", "-c", program], stdout=subprocess.PIPE, check=True).stdout
    assert said.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_the_line_of_the_record_makes_the_results_again(tmp_path, monkeypatch):
    """In another folder, and over the results, which are there."""
    write_folder(tmp_path / "my images" / "a", 6, (8, 8))
    monkeypatch.chdir(tmp_path)
    options = ("--shape", "8x4", "--fit", "crop", "--mode", "L", "--rescale")
    assert run_pca("my images", "-r", "-o", "out", "-k", 2, *options).exit_code == 0
    record = json.loads((tmp_path / "out/run.json").read_text())
    before = read_scores(tmp_path / "out")[2]
    monkeypatch.chdir("/")
    (tmp_path / "out/scores.csv").unlink()
    words = shlex.split(record["command_line"])
    assert words[0] == "imgstack-ml"
    assert run_pca(*words[2:]).exit_code == 0
    assert (read_scores(tmp_path / "out")[2] == before).all()
    again = json.loads((tmp_path / "out/run.json").read_text())
    assert again["command_line"] == record["command_line"]
    assert run("report", tmp_path / "out").exit_code == 0
    assert "my images" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
