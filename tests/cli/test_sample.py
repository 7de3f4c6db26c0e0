"""``imgstack-ml sample``."""

import re
from pathlib import Path

import pytest

import imgstack_ml as im
from imgstack_ml.cli.sample import _NAMES
from imgstack_ml.datasets import SAMPLES, write_sample
from tests.lib.commands import assert_refused, run


def test_names():
    assert set(_NAMES) == set(SAMPLES)


@pytest.mark.parametrize("name", _NAMES)
def test_writes_images(name, tmp_path):
    folder = tmp_path / "a folder"
    result = run("sample", name, folder, "-n", 4)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"4 images in {folder}\n")
    # The line to type next works.
    (line,) = re.findall("Next: imgstack-ml (.*)", result.stdout)
    assert ("--recursive" in line) == any(path.is_dir() for path in folder.iterdir())
    assert im.open_stack(folder, recursive=True).shape[0] == 4


def test_a_bar_counts_the_images(tmp_path, capsys):
    write_sample("cells", tmp_path / "cells", n=2, progress=True)
    assert "writing: 100%" in (bar := capsys.readouterr().err)
    assert "2/2" in bar


def test_seed(tmp_path):
    for folder, seed in [("a", 0), ("b", 0), ("c", 1)]:
        run("sample", "cells", tmp_path / folder, "-n", 1, "--seed", seed, "-q")
    a, b, c = (Path(tmp_path, folder, "0001.jpg").read_bytes() for folder in "abc")
    assert a == b != c


def test_refuses(faces, tmp_path):
    assert_refused(run("sample", "faces", faces), "not empty")
    assert_refused(run("sample", "digits", tmp_path / "new", "-n", 5000), "1797")
