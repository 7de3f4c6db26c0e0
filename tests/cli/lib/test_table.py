"""Tables of rows about images: formats, names, and writing in parts."""

import numpy as np
import pandas as pd
import pytest

import imgstack_ml as im
from tests.lib.commands import assert_refused, read_table, run
from tests.lib.images import write_folder


def test_tables_are_written_in_parts_that_read_each_image_once(finished, faces, tmp_path, reads, small_parts, request):
    features = ("features", faces, "-r", "-q")
    transform = ("transform", finished, faces, "-r")
    for command, name in ((features, "parts.csv"), (transform, "parts.npy")):
        reads.clear()
        run(*command, "-o", tmp_path / name)
        assert sorted(reads) == sorted(im.open_stack(faces, recursive=True).files)
    request.getfixturevalue("monkeypatch").undo()
    run(*features, "-o", tmp_path / "whole.csv")
    run(*transform, "-o", tmp_path / "whole.npy")
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "parts.npy"), np.load(tmp_path / "whole.npy"))


def test_names_that_are_not_utf8(tmp_path):
    pytest.importorskip("pyarrow")
    write_folder(tmp_path / "in", 2)
    (tmp_path / "in/img1.png").rename(tmp_path / "in" / b"img1\xff.png".decode("utf-8", "surrogateescape"))
    for name in ("f.csv", "f.parquet"):
        assert run("features", tmp_path / "in", "-o", tmp_path / name, "-f", "stats").exit_code == 0
    assert pd.read_parquet(tmp_path / "f.parquet")["file"].tolist() == ["img0.png", r"img1\xff.png"]
    assert read_table(tmp_path / "f.csv")[1][1][0].encode("utf-8", "surrogateescape") == b"img1\xff.png"


def test_files_that_cannot_be_written(faces, finished, tmp_path, monkeypatch):
    mine = tmp_path / "mine.csv"
    for command in (["features", faces, "-f", "stats"], ["transform", finished, faces]):
        mine.write_text("mine")
        assert_refused(run(*command, "-r", "-o", mine), "--overwrite")
        assert mine.read_text() == "mine"
        assert run(*command, "-r", "-o", mine, "--overwrite").exit_code == 0
        result = run(*command, "-r", "-o", tmp_path / "f.xls")
        assert result.exit_code == 2
        assert ".csv, .parquet or .npy" in result.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("features", faces, "-r", "-o", tmp_path / "f.parquet")
    assert result.exit_code == 2
    assert "pip install 'imgstack_ml[parquet]'" in result.stderr
