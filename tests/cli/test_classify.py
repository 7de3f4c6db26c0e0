"""``imgstack-ml classify``, against scikit-learn, and what it says of sub-folders that make no classes."""

import json
import re
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import imgstack_ml as im
from imgstack_ml.cli.classify import _accuracy
from imgstack_ml.cli.lib.crossval import Outcome
from imgstack_ml.cli.lib.features import FEATURES, make_features
from imgstack_ml.cli.lib.rows import plan_dtype
from imgstack_ml.report import classification
from imgstack_ml.report.classification import CHANCES, classification_report, described_weights
from tests.lib.commands import assert_refused, read_table, recorded_reads, run
from tests.lib.images import random_pixels, write_image
from tests.lib.pages import Page


@pytest.fixture(scope="module")
def classified(faces, tmp_path_factory):
    """A run with all features, its output folder, and the images that it has read."""
    out = tmp_path_factory.mktemp("classified") / "new" / "out"
    with recorded_reads() as reads:
        return run("classify", faces, "-o", out), out, reads


@pytest.fixture
def without_picture(monkeypatch):
    """The picture of the confusion matrix is not drawn, which takes longer than all the rest."""
    monkeypatch.setattr(sys.modules["imgstack_ml.cli.classify"], "_draw_confusion", lambda *_: None)


def whole_pipeline(names, stack, n_fitted):
    features = make_features(names, stack, n_components=None, n_fitted=n_fitted).set_output(transform="pandas")
    return make_pipeline(features, StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-8))


def write_classes(folder, sizes, shape=(12, 10)):
    for i, (name, n) in enumerate(sizes.items()):
        pixels = random_pixels((n, *shape), seed=i) // (i + 1)
        for j, image in enumerate(pixels):
            write_image(folder / name / f"{j}.png", image)
    return folder


def test_writes_all_results(classified):
    result, out, reads = classified
    assert result.exit_code == 0
    assert len(reads) == 24  # the images are kept for pca, the features and the folds
    names = {"report.html", "predictions.csv", "confusion.png", "model.safetensors", "run.json"}
    assert {p.name for p in out.iterdir()} == names
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert "of 24 images in 2 classes" in page.text
    assert "texture__c0_" in page.text
    assert re.search(r"classifier +face or nonface: \d+\.\d ± \d+\.\d % right over 5 folds", result.stdout)
    assert re.search(r"baseline +50\.0 % right", result.stdout)
    found = json.loads((out / "run.json").read_text())["classifier"]
    _, rows = read_table(out / "predictions.csv")
    labels, predicted = [row[1] for row in rows], [row[2] for row in rows]
    assert found["confusion"] == confusion_matrix(labels, predicted).tolist()
    assert found["n_right"] == sum(a == b for a, b in zip(labels, predicted, strict=True))
    folds = np.array([int(row[3]) for row in rows])
    right = np.array(labels) == np.array(predicted)
    assert found["accuracy_mean"] == pytest.approx(np.mean([right[folds == i].mean() for i in range(1, 6)]))
    assert found["accuracy_std"] == pytest.approx(np.std([right[folds == i].mean() for i in range(1, 6)]))
    assert found["accuracy_mean"] > 0.75
    with Image.open(out / "confusion.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100


@pytest.mark.parametrize(
    "names",
    [("hist",), ("stats", "pca"), pytest.param(FEATURES, marks=pytest.mark.slow)],
    ids="+".join,
)
def test_predictions_are_those_of_cross_validating_the_whole_pipeline(
    names, faces, stack, tmp_path, without_picture, monkeypatch
):
    shown = []
    page = classification_report
    monkeypatch.setattr(classification, "classification_report", lambda *known: shown.append(known) or page(*known))
    describe = described_weights
    monkeypatch.setattr(classification, "described_weights", lambda known: shown.append(known) or describe(known))
    options = [part for name in names for part in ("-f", name)]
    assert run("classify", faces, "-o", tmp_path, *options, "--folds", 4, "--seed", 3, "-q").exit_code == 0
    whole = whole_pipeline(names, stack, n_fitted=18)
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    header, rows = read_table(tmp_path / "predictions.csv")
    assert header == ["file", "label", "predicted", "fold", *CHANCES]
    assert [row[2] for row in rows] == cross_val_predict(whole, stack, stack.labels, cv=folds).tolist()
    for number, (_, test) in enumerate(folds.split(stack.labels, stack.labels), start=1):
        assert {int(rows[i][3]) for i in test} == {number}
    of_classes = cross_val_predict(whole, stack, stack.labels, cv=folds, method="predict_proba")
    weights, (_, predictions, _) = shown
    chances = predictions.chances
    assert_allclose(chances[:, 0], of_classes.max(axis=1), atol=1e-3)
    assert_allclose(chances[:, 1], of_classes[np.arange(24), (stack.labels == "nonface").astype(int)], atol=1e-3)
    whole = whole.fit(stack, stack.labels)
    assert weights.names == whole[0].get_feature_names_out().tolist()
    assert_allclose(weights.sizes, np.abs(whole[-1].coef_[0]), atol=2e-2 * weights.sizes.max())
    assert (weights.classes == "nonface").tolist() == (whole[-1].coef_[0] > 0).tolist()


def test_rows_in_float32_and_in_parts_give_the_same_predictions(faces, stack, tmp_path, without_picture, monkeypatch):
    for name in ("rows._PART_BYTES", "crossval._PART_BYTES"):
        monkeypatch.setattr(f"imgstack_ml.cli.lib.{name}", 20_000)
    size = {"n_images": 24, "n_features": 75 + 16, "n_classes": 2}
    needs = [plan_dtype("logistic", **size, memory_limit="auto")[1], 4 * size["n_images"] * size["n_features"]]
    names = ("stats", "hist", "texture", "pca")
    options = [part for name in names for part in ("-f", name)]
    result = run("classify", faces, "-o", tmp_path, *options, "--memory-limit", needs[0] - needs[1] // 2)
    assert "91 features an image, in float32" in result.stderr, result.stderr
    whole = whole_pipeline(names, stack, n_fitted=19)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    _, rows = read_table(tmp_path / "predictions.csv")
    assert [row[2] for row in rows] == cross_val_predict(whole, stack, stack.labels, cv=folds).tolist()


def test_thousands_of_classes_need_no_square_of_them():
    rng = np.random.default_rng(0)
    labels = np.array([f"label{i:05d}" for i in rng.permutation(np.arange(8000) % 2000)])
    predicted = np.where(rng.random(8000) < 0.7, labels, rng.permutation(labels))
    predicted[labels == "label00007"] = "label00008"
    tracemalloc.start()
    found = _accuracy(labels, Outcome(predicted, 1 + np.arange(8000) % 5), 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # a matrix of all classes takes 32 MB
    assert len(found["classes"]) == 2000
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found["n_right"] == (labels == predicted).sum()
    shown = found["confusion_classes"]
    assert len(shown) == len(found["confusion"]) == 100
    assert {"label00007", "label00008"} <= set(shown)
    assert_array_equal(found["confusion"], confusion_matrix(labels, predicted, labels=shown))


def test_the_saved_model_classifies_without_a_warning_in_one_read(classified, faces, stack, reads):
    model = im.load_model(classified[1] / "model.safetensors")
    expected = whole_pipeline(FEATURES, stack, n_fitted=19).fit(stack, stack.labels)
    probabilities = expected.predict_proba(stack)
    reads.clear()
    assert_array_equal(model.predict(im.open_stack(faces, recursive=True)), stack.labels)
    assert len(reads) == 24
    assert_allclose(model.predict_proba(stack), probabilities, atol=1e-4)
    assert model.classes_.tolist() == ["face", "nonface"]


@pytest.mark.parametrize("classifier", ["svm", "forest"])
def test_other_classifiers_leave_their_features(classifier, faces, stack, tmp_path, without_picture):
    options = ("-f", "stats", "-c", classifier, "--balanced", "--folds", 2)
    result = run("classify", faces, "-o", tmp_path, *options)
    assert result.exit_code == 0
    assert re.search("saved +the features only", result.stdout)
    model = im.load_model(tmp_path / "model.safetensors")
    assert model.transform(stack).shape == (24, 9)
    assert json.loads((tmp_path / "run.json").read_text())["classifier"]["accuracy_mean"] > 0.6


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [
        ((9, 7, 3), "uint8", ".png"),
        ((20, 30), "uint16", ".tif"),
        ((16, 16), "float32", ".tif"),
        ((3, 2), "uint8", ".png"),
    ],
    ids=["colour", "uint16", "float32", "tiny"],
)
def test_kinds_of_images(shape, dtype, suffix, tmp_path, without_picture):
    for i, image in enumerate(random_pixels((12, *shape), dtype)):
        write_image(tmp_path / f"in/{'ab'[i % 2]}/{i}{suffix}", image)
    result = run("classify", tmp_path / "in", "-o", tmp_path / "out", "--folds", 2)
    assert result.exit_code == 0, result.stderr


def test_a_stored_stack_keeps_its_labels(faces, stack, tmp_path, reads, without_picture):
    im.save_stack(stack, tmp_path / "stack.zarr")
    reads.clear()
    for source, out in ((tmp_path / "stack.zarr", "a"), (faces, "b")):
        options = ("-f", "texture", "-f", "hist", "-f", "stats", "-q")
        assert run("classify", source, "-o", tmp_path / out, *options).exit_code == 0
    # Once for all features of all folds together, and those that the report shows.
    assert len(set(reads[:24])) == 24
    assert len(reads) <= 48
    assert read_table(tmp_path / "a/predictions.csv") == read_table(tmp_path / "b/predictions.csv")


def test_unbalanced_classes(tmp_path, without_picture):
    folder = write_classes(tmp_path / "in", {"many": 40, "few": 5})
    result = run("classify", folder, "-o", tmp_path / "out", "-f", "stats", "--balanced")
    assert re.search(r"baseline +88\.9 % right", result.stdout)
    assert re.search(r"balanced +\d+\.\d % right where every class counts the same", result.stdout)


def test_few_images_take_fewer_components(tmp_path, without_picture):
    folder = write_classes(tmp_path / "in", {"a": 3, "b": 3})
    assert run("classify", folder, "-o", tmp_path / "out", "-f", "pca", "--folds", 3).exit_code == 0
    model = im.load_model(tmp_path / "out/model.safetensors")
    assert model["features"].transformer_list[-1][1].n_components_ == 3
    result = run("classify", folder, "-o", tmp_path / "more", "-f", "pca", "--folds", 3, "-k", 5)
    assert_refused(result, "the smallest fit here is to 4 images", "give -k 4 or less")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": 8}, "all 8 images are labelled 'a'"),
        ({"a": 8, "b": 3}, "3 of 'b'. Add images, or divide them into fewer parts: --folds 3"),
        (
            {"a": 8, "b": 3, "c": 1},
            "a class needs 2 images, one to learn from and one to test, and there are 3 of 'b', 1",
        ),
        ({"a": 8, ".": 2}, "itself holds 2 of the images"),
        ({".": 6}, "gives no labels. Give a folder whose sub-folders"),
    ],
    ids=["one class", "too many folds", "one image", "loose images", "no sub-folders"],
)
def test_labels_that_make_no_classes(sizes, message, tmp_path):
    folder = write_classes(tmp_path / "in", sizes)
    assert_refused(run("classify", folder, "-o", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


def test_sources_without_labels(faces, tmp_path):
    im.save_stack(np.zeros((6, 5, 5), np.uint8), tmp_path / "stack.zarr")
    for source in (tmp_path / "stack.zarr", faces / "face/0001.png"):
        assert_refused(run("classify", source, "-o", tmp_path / "out"), "gives no labels", "sub-folders")
        assert not (tmp_path / "out").exists()


def test_a_pattern_chooses_files_of_the_sub_folders(faces, tmp_path):
    result = run("classify", faces / "*" / "000*.png", "-o", tmp_path, "--folds", 10)
    assert_refused(result, "10 folds need 10 images of each class, and there are 9 of 'face', 9 of 'nonface'.")


def test_memory_limit_too_small(faces, tmp_path):
    result = run("classify", faces, "-o", tmp_path / "out", "-f", "pca", "--memory-limit", "10kB")
    assert_refused(result, hints=["here these are the options --memory-limit and -k"])
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default:.* link to folders")
def test_empty_sub_folders_are_named(faces, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(faces, folder)
    (folder / "scarf").mkdir()
    (folder / "hat").symlink_to(faces / "face", target_is_directory=True)
    (folder / ".git").mkdir()
    result = run("classify", folder, "-o", tmp_path / "out")
    assert_refused(result, "the sub-folders 'hat', 'scarf'", "links to folders are not followed")
