"""``imgstack-ml scan``."""

import json

import pytest

from tests.lib.commands import assert_refused, cut_off, run
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
    result = run("scan", tmp_path / "in")
    assert result.exit_code == 1
    assert "not of one shape and dtype" in result.stderr
    options = ("--mode", "L", "--shape", 16, 16)
    assert run("scan", tmp_path / "in", *options).exit_code == 0
    result = run("scan", tmp_path / "in", *options, "--verify")
    assert result.exit_code == 3
    assert f"bad: {str(damaged)!r}" in result.stdout
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["reading", "decoding"]
    (tmp_path / "empty/sub").mkdir(parents=True)
    result = run("scan", tmp_path / "empty")
    assert result.exit_code == 1
    assert "hint: to read the sub-folders too: --recursive" in result.stderr


def test_shape_has_one_form_and_takes_that_of_before(tmp_path):
    write_folder(tmp_path, 2)
    for shape in (("--shape", "5x4"), ("--shape", 5, 4), ("--shape=5x4",)):
        record = json.loads(run("scan", tmp_path, *shape, "--json", "-q").stdout)
        assert record["image_shape"] == [5, 4, 3]
    result = run("scan", tmp_path, "--shape", "5")
    assert result.exit_code == 2
    assert "is no height and width; give e.g. 256x256" in result.stderr


def test_errors_name_options(tmp_path):
    write_image(tmp_path / "in/a.png", random_pixels((8, 8)))
    write_image(tmp_path / "in/b.png", random_pixels((8, 9, 3)))
    kinds = ["--mode, e.g. --mode RGB, or --shape, e.g. --shape 256x256", "a pattern in quotes"]
    assert_refused(run("scan", tmp_path / "in"), "not of one shape", hints=kinds)
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
    assert json.loads(run("scan", tmp_path, "--json", "-q").stdout)["unread"] == {".heic": 2, ".oir": 1}
