"""``imgstack-ml transform``, against the model itself."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml.cli.report import _read_scores
from tests.lib.commands import assert_refused, read_scores, run, run_pca


def read_any(path):
    """Names, labels or None, values, names of the columns of values or None."""
    if path.suffix == ".npy":
        table = np.load(path)
        labels = table["label"].tolist() if "label" in table.dtype.names else None
        return table["file"].tolist(), labels, table["values"], None
    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    labels = table.pop("label").tolist() if "label" in table else None
    return table.pop("file").tolist(), labels, table.to_numpy(), list(table.columns)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_writes_what_the_model_gives(suffix, finished, faces, stack, model, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"new/scores{suffix}"
    result = run("transform", finished, faces, "-r", "-o", out)
    assert result.exit_code == 0, result.output
    assert f"24 rows in {out}: file, label and 5 columns" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Next, in Python: ")
    names, labels, values, columns = read_any(out)
    assert names == [os.path.relpath(file, faces) for file in stack.files]
    assert labels == stack.labels.tolist()
    assert columns in (None, ["PC1", "PC2", "PC3", "PC4", "PC5"])
    # To the last bit: the text is the shortest that gives the float32 back.
    np.testing.assert_array_equal(values.astype(np.float32), np.asarray(model.transform(stack)))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_frames_of_a_movie_have_their_number(suffix, tmp_path):
    """Positions along the axes of the file, as whole numbers; the report reads what pca has written."""
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 8, 9), dtype="uint8")
    tifffile.imwrite(tmp_path / "m.tif", pixels, metadata={"axes": "TZYX"}, ome=True)
    assert run_pca(tmp_path / "m.tif", "-k", 2, "-o", tmp_path / "out").exit_code == 0
    assert read_scores(tmp_path / "out")[0] == ["file", "t", "z", "PC1", "PC2"]
    assert _read_scores(tmp_path / "out/scores.csv")[1].shape == (12, 2)
    result = run("transform", tmp_path / "out", tmp_path / "m.tif", "-o", tmp_path / f"s{suffix}")
    assert result.exit_code == 0, result.stderr
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".npy": np.load}[suffix]
    table = read(tmp_path / f"s{suffix}")
    np.testing.assert_array_equal(table["t"], np.repeat(np.arange(4), 3))
    np.testing.assert_array_equal(table["z"], np.tile(np.arange(3), 4))


def test_one_folder_has_no_labels(finished, faces, tmp_path):
    arguments = (finished / "model.safetensors", faces / "face", "-o", tmp_path / "s.npy", "-q")
    assert run("transform", *arguments).output == ""
    assert np.load(tmp_path / "s.npy").dtype.names == ("file", "values")


def test_by_features(stack, faces, tmp_path):
    features = im.ImageFeatureUnion([("stats", im.ChannelStatistics()), ("hist", im.ImageHistogram(8))]).fit(stack)
    im.save_model(make_pipeline(im.IntensityRescaler(), features).fit(stack), tmp_path / "model.safetensors")
    result = run("transform", tmp_path, faces, "-r", "-o", tmp_path / "f.csv", "--json")
    record = json.loads(result.stdout)
    assert record["columns"] == features.get_feature_names_out().tolist() == read_any(tmp_path / "f.csv")[3]
    assert record["command"] == "transform"
    assert record["outputs"] == [str(tmp_path / "f.csv")]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_labels_that_a_classifier_predicts(suffix, faces, stack, small_parts, reads, tmp_path):
    """The labels are those of the model itself; each image is read once, a block at a time."""
    classifier = make_pipeline(im.ImagePCA(2), LogisticRegression(max_iter=5000)).fit(stack, stack.labels)
    im.save_model(classifier, tmp_path / "model")
    reads.clear()
    out = tmp_path / f"p{suffix}"
    result = run("transform", tmp_path / "model", faces, "-r", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert "file, label, predicted and 2 columns" in result.stdout
    assert len(reads) == 24
    if suffix == ".npy":
        table = np.load(out)
        predicted, shares = table["predicted"], table["values"]
    else:
        table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
        predicted, shares = table["predicted"], table[["p_face", "p_nonface"]]
    np.testing.assert_array_equal(predicted, classifier.predict(stack))
    np.testing.assert_allclose(shares, classifier.predict_proba(stack), rtol=1e-6)


def test_refuses(finished, faces, stack, tmp_path):
    out = tmp_path / "s.csv"
    result = run("transform", finished, faces, "-r", "-o", out, "--shape", "9x9")
    assert_refused(result, "(25, 25)", hints=["--shape", "--mode"])
    assert_refused(run("transform", faces, faces, "-r", "-o", out), "model.safetensors")
    (tmp_path / "no.safetensors").write_text("x")
    assert_refused(run("transform", tmp_path / "no.safetensors", faces, "-r", "-o", out), "no.safetensors")
    im.save_model(LogisticRegression().fit([[0], [1]], [0, 1]), tmp_path / "rows")
    assert_refused(run("transform", tmp_path / "rows", faces, "-r", "-o", out), "LogisticRegression of rows of numbers")
    im.save_model(im.StackCenterer().fit(stack), tmp_path / "centred")
    assert_refused(run("transform", tmp_path / "centred", faces, "-r", "-o", out), "StackCenterer", "save_stack")
    assert run("transform", tmp_path / "nowhere", faces, "-o", out).exit_code == 2
    assert not out.exists()
