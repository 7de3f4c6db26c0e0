"""``imgstack-ml features``, against the transformers."""

import json

import pandas as pd
import pytest
from numpy.testing import assert_allclose

from imgstack_ml.cli.lib.features import FEATURES, make_features
from tests.lib.commands import read_table, run
from tests.lib.images import random_pixels, write_image


@pytest.mark.parametrize(
    ("suffix", "options", "names"),
    [(".csv", [], FEATURES[:-1]), (".parquet", ["-f", "all"], FEATURES), (".csv", ["-f", "hog"], ("hog",))],
    ids=["default csv", "all parquet", "hog csv"],
)
def test_writes_what_the_transformers_give(suffix, options, names, faces, stack, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"new/table{suffix}"
    result = run("features", faces, "-r", "-o", out, *options)
    assert result.exit_code == 0
    assert f"pandas.read_{suffix[1:]}({str(out)!r})" in result.stdout
    table = pd.read_csv(out, dtype=str) if suffix == ".csv" else pd.read_parquet(out)
    features = make_features(names, stack, n_components=None, n_fitted=24).fit(stack)
    assert list(table.columns) == ["file", "label", *features.get_feature_names_out()]
    assert table["label"].tolist() == stack.labels.tolist()
    assert table["file"][0] == "face/0001.png"
    expected = features.transform(stack).compute()
    # Equal to the last bit; scores of components to the rounding of their float32 products, which vary with the block.
    with_pca = "all" in options
    assert_allclose(table.iloc[:, 2:].astype(float), expected, rtol=1e-5 * with_pca, atol=1e-2 * with_pca)


def test_one_image_and_no_labels(tmp_path):
    write_image(tmp_path / "in/1.png", random_pixels((20, 20, 3)))
    assert run("features", tmp_path / "in", "-o", tmp_path / "f.csv").exit_code == 0
    assert read_table(tmp_path / "f.csv")[0][:2] == ["file", "stats__red_mean"]


def test_record(faces, tmp_path):
    result = run("features", faces, "-r", "-o", tmp_path / "f.csv", "-f", "stats", "--json")
    record = json.loads(result.stdout)
    assert record["command"] == "features"
    assert record["input"]["n_images"] == 24
    assert len(record["features"]) == 9
    assert record["parameters"]["features"] == ["stats"]
