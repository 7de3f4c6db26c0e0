"""``imgstack-ml report``: the page of an earlier run, with and without its images."""

import json
import shutil
from pathlib import Path

import pytest

from tests.lib.commands import assert_refused, run, run_pca
from tests.lib.images import random_pixels, write_folder, write_image


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the results of pca, which have no report."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def page_of(out):
    return (out / "report.html").read_text(encoding="utf-8")


def test_with_the_images(out):
    assert not (out / "report.html").exists()
    result = run("report", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == str(out / "report.html")
    assert 'id="reconstructions"' in page_of(out)
    assert json.loads((out / "run.json").read_text())["outputs"][0] == "report.html"


def test_without_reading(out):
    assert run("report", out, "--no-read", "-q").output == ""
    page = page_of(out)
    assert 'id="scores"' in page
    assert 'id="reconstructions"' not in page
    assert "24 of 25 × 25, uint8" in page


def test_images_that_are_renamed_or_gone(faces, tmp_path):
    images, out = Path(shutil.copytree(faces, tmp_path / "in")), tmp_path / "out"
    run_pca(images, "-r", "-o", out, "-k", 3)
    for change in ("renamed", "gone"):
        if change == "gone":
            shutil.rmtree(images)
        else:
            (images / "face" / "0001.png").rename(images / "face" / "0001b.png")
        result = run("report", out)
        assert result.exit_code == 0
        assert "warning: the report is made without the images" in result.stderr
        assert 'id="scores"' in page_of(out)
        assert 'id="reconstructions"' not in page_of(out)


def test_images_that_were_brought_to_one_kind(tmp_path):
    write_folder(tmp_path / "in", 5, (8, 8, 3))
    write_image(tmp_path / "in/x.png", random_pixels((9, 8)))
    options = ("--mode", "L", "--shape", "8x8", "-k", 2)
    assert run_pca(tmp_path / "in", "-o", tmp_path / "out", *options).exit_code == 0
    result = run("report", tmp_path / "out")
    assert "warning" not in result.stderr
    page = page_of(tmp_path / "out")
    assert 'id="reconstructions"' in page
    assert "--mode L --shape 8x8" in page


@pytest.mark.parametrize("classifier", ["logistic", "svm"])
def test_the_page_of_classify(faces, tmp_path, classifier):
    """It is the one that classify made; without images, what it found is printed again."""
    out = tmp_path / "out"
    ended = run("classify", faces, "-f", "stats", "-c", classifier, "-o", out)
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert run("report", out).stdout == f"{out / 'report.html'}\n"
    assert (out / "report.html").read_text() == page
    told = run("report", out, "--no-read")
    assert told.exit_code == 0
    assert told.stdout.split("\n\nResults")[0] == ended.stdout.split("\n\nResults")[0]
    line = f"imgstack-ml classify {faces} -o {out} -f stats{' -c svm' * (classifier == 'svm')} --overwrite"
    assert told.stdout.endswith(f"report.html is its page, which shows images; all is made again by: {line}\n")
    assert_refused(run("report", out / "predictions.csv"), "is a file", "a table has no page")
    (out / "predictions.csv").write_text("file,label\n")
    assert_refused(run("report", out), "predictions.csv' is damaged")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", None, "no finished run"),
        ("run.json", "{", "damaged or not the record"),
        ("run.json", "[]", "damaged or not the record"),
        ("scores.csv", "file,PC1\na.png,x\n", "is damaged"),
        ("model.safetensors", "x", "damaged or no model"),
    ],
    ids=["no record", "no JSON", "no object", "no numbers", "no model"],
)
def test_a_damaged_folder(name, text, message, out):
    (out / name).unlink()
    if text is not None:
        (out / name).write_text(text)
    assert_refused(run("report", out), message)
    assert not (out / "report.html").exists()
