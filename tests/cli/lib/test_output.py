"""Where results may go, and what a run leaves of an earlier one."""

import json
import shutil

import numpy as np
import pytest
import tifffile

import imgstack_ml as im
from imgstack_ml.files.locks import lock_output
from tests.lib.commands import assert_refused, read_scores, run, run_pca
from tests.lib.images import random_pixels, write_folder, write_image


@pytest.mark.parametrize("command", ["pca", "classify"])
def test_a_folder_that_holds_something(command, faces, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    options = ["-r"] if command == "pca" else []
    assert_refused(run(command, faces, *options, "-o", tmp_path), repr(str(tmp_path)), "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_overwrite_leaves_nothing_of_the_earlier_run_and_all_else(faces, tmp_path):
    out = tmp_path / "out"
    run("pca", faces, "-r", "-o", out, "-k", 4, "--no-report")
    (out / "eigenimages" / "mine.png").write_text("mine")
    (out / "skipped.csv").write_text("not listed in run.json, hence no result")
    assert run("pca", faces, "-r", "-o", out, "-k", 2, "--no-report", "--overwrite").exit_code == 0
    assert sorted(path.name for path in (out / "eigenimages").iterdir()) == ["mine.png", "pc_001.png", "pc_002.png"]
    assert (out / "skipped.csv").exists()
    assert read_scores(out)[0] == ["file", "label", "PC1", "PC2"]


@pytest.mark.parametrize(
    "outputs",
    [["../mine.csv", "/mine.csv", "eigenimages/../../mine.csv"], [3], 7],
    ids=["outside", "no names", "no list"],
)
def test_overwrite_trusts_no_record(outputs, faces, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine.csv").write_text("mine")
    (out / "run.json").write_text(json.dumps({"outputs": outputs}))
    assert run_pca(faces, "-r", "-o", out, "-k", 2, "--overwrite").exit_code == 0
    assert (tmp_path / "mine.csv").exists()


def test_output_inside_the_input_is_refused(tmp_path):
    folder = tmp_path / "in"
    write_folder(folder, 4)
    write_folder(folder / "a", 4)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for source, out in [
        (folder, folder),
        (folder, folder / "out"),
        (folder, folder / "new" / "out"),
        (folder, tmp_path / "link" / "out"),
        (tmp_path / "link", folder / "out"),
        (tmp_path / "in*" / "*.png", folder / "out"),
    ]:
        assert_refused(run_pca(source, "-o", out, "-k", 2, "--overwrite"), "inside the input folder")
    result = run_pca(folder / "a" / "img1.png", "-o", folder / "a", "-k", 2, "--overwrite")
    assert_refused(result, "holds the input", "name another folder")
    write_folder(tmp_path / "deep" / "a", 4)
    result = run_pca(tmp_path / "deep", "-r", "-o", tmp_path / "deep" / "out", "-k", 2)
    assert_refused(result, "inside the input folder", repr(str(tmp_path / "deep")))
    assert_refused(run("classify", folder, "-o", folder / "out"), "inside the input folder")
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 12
    assert not list(tmp_path.rglob("*out"))


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--resume"]], ids=["new", "overwrite", "resume"])
def test_two_commands_into_one_folder(options, faces, tmp_path):
    out = tmp_path / "out"
    with lock_output(out):
        assert_refused(run_pca(faces, "-r", "-o", out, "-k", 2, *options), "is being written by process")
    assert not list(tmp_path.iterdir())
    assert run_pca(faces, "-r", "-o", out, "-k", 2, *options).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_images_that_results_would_replace_are_refused(tmp_path):
    pixels = random_pixels((4, 5, 5))
    for i, image in enumerate(pixels, start=1):
        write_image(tmp_path / f"out/eigenimages/pc_00{i}.png", image)
    result = run_pca(tmp_path / "out/eigenimages", "-o", tmp_path / "out", "-k", 2, "--overwrite")
    assert_refused(result, "inside the input folder")
    np.testing.assert_array_equal(im.open_stack(tmp_path / "out/eigenimages").data.compute(), pixels)


def test_results_lie_beside_a_single_file(tmp_path):
    tifffile.imwrite(tmp_path / "film.tif", random_pixels((6, 5, 5)))
    assert run_pca(tmp_path / "film.tif", "-o", tmp_path / "out", "-k", 2).exit_code == 0
    for drawn in ("drawn", "drawn.zarr"):
        result = run("reconstruct", tmp_path / "out", tmp_path / "film.tif", "-o", tmp_path / drawn)
        assert result.exit_code == 0, result.stderr
        assert im.open_stack(tmp_path / drawn).shape == (6, 5, 5)


def test_a_folder_that_cannot_be_made(faces, tmp_path):
    (tmp_path / "file").write_text("")
    result = run_pca(faces, "-r", "-o", tmp_path / "file" / "out", "-k", 2)
    assert_refused(result, repr(str(tmp_path / "file" / "out")))


def test_a_report_is_replaced_with_the_run(faces, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    run("report", out, "--no-read")
    assert (out / "report.html").exists()
    assert run_pca(faces, "-r", "-o", out, "-k", 3, "--overwrite").exit_code == 0
    assert not (out / "report.html").exists()
