"""``imgstack-ml pca``: a full run with report and pictures, examined by many tests, and short runs without."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from matplotlib import pyplot
from PIL import Image
from sklearn.decomposition import PCA

import imgstack_ml as im
from imgstack_ml.cli.lib.mask import read_mask
from tests.lib.commands import assert_refused, read_scores, run, run_pca
from tests.lib.images import random_pixels, write_folder, write_image

RESULTS = {
    "report.html", "eigenimages.png", "scree.png", "mean.png", "scores.csv", "model.safetensors", "run.json",
    "eigenimages",
}  # fmt: skip


@pytest.fixture(scope="module")
def full(faces, tmp_path_factory):
    """A run with all results, and its output folder."""
    out = tmp_path_factory.mktemp("full") / "new" / "out"
    result = run("pca", faces, "--recursive", "-o", out, "-k", 5, "--memory-limit", "200MB")
    assert result.exit_code == 0
    return result, out


def test_writes_all_results(full):
    result, out = full
    assert {path.name for path in out.iterdir()} == RESULTS
    assert sorted(path.name for path in (out / "eigenimages").iterdir()) == [f"pc_00{i}.png" for i in range(1, 6)]
    assert re.search(r"images +24 of 25 × 25, uint8", result.stdout)
    assert f"load_model({str(out / 'model.safetensors')!r})" in result.stdout
    assert not pyplot.get_fignums()


def test_scores_are_those_of_scikit_learn(full, faces):
    header, names, scores = read_scores(full[1])
    pixels = np.array([np.asarray(Image.open(faces / name), dtype=float).ravel() for name in names])
    expected = PCA(5, svd_solver="full").fit_transform(pixels)
    expected *= np.sign((expected * scores).sum(axis=0))
    assert header == ["file", "label", "PC1", "PC2", "PC3", "PC4", "PC5"]
    np.testing.assert_allclose(scores, expected, atol=1e-4 * abs(expected).max())


def test_record(full, faces):
    out = full[1]
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "pca"
    assert record["parameters"]["memory_limit"] == "200MB"
    assert record["versions"]["imgstack_ml"] == im.__version__
    assert record["input"] == {
        "source": str(faces), "n_images": 24, "image_shape": [25, 25], "dtype": "uint8", "n_skipped": 0
    }  # fmt: skip
    assert record["fit"]["n_passes"] == 1
    assert 24 * 625 < record["fit"]["planned_peak_bytes"] <= 200e6
    assert len(record["fit"]["explained_variance_ratio"]) == 5
    assert record["seconds"] >= record["fit"]["seconds"] > 0
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(record["outputs"]) == files


def test_report_is_about_the_run(full, faces):
    page = (full[1] / "report.html").read_text(encoding="utf-8")
    assert "24 of 25 × 25, uint8" in page
    assert f"imgstack-ml pca {faces} -o {full[1]}" in page
    assert 'id="reconstructions"' in page
    assert "face/0001.png" in page or "nonface/0001.png" in page


@pytest.mark.parametrize(
    ("solver", "options"), [("gram", ["--json", "-q"]), ("covariance_eigh", ["-q"]), ("tsqr", ["--json"])]
)
def test_solver_and_what_is_printed(solver, options, faces, tmp_path):
    result = run_pca(faces, "-r", "-o", tmp_path, "-k", 3, "--solver", solver, *options)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["fit"]["solver"] == record["parameters"]["solver"] == solver
    assert result.stdout == (json.dumps(record, indent=2) + "\n" if "--json" in options else "")
    assert (result.stderr == "") == ("-q" in options)


def test_resuming_what_is_finished_goes_by_what_changes_results(finished, faces, reads):
    """It was made without a report: a page can be made of it, eigenimages in full size cannot."""
    for options, said in (
        (["-k", 5, "--no-report"], "To repeat it: --overwrite\n"),
        (["-k", 5], f"It has no page; to make it: imgstack-ml report {finished}\n"),
    ):
        result = run("pca", faces, "-r", "-o", finished, *options, "--resume")
        assert (result.exit_code, reads) == (0, []), result.stderr
        assert result.stdout.endswith(said)
    for options in (["-k", 5, "--full-size"], ["-k", 4]):
        result = run("pca", faces, "-r", "-o", finished, *options, "--resume")
        assert_refused(result, f"another run, which is finished: imgstack-ml pca {faces} -o {finished} -k 5")


def test_rescale_and_a_terminal_that_cannot_show_the_summary(faces, tmp_path):
    result = run_pca(faces, "-r", "-o", tmp_path, "-k", 3, "--rescale", charset="ascii")
    assert result.exit_code == 0
    assert r"25 \xd7 25" in result.stdout
    model = im.load_model(tmp_path / "model.safetensors")
    assert [type(step).__name__ for _, step in model.steps] == ["IntensityRescaler", "ImagePCA"]
    rescaled = im.IntensityRescaler().fit_transform(im.open_stack(faces, recursive=True)).compute()
    np.testing.assert_allclose(model[-1].mean_image_, rescaled.mean(axis=0), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [((9, 7, 3), "uint8", ".png"), ((9, 7), "uint16", ".tif"), ((9, 7), "float32", ".tif")],
    ids=["colour", "uint16", "float32"],
)
def test_other_kinds_of_images(shape, dtype, suffix, tmp_path):
    write_folder(tmp_path / "in", 12, shape, dtype, suffix)
    result = run("pca", tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "--json", "--no-report")
    source = json.loads(result.stdout)["input"]
    assert (source["image_shape"], source["dtype"], source["n_images"]) == (list(shape), dtype, 12)
    assert read_scores(tmp_path / "out")[1] == [f"img{i}{suffix}" for i in range(12)]


def test_a_stored_stack(stack, tmp_path):
    im.save_stack(stack, tmp_path / "stack.zarr")
    assert run_pca(tmp_path / "stack.zarr", "-o", tmp_path / "out", "-k", 3).exit_code == 0
    assert read_scores(tmp_path / "out")[1][:2] == ["face/0001.png", "face/0002.png"]


def test_a_pattern(faces, tmp_path):
    assert run_pca(faces / "*" / "000[1-5].png", "-o", tmp_path, "-k", 3).exit_code == 0
    assert read_scores(tmp_path)[1][4:6] == ["face/0005.png", "nonface/0001.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_names_that_are_not_utf8(tmp_path):
    write_folder(tmp_path / "in", 5)
    os.rename(tmp_path / "in/img3.png", os.fsencode(tmp_path / "in") + b"/img3\xff,\n=1.png")
    assert run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2).exit_code == 0
    assert os.fsencode(read_scores(tmp_path / "out")[1][3]) == b"img3\xff,\n=1.png"


@pytest.mark.filterwarnings("always::imgstack_ml.RankWarning")
def test_constant_images_give_a_warning_and_flat_pictures(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"in/{i}.png", np.full((5, 5), 7, np.uint8))
    result = run("pca", tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "-q")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: The 4 images have 0 independent direction(s)")
    for i in (1, 2):
        assert np.ptp(np.asarray(Image.open(tmp_path / f"out/eigenimages/pc_00{i}.png")), axis=(0, 1)).max() == 0
    assert "PC 1 · variance 0" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("rescale", ["--rescale", "--no-rescale"])
def test_file_with_nan_is_named(rescale, tmp_path):
    write_folder(tmp_path / "in", 6, (5, 5), "float32", ".tif")
    pixels = random_pixels((5, 5), "float32")
    pixels[2, 3] = np.nan
    write_image(tmp_path / "in/img4.tif", pixels)
    result = run_pca(tmp_path / "in", "-o", tmp_path / "out", "-k", 2, rescale)
    assert_refused(result, "image 4", "NaN")
    assert repr(str(tmp_path / "in/img4.tif")) in result.stderr


def test_too_many_components(faces, tmp_path):
    assert_refused(run_pca(faces, "-r", "-o", tmp_path / "out", "-k", 25), "25", "24 images")
    assert not (tmp_path / "out").exists()


def test_memory_limit_too_small(faces, tmp_path):
    (tmp_path / "out").mkdir()
    result = run_pca(faces, "-r", "-o", tmp_path / "out", "-k", 2, "--memory-limit", "10kB")
    assert_refused(result, "Nothing was read", hints=["--memory-limit"])
    assert (tmp_path / "out").exists()  # it was there before


def test_a_plan_reads_nothing_and_writes_nothing(tmp_path):
    for i in range(6):
        path = Path(write_image(tmp_path / f"in/{i}.jpg", random_pixels((32, 32), seed=i)))
        path.write_bytes(path.read_bytes()[:700])  # pixels cannot be read
    result = run("pca", tmp_path / "in", "--plan", "--rescale", "-k", 3)
    assert result.exit_code == 0, result.output
    assert "->gram" in result.stdout
    record = json.loads(run("pca", tmp_path / "in", "--plan", "-k", 3, "--json", "-q").stdout)
    assert record["plan"]["solver"] == "gram"
    assert record["plan"]["n_passes"] == 1
    result = run("pca", tmp_path / "in", "--plan", "--memory-limit", "10kB")
    assert_refused(result, "Nothing was read", hints=["--solver"])
    assert os.listdir(tmp_path) == ["in"]


OVAL = np.hypot(*np.mgrid[-12:13, -12:13]) < 11


def test_a_mask(faces, tmp_path):
    Image.fromarray(OVAL.astype("uint8")).save(tmp_path / "roi.png")
    assert run_pca(faces, "-r", "-o", tmp_path / "out", "-k", 4, "--mask", tmp_path / "roi.png").exit_code == 0
    pca = im.load_model(tmp_path / "out" / "model.safetensors")[-1]
    np.testing.assert_array_equal(pca.mask_, OVAL)
    expected = im.ImagePCA(4, mask=OVAL).fit(im.open_stack(faces, recursive=True))
    np.testing.assert_allclose(pca.explained_variance_, expected.explained_variance_, rtol=1e-6)


@pytest.mark.slow
def test_pixels_outside_a_mask_are_transparent_everywhere(faces, tmp_path):
    Image.fromarray(OVAL.astype("uint8")).save(tmp_path / "roi.png")
    result = run("pca", faces, "-r", "-o", tmp_path / "out", "-k", 4, "--mask", tmp_path / "roi.png")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"{OVAL.sum()} of 625 values are used" in page
    assert f"--mask {tmp_path / 'roi.png'}" in page
    for name in ("mean.png", "eigenimages/pc_001.png"):
        picture = np.asarray(Image.open(tmp_path / "out" / name))[5::10, 5::10]
        np.testing.assert_array_equal(picture[..., 3] == 255, OVAL)
    (tmp_path / "roi.png").unlink()
    assert run("report", tmp_path / "out").exit_code == 0
    assert run("transform", tmp_path / "out", faces, "-o", tmp_path / "scores.csv", "-r").exit_code == 0


@pytest.mark.parametrize("kind", ["grey", "palette", "RGBA", "white on transparent", "white is 0", "16 bits"])
def test_files_of_masks(kind, faces, tmp_path):
    path = tmp_path / ("roi.tif" if kind in ("white is 0", "16 bits") else "roi.png")
    grey = np.where(OVAL, 255, 0).astype("uint8")
    pixels = {"RGBA": np.dstack([grey * 0, grey, grey * 0, grey * 0 + 255]), "16 bits": OVAL * np.uint16(1)}
    pixels["white on transparent"] = np.dstack([grey * 0 + 255] * 3 + [grey])
    if path.suffix == ".tif":  # tifffile writes Booleans as bits of which 0 is white
        tifffile.imwrite(path, pixels.get(kind, OVAL))
    else:
        picture = Image.fromarray(pixels.get(kind, grey))
        (picture.convert("P") if kind == "palette" else picture).save(path)
    found = read_mask(str(path), im.open_stack(faces, recursive=True))
    np.testing.assert_array_equal(found, OVAL)


def test_files_that_are_no_masks(faces, tmp_path):
    out, path = tmp_path / "out", tmp_path / "roi.png"
    for pixels, said in (
        (OVAL[:20], "is 20 × 25, and the images are 25 × 25"),
        (OVAL & False, "are 0; those that are"),
    ):
        Image.fromarray(pixels.astype("uint8")).save(path)
        assert_refused(run("pca", faces, "-r", "-o", out, "--mask", path), path, said)
    Image.fromarray(OVAL.astype("uint8")).save(path.with_suffix(".jpg"))
    assert_refused(run("pca", faces, "-r", "-o", out, "--mask", path.with_suffix(".jpg")), "JPEG; give a PNG or TIFF")
    tifffile.imwrite(path.with_suffix(".tif"), np.stack([OVAL, OVAL]).astype("uint8"))
    assert_refused(run("pca", faces, "-r", "-o", out, "--mask", path.with_suffix(".tif")), "holds 2 images")
    assert not out.exists()
