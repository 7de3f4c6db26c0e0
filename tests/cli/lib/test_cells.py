"""Cells of CSV files that a spreadsheet would run, and what reads them back."""

import csv
import io
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgstack_ml.cli.lib.cells import as_cell, of_cell
from imgstack_ml.cli.report import _read_scores
from tests.lib.commands import read_scores, read_table, run, run_pca
from tests.lib.images import random_pixels, write_image

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "./=1", "././+1", "＝1", '=HYPERLINK("x","y")']


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.text("./=+-@ \t\r\n\0a＝", max_size=6)))
def test_text_reads_back_equal_and_is_never_a_formula(text):
    cell = as_cell(text)
    assert of_cell(cell) == text
    assert not cell.lstrip(" \t\r\n\0").startswith(tuple("=+-@＝＋－＠"))
    assert cell == text or cell == f"./{text}"
    file = io.StringIO(newline="")
    csv.writer(file).writerow([cell, 1.5])
    file.seek(0)
    assert next(csv.reader(file)) == [cell, "1.5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_get_a_dot_and_a_slash(text):
    assert as_cell(text) == f"./{text}"


@pytest.mark.parametrize("text", ["", "a=1", "./a", "..", "1.png", "a-b", "folder/=1"])
def test_other_text_stays(text):
    assert as_cell(text) == of_cell(text) == text


NAMES = ["+a/=1+1.png", "+a/-b.png", "+a/c.png", "@b/d.png", "@b/+e.png", "@b/f.png"]


@pytest.mark.filterwarnings("default:1 of 7 files")
def test_every_table_of_the_command_line(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    for i, name in enumerate(NAMES):
        write_image(folder / name, random_pixels((8, 8), seed=i))
    (folder / "@b/=bad.png").write_text("no image")
    files = [f"./{name}" for name in NAMES]
    labels = ["./+a"] * 3 + ["./@b"] * 3
    options = (folder, "-r", "--on-error", "skip")
    assert run_pca(*options, "-o", tmp_path / "pca", "-k", 2).exit_code == 3
    _, rows = read_table(tmp_path / "pca/scores.csv")
    assert sorted(row[0] for row in rows) == sorted(files)
    assert sorted(row[1] for row in rows) == labels
    assert read_table(tmp_path / "pca/skipped.csv")[1][0][0] == "./@b/=bad.png"
    scores = read_scores(tmp_path / "pca")[2]
    assert (scores < 0).any()  # negative numbers stay numbers
    for command in (("features", *options, "-f", "stats"), ("transform", tmp_path / "pca", *options)):
        assert run(*command, "-o", tmp_path / f"{command[0]}.csv").exit_code == 3
        table = pd.read_csv(tmp_path / f"{command[0]}.csv")
        assert sorted(table["file"]) == sorted(files)
        assert sorted(table["label"]) == labels
    np.testing.assert_allclose(table[["PC1", "PC2"]], scores, rtol=1e-5)
    monkeypatch.setattr(sys.modules["imgstack_ml.cli.classify"], "_draw_confusion", lambda *_: None)
    result = run("classify", folder, "-f", "stats", "--folds", 3, "--on-error", "skip", "-o", tmp_path / "classified")
    assert result.exit_code == 3, result.stderr
    _, rows = read_table(tmp_path / "classified/predictions.csv")
    assert sorted(row[0] for row in rows) == sorted(files)
    assert {word for row in rows for word in row[1:3]} <= {"./+a", "./@b"}
    # The report finds the images of the run by the names in the table.
    assert sorted(_read_scores(tmp_path / "pca/scores.csv")[0]) == sorted(NAMES)
