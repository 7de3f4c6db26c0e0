"""Cross-validation by groups, against scikit-learn's checks and a brute-force reading of the folders."""

import csv
import re
import sys

import numpy as np
import pytest

from imgstack_ml.cli.lib.groups import make_folds
from imgstack_ml.cli.lib.labels import LabelError
from imgstack_ml.report.classification import CHANCES
from tests.lib.commands import assert_refused, read_table, run
from tests.lib.images import random_pixels, write_image

N_DONORS = 4


@pytest.fixture
def wells(tmp_path, monkeypatch):
    """Images of two classes from each donor, as FOLDER/CLASS/DONOR and as FOLDER/DONOR/CLASS; and a table of donors."""
    monkeypatch.setattr(sys.modules["imgstack_ml.cli.classify"], "_draw_confusion", lambda *_: None)
    rows = []
    for i in range(24):
        label, donor = "ab"[i % 2], f"d{i // 2 % N_DONORS}"
        pixels = random_pixels((6, 6), seed=i) // 2 + 60 * (i % 2)
        for name in (f"2/{label}/{donor}/{i}.png", f"1/{donor}/{label}/{i}.png", f"flat/{label}/{i}.png"):
            write_image(tmp_path / name, pixels.astype("uint8"))
        rows.append([f"{label}/{i}.png", str(i), donor])
    with open(tmp_path / "donors.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "well", "donor"], *rows])
    return tmp_path


@pytest.mark.parametrize(("folder", "group_by"), [("1", "1"), ("2", "2"), ("flat", "donors.csv:donor")])
def test_no_group_is_in_two_folds(folder, group_by, wells, monkeypatch):
    monkeypatch.chdir(wells)
    result = run("classify", folder, "-f", "stats", "--folds", 4, "--group-by", group_by, "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert "over 4 folds of 4 groups" in " ".join(result.stdout.split())
    header, rows = read_table(wells / "out/predictions.csv")
    assert header == ["file", "label", "predicted", "group", "fold", *CHANCES]
    assert len({(row[3], row[4]) for row in rows}) == N_DONORS
    for file, label, _, donor, *_ in rows:
        number = int(re.search(r"(\d+)\.png", file)[1])
        assert (label, donor) == ("ab"[number % 2], f"d{number // 2 % N_DONORS}")


def test_refuses(wells):
    for folder, group_by, said in (
        ("2", "3", "--group-by 3 needs"),
        ("flat", "1", "needs a folder for the group and one for the class"),
        ("flat", wells / "donors.csv", "Name that of the groups: "),
        ("flat", f"{wells / 'donors.csv'}:plate", "it needs file and plate"),
        ("2", f"{wells / 'donors.csv'}:donor", "names no group for 24 of 24 images"),
        ("1", "1", "5 folds need 5 groups, and there are 4. Divide into fewer: --folds 4"),
    ):
        result = run("classify", wells / folder, "-f", "stats", "--group-by", group_by, "-o", wells / "out")
        assert_refused(result, said)
    assert not (wells / "out").exists()


def test_every_model_learns_every_class():
    labels, groups = np.array(list("aaaabbbbbb")), np.array([0, 0, 1, 1, 2, 2, 0, 3, 4, 5])
    for seed in range(20):
        for train, test in make_folds(labels, groups, 2, seed):
            assert set(labels[train]) == {"a", "b"}
            assert not set(groups[train]) & set(groups[test])
    with pytest.raises(LabelError, match="'a' are of the group '0'"):
        make_folds(labels[[0, 1, 4, 7]], groups[[0, 1, 4, 7]], 2, 0)
