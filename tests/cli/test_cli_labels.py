"""The commands that describe and classify images: against scikit-learn, and what they say when that cannot be done."""

import csv
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import imgstack_ml as im
from imgstack_ml.cli import main
from imgstack_ml.cli.lib.features import FEATURES, make_features
from imgstack_ml.io.readers import FileReader
from tests.lib.images import random_pixels, write_folder, write_image


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def read_table(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    return header, rows


def assert_refused(result, *parts):
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    message = result.stderr[result.stderr.index("error: ") :]
    assert "open_stack(" not in message
    assert "overwrite=" not in message
    for part in parts:
        assert str(part) in message


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """40 faces and non-faces in two sub-folders."""
    folder = tmp_path_factory.mktemp("sample") / "faces"
    assert run("sample", "faces", folder, "-n", 40).exit_code == 0
    return folder


def write_classes(folder, sizes, shape=(12, 10), **options):
    for i, (name, n) in enumerate(sizes.items()):
        pixels = random_pixels((n, *shape), seed=i) // (i + 1)
        for j, image in enumerate(pixels):
            write_image(folder / name / f"{j}.png", image, **options)
    return folder


# classify ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("pca",), ("hist", "texture"), FEATURES])
def test_predictions_are_those_of_cross_validating_the_whole_pipeline(names, faces, tmp_path):
    options = [part for name in names for part in ("-f", name)]
    assert run("classify", faces, "-o", tmp_path, *options, "--folds", 4, "--seed", 3, "-q").exit_code == 0
    stack = im.open_stack(faces, recursive=True)
    features = make_features(names, stack, n_components=None, n_fitted=30).set_output(transform="pandas")
    whole = make_pipeline(features, StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    header, rows = read_table(tmp_path / "predictions.csv")
    assert header == ["file", "label", "predicted", "fold"]
    assert [row[2] for row in rows] == cross_val_predict(whole, stack, stack.labels, cv=folds).tolist()
    for number, (_, test) in enumerate(folds.split(stack.labels, stack.labels), start=1):
        assert {int(rows[i][3]) for i in test} == {number}


def test_each_image_is_read_for_the_features_once_and_for_pca_once_a_fold(faces, tmp_path, monkeypatch):
    read, plain = [], FileReader.read
    monkeypatch.setattr(FileReader, "read", lambda self, keys: (read.extend(keys), plain(self, keys))[1])
    run("classify", faces, "-o", tmp_path / "a", "-f", "hist", "-f", "texture", "-f", "stats", "-q")
    assert len(read) == 40
    read.clear()
    run("classify", faces, "-o", tmp_path / "b", "-f", "pca", "-f", "hist", "-q")
    assert len(read) == (2 + 5) * 40  # fit of pca, features, and 5 folds


def test_classify_writes_all_results(faces, tmp_path):
    out = tmp_path / "new" / "out"
    result = run("classify", faces, "-o", out)
    assert result.exit_code == 0
    assert {p.name for p in out.iterdir()} == {"predictions.csv", "confusion.png", "model.safetensors", "run.json"}
    assert re.search(r"classifier +face or nonface: \d+\.\d ± \d+\.\d % right over 5 folds", result.stdout)
    assert re.search(r"baseline +50\.0 % right", result.stdout)
    found = json.loads((out / "run.json").read_text())["classifier"]
    _, rows = read_table(out / "predictions.csv")
    labels, predicted = [row[1] for row in rows], [row[2] for row in rows]
    assert found["confusion"] == confusion_matrix(labels, predicted).tolist()
    assert found["n_right"] == sum(a == b for a, b in zip(labels, predicted, strict=True))
    assert found["accuracy_mean"] == pytest.approx(found["n_right"] / 40)
    assert found["accuracy_mean"] > 0.85
    with Image.open(out / "confusion.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100


def test_the_saved_model_classifies_without_a_warning_in_one_read(faces, tmp_path, monkeypatch):
    run("classify", faces, "-o", tmp_path, "-q")
    model = im.load_model(tmp_path / "model.safetensors")
    stack = im.open_stack(faces, recursive=True)
    features = make_features(FEATURES, stack, n_components=None, n_fitted=32).set_output(transform="pandas")
    expected = make_pipeline(features, StandardScaler(), LogisticRegression(max_iter=1000)).fit(stack, stack.labels)
    probabilities = expected.predict_proba(stack)
    read, plain = [], FileReader.read
    monkeypatch.setattr(FileReader, "read", lambda self, keys: (read.extend(keys), plain(self, keys))[1])
    assert_array_equal(model.predict(im.open_stack(faces, recursive=True)), stack.labels)
    assert len(read) == 40
    assert_allclose(model.predict_proba(stack), probabilities, atol=1e-4)
    assert model.classes_.tolist() == ["face", "nonface"]


@pytest.mark.parametrize("classifier", ["svm", "forest"])
def test_other_classifiers_leave_their_features(classifier, faces, tmp_path):
    result = run("classify", faces, "-o", tmp_path, "-f", "stats", "-c", classifier, "--balanced")
    assert result.exit_code == 0
    assert re.search("saved +the features only", result.stdout)
    model = im.load_model(tmp_path / "model.safetensors")
    assert model.transform(im.open_stack(faces, recursive=True)).shape == (40, 9)
    assert json.loads((tmp_path / "run.json").read_text())["classifier"]["accuracy_mean"] > 0.6


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [
        ((9, 7, 3), "uint8", ".png"),
        ((20, 30), "uint16", ".tif"),
        ((16, 16), "float32", ".tif"),
        ((3, 2), "uint8", ".png"),
    ],
)
def test_kinds_of_images(shape, dtype, suffix, tmp_path):
    for i, image in enumerate(random_pixels((12, *shape), dtype)):
        write_image(tmp_path / f"in/{'ab'[i % 2]}/{i}{suffix}", image)
    result = run("classify", tmp_path / "in", "-o", tmp_path / "out", "--folds", 2)
    assert result.exit_code == 0, result.stderr


def test_a_stored_stack_keeps_its_labels(faces, tmp_path):
    im.save_stack(im.open_stack(faces, recursive=True), tmp_path / "stack.zarr")
    for source, out in ((tmp_path / "stack.zarr", "a"), (faces, "b")):
        assert run("classify", source, "-o", tmp_path / out, "-f", "texture", "-q").exit_code == 0
    assert read_table(tmp_path / "a/predictions.csv") == read_table(tmp_path / "b/predictions.csv")


def test_unbalanced_classes(tmp_path):
    folder = write_classes(tmp_path / "in", {"many": 40, "few": 5})
    result = run("classify", folder, "-o", tmp_path / "out", "-f", "stats", "--balanced")
    assert re.search(r"baseline +88\.9 % right", result.stdout)
    assert re.search(r"balanced +\d+\.\d % right where every class counts the same", result.stdout)


def test_few_images_take_fewer_components(tmp_path):
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
)
def test_labels_that_make_no_classes(sizes, message, tmp_path):
    folder = write_classes(tmp_path / "in", sizes)
    assert_refused(run("classify", folder, "-o", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


def test_sources_without_labels(faces, tmp_path):
    im.save_stack(np.zeros((6, 5, 5), np.uint8), tmp_path / "stack.zarr")
    for source in (tmp_path / "stack.zarr", faces / "face/0001.png"):
        result = run("classify", source, "-o", tmp_path / "out")
        assert result.exit_code == 1
        assert not (tmp_path / "out").exists()
    assert_refused(run("classify", tmp_path / "stack.zarr", "-o", tmp_path / "out"), "gives no labels", "sub-folders")


def test_a_pattern_chooses_files_of_the_sub_folders(faces, tmp_path):
    result = run("classify", faces / "*" / "00[01]*.png", "-o", tmp_path, "-f", "texture", "--json", "-q")
    assert json.loads(result.stdout)["classifier"]["classes"] == {"face": 19, "nonface": 19}


def test_memory_limit_too_small(faces, tmp_path):
    result = run("classify", faces, "-o", tmp_path / "out", "-f", "pca", "--memory-limit", "10kB")
    assert_refused(result, "hint: here these are the options --memory-limit and -k")
    assert not (tmp_path / "out").exists()


def test_empty_sub_folders_are_named(faces, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(faces, folder)
    (folder / "scarf").mkdir()
    (folder / "hat").symlink_to(faces / "face", target_is_directory=True)
    (folder / ".git").mkdir()
    result = run("classify", folder, "-o", tmp_path / "out")
    assert_refused(result, "the sub-folders 'hat', 'scarf'", "links to folders are not followed")


def test_nothing_to_read(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    for command, out in (("classify", "out"), ("features", "x/f.csv")):
        assert_refused(run(command, tmp_path / "in", "-o", tmp_path / out), "no images found")
    write_folder(tmp_path / "in/a", 3)
    assert_refused(run("features", tmp_path / "in", "-o", tmp_path / "x/f.csv"), "hint: to read the sub-folders too: -")
    assert not (tmp_path / "x").exists()
    write_image(tmp_path / "in/a/x.png", random_pixels((5, 5)))
    result = run("features", tmp_path / "in", "-r", "-o", tmp_path / "x/f.csv")
    assert_refused(result, "are not of one shape", "--mode RGB", "a pattern in quotes")


def test_a_failed_run_leaves_no_folder(tmp_path):
    folder = write_classes(tmp_path / "in", {"a": 6, "b": 6}, (32, 32))
    damaged = folder / "b/3.jpg"
    Image.fromarray(random_pixels((32, 32))).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:700])
    assert_refused(run("classify", folder, "-o", tmp_path / "new/out"), damaged)
    assert_refused(run("features", folder, "-r", "-o", tmp_path / "new/out/f.csv"), damaged)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_files_left_out(faces, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(faces, folder)
    (folder / "face/x.png").write_text("no image")
    assert_refused(run("classify", folder, "-o", tmp_path / "out"), "hint: to leave out", "--on-error skip")
    result = run("classify", folder, "-o", tmp_path / "out", "-f", "stats", "--on-error", "skip")
    assert result.exit_code == 3
    assert [row[0] for row in read_table(tmp_path / "out/skipped.csv")[1]] == ["face/x.png"]
    result = run("features", folder, "-r", "-o", tmp_path / "f.csv", "--on-error", "skip", "--json", "-q")
    assert result.exit_code == 3
    assert [row[0] for row in json.loads(result.stdout)["skipped"]] == ["face/x.png"]


def test_output_folder_that_holds_something_or_lies_inside(faces, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    assert_refused(run("classify", faces, "-o", tmp_path), "--overwrite")
    assert_refused(run("classify", faces, "-o", faces / "out"), "inside the input folder")


# features ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("options", [[], ["-f", "all"], ["-f", "hog"]])
def test_features_are_those_of_the_transformers(suffix, options, faces, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"new/table{suffix}"
    result = run("features", faces, "-r", "-o", out, *options)
    assert result.exit_code == 0
    assert f"pandas.read_{suffix[1:]}({str(out)!r})" in result.stdout
    table = pd.read_csv(out, dtype=str) if suffix == ".csv" else pd.read_parquet(out)
    stack = im.open_stack(faces, recursive=True)
    names = {"-": FEATURES[:-1], "all": FEATURES, "hog": ("hog",)}[options[-1] if options else "-"]
    features = make_features(names, stack, n_components=None, n_fitted=40).fit(stack)
    assert list(table.columns) == ["file", "label", *features.get_feature_names_out()]
    assert table["label"].tolist() == stack.labels.tolist()
    assert table["file"][0] == "face/0001.png"
    expected = features.transform(stack).compute()
    # Equal to the last bit; scores of components to the rounding of their float32 products, which vary with the block.
    assert_allclose(
        table.iloc[:, 2:].astype(float),
        expected,
        rtol=0 if "all" not in options else 1e-5,
        atol=1e-2 * ("all" in options),
    )


def test_a_table_is_written_in_parts_that_read_each_image_once(faces, tmp_path, monkeypatch):
    monkeypatch.setattr("imgstack_ml.passes.progress._BLOCKS_PER_THREAD", 1)
    monkeypatch.setattr("imgstack_ml.passes.progress.CPU_COUNT", 1)
    read, plain = [], FileReader.read
    monkeypatch.setattr(FileReader, "read", lambda self, keys: (read.extend(keys), plain(self, keys))[1])
    run("features", faces, "-r", "-o", tmp_path / "parts.csv", "-q")
    assert len(read) == 40
    monkeypatch.undo()
    run("features", faces, "-r", "-o", tmp_path / "whole.csv", "-q")
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_one_image_and_no_labels(tmp_path):
    write_image(tmp_path / "in/1.png", random_pixels((20, 20, 3)))
    assert run("features", tmp_path / "in", "-o", tmp_path / "f.csv").exit_code == 0
    assert read_table(tmp_path / "f.csv")[0][:2] == ["file", "stats__channel0_mean"]


def test_names_that_are_not_utf8(tmp_path):
    pytest.importorskip("pyarrow")
    write_folder(tmp_path / "in", 2)
    (tmp_path / "in/img1.png").rename(tmp_path / "in" / b"img1\xff.png".decode("utf-8", "surrogateescape"))
    for name in ("f.csv", "f.parquet"):
        assert run("features", tmp_path / "in", "-o", tmp_path / name, "-f", "stats").exit_code == 0
    assert pd.read_parquet(tmp_path / "f.parquet")["file"].tolist() == ["img0.png", r"img1\xff.png"]
    assert read_table(tmp_path / "f.csv")[1][1][0].encode("utf-8", "surrogateescape") == b"img1\xff.png"


def test_files_of_features_that_cannot_be_written(faces, tmp_path, monkeypatch):
    (tmp_path / "mine.csv").write_text("mine")
    assert_refused(run("features", faces, "-r", "-o", tmp_path / "mine.csv"), "--overwrite")
    assert run("features", faces, "-r", "-o", tmp_path / "mine.csv", "--overwrite", "-f", "stats").exit_code == 0
    result = run("features", faces, "-r", "-o", tmp_path / "f.xls")
    assert result.exit_code == 2
    assert ".csv, .parquet or .npy" in result.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("features", faces, "-r", "-o", tmp_path / "f.parquet")
    assert result.exit_code == 2
    assert "pip install 'imgstack_ml[parquet]'" in result.stderr


def test_record_of_features(faces, tmp_path):
    result = run("features", faces, "-r", "-o", tmp_path / "f.csv", "-f", "stats", "--json")
    record = json.loads(result.stdout)
    assert record["command"] == "features"
    assert record["input"]["n_images"] == 40
    assert len(record["features"]) == 9
    assert record["parameters"]["features"] == ["stats"]
