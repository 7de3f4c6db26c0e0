"""Labels of images from tables."""

import json
import sys

import pytest

from imgstack_ml.cli.lib.labels import LabelError, read_table
from imgstack_ml.cli.lib.terminal import Terminal
from imgstack_ml.cli.report import _open_images
from tests.lib.commands import assert_refused, read_scores, run, run_pca
from tests.lib.commands import read_table as read_csv
from tests.lib.images import random_pixels, write_image

NAMES = ["p/A1/0.tif", "p/A1/1.tif", "p/B2/0.tif", "film.avi[0]", "film.avi[1]"]
ROWS = "p/A1,drug\np/A1/1.tif,none\np/B2/,none\nfilm.avi,drug\nother.png,drug\n"


@pytest.mark.parametrize("text", ["file,label\n", "\ufefffile;x;label\n", "file\tgroup,label\n"])
def test_rows_name_images_files_or_folders(text, tmp_path):
    separator = text[5 if text[0] == "\ufeff" else 4]
    rows = ROWS.replace(",", separator * (2 if "x" in text else 1))
    text = text.replace("\tgroup,", "\t") + rows
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert read_table(str(tmp_path / "t.csv"), "label", NAMES) == ["drug", "none", "none", "drug", "drug"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.png,b\n", r"columns \['a.png', 'b'\]; it needs file and label, as its first line: file,label"),
        ("", r"columns \[\]"),
        ("file,a,b\nx,1,2\n", "several columns.*Name that of the labels: .*t.csv:a"),
        ("file,label\nx,a\n\nx,b\n", "lines 2 and 4: 'x' is 'a' and 'b'"),
        ("file,label\nx,a\ny\n", "line 3: 'y' has no label"),
        ("file,label\n0.tif,a\n", "no label for 5 of 5 images: 'p/A1/0.tif'.*first row names '0.tif'.*relative"),
        (f"file,label\n{'x' * 200_000},a\n", "line 2: field larger"),
    ],
    ids=["no header", "empty", "columns", "differ", "short", "missing", "long"],
)
def test_refuses_and_names_the_line(text, said, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(LabelError, match=f"t.csv'.*{said}"):
        read_table(str(tmp_path / "t.csv"), "label", NAMES)


def test_commands_take_labels(tmp_path, monkeypatch):
    """In place of sub-folders, with groups by their level; and again for the report of the run."""
    monkeypatch.setattr(sys.modules["imgstack_ml.cli.classify"], "_draw_confusion", lambda *_: None)
    rows = ["file,kind"]
    for i in range(24):
        name = f"d{i // 8}/{i}.png"
        write_image(tmp_path / "in" / name, random_pixels((6, 6), seed=i) // 2 + 60 * (i % 2))
        rows.append(f"{name},{'ab'[i % 2]}")
    table, images = tmp_path / "t.csv", tmp_path / "in"
    table.write_text("\n".join(rows))
    options = ["--labels", table, "--group-by", 1, "--folds", 3, "-f", "stats"]
    result = run("classify", images, *options, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    _, found = read_csv(tmp_path / "out/predictions.csv")
    assert [row[1] for row in found] == [
        row[-1] for row in sorted(rows[1:], key=lambda row: int(row[3:].split(".")[0]))
    ]
    assert [row[3] for row in found] == [row[0].split("/")[0] for row in found]
    assert run_pca(images, "-r", "--labels", table, "-k", 2, "-o", tmp_path / "pca").exit_code == 0
    assert read_csv(tmp_path / "pca/scores.csv")[1][1][:2] == ["d0/1.png", "b"]
    record = json.loads((tmp_path / "pca/run.json").read_text())
    assert f"--labels {table}" in record["command_line"]
    assert _open_images(record, read_scores(tmp_path / "pca")[1], Terminal()).labels[1] == "b"  # for the report
    table.write_text("\n".join(rows[:-1]))
    assert_refused(run("classify", images, *options, "-o", tmp_path / "no"), "for 1 of 24 images: 'd2/23.png'")
    table.write_text("\n".join(["file,kind", *(f"d{i // 8}/{i}.png,{i}" for i in range(24))]))
    assert_refused(run("classify", images, *options, "-o", tmp_path / "no"), "a class needs 2", "give these other")
    one_each = [write_image(tmp_path / f"wells/A{i}/{j}.png", random_pixels((6, 6))) for i in range(3) for j in (0, 1)]
    assert_refused(
        run("classify", tmp_path / "wells", "-o", tmp_path / "no"), "5 folds", hints=["--labels platemap.csv"]
    )
    assert len(one_each) == 6
