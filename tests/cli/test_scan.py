"""``imgstack-ml scan``."""

import json
import re
import shlex

import numpy as np
import pytest

from tests.lib.commands import assert_refused, cut_off, run, run_pca
from tests.lib.images import random_pixels, touch, write_folder, write_image


def test_tells_what_is_there(tmp_path):
    folder = tmp_path / "in"
    write_folder(folder, 6)
    (folder / "img10.png").write_text("no image")
    result = run("scan", folder)
    assert result.exit_code == 3
    assert "PNG" in result.stdout
    assert f"bad: {str(folder / 'img10.png')!r}" in result.stdout
    record = json.loads(run("scan", folder, "--json").stdout)
    assert [problem["file"] for problem in record["problems"]] == [str(folder / "img10.png")]
    (kind,) = record["kinds"]
    assert kind["n_images"] == record["n_images"]
    (folder / "img10.png").unlink()
    assert run("scan", folder, "-q").exit_code == 0


def test_verifies_and_brings_to_one_kind(tmp_path):
    write_image(tmp_path / "in/a.jpg", random_pixels((32, 32)))
    write_image(tmp_path / "in/b.jpg", random_pixels((32, 30, 3)))
    damaged = tmp_path / "in/c.jpg"
    write_image(damaged, random_pixels((32, 32)))
    cut_off(damaged)
    options = ("--mode", "L", "--shape", "16x16")
    assert run("scan", tmp_path / "in", *options).exit_code == 0
    result = run("scan", tmp_path / "in", *options, "--verify")
    assert result.exit_code == 3
    assert f"bad: {str(damaged)!r}" in result.stdout
    said = [line.split()[0] for line in result.stderr.splitlines()]
    assert said == ["reading", "warning:", "decoding"]
    assert "--shape 32x30 --fit crop (the size of 'b.jpg'), or --shape 32x32 --fit pad" in result.stderr
    (tmp_path / "empty/sub").mkdir(parents=True)
    result = run("scan", tmp_path / "empty")
    assert result.exit_code == 1
    assert "hint: to read the sub-folders too: --recursive" in result.stderr
    write_image(tmp_path / "empty/sub/a.jpg", random_pixels((32, 32)))
    write_image(tmp_path / "empty/sub/b.jpg", random_pixels((32, 32)))
    result = run("scan", tmp_path / "empty")
    assert result.exit_code == 0
    assert re.search(r"Next: imgstack-ml pca \S+empty -o results -r\n$", result.stdout)


def test_shape_has_one_form(tmp_path):
    write_folder(tmp_path, 2)
    for shape in (("--shape", "5x4"), ("--shape=5x4",)):
        record = json.loads(run("scan", tmp_path, *shape, "--json", "-q").stdout)
        assert record["image_shape"] == [5, 4, 3]
    result = run("scan", tmp_path, "--shape", 5, 4)
    assert result.exit_code == 2
    assert f"type: imgstack-ml scan {tmp_path} --shape 5x4\n" in result.stderr
    result = run("scan", tmp_path, "--shape", "5")
    assert result.exit_code == 2
    assert "is no height and width; give e.g. 256x256" in result.stderr


@pytest.mark.parametrize(
    ("images", "needed"),
    [
        ([(8, 8), (8, 8)], ""),
        ([(8, 8, 3), (8, 8, 3), (8, 6)], " --mode RGB --shape 8x8"),
        ([(8, 8), (8, 8, 3)], " --mode L"),
        ([(8, 8), (8, 8), (8, 8, 1)], " --mode 'I;16'"),
        ([(8, 8, 3), (8, 8, 3), (8, 8, 3, 1)], " --mode RGB --on-error skip"),
        ([(8, 8), (8, 8), None], " --on-error skip"),
    ],
    ids=["one kind", "colour and shape", "grey", "bits", "none fits all", "damaged"],
)
def test_the_last_line_runs(images, needed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, shape in enumerate(images):
        if shape is None:
            (tmp_path / "in/x.png").write_text("no image")
        else:
            deep = shape[-1] == 1  # 16 bits a channel
            pixels = random_pixels(shape[:-1], "uint16", seed=i) if deep else random_pixels(shape, seed=i)
            write_image(tmp_path / f"in/{i}.{'tif' if deep else 'png'}", pixels)
    result = run("scan", "in")
    assert result.exit_code == (3 if "skip" in needed else 0), result.output
    *table, line = result.stdout.splitlines()
    assert f"{len(images) - (None in images)} images" in "\n".join(table)
    assert line == "Next: imgstack-ml pca in -o results" + needed
    assert run_pca(*shlex.split(line)[3:]).exit_code == result.exit_code
    assert run("scan", "in").stdout.splitlines()[-1] == line.replace("results", "results2")


def test_what_is_not_searched_and_what_is_grey(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        write_image(tmp_path / f"in/{i}.png", np.stack([random_pixels((8, 8), seed=i)] * 3, axis=2))
        write_image(tmp_path / f"in/sub/{i}.png", random_pixels((8, 8, 3), seed=i))
    result = run("scan", "in")
    assert "not searched: 1 sub-folder, such as 'sub'. With it: imgstack-ml scan in -r\n" in result.stdout
    assert "One channel takes a third: --mode L\n" in result.stdout
    assert json.loads(run("scan", "in", "--json", "-q").stdout)["not_searched"] == ["sub"]
    for options in (["in", "-r"], ["in/sub"], ["in", "--mode", "L"]):
        said = run("scan", *options).stdout
        assert "grey: " not in said
        assert ("not searched" in said) == ("--mode" in options)
    for i, shape in enumerate([(6, 9), (9, 6), (9, 9)]):
        write_image(tmp_path / f"mixed/{i}.png", random_pixels(shape))
    assert "--shape 6x6 --fit crop (the size of '0.png' and '1.png')" in run("scan", "mixed", "--shape", "9x9").stderr


def test_errors_name_options(tmp_path):
    assert_refused(run("scan", tmp_path / "in/*.tif"), "no file matches")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["run"] = file["zoom"] = random_pixels((3, 4, 4))
    assert_refused(run("scan", tmp_path / "x.h5"), f"Give one: '{tmp_path}/x.h5::run'")


@pytest.mark.filterwarnings("default:.*images of kinds")
def test_images_that_are_not_read_are_counted(tmp_path):
    write_folder(tmp_path, 2)
    touch(tmp_path, "a.heic", "b.heic", "c.oir", "Thumbs.db")
    (tmp_path / "img9.png").symlink_to("gone.png")
    result = run("scan", tmp_path)
    assert result.exit_code == 3
    assert "2  not read: .heic" in result.stdout
    assert f"bad: {str(tmp_path / 'img9.png')!r}: No such file" in result.stdout
    assert result.stderr.count("warning: ") == 1
    assert "holds 3 images of kinds that are not read" in result.stderr
    write_image(tmp_path / "other.png", random_pixels((9, 9)))  # tried by several options, and said once
    assert run("scan", tmp_path).stderr.count("holds 3 images of kinds") == 1
    assert json.loads(run("scan", tmp_path, "--json", "-q").stdout)["unread"] == {".heic": 2, ".oir": 1}
