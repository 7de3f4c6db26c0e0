"""Commands run in this process, and what they print and write."""

import csv
import os
import re
from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner

from imgstack_ml.cli import main
from imgstack_ml.io.readers import FileReader
from tests.lib.images import random_pixels, write_image


def run(*args, charset="utf-8"):
    return CliRunner(charset=charset).invoke(main, [str(arg) for arg in args])


def run_pca(*args, **options):
    """Run pca without the report and the pictures, which take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgstack_ml.cli.lib.analysis.write_pictures", lambda *_: None)
        return run("pca", *args, "--no-report", **options)


@contextmanager
def recorded_reads():
    """Give a list that grows by the images that are read from files, in order."""
    read, plain = [], FileReader.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileReader, "read", lambda self, keys: (read.extend(keys), plain(self, keys))[1])
        yield read


def assert_refused(result, *parts, hints=()):
    """Exit code 1, nothing on stdout, and one error in terms of the command line, with hints after it."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    said = result.stderr[result.stderr.index("error: ") :]
    assert "open_stack(" not in said.replace("imgstack_ml.open_stack(", "")
    assert not re.search(r"\b[a-z_]+=[\d'\"({]|ImagePCA\(\w+=", said), said  # Python, in place of an option
    message, *hinted = said.split("\nhint: ")
    for part in parts:
        assert str(part) in message
    for part in hints:
        assert part in "\n".join(hinted)


def read_table(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    return header, rows


def read_scores(out):
    """Header, names of images, and scores (n_images, k) of a folder of results."""
    header, rows = read_table(out / "scores.csv")
    first = next(i for i, name in enumerate(header) if name.startswith("PC"))
    return header, [row[0] for row in rows], np.array([row[first:] for row in rows], dtype=float)


def write_damaged(folder, n_images=6, damaged=4, shape=(32, 32)):
    """Write JPEG files and cut one off: its header can be read, its pixels cannot. Return its path."""
    for i in range(n_images):
        write_image(folder / f"{i}.jpg", random_pixels(shape, seed=i))
    cut_off(folder / f"{damaged}.jpg")
    return folder / f"{damaged}.jpg"


def cut_off(path):
    os.truncate(path, 650)
