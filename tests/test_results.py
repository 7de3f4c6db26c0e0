"""What docs/results.md claims of real images, with a margin; and that the examples run."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # benchmarks is a package of the repository that is not installed

from benchmarks.comparisons import results  # noqa: E402


@pytest.mark.parametrize(
    "classifier",
    [SVC(), pytest.param(LogisticRegression(max_iter=2000), marks=pytest.mark.slow)],
    ids=["svc", "logistic"],
)
def test_digits_as_well_as_scikit_learn_in_memory(classifier, no_dense_stack):
    task = results.digits()
    assert len(task.stack) == 1797
    lazy = results.accuracy(results.lazy_pipeline(32, classifier), task)
    no_dense_stack.undo()
    assert lazy > 0.94
    assert abs(lazy - results.accuracy_in_memory(results.pipeline_in_memory(32, classifier), task)) < 0.005


def test_features_beat_components_of_the_pixels(no_dense_stack):
    faces, textures = results.faces(), results.textures()
    components, texture = results.lazy_pipeline(32, results.logistic()), results.FEATURES["texture"]
    by_texture = results.feature_pipeline(texture(), results.logistic())
    assert results.accuracy(by_texture, faces) > results.accuracy(components, faces) + 0.01
    by_components = results.accuracy(components, textures)
    assert results.accuracy(by_texture, textures) > by_components + 0.15
    by_histogram = results.feature_pipeline(results.FEATURES["histogram"](), results.logistic())
    assert results.accuracy(by_histogram, textures) > by_components + 0.1


def test_folds_are_bands_of_the_photographs():
    task = results.textures()
    assert len(task.folds) == 4
    for train, test in task.folds:
        assert len(test) == 48
        assert not set(train) & set(test)
        for photograph in range(3):  # 16 neighbours: two rows of eight patches
            of_it = test[test // 64 == photograph]
            assert np.array_equal(of_it, np.arange(of_it[0], of_it[0] + 16))


def test_clusters_of_histograms_are_nearer_to_the_labels_than_those_of_components():
    found = results.agreement_of_texture_clusters()
    assert found["texture"] > 0.8
    assert found["histogram"] > 0.4
    assert found["16 principal components"] < 0.3


def test_tables_of_the_page_are_those_of_the_stored_figures():
    page = results.RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    for name, table in results.tables_of(json.loads(results.RESULTS.read_text(encoding="utf-8"))).items():
        assert f"<!-- {name} -->\n\n{table}\n\n<!-- end of {name} -->" in page


@pytest.fixture
def no_dense_stack(monkeypatch):
    """Refuse to draw a lazy stack into memory; rows of features may be."""
    plain = results.da.Array.__array__

    def refuse(self, *args, **kwargs):
        assert self.ndim < 3, "a lazy stack was materialised"
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(results.da.Array, "__array__", refuse)
    return monkeypatch


@pytest.mark.parametrize("name", ["faces", "preprocess", "tissue"])
def test_examples(name, tmp_path, capsys, monkeypatch):
    path = ROOT / "docs" / "examples" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    pyplot.close("all")
    printed = capsys.readouterr().out
    if name == "faces":
        assert float(re.search(r"16 eigenfaces tell (\d+\.\d)%", printed)[1]) > 92
    if name == "tissue":
        assert len(re.findall(r"cluster \d: +\d+ tiles", printed)) == 4
