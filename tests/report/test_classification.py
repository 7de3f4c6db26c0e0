"""The page about a classifier: the right images under the right headings, few reads, names that do nothing."""

import numpy as np
import pytest

import imgstack_ml as im
from imgstack_ml.report.classification import FeatureWeights, Predictions, classification_report, described_weights
from tests.lib.commands import recorded_reads
from tests.lib.images import random_pixels, write_image
from tests.lib.pages import assert_sound

from .conftest import HOSTILE

CLASSES = ["<b>a", "b", "c"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """300 images; the class of each is the remainder of its number by 3."""
    folder = tmp_path_factory.mktemp("classes")
    for i, image in enumerate(random_pixels((300, 4, 5))):
        name = HOSTILE if i == 4 else f"{i:03d}.png"
        write_image(folder / CLASSES[i % 3] / name, image)
    return im.open_stack(folder, recursive=True)


def run_of(labels, predicted, name="logistic", weights=None):
    return {
        "command": "classify",
        "parameters": {"source": "in", "out": "out"},
        "command_line": "imgstack-ml classify in -o out",
        "versions": {"python": "3"},
        "input": {"source": "in"},
        "features": ["stats"],
        "seconds": 1.0,
        "classifier": {
            "name": name, "weights": described_weights(weights),
            "n_features": 3, "n_folds": 5, "accuracy_mean": 0.9, "accuracy_std": 0.1,
            "balanced_accuracy": 0.8, "majority_rate": 0.5, "n_right": int((labels == predicted).sum()),
            "classes": dict.fromkeys(CLASSES, 100), "confusion_classes": CLASSES,
            "confusion": [[int(((labels == a) & (predicted == b)).sum()) for b in CLASSES] for a in CLASSES],
        },
    }  # fmt: skip


@pytest.mark.parametrize("with_chances", [True, False])
def test_the_page_shows_what_is_confused_and_reads_no_more(stack, with_chances):
    labels = stack.labels
    predicted = labels.copy()
    wrong = np.flatnonzero(labels == "b")[:40]
    predicted[wrong] = "<b>a"
    predicted[np.flatnonzero(labels == "c")[:3]] = "b"
    chances = np.full((300, 2), 0.9)
    chances[wrong] = np.column_stack([np.linspace(0.5, 0.99, 40), np.linspace(0.49, 0.01, 40)])
    names = [file.rpartition("/")[2] for file in stack.files]
    weights = FeatureWeights(["x__1", "x__2", "y__1"], np.array([1.0, 0.0, 3.0]), np.array(["b", "b", "c"]))
    with recorded_reads() as reads:
        report = classification_report(
            stack,
            Predictions(names, labels, predicted, chances if with_chances else None),
            run_of(labels, predicted, *(("logistic", weights) if with_chances else ("svm",))),
        )
    assert len(reads) == len(set(reads)) <= 96
    page = assert_sound(report)
    assert page.sections == ["summary", "confusion", "misjudged", "typical", "features", "reproduce"]
    assert "“b” taken for “<b>a”: 40 of 100" in page.text
    shown = [attrs["alt"] for attrs in page.all("img")]
    first = [names[i] for i in (wrong[::-1] if with_chances else wrong)[:6]]
    assert shown[:6] == first
    assert shown[6:9] == [names[i] for i in np.flatnonzero(labels == "c")[:3]]
    assert ("<b>a 99 %, b 1 %" in page.text) == with_chances
    assert ("19 more" in page.text) == (len(wrong) + 3 - 24 == 19)
    if with_chances:
        assert page.text.index("y__1") < page.text.index("x__1")
        assert "90 %" in page.text
    else:
        assert "no weight for a single feature" in page.text


def test_a_classifier_without_errors(stack):
    labels = stack.labels
    names = list(map(str, range(300)))
    run = run_of(labels, labels)
    page = assert_sound(classification_report(stack, Predictions(names, labels, labels, None), run))
    assert "misjudged" not in page.sections
    assert "100.0 % are right" in page.text
