"""Tables of rows about images: formats, names, and writing in parts."""

import re
import subprocess
import sys
import time
import tracemalloc
from functools import partial

import numpy as np
import pandas as pd
import pytest
from dask.system import CPU_COUNT

import imgstack_ml as im
from imgstack_ml.cli.lib.table import _n_threads, lines_of
from tests.lib.commands import assert_refused, read_table, run
from tests.lib.images import random_pixels, write_folder, write_image


def test_tables_are_written_in_parts_that_read_each_image_once(finished, faces, tmp_path, reads, small_parts, request):
    features = ("features", faces, "-r", "-q")
    transform = ("transform", finished, faces, "-r")
    for command, name in ((features, "parts.csv"), (transform, "parts.npy")):
        reads.clear()
        run(*command, "-o", tmp_path / name)
        assert sorted(reads) == sorted(im.open_stack(faces, recursive=True).files)
    request.getfixturevalue("monkeypatch").undo()
    run(*features, "-o", tmp_path / "whole.csv")
    run(*transform, "-o", tmp_path / "whole.npy")
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "parts.npy"), np.load(tmp_path / "whole.npy"))


def test_names_that_are_not_utf8_or_have_several_lines(tmp_path):
    pytest.importorskip("pyarrow")
    write_folder(tmp_path / "in", 2)
    (tmp_path / "in/img1.png").rename(tmp_path / "in" / b"img1\xff.png".decode("utf-8", "surrogateescape"))
    (tmp_path / "in/img0.png").rename(tmp_path / "in/img0\n0.png")
    for name in ("f.csv", "f.parquet"):
        assert run("features", tmp_path / "in", "-o", tmp_path / name, "-f", "stats").exit_code == 0
    assert pd.read_parquet(tmp_path / "f.parquet")["file"].tolist() == ["img0\n0.png", r"img1\xff.png"]
    assert read_table(tmp_path / "f.csv")[1][0][0] == "img0\n0.png"
    assert read_table(tmp_path / "f.csv")[1][1][0].encode("utf-8", "surrogateescape") == b"img1\xff.png"


def test_files_that_cannot_be_written(faces, finished, tmp_path, monkeypatch):
    mine = tmp_path / "mine.csv"
    for command in (["features", faces, "-f", "stats"], ["transform", finished, faces]):
        mine.write_text("mine")
        assert_refused(run(*command, "-r", "-o", mine), "--overwrite")
        assert mine.read_text() == "mine"
        assert run(*command, "-r", "-o", mine, "--overwrite").exit_code == 0
        result = run(*command, "-r", "-o", tmp_path / "f.xls")
        assert result.exit_code == 2
        assert ".csv, .parquet or .npy" in result.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("features", faces, "-r", "-o", tmp_path / "f.parquet")
    assert result.exit_code == 2
    assert "pip install 'imgstack_ml[parquet]'" in result.stderr


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_rows_wider_than_images_are_written_in_little_memory(suffix, tmp_path, monkeypatch):
    """Images of 64 bytes, and rows of 2,400: 5 MB in all."""
    monkeypatch.setattr("imgstack_ml.passes.progress._WAVE_BYTES", 2**18)
    for name, n_bytes in (("_BLOCK_BYTES", 2**16), ("_CHUNK_BYTES", 2**16), ("_GROUP_BYTES", 2**19)):
        monkeypatch.setattr(f"imgstack_ml.cli.lib.table.{name}", n_bytes)
    stack = random_pixels((2000, 8, 8))
    model = im.ImageHistogram(300, density=True).fit(stack)
    model.transform(stack[:2])
    im.save_model(model, tmp_path / "model.safetensors")
    im.save_stack(stack, tmp_path / "stack.zarr")
    out = tmp_path / f"t{suffix}"
    tracemalloc.start()
    result = run("transform", tmp_path / "model.safetensors", tmp_path / "stack.zarr", "-o", out, "-q")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.exit_code == 0, result.stderr
    assert peak < 4e6
    read = {".csv": partial(pd.read_csv, dtype=str), ".parquet": pd.read_parquet}
    values = np.load(out)["values"] if suffix == ".npy" else read[suffix](out).iloc[:, 1:].to_numpy(float)
    np.testing.assert_array_equal(values, model.transform(stack))


def test_large_images_take_fewer_threads():
    assert _n_threads(32 * 32, 2**30) == CPU_COUNT
    assert _n_threads(2**26, 2**32) == _n_threads(2**26, 2**20) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("with_pyarrow", [True, False])
def test_numbers_in_text_are_the_numbers(dtype, with_pyarrow, monkeypatch):
    if not with_pyarrow:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    bits = np.random.default_rng(0).integers(0, 2**63, (300, 7), dtype="uint64")
    rows = bits.view("f8") if dtype == "float64" else bits.astype(dtype)
    rows = np.vstack([rows, np.zeros((1, 7), dtype), np.ones((1, 7), dtype)])
    rows = np.vstack([rows, np.full((1, 7), 0.1), np.full((1, 7), 5e-324)]) if dtype == "float64" else rows
    parse = {"bool": lambda word: word == "True"}.get(dtype, np.dtype(dtype).type)
    back = [[parse(word) for word in line.split(",")] for line in lines_of(rows)]
    np.testing.assert_array_equal(np.array(back, dtype), rows)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["features", "classify"])
def test_a_hundred_thousand_small_images(command, tmp_path):
    """Files of 1 KB, rows of 15 KB: peak of a fresh process, seconds and CPU seconds."""
    resource = pytest.importorskip("resource", reason="Windows has none")
    rng = np.random.default_rng(0)
    for i in range(100_000):
        image = rng.integers(0, 256, (32, 32), dtype="uint8") // (1 + i % 2)
        write_image(tmp_path / "in" / "ab"[i % 2] / f"{i:05d}.png", image)
    options = ["-r", "-o", "f.csv"] if command == "features" else ["-o", "out"]
    code = "from imgstack_ml.cli import main; main(standalone_mode=False); print(open('/proc/self/status').read())"
    started = time.perf_counter()
    words = [sys.executable, "-c", code, command, "in", *options, "-q"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    peak = int(re.search(r"VmHWM:\s+(\d+)", done.stdout).group(1)) * 1024
    seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{command}: {peak / 1e6:.0f} MB, {seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU s")
    assert peak < {"features": 600e6, "classify": 1.5e9}[command]
