"""Images that cannot be opened as they are: messages in terms of options, and files left out."""

import json
import re
import shutil
import sys

import click
import fsspec
import numpy as np
import pytest
import tifffile
import zarr

from imgstack_ml import ImagePCA, load_model
from imgstack_ml.cli.lib.images import parse_select
from imgstack_ml.cli.lib.terminal import Terminal
from imgstack_ml.cli.report import _open_images
from tests.lib.commands import assert_refused, read_scores, read_table, run, run_pca, write_damaged
from tests.lib.images import random_pixels, write_folder, write_image


@pytest.fixture
def with_broken_file(tmp_path):
    """Six images, and a text file with the name of an image."""
    write_folder(tmp_path / "in", 6)
    (tmp_path / "in/img10.png").write_text("no image")
    return tmp_path / "in"


def test_broken_file_is_named(with_broken_file, tmp_path):
    result = run_pca(with_broken_file, "-o", tmp_path / "out", "-k", 2)
    assert_refused(result, repr(str(with_broken_file / "img10.png")), "of no format that is read")
    assert "hint: to leave out files that are damaged or no images: --on-error skip\n" in result.stderr
    assert not (tmp_path / "out").exists()


def test_broken_file_is_skipped(with_broken_file, tmp_path):
    out = tmp_path / "out"
    result = run_pca(with_broken_file, "-o", out, "-k", 2, "--on-error", "skip")
    assert result.exit_code == 3
    assert f"warning: left out {str(with_broken_file / 'img10.png')!r}: " in result.stderr
    assert re.search("left out +1 unreadable file\n", result.stdout)
    header, rows = read_table(out / "skipped.csv")
    assert header == ["file", "reason"]
    assert [row[0] for row in rows] == ["img10.png"]
    assert len(read_scores(out)[1]) == 6
    assert json.loads((out / "run.json").read_text())["input"]["n_skipped"] == 1

    (with_broken_file / "img10.png").unlink()
    assert run_pca(with_broken_file, "-o", out, "-k", 2, "--on-error", "skip", "--overwrite").exit_code == 0
    assert not (out / "skipped.csv").exists()


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ("img2.png\n\nimg0.png\n", ["img1.png", "sub/a.png", "sub/b.png"]),
        ("predicted,file\nx,sub\ny,img1.png\n", ["img0.png", "img2.png"]),
    ],
)
def test_images_that_a_list_or_a_table_names_are_left_out(tmp_path, lines, kept):
    """Names of images or of folders. The line to repeat the run has the option; `report` opens the same images."""
    folder, out, listed = tmp_path / "in", tmp_path / "out", tmp_path / "some.txt"
    write_folder(folder, 3)
    for name in ("a", "b"):
        write_image(folder / "sub" / f"{name}.png", random_pixels((8, 6, 3)))
    listed.write_text(lines)
    assert run_pca(folder, "-r", "-o", out, "-k", 1, "--leave-out", listed, "--no-report").exit_code == 0
    assert [row[0] for row in read_table(out / "scores.csv")[1]] == kept
    record = json.loads((out / "run.json").read_text())
    assert f"--leave-out {listed}" in record["command_line"]
    assert len(_open_images(record, kept, Terminal(quiet=True))) == len(kept)


def test_names_to_leave_out_that_are_no_images_are_refused(tmp_path):
    write_folder(tmp_path / "in", 2)
    for text, said in (
        ("img0.png\nimg7.png", "names 'img7.png', which is no image here"),
        ("img0.png\nimg1.png", "all 2"),
    ):
        (tmp_path / "some.txt").write_text(text)
        result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "--leave-out", tmp_path / "some.txt")
        assert_refused(result, said)


def test_plans_are_checked_before_images_are_decoded(finished, tmp_path, reads):
    write_folder(tmp_path / "in" / "a", 6, (9, 9))
    write_folder(tmp_path / "in" / "b", 6, (9, 9))
    for command, said in (
        (["pca", "-r", "-k", 2, "--memory-limit", "10kB"], "Nothing was read. Give --memory-limit"),
        (["classify", "--memory-limit", "10kB"], "the classifier 'logistic' of 12 images"),
        (["cluster", "-r", "-k", 2, "--memory-limit", "10kB"], "2 clusters of 12 images"),
        (["features", "-r", "-f", "pca", "-k", 99], "give -k 12 or less"),
        (["transform", finished, "-r"], "of shape (25, 25)"),
        (["reconstruct", finished, "-r", "-k", 9], "give -k 5 or less"),
    ):
        name, *options = command
        out = tmp_path / ("out.csv" if name in ("features", "transform") else "out")
        model = [options.pop(0)] if name in ("transform", "reconstruct") else []
        result = run(name, *model, tmp_path / "in", *options, "-o", out, "--on-error", "skip")
        assert_refused(result, said)
        assert "decoding" not in result.stderr
    assert reads == []


def test_many_broken_files_do_not_flood_the_terminal(with_broken_file, tmp_path):
    for i in range(20, 30):
        (with_broken_file / f"img{i}.png").write_text("no image")
    result = run_pca(with_broken_file, "-o", tmp_path / "out", "-k", 2, "--on-error", "skip", "-q")
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 6
    assert "6 more" in result.stderr
    assert len(read_table(tmp_path / "out/skipped.csv")[1]) == 11


@pytest.mark.parametrize("rescale", ["--rescale", "--no-rescale"])
def test_file_that_fails_in_decoding_is_named_or_skipped(rescale, tmp_path):
    damaged = write_damaged(tmp_path / "in")
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, rescale)
    assert_refused(result, repr(str(damaged)))
    assert not (tmp_path / "out").exists()
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "--on-error", "skip", rescale)
    assert result.exit_code == 3
    assert f"left out {str(damaged)!r}" in result.stderr
    assert read_table(tmp_path / "out/skipped.csv")[1][0][0] == "4.jpg"
    assert len(read_scores(tmp_path / "out")[1]) == 5


def test_skipped_files_are_listed_by_every_command(faces, finished, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    shutil.copytree(faces, folder)
    (folder / "face/x.png").write_text("no image")
    monkeypatch.setattr(sys.modules["imgstack_ml.cli.classify"], "_draw_confusion", lambda *_: None)
    commands = {
        "classify": ["classify", folder, "-f", "stats", "-o", tmp_path / "classified"],
        "features": ["features", folder, "-r", "-f", "stats", "-o", tmp_path / "f.csv"],
        "transform": ["transform", finished, folder, "-r", "-o", tmp_path / "s.csv"],
        "reconstruct": ["reconstruct", finished, folder, "-r", "-o", tmp_path / "drawn.zarr"],
    }
    for name, command in commands.items():
        assert_refused(run(*command), "x.png", hints=["to leave out", "--on-error skip"])
        result = run(*command, "--on-error", "skip", "--json", "-q")
        assert result.exit_code == 3
        record = json.loads(result.stdout)
        skipped = read_table(tmp_path / "classified/skipped.csv")[1] if name == "classify" else record["skipped"]
        assert [row[0] for row in skipped] == ["face/x.png"]
        assert record["input"]["n_images"] == 24
    assert len(read_table(tmp_path / "s.csv")[1]) == 24


def test_nothing_to_read(faces, tmp_path):
    (tmp_path / "empty/a").mkdir(parents=True)
    for command, out in (("pca", "out"), ("classify", "out"), ("features", "x/f.csv")):
        assert_refused(run(command, tmp_path / "nowhere", "-o", tmp_path / out), "no images found", "nowhere")
        assert_refused(run(command, tmp_path / "empty", "-o", tmp_path / out), "no images found")
    for command, out in (("pca", "out"), ("features", "x/f.csv")):
        result = run(command, faces, "-o", tmp_path / out)
        assert_refused(result, "no images found", "2 sub-folders", hints=["to read the sub-folders too: --recursive"])
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(("shape", "option"), [((6, 5), ("--shape", "5x5")), ((5, 5, 3), ("--mode", "L"))])
def test_images_of_several_kinds(shape, option, tmp_path):
    write_folder(tmp_path / "in", 3, (5, 5))
    write_image(tmp_path / "in/x.png", random_pixels(shape))
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2)
    bring = "bring them to one kind by --mode, e.g. --mode RGB, or --shape"
    assert_refused(result, "4 images are not of one shape", hints=[bring, "a pattern in quotes"])
    assert run_pca(tmp_path / "in", "-o", tmp_path / "out", *option).exit_code == 0
    assert len(read_scores(tmp_path / "out")[0]) == 1 + 3  # as many components as four images have


def test_a_failed_run_leaves_no_folder(finished, tmp_path):
    for i in range(12):
        write_image(tmp_path / f"in/{'ab'[i % 2]}/{i}.png", random_pixels((25, 25), seed=i))
    damaged = write_damaged(tmp_path / "in/b", n_images=1, damaged=0, shape=(25, 25))
    for command in (
        ["classify", tmp_path / "in", "-o", tmp_path / "new/out"],
        ["features", tmp_path / "in", "-r", "-o", tmp_path / "new/out/f.csv"],
        ["transform", finished, tmp_path / "in", "-r", "-o", tmp_path / "new/s.csv"],
        ["reconstruct", finished, tmp_path / "in", "-r", "-o", tmp_path / "new/folder"],
        ["reconstruct", finished, tmp_path / "in", "-r", "-o", tmp_path / "new/one.zarr"],
    ):
        assert_refused(run(*command), repr(str(damaged)))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_images_with_nan_are_named_and_skipped(tmp_path):
    pixels = random_pixels((8, 6, 5), "float32")
    pixels[3, 2, 2] = np.nan
    pixels[5, 0, 0] = np.inf
    for i, image in enumerate(pixels):
        write_image(tmp_path / f"in/{i}.tif", image)
    result = run_pca(tmp_path / "in", "-k", 2, "-o", tmp_path / "out")
    assert_refused(result, "3.tif", "contains NaN or infinity", hints=["--on-error skip"])
    assert "np.arange" not in result.stderr
    for command, *arguments, out in (
        (run_pca, tmp_path / "in", "-k", 2, "out"),
        (run, "features", tmp_path / "in", "-f", "stats", "f.csv"),
        (run, "reconstruct", tmp_path / "out", tmp_path / "in", "r.zarr"),
    ):
        result = command(*arguments, "-o", tmp_path / out, "--on-error", "skip", "--json", "-q")
        assert result.exit_code == 3, result.stderr
        assert json.loads(result.stdout)["input"]["n_images"] == 6
        assert [line for line in result.stderr.splitlines() if "NaN" not in line] == []


def test_files_that_change_during_a_run_are_named(tmp_path, monkeypatch):
    write_folder(tmp_path / "in", 6)
    fit = ImagePCA.fit_transform

    def after_a_change(self, X):
        (tmp_path / "in/img3.png").touch()
        return fit(self, X)

    monkeypatch.setattr(ImagePCA, "fit_transform", after_a_change)
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2)
    assert_refused(result, "img3.png", "has changed since", "run the command again")


def test_urls_stay_urls(tmp_path):
    url = f"memory://{tmp_path.name}"
    system = fsspec.filesystem("memory")
    write_folder(tmp_path / "in/a", 5)
    write_folder(tmp_path / "in/b", 5)
    system.put(str(tmp_path / "in"), f"/{tmp_path.name}", recursive=True)
    names = [f"{folder}/img{i}.png" for folder in "ab" for i in range(5)]
    for source, options, expected in (
        (f"{url}/a/*.png", [], [name[2:] for name in names[:5]]),
        (f"{url}/", ["-r"], names),
        (url, ["-r"], names),
    ):
        assert run_pca(source, *options, "-o", tmp_path / "out", "-k", 2, "--overwrite").exit_code == 0
        record = json.loads((tmp_path / "out/run.json").read_text())
        assert record["input"]["source"] == source
        assert read_scores(tmp_path / "out")[1] == expected
        assert _open_images(record, expected, Terminal()).shape[0] == len(expected)  # what the command report reads
    system.rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.parametrize(
    ("texts", "select"),
    [
        ((), None),
        (("c=DAPI,z=3", "t=0:100:10"), {"c": "DAPI", "z": 3, "t": slice(0, 100, 10)}),
        (("c=DAPI,GFP", "c=-1"), {"c": ["DAPI", "GFP", -1]}),
        (("t=5:",), {"t": slice(5, None)}),
    ],
)
def test_select_is_read(texts, select):
    assert parse_select(texts) == select


@pytest.mark.parametrize("text", ["DAPI", "c=", "=3", "t=0:3,5", ""])
def test_what_selects_nothing_is_refused(text):
    with pytest.raises(click.BadParameter, match=r"give (e\.g\. c=DAPI|one of them)"):
        parse_select([text])


def test_commands_take_a_level(tmp_path):
    pixels = random_pixels((3, 32, 32))
    (tmp_path / "in").mkdir()
    with tifffile.TiffWriter(tmp_path / "in" / "a.tif") as tiff:
        for image in pixels:
            tiff.write(image, photometric="minisblack", metadata=None, subifds=1)
            tiff.write(image[::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
    assert json.loads(run("scan", tmp_path / "in" / "a.tif", "--level", 1, "--json").stdout)["image_shape"] == [16, 16]
    result = run("pca", tmp_path / "in" / "a.tif", "-o", tmp_path / "out", "-k", 2, "--level", 1)
    assert result.exit_code == 0, result.stderr
    mean = load_model(tmp_path / "out" / "model.safetensors")[-1].mean_image_
    np.testing.assert_allclose(mean, pixels[:, ::2, ::2].mean(axis=0), rtol=1e-6)
    assert "the report is made without the images" not in run("report", tmp_path / "out").stderr
    result = run("pca", tmp_path / "in" / "a.tif", "-o", tmp_path / "no", "--level", 2)
    assert result.exit_code == 1
    assert "no --level 2; its levels are 0 of shape" in result.stderr


def test_commands_take_a_selection(tmp_path):
    pixels = random_pixels((3, 4, 8, 8))
    array = zarr.create_array(tmp_path / "x.zarr", data=pixels, dimension_names=("t", "z", "y", "x"))
    assert array.shape == pixels.shape
    selection = ["--select", "z=1:", "--select", "t=0,2"]
    result = run("scan", tmp_path / "x.zarr", *selection, "--json")
    assert json.loads(result.stdout)["n_images"] == 6
    result = run("pca", tmp_path / "x.zarr", "-o", tmp_path / "out", "-k", 2, *selection)
    assert result.exit_code == 0, result.stderr
    mean = load_model(tmp_path / "out" / "model.safetensors")[-1].mean_image_
    np.testing.assert_allclose(mean, pixels[[0, 2], 1:].mean(axis=(0, 1)), rtol=1e-6)
    assert "the report is made without the images" not in run("report", tmp_path / "out").stderr
    result = run("pca", tmp_path / "x.zarr", "-o", tmp_path / "no", "--select", "q=1")
    assert result.exit_code == 1
    assert "it has no axis 'q' to select from; there are 't', 'z'" in result.stderr
