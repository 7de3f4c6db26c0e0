"""Commands that use a saved model: transform and reconstruct, against the model itself; plans, clusters, completion."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from distributed import LocalCluster, Scheduler, SpecCluster
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml.cli import main
from tests.lib.images import random_pixels, write_folder, write_image


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def assert_refused(result, *parts):
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "open_stack(" not in result.stderr.replace("imgstack_ml.open_stack(", "")
    for part in parts:
        assert str(part) in result.stderr


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """24 faces and non-faces in two sub-folders."""
    folder = tmp_path_factory.mktemp("sample") / "faces"
    assert run("sample", "faces", folder, "-n", 24).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def results(faces, tmp_path_factory):
    """Results of pca on the faces."""
    out = tmp_path_factory.mktemp("results") / "out"
    assert run("pca", faces, "-r", "-o", out, "-k", 5, "--no-report").exit_code == 0
    return out


@pytest.fixture(scope="module")
def stack(faces):
    return im.open_stack(faces, recursive=True)


@pytest.fixture(scope="module")
def model(results):
    return im.load_model(results / "model.safetensors")


def read_any(path):
    """Names, labels or None, values, names of the columns of values or None."""
    if path.suffix == ".npy":
        table = np.load(path)
        labels = table["label"].tolist() if "label" in table.dtype.names else None
        return table["file"].tolist(), labels, table["values"], None
    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    labels = table.pop("label").tolist() if "label" in table else None
    return table.pop("file").tolist(), labels, table.to_numpy(), list(table.columns)


# transform --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_transform_writes_what_the_model_gives(suffix, results, faces, stack, model, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"new/scores{suffix}"
    result = run("transform", results, faces, "-r", "-o", out)
    assert result.exit_code == 0, result.output
    assert f"24 rows in {out}: file, label and 5 columns" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Next, in Python: ")
    names, labels, values, columns = read_any(out)
    assert names == [os.path.relpath(file, faces) for file in stack.files]
    assert labels == stack.labels.tolist()
    assert columns in (None, ["PC1", "PC2", "PC3", "PC4", "PC5"])
    # To the last bit: the text is the shortest that gives the float32 back.
    np.testing.assert_array_equal(values.astype(np.float32), np.asarray(model.transform(stack)))


def test_transform_of_one_folder_has_no_labels(results, faces, tmp_path):
    assert run("transform", results / "model.safetensors", faces / "face", "-o", tmp_path / "s.npy", "-q").output == ""
    assert np.load(tmp_path / "s.npy").dtype.names == ("file", "values")


def test_transform_by_features(stack, faces, tmp_path):
    features = im.ImageFeatures([("stats", im.ChannelStatistics()), ("hist", im.ImageHistogram(8))]).fit(stack)
    im.save_model(make_pipeline(im.IntensityRescaler(), features).fit(stack), tmp_path / "model.safetensors")
    result = run("transform", tmp_path, faces, "-r", "-o", tmp_path / "f.csv", "--json")
    record = json.loads(result.stdout)
    assert record["columns"] == features.get_feature_names_out().tolist() == read_any(tmp_path / "f.csv")[3]
    assert record["command"] == "transform"
    assert record["outputs"] == [str(tmp_path / "f.csv")]


def test_transform_is_written_in_parts_that_read_each_image_once(results, faces, tmp_path, monkeypatch):
    from imgstack_ml.io.readers import FileReader

    monkeypatch.setattr("imgstack_ml.passes.progress._BLOCKS_PER_THREAD", 1)
    monkeypatch.setattr("imgstack_ml.passes.progress.CPU_COUNT", 1)
    read, plain = [], FileReader.read
    monkeypatch.setattr(FileReader, "read", lambda self, keys: (read.extend(keys), plain(self, keys))[1])
    run("transform", results, faces, "-r", "-o", tmp_path / "parts.npy")
    assert sorted(read) == sorted(im.open_stack(faces, recursive=True).files)
    monkeypatch.undo()
    run("transform", results, faces, "-r", "-o", tmp_path / "whole.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "parts.npy"), np.load(tmp_path / "whole.npy"))


def test_transform_refuses(results, faces, stack, tmp_path):
    out = tmp_path / "s.csv"
    assert_refused(run("transform", results, faces, "-r", "-o", out, "--shape", "9x9"), "(25, 25)", "--shape", "--mode")
    assert_refused(run("transform", faces, faces, "-r", "-o", out), "model.safetensors")
    (tmp_path / "no.safetensors").write_text("x")
    assert_refused(run("transform", tmp_path / "no.safetensors", faces, "-r", "-o", out), "no.safetensors")
    classifier = make_pipeline(im.ImagePCA(2), LogisticRegression(max_iter=5000)).fit(stack, stack.labels)
    im.save_model(classifier, tmp_path / "told-apart")
    assert_refused(run("transform", tmp_path / "told-apart", faces, "-r", "-o", out), "LogisticRegression", ".predict(")
    im.save_model(im.StackCenterer().fit(stack), tmp_path / "centred")
    assert_refused(run("transform", tmp_path / "centred", faces, "-r", "-o", out), "StackCenterer", "save_stack")
    assert run("transform", tmp_path / "nowhere", faces, "-o", out).exit_code == 2
    assert run("transform", results, faces, "-o", tmp_path / "s.xls").exit_code == 2
    assert not out.exists()
    out.write_text("mine")
    assert_refused(run("transform", results, faces, "-r", "-o", out), "--overwrite")
    assert run("transform", results, faces, "-r", "-o", out, "--overwrite").exit_code == 0


def test_transform_leaves_out_what_is_damaged(results, faces, tmp_path):
    folder = shutil.copytree(faces / "face", tmp_path / "in")
    (folder / "x.png").write_text("no image")
    assert_refused(run("transform", results, folder, "-o", tmp_path / "s.csv"), "x.png", "--on-error skip")
    result = run("transform", results, folder, "-o", tmp_path / "s.csv", "--on-error", "skip", "--json", "-q")
    assert result.exit_code == 3
    assert [row[0] for row in json.loads(result.stdout)["skipped"]] == ["x.png"]
    with open(tmp_path / "s.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 12


# reconstruct ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [None, 2])
def test_reconstruct_draws_what_the_components_give(k, results, faces, stack, model, tmp_path):
    scores = np.asarray(model.transform(stack))
    scores[:, k or 5 :] = 0
    expected = model.inverse_transform(scores)
    options = [] if k is None else ["-k", k]
    result = run("reconstruct", results, faces, "-r", "-o", tmp_path / "all.zarr", *options)
    assert result.exit_code == 0, result.output
    assert f"24 images from {k or 5} components" in result.stdout
    assert result.stdout.splitlines()[-1] == f"Next: imgstack-ml scan {tmp_path / 'all.zarr'}"
    again = im.open_stack(tmp_path / "all.zarr")
    assert (again.files, again.labels.tolist()) == (stack.files, stack.labels.tolist())
    np.testing.assert_allclose(again.data.compute(), expected, atol=1e-4)
    run("reconstruct", results, faces, "-r", "-o", tmp_path / "tiff", "--format", "tiff", *options)
    np.testing.assert_array_equal(im.open_stack(tmp_path / "tiff").data.compute(), again.data.compute())
    run("reconstruct", results, faces, "-r", "-o", tmp_path / "png", *options)
    pictures = im.open_stack(tmp_path / "png").data.compute()
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, np.rint(again.data.compute()).clip(0, 255))


def test_reconstruct_of_a_rescaling_pipeline_stays_rescaled(faces, stack, tmp_path):
    model = make_pipeline(im.IntensityRescaler(), im.StackCenterer(), im.ImageFlattener(), im.ImagePCA(3)).fit(stack)
    im.save_model(model, tmp_path / "m.safetensors")
    assert run("reconstruct", tmp_path / "m.safetensors", faces, "-r", "-o", tmp_path / "o.zarr").exit_code == 0
    expected = model[1:].inverse_transform(np.asarray(model.transform(stack)))
    np.testing.assert_allclose(im.open_stack(tmp_path / "o.zarr").data.compute(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix", "expected"),
    [
        ((9, 7, 3), "uint8", ".png", "uint8"),
        ((9, 7), "uint16", ".tif", "uint16"),
        ((9, 7, 3), "uint16", ".tif", "float32"),
        ((9, 7), "float32", ".tif", "float32"),
    ],
)
def test_reconstruct_other_kinds(shape, dtype, suffix, expected, tmp_path):
    pixels = write_folder(tmp_path / "in", 5, shape, dtype, suffix)
    im.save_model(im.ImagePCA(4).fit(pixels), tmp_path / "m")
    result = run("reconstruct", tmp_path / "m", tmp_path / "in", "-o", tmp_path / "out", "--json", "-q")
    assert json.loads(result.stdout)["dtype"] == expected
    drawn = im.open_stack(tmp_path / "out").data.compute()
    assert drawn.dtype == expected
    # Four components hold five images exactly.
    np.testing.assert_allclose(drawn, pixels, rtol=0, atol=1e-5 * max(1, abs(pixels).max()))


def test_reconstruct_refuses(results, faces, stack, tmp_path):
    out = tmp_path / "out"
    assert_refused(run("reconstruct", results, faces, "-r", "-o", out, "-k", 6), "-k 6", "-k 5 or less")
    assert_refused(run("reconstruct", results, faces, "-r", "-o", faces / "out"), "inside the input folder")
    im.save_model(im.ImageHistogram().fit(stack), tmp_path / "m")
    assert_refused(run("reconstruct", tmp_path / "m", faces, "-r", "-o", out), "no principal components")
    floats = write_folder(tmp_path / "in", 4, (9, 7), "float32", ".tif")
    im.save_model(im.ImagePCA(2).fit(floats), tmp_path / "floats")
    options = ("-o", out, "--format", "png")
    assert_refused(run("reconstruct", tmp_path / "floats", tmp_path / "in", *options), "PNG does not take", "tiff")
    assert not out.exists()
    write_image(out / "mine.png", random_pixels((5, 5)))
    assert_refused(run("reconstruct", results, faces, "-r", "-o", out), "--overwrite")
    assert run("reconstruct", results, faces, "-r", "-o", out, "--overwrite").exit_code == 0
    assert (out / "mine.png").exists()


def test_a_failed_reconstruction_leaves_nothing(results, tmp_path):
    for i in range(20):
        write_image(tmp_path / f"in/{i}.jpg", random_pixels((25, 25), seed=i))
    damaged = tmp_path / "in/9.jpg"
    damaged.write_bytes(damaged.read_bytes()[:650])
    for out in ("new/folder", "new/one.zarr"):
        assert_refused(run("reconstruct", results, tmp_path / "in", "-o", tmp_path / out), repr(str(damaged)))
    assert_refused(run("transform", results, tmp_path / "in", "-o", tmp_path / "new/s.csv"), repr(str(damaged)))
    assert os.listdir(tmp_path) == ["in"]


# pca --plan, --scheduler, completion ------------------------------------------------------------------


def test_a_plan_reads_nothing_and_writes_nothing(tmp_path):
    for i in range(6):
        write_image(tmp_path / f"in/{i}.jpg", random_pixels((32, 32), seed=i))
        (tmp_path / f"in/{i}.jpg").write_bytes((tmp_path / f"in/{i}.jpg").read_bytes()[:700])  # no pixels to be had
    result = run("pca", tmp_path / "in", "--plan", "--rescale", "-k", 3)
    assert result.exit_code == 0, result.output
    assert "->gram" in result.stdout
    record = json.loads(run("pca", tmp_path / "in", "--plan", "-k", 3, "--json", "-q").stdout)
    assert record["plan"]["solver"] == "gram"
    assert record["plan"]["n_passes"] == 1
    assert_refused(run("pca", tmp_path / "in", "--plan", "--memory-limit", "10kB"), "Nothing was read", "--solver")
    assert os.listdir(tmp_path) == ["in"]


def test_commands_compute_on_a_cluster(results, faces, tmp_path):
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        on_it = ("--scheduler", cluster.scheduler_address)
        (worker,) = cluster.workers.values()
        result = run("transform", results, faces, "-r", "-o", tmp_path / "s.npy", *on_it)
        assert result.exit_code == 0, result.output
        assert f"computing on {cluster.scheduler_address}, 1 worker; dashboard: http" in result.stderr
        executed = worker.state.executed_count
        assert executed > 0
        assert run("pca", faces, "-r", "-o", tmp_path / "out", "-k", 5, "--no-report", *on_it).exit_code == 0
        assert worker.state.executed_count > executed
    run("transform", results, faces, "-r", "-o", tmp_path / "here.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), np.load(tmp_path / "here.npy"))
    one, other = (im.load_model(out / "model.safetensors")[-1] for out in (results, tmp_path / "out"))
    np.testing.assert_allclose(one.components_, other.components_, atol=1e-6)
    assert "scheduler" not in json.loads((tmp_path / "out/run.json").read_text())["parameters"]


def test_a_cluster_without_workers(results, faces, tmp_path):
    with SpecCluster(scheduler={"cls": Scheduler, "options": {"dashboard_address": ":0"}}) as cluster:
        address = cluster.scheduler_address
        result = run("transform", results, faces, "-r", "-o", tmp_path / "s.npy", "--scheduler", address)
    assert_refused(result, f"dask worker {address}")


def test_a_cluster_that_is_not_there(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["imgstack_ml.cli.lib.task"], "_CONNECT_SECONDS", 0.5)
    result = run("features", faces, "-r", "-o", tmp_path / "f.csv", "--scheduler", "tcp://127.0.0.1:9")
    assert_refused(result, "tcp://127.0.0.1:9")
    assert not os.listdir(tmp_path)


def completions(words, position):
    environment = {"_IMGSTACK_ML_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    command = [sys.executable, "-m", "imgstack_ml"]
    process = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    return process.stdout.split()


def test_completion():
    assert completions("imgstack-ml tr", 1) == ["plain,transform"]
    assert "plain,--solver" in completions("imgstack-ml pca --so", 2)
    assert "plain,randomized" in completions("imgstack-ml pca --solver ran", 3)
    assert completions("imgstack-ml pca ph", 2) == ["file,ph"]  # which has bash look for files


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_documented_line_sets_bash_up(tmp_path):
    script = tmp_path / "imgstack-ml"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m imgstack_ml "$@"\n')
    script.chmod(0o755)
    line = 'eval "$(_IMGSTACK_ML_COMPLETE=bash_source imgstack-ml)"'
    assert line in " ".join(run("--help").stdout.split())
    ask = 'COMP_WORDS=(imgstack-ml rec); COMP_CWORD=1; _imgstack_ml_completion imgstack-ml; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.run(
        ["bash", "-c", f"{line}\n{ask}"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.stdout.split() == ["reconstruct"], process.stderr


# What pictures say ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::imgstack_ml.RankWarning")
def test_components_of_constant_images_are_drawn_flat(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"in/{i}.png", np.full((5, 5), 7, np.uint8))
    assert run("pca", tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "-q").exit_code == 0
    for i in (1, 2):
        assert np.ptp(np.asarray(Image.open(tmp_path / f"out/eigenimages/pc_00{i}.png")), axis=(0, 1)).max() == 0
    assert "PC 1 · variance 0" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_report_finds_images_that_were_brought_to_one_kind(tmp_path):
    write_folder(tmp_path / "in", 5, (8, 8, 3))
    write_image(tmp_path / "in/x.png", random_pixels((9, 8)))
    assert run("pca", tmp_path / "in", "-o", tmp_path / "out", "--mode", "L", "--shape", "8x8", "-k", 2).exit_code == 0
    result = run("report", tmp_path / "out")
    assert "warning" not in result.stderr
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert 'id="reconstructions"' in page
    assert "--mode L --shape 8x8" in page
