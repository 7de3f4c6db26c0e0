"""``imgstack-ml demo``: once in a process of its own, examined by many tests."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgstack_ml as im
from tests.lib.commands import assert_refused, read_scores, read_table, run
from tests.lib.images import random_pixels, write_image

FILES = {
    "report.html", "eigenimages.png", "scree.png", "mean.png", "scores.csv", "model.safetensors", "run.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as a user runs it, and its output folder."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "imgstack_ml", "demo", str(out)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300), out


def test_writes_all_results(demo):
    process, out = demo
    assert process.returncode == 0, process.stderr
    assert {path.name for path in out.iterdir()} == FILES | {"eigenimages", "images", "predictions.csv"}
    assert len(list((out / "eigenimages").iterdir())) == 16
    for picture in [*out.glob("*.png"), *out.glob("eigenimages/*.png")]:
        with Image.open(picture) as image:
            assert min(image.size) >= 128
            assert np.ptp(np.asarray(image.convert("L"))) > 100  # not an empty sheet


def test_summary_reads_well(demo):
    process, out = demo
    assert max(len(line) for line in process.stdout.splitlines() if str(out) not in line) <= 88
    assert re.search(r"images +200 of 25 × 25, uint8", process.stdout)
    assert re.search(r"classifier +face or nonface: \d\d\.\d ± \d+\.\d % right over 5 folds", process.stdout)
    assert re.search(r"baseline +50\.0 % right", process.stdout)
    assert re.search(r"variance +PC1 \d+\.\d %, .* 16 together \d+\.\d %", process.stdout)
    assert all(name in process.stdout for name in [*FILES, "eigenimages/"])
    assert process.stdout.splitlines()[-1].endswith("imgstack-ml pca FOLDER -o OUT")
    assert process.stderr.splitlines()[0].startswith("writing sample images")


def test_model_and_scores(demo):
    _, out = demo
    model = im.load_model(out / "model.safetensors")
    assert [type(step).__name__ for _, step in model.steps] == [
        "IntensityRescaler", "StackCenterer", "ImageFlattener", "ImagePCA"
    ]  # fmt: skip
    stack = im.open_stack(out / "images", recursive=True)
    header, names, scores = read_scores(out)
    assert header == ["file", "label", *(f"PC{i}" for i in range(1, 17))]
    assert names == [os.path.relpath(file, out / "images") for file in stack.files]
    np.testing.assert_allclose(scores, model.transform(stack).compute(), atol=1e-5 * abs(scores).max())


def test_classifier(demo):
    _, out = demo
    record = json.loads((out / "run.json").read_text())
    found = record["classifier"]
    assert found["majority_rate"] == 0.5
    assert found["accuracy_mean"] > 0.85
    assert record["reload_difference"] < 1e-5
    header, rows = read_table(out / "predictions.csv")
    assert header == ["file", "label", "predicted"]
    assert all(file.startswith(f"{label}/") for file, label, _ in rows)
    n_right = sum(label == predicted for _, label, predicted in rows)
    # Folds of one size: the mean over folds is the share of all images.
    assert n_right == found["n_right"] == round(200 * found["accuracy_mean"])


def test_a_second_demo_needs_overwrite_gives_the_same_and_keeps_other_files(demo, tmp_path, monkeypatch):
    out = Path(shutil.copytree(demo[1], tmp_path / "out"))
    assert_refused(run("demo", out), repr(str(out)), "--overwrite")
    first, scores = json.loads((out / "run.json").read_text()), read_scores(out)[2]
    (out / "notes.txt").write_text("mine")
    for slow in ("imgstack_ml.cli.lib.analysis.write_pictures", "imgstack_ml.cli.demo.write_report"):
        module, name = slow.rsplit(".", 1)
        monkeypatch.setattr(sys.modules[module], name, lambda *_: None)
    result = run("demo", out, "--overwrite", "--json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert record == json.loads((out / "run.json").read_text())
    assert record["classifier"] == first["classifier"]
    np.testing.assert_array_equal(read_scores(out)[2], scores)
    # What this run has not written is of the first one, and removed.
    assert {path.name for path in out.iterdir() if path.is_file()} == {*record["outputs"], "notes.txt"}


def test_does_not_replace_images_of_the_user(tmp_path):
    mine = tmp_path / "images" / "face" / "0001.png"
    write_image(mine, random_pixels((25, 25)))
    (mine.parent / "0002.png").write_text("mine too")
    assert_refused(run("demo", tmp_path, "--overwrite"), "images", "not empty")
    assert {path.name for path in tmp_path.rglob("*.*")} == {"0001.png", "0002.png"}
