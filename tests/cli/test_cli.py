"""The command line, on real image files: exit codes, messages, and what lies in the output folder afterwards."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from matplotlib import pyplot
from PIL import Image
from sklearn.decomposition import PCA

import imgstack_ml as im
from imgstack_ml.cli import main
from imgstack_ml.cli.sample import _NAMES
from imgstack_ml.datasets import SAMPLES
from imgstack_ml.files.locks import lock_output
from tests.lib.images import random_pixels, write_folder, write_image

RESULTS = {
    "report.html", "eigenimages.png", "scree.png", "mean.png", "scores.csv", "model.safetensors", "run.json",
    "eigenimages",
}  # fmt: skip


def run(*args, charset="utf-8"):
    return CliRunner(charset=charset).invoke(main, [str(arg) for arg in args])


def run_pca(*args, **options):
    """Without the report, which takes longer than all the rest."""
    return run("pca", *args, "--no-report", **options)


def run_process(*args):
    command = [sys.executable, "-m", "imgstack_ml", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)


def read_table(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    return header, rows


def read_scores(out):
    header, rows = read_table(out / "scores.csv")
    first = next(i for i, name in enumerate(header) if name.startswith("PC"))
    return header, [row[0] for row in rows], np.array([row[first:] for row in rows], dtype=float)


def assert_refused(result, *parts):
    """Exit code 1, one line that begins with ``error:`` and tells all of `parts`, and no traceback."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    for part in parts:
        assert str(part) in line


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """24 faces and non-faces in two sub-folders."""
    folder = tmp_path_factory.mktemp("sample") / "faces"
    result = run("sample", "faces", folder, "-n", 24)
    assert result.exit_code == 0
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as a user runs it, and its output folder."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return run_process("demo", out), out


# The program ------------------------------------------------------------------------------------------


def test_help_imports_nothing_slow():
    code = """
import sys
from imgstack_ml.cli import main
for args in ([], *([name] for name in main.commands)):
    main([*args, "--help"], standalone_mode=False)
slow = {"numpy", "dask", "sklearn", "matplotlib", "PIL", "skimage", "tqdm", "dask_ml"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_shows_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"imgstack-ml {command}" in result.stdout.split("Example")[1]


def test_version():
    assert run("--version").stdout == f"imgstack-ml, version {im.__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pca", "folder"], "'-o'"),
        (["pca", "folder", "-o", "out", "-k", "0"], "'-k'"),
        (["pca", "folder", "-o", "out", "--memory-limit", "lots"], "'lots' is no size"),
        (["pca", "folder", "-o", "out", "--memory-limit", "0MB"], "'0MB' is no size"),
        (["pca", "folder", "-o", "out", "--shape", "256"], "'256' is no height and width"),
        (["pca", "folder", "-o", "out", "--shape", "0x5"], "'0x5' is no height and width"),
        (["pca", "folder", "-o", "out", "--solver", "full"], "'full'"),
        (["pca", "folder", "-o", __file__], "is a file"),
        (["sample", "cats", "folder"], "'cats'"),
        (["sample", "faces", "folder", "--seed", "1"], "always the same"),
    ],
)
def test_wrong_usage_is_exit_code_2(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not any(tmp_path.iterdir())


def test_interrupt_is_exit_code_130(tmp_path):
    # Work without an end in sight, so that it cannot be over before the signal comes.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in a background job it is ignored
        "from imgstack_ml.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "sample", "cells", str(tmp_path / "cells"), "-n", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith("writing cells")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "interrupted\n")


# demo -------------------------------------------------------------------------------------------------


def test_demo_writes_all_results(demo):
    process, out = demo
    assert process.returncode == 0, process.stderr
    assert {path.name for path in out.iterdir()} == RESULTS | {"images", "predictions.csv"}
    assert len(list((out / "eigenimages").iterdir())) == 16
    for picture in [*out.glob("*.png"), *out.glob("eigenimages/*.png")]:
        with Image.open(picture) as image:
            assert min(image.size) >= 128
            assert np.ptp(np.asarray(image.convert("L"))) > 100  # not an empty sheet


def test_demo_summary_reads_well(demo):
    process, out = demo
    assert max(len(line) for line in process.stdout.splitlines() if str(out) not in line) <= 88
    assert re.search(r"images +200 of 25 × 25, uint8", process.stdout)
    assert re.search(r"classifier +face or nonface: \d\d\.\d ± \d+\.\d % right over 5 folds", process.stdout)
    assert re.search(r"baseline +50\.0 % right", process.stdout)
    assert re.search(r"variance +PC1 \d+\.\d %, .* 16 together \d+\.\d %", process.stdout)
    assert all(name in process.stdout for name in RESULTS)
    assert process.stdout.splitlines()[-1].endswith("imgstack-ml pca FOLDER -o OUT")
    assert process.stderr.splitlines()[0].startswith("writing sample images")


def test_demo_model_and_scores(demo):
    _, out = demo
    model = im.load_model(out / "model.safetensors")
    assert [type(step).__name__ for _, step in model.steps] == [
        "IntensityRescaler", "StackCenterer", "ImageFlattener", "ImagePCA"
    ]  # fmt: skip
    stack = im.open_stack(out / "images", recursive=True)
    header, names, scores = read_scores(out)
    assert header == ["file", "label", *(f"PC{i}" for i in range(1, 17))]
    assert names == [os.path.relpath(file, out / "images") for file in stack.files]
    np.testing.assert_allclose(scores, model.transform(stack).compute(), atol=1e-5 * abs(scores).max())


def test_demo_classifier(demo):
    _, out = demo
    record = json.loads((out / "run.json").read_text())
    found = record["classifier"]
    assert found["majority_rate"] == 0.5
    assert found["accuracy_mean"] > 0.85
    assert record["reload_difference"] < 1e-5
    header, rows = read_table(out / "predictions.csv")
    assert header == ["file", "label", "predicted"]
    assert all(file.startswith(f"{label}/") for file, label, _ in rows)
    n_right = sum(label == predicted for _, label, predicted in rows)
    # Folds of one size: the mean over folds is the share of all images.
    assert n_right == found["n_right"] == round(200 * found["accuracy_mean"])


def test_demo_again_needs_overwrite_and_keeps_other_files(demo):
    _, out = demo
    assert_refused(run("demo", out), repr(str(out)), "--overwrite")
    before = read_scores(out)[2]
    (out / "notes.txt").write_text("mine")
    result = run("demo", out, "--overwrite", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((out / "run.json").read_text())
    np.testing.assert_array_equal(read_scores(out)[2], before)
    (out / "notes.txt").unlink()


def test_demo_does_not_replace_images_of_the_user(tmp_path):
    mine = tmp_path / "images" / "face" / "0001.png"
    write_image(mine, random_pixels((25, 25)))
    (mine.parent / "0002.png").write_text("mine too")
    assert_refused(run("demo", tmp_path, "--overwrite"), "images", "not empty")
    assert {path.name for path in tmp_path.rglob("*.*")} == {"0001.png", "0002.png"}


# pca --------------------------------------------------------------------------------------------------


def test_pca_writes_all_results(faces, tmp_path):
    out = tmp_path / "new" / "out"
    result = run("pca", faces, "--recursive", "-o", out, "-k", 5)
    assert result.exit_code == 0
    assert {path.name for path in out.iterdir()} == RESULTS
    assert sorted(path.name for path in (out / "eigenimages").iterdir()) == [f"pc_00{i}.png" for i in range(1, 6)]
    assert re.search(r"images +24 of 25 × 25, uint8", result.stdout)
    assert f"load_model({str(out / 'model.safetensors')!r})" in result.stdout
    assert not pyplot.get_fignums()


def test_pca_scores_are_those_of_scikit_learn(faces, tmp_path):
    run_pca(faces, "-r", "-o", tmp_path, "-k", 5)
    header, names, scores = read_scores(tmp_path)
    pixels = np.array([np.asarray(Image.open(faces / name), dtype=float).ravel() for name in names])
    expected = PCA(5, svd_solver="full").fit_transform(pixels)
    expected *= np.sign((expected * scores).sum(axis=0))
    assert header == ["file", "label", "PC1", "PC2", "PC3", "PC4", "PC5"]
    np.testing.assert_allclose(scores, expected, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("solver", ["gram", "covariance_eigh", "tsqr"])
def test_pca_solver(solver, faces, tmp_path):
    result = run_pca(faces, "-r", "-o", tmp_path, "-k", 3, "--solver", solver, "--json", "-q")
    record = json.loads(result.stdout)
    assert record["fit"]["solver"] == record["parameters"]["solver"] == solver
    assert result.stderr == ""


def test_pca_rescale(faces, tmp_path):
    assert run_pca(faces, "-r", "-o", tmp_path, "-k", 3, "--rescale").exit_code == 0
    model = im.load_model(tmp_path / "model.safetensors")
    assert [type(step).__name__ for _, step in model.steps] == ["IntensityRescaler", "ImagePCA"]
    rescaled = im.IntensityRescaler().fit_transform(im.open_stack(faces, recursive=True)).compute()
    np.testing.assert_allclose(model[-1].mean_image_, rescaled.mean(axis=0), atol=1e-3)


def test_pca_pictures_show_the_eigenimages(tmp_path):
    write_folder(tmp_path / "in", 6, shape=(5, 4))
    run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2)
    for number, eigenimage in enumerate(im.load_model(tmp_path / "out/model.safetensors")[-1].eigenimages_, start=1):
        picture = np.asarray(Image.open(tmp_path / f"out/eigenimages/pc_00{number}.png")).astype(int)
        factor = len(picture) // 5
        shown = picture[::factor, ::factor]
        np.testing.assert_array_equal(np.kron(shown, np.ones((factor, factor, 1))), picture)
        # Red above zero, blue below.
        clear = abs(eigenimage) > 0.1 * abs(eigenimage).max()
        np.testing.assert_array_equal((shown[..., 0] > shown[..., 2])[clear], (eigenimage > 0)[clear])


def test_pca_more_components_than_fit_on_a_sheet(tmp_path):
    write_folder(tmp_path / "in", 70, shape=(9, 9))
    assert run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 66).exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out/eigenimages").iterdir())
    assert names == [f"pc_{i:03d}.png" for i in range(1, 67)]


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [((9, 7, 3), "uint8", ".png"), ((9, 7), "uint16", ".tif"), ((9, 7), "float32", ".tif")],
)
def test_pca_of_other_kinds_of_images(shape, dtype, suffix, tmp_path):
    write_folder(tmp_path / "in", 12, shape, dtype, suffix)
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "--json")
    source = json.loads(result.stdout)["input"]
    assert (source["image_shape"], source["dtype"], source["n_images"]) == (list(shape), dtype, 12)
    assert read_scores(tmp_path / "out")[1] == [f"img{i}{suffix}" for i in range(12)]


def test_pca_of_a_stored_stack(faces, tmp_path):
    im.save_stack(im.open_stack(faces, recursive=True), tmp_path / "stack.zarr")
    assert run_pca(tmp_path / "stack.zarr", "-o", tmp_path / "out", "-k", 3).exit_code == 0
    assert read_scores(tmp_path / "out")[1][:2] == ["face/0001.png", "face/0002.png"]


def test_pca_of_a_pattern(faces, tmp_path):
    assert run_pca(faces / "*" / "000[1-5].png", "-o", tmp_path, "-k", 3).exit_code == 0
    assert read_scores(tmp_path)[1][4:6] == ["face/0005.png", "nonface/0001.png"]


def test_pca_record(faces, tmp_path):
    run_pca(faces, "-r", "-o", tmp_path, "-k", 3, "--memory-limit", "200MB")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["command"] == "pca"
    assert record["parameters"]["memory_limit"] == "200MB"
    assert record["versions"]["imgstack_ml"] == im.__version__
    assert record["input"] == {
        "source": str(faces), "n_images": 24, "image_shape": [25, 25], "dtype": "uint8", "n_skipped": 0
    }  # fmt: skip
    assert record["fit"]["n_passes"] == 1
    assert 24 * 625 < record["fit"]["planned_peak_bytes"] <= 200e6
    assert len(record["fit"]["explained_variance_ratio"]) == 3
    assert record["seconds"] >= record["fit"]["seconds"] > 0
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(record["outputs"]) == files


def test_pca_quiet(faces, tmp_path):
    result = run_pca(faces, "-r", "-o", tmp_path, "-k", 2, "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_summary_on_a_terminal_that_cannot_show_it(faces, tmp_path):
    result = run_pca(faces, "-r", "-o", tmp_path, "-k", 2, charset="ascii")
    assert result.exit_code == 0
    assert r"25 \xd7 25" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_pca_of_names_that_are_not_utf8(tmp_path):
    write_folder(tmp_path / "in", 5)
    os.rename(tmp_path / "in/img3.png", os.fsencode(tmp_path / "in") + b"/img3\xff,\n=1.png")
    assert run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2).exit_code == 0
    assert os.fsencode(read_scores(tmp_path / "out")[1][3]) == b"img3\xff,\n=1.png"


@pytest.mark.filterwarnings("always::imgstack_ml.RankWarning")
def test_pca_of_constant_images_warns(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"in/{i}.png", np.full((5, 5), 7, np.uint8))
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "-q")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: The 4 images have 0 independent direction(s)")


# Where results may go ---------------------------------------------------------------------------------


def test_output_folder_that_holds_something(faces, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    assert_refused(run_pca(faces, "-r", "-o", tmp_path), repr(str(tmp_path)), "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_overwrite_leaves_nothing_of_the_earlier_run_and_all_else(faces, tmp_path):
    out = tmp_path / "out"
    run_pca(faces, "-r", "-o", out, "-k", 6)
    (out / "eigenimages" / "mine.png").write_text("mine")
    (out / "skipped.csv").write_text("not listed in run.json, hence no result")
    assert run_pca(faces, "-r", "-o", out, "-k", 2, "--overwrite").exit_code == 0
    assert sorted(path.name for path in (out / "eigenimages").iterdir()) == ["mine.png", "pc_001.png", "pc_002.png"]
    assert (out / "skipped.csv").exists()
    assert read_scores(out)[0] == ["file", "label", "PC1", "PC2"]


@pytest.mark.parametrize("outputs", [["../mine.csv", "/mine.csv", "eigenimages/../../mine.csv"], [3], 7])
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
        (folder / "a" / "img1.png", folder / "a" / "out"),
    ]:
        assert_refused(run_pca(source, "-o", out, "-k", 2, "--overwrite"), "inside the input folder")
    write_folder(tmp_path / "deep" / "a", 4)
    result = run_pca(tmp_path / "deep", "-r", "-o", tmp_path / "deep" / "out", "-k", 2)
    assert_refused(result, "inside the input folder", repr(str(tmp_path / "deep")))
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 12
    assert not list(tmp_path.rglob("*out"))


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--resume"]])
def test_two_commands_into_one_folder(options, faces, tmp_path):
    out = tmp_path / "out"
    with lock_output(out):
        assert_refused(run("pca", faces, "-r", "-o", out, "-k", 2, *options), "is being written by process")
    assert not list(tmp_path.iterdir())
    assert run("pca", faces, "-r", "-o", out, "-k", 2, *options).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_images_that_results_would_replace_are_refused(tmp_path):
    pixels = random_pixels((4, 5, 5))
    for i, image in enumerate(pixels, start=1):
        write_image(tmp_path / f"out/eigenimages/pc_00{i}.png", image)
    result = run_pca(tmp_path / "out/eigenimages", "-o", tmp_path / "out", "-k", 2, "--overwrite")
    assert_refused(result, "inside the input folder")
    np.testing.assert_array_equal(im.open_stack(tmp_path / "out/eigenimages").data.compute(), pixels)


# What goes wrong --------------------------------------------------------------------------------------


@pytest.fixture
def with_broken_file(tmp_path):
    """Six images and one text that is called one."""
    write_folder(tmp_path / "in", 6)
    (tmp_path / "in/img10.png").write_text("no image")
    return tmp_path / "in"


def test_broken_file_is_named(with_broken_file, tmp_path):
    result = run_pca(with_broken_file, "-o", tmp_path / "out", "-k", 2)
    assert_refused(result, repr(str(with_broken_file / "img10.png")), "neither JPEG, PNG nor TIFF")
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


def test_many_broken_files_do_not_flood_the_terminal(with_broken_file, tmp_path):
    for i in range(20, 30):
        (with_broken_file / f"img{i}.png").write_text("no image")
    result = run_pca(with_broken_file, "-o", tmp_path / "out", "-k", 2, "--on-error", "skip", "-q")
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 6
    assert "6 more" in result.stderr
    assert len(read_table(tmp_path / "out/skipped.csv")[1]) == 11


@pytest.mark.parametrize("rescale", ["--rescale", "--no-rescale"])
def test_file_that_fails_in_decoding_is_named(rescale, tmp_path):
    for i in range(6):
        write_image(tmp_path / f"in/{i}.jpg", random_pixels((32, 32), seed=i))
    damaged = tmp_path / "in/4.jpg"
    damaged.write_bytes(damaged.read_bytes()[:700])
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, rescale)
    assert_refused(result, repr(str(damaged)))
    assert not (tmp_path / "out").exists()
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "--on-error", "skip", rescale)
    assert result.exit_code == 3
    assert f"left out {str(damaged)!r}" in result.stderr
    assert read_table(tmp_path / "out/skipped.csv")[1][0][0] == "4.jpg"
    assert len(read_scores(tmp_path / "out")[1]) == 5


def test_scan_tells_what_is_there(with_broken_file):
    result = run("scan", with_broken_file)
    assert result.exit_code == 3
    assert "PNG" in result.stdout
    assert f"bad: {str(with_broken_file / 'img10.png')!r}" in result.stdout
    record = json.loads(run("scan", with_broken_file, "--json").stdout)
    assert [problem["file"] for problem in record["problems"]] == [str(with_broken_file / "img10.png")]
    (kind,) = record["kinds"]
    assert kind["n_images"] == record["n_images"]
    (with_broken_file / "img10.png").unlink()
    assert run("scan", with_broken_file, "-q").exit_code == 0


def test_scan_verifies_and_brings_to_one_kind(tmp_path):
    write_image(tmp_path / "in/a.jpg", random_pixels((32, 32)))
    write_image(tmp_path / "in/b.jpg", random_pixels((32, 30, 3)))
    damaged = tmp_path / "in/c.jpg"
    write_image(damaged, random_pixels((32, 32)))
    damaged.write_bytes(damaged.read_bytes()[:700])
    assert_refused(run("scan", tmp_path / "in"), "not of one shape and dtype")
    options = ("--mode", "L", "--shape", 16, 16)
    assert run("scan", tmp_path / "in", *options).exit_code == 0
    result = run("scan", tmp_path / "in", *options, "--verify")
    assert result.exit_code == 3
    assert f"bad: {str(damaged)!r}" in result.stdout
    (tmp_path / "empty").mkdir()
    assert "hint: sub-folders" in run("scan", tmp_path / "empty").stderr


@pytest.mark.parametrize("rescale", ["--rescale", "--no-rescale"])
def test_file_with_nan_is_named(rescale, tmp_path):
    write_folder(tmp_path / "in", 6, (5, 5), "float32", ".tif")
    pixels = random_pixels((5, 5), "float32")
    pixels[2, 3] = np.nan
    tifffile.imwrite(tmp_path / "in/img4.tif", pixels)
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, rescale)
    assert_refused(result, "image 4", "NaN")
    assert repr(str(tmp_path / "in/img4.tif")) in result.stderr


def test_nothing_to_read(faces, tmp_path):
    out = tmp_path / "out"
    assert_refused(run_pca(tmp_path / "nowhere", "-o", out), "no images found", "nowhere")
    result = run_pca(faces, "-o", out)
    assert_refused(result, "no images found", "2 sub-folders")
    assert "--recursive" in result.stderr
    assert not out.exists()


def test_images_of_several_shapes(tmp_path):
    write_folder(tmp_path / "in", 3, (5, 5))
    write_image(tmp_path / "in/x.png", random_pixels((6, 5)))
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2)
    assert_refused(result, "4 images are not of one shape")
    assert "hint: bring them to one kind by --mode, e.g. --mode RGB, or --shape" in result.stderr
    assert run_pca(tmp_path / "in", "-o", tmp_path / "out", "--shape", "5x5").exit_code == 0
    assert len(read_scores(tmp_path / "out")[0]) == 1 + 3  # as many components as four images have


def test_images_of_several_modes(tmp_path):
    write_folder(tmp_path / "in", 3, (5, 5))
    write_image(tmp_path / "in/x.png", random_pixels((5, 5, 3)))
    assert_refused(run_pca(tmp_path / "in", "-o", tmp_path / "out"), "4 images are not of one shape")
    assert run_pca(tmp_path / "in", "-o", tmp_path / "out", "--mode", "L", "-k", 2).exit_code == 0


def test_too_many_components(faces, tmp_path):
    assert_refused(run_pca(faces, "-r", "-o", tmp_path / "out", "-k", 25), "25", "24 images")
    assert not (tmp_path / "out").exists()


def test_memory_limit_too_small(faces, tmp_path):
    (tmp_path / "out").mkdir()
    result = run_pca(faces, "-r", "-o", tmp_path / "out", "-k", 2, "--memory-limit", "10kB")
    assert_refused(result, "Nothing was read")
    assert "--memory-limit" in result.stderr
    assert (tmp_path / "out").exists()  # it was there before


def test_output_that_cannot_be_made(faces, tmp_path):
    (tmp_path / "file").write_text("")
    result = run_pca(faces, "-r", "-o", tmp_path / "file" / "out", "-k", 2)
    assert_refused(result, repr(str(tmp_path / "file" / "out")))


def test_debug_shows_the_traceback(tmp_path):
    result = run_pca(tmp_path / "nowhere", "-o", tmp_path / "out", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "FileNotFoundError: no images found" in result.stderr


# sample -----------------------------------------------------------------------------------------------


def test_names_of_samples():
    assert set(_NAMES) == set(SAMPLES)


@pytest.mark.parametrize("name", _NAMES)
def test_sample(name, tmp_path):
    folder = tmp_path / "a folder"
    result = run("sample", name, folder, "-n", 4)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"4 images in {folder}\n")
    # The line to type next works.
    (line,) = re.findall("Next: imgstack-ml (.*)", result.stdout)
    assert ("--recursive" in line) == any(path.is_dir() for path in folder.iterdir())
    assert im.open_stack(folder, recursive=True).shape[0] == 4


def test_sample_seed(tmp_path):
    for folder, seed in [("a", 0), ("b", 0), ("c", 1)]:
        run("sample", "cells", tmp_path / folder, "-n", 1, "--seed", seed, "-q")
    a, b, c = (Path(tmp_path, folder, "0001.jpg").read_bytes() for folder in "abc")
    assert a == b != c


def test_sample_refuses(faces, tmp_path):
    assert_refused(run("sample", "faces", faces), "not empty")
    assert_refused(run("sample", "digits", tmp_path / "new", "-n", 5000), "1797")


# report -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    assert run("pca", faces, "-r", "-o", out, "-k", 5, "--no-report").exit_code == 0
    return out


def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_pca_writes_a_report_about_the_run(faces, tmp_path):
    assert run("pca", faces, "-r", "-o", tmp_path, "-k", 5).exit_code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "24 of 25 × 25, uint8" in page
    assert f"imgstack-ml pca {faces} -o {tmp_path}" in page
    assert 'id="reconstructions"' in page
    assert "face/0001.png" in page or "nonface/0001.png" in page


def test_report_is_made_again_with_the_images(finished, tmp_path):
    out = copied(finished, tmp_path)
    assert not (out / "report.html").exists()
    result = run("report", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == str(out / "report.html")
    assert 'id="reconstructions"' in (out / "report.html").read_text(encoding="utf-8")
    assert json.loads((out / "run.json").read_text())["outputs"][0] == "report.html"


def test_report_without_reading(finished, tmp_path):
    out = copied(finished, tmp_path)
    assert run("report", out, "--no-read", "-q").output == ""
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="scores"' in page
    assert 'id="reconstructions"' not in page
    assert "24 of 25 × 25, uint8" in page


@pytest.mark.parametrize("change", ["gone", "renamed"])
def test_report_when_the_images_are_not_there_any_more(change, faces, tmp_path):
    images, out = Path(shutil.copytree(faces, tmp_path / "in")), tmp_path / "out"
    run("pca", images, "-r", "-o", out, "-k", 3)
    if change == "gone":
        shutil.rmtree(images)
    else:
        (images / "face" / "0001.png").rename(images / "face" / "0001b.png")
    result = run("report", out)
    assert result.exit_code == 0
    assert "warning: the report is made without the images" in result.stderr
    assert 'id="scores"' in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", None, "no finished run"),
        ("run.json", "{", "damaged or not the record"),
        ("run.json", "[]", "damaged or not the record"),
        ("scores.csv", "file,PC1\na.png,x\n", "is damaged"),
        ("model.safetensors", "x", "damaged or no model"),
    ],
)
def test_report_of_a_damaged_folder(name, text, message, finished, tmp_path):
    out = copied(finished, tmp_path)
    (out / name).unlink()
    if text is not None:
        (out / name).write_text(text)
    assert_refused(run("report", out), message)
    assert not (out / "report.html").exists()


def test_a_report_is_replaced_with_the_run(faces, finished, tmp_path):
    out = copied(finished, tmp_path)
    run("report", out)
    assert run("pca", faces, "-r", "-o", out, "-k", 3, "--overwrite", "--no-report").exit_code == 0
    assert not (out / "report.html").exists()
