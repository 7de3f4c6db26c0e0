import pickle
import resource
import subprocess
import sys
import zipfile

import dask
import numpy as np
import pytest
import tifffile
import zarr

from imgstack_ml import BadImageError, StoreError
from imgstack_ml.io import open_stack, save_stack
from imgstack_ml.io import scan as scanning
from imgstack_ml.io.formats.registry import find_images
from imgstack_ml.io.locations.open import read_state
from tests.lib.images import random_pixels, write_folder, write_image


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


# --- headers ----------------------------------------------------------------------------------------------------


def test_unchanged_files_are_not_opened_again(tmp_path, monkeypatch):
    write_folder(tmp_path, 5)
    first = open_stack(tmp_path)
    opened = []
    original = find_images.__wrapped__.__globals__["open_bytes"]
    monkeypatch.setitem(
        find_images.__wrapped__.__globals__, "open_bytes", lambda name: opened.append(name) or original(name)
    )
    assert open_stack(tmp_path).data.name == first.data.name
    assert not opened
    write_image(tmp_path / "img3.png", random_pixels((8, 6, 3), seed=9))
    assert open_stack(tmp_path).data.name != first.data.name
    assert opened == [str(tmp_path / "img3.png")]


def test_the_cache_is_bounded():
    assert find_images.cache_info().maxsize == 100_000


@pytest.mark.parametrize("slow", [0, 1e9])
def test_threads_and_one_thread_agree(tmp_path, monkeypatch, slow):
    monkeypatch.setattr(scanning, "_SLOW", slow)
    pixels = write_folder(tmp_path, 80)
    (tmp_path / "img40.png").write_text("text")
    with pytest.warns(UserWarning, match="1 of 80"):
        stack = open_stack(tmp_path, on_error="skip")
    assert [name for name, _ in stack.problems] == [str(tmp_path / "img40.png")]
    np.testing.assert_array_equal(stack.data.compute(), np.delete(pixels, 40, axis=0))
    with pytest.raises(BadImageError, match=r"img40\.png"):
        open_stack(tmp_path)


def test_fingerprint_sees_the_size_and_the_time(tmp_path):
    path = write_image(tmp_path / "a.png", random_pixels((4, 4)))
    before = read_state(path)
    assert scanning.fingerprint_of_files([path]) == scanning.fingerprint_of_files([path])
    assert scanning.fingerprint_of_files([path, path]) != scanning.fingerprint_of_files([path])
    assert before.n_bytes > 0


# --- summary ----------------------------------------------------------------------------------------------------


def test_summary_counts_what_files_have(tmp_path):
    for i in range(3):
        write_image(tmp_path / f"{i}.png", random_pixels((4, 5)))
    write_image(tmp_path / "b.jpg", random_pixels((6, 7, 3)))
    write_image(tmp_path / "c.tif", random_pixels((4, 5)))
    (tmp_path / "<b>.png").write_text("text")
    with pytest.warns(UserWarning, match="1 of 6"):
        stack = open_stack(tmp_path, mode="RGB", shape=(4, 4), on_error="skip")
    summary = stack.summary()
    counts = {(header.format, header.mode, header.shape): count for header, count in summary.counts}
    assert counts == {("PNG", "L", (4, 5)): 3, ("JPEG", "RGB", (6, 7, 3)): 1, ("TIFF", "L", (4, 5)): 1}
    assert summary.n_problems == 1
    lines = repr(summary).splitlines()
    assert lines[0] == "5 images"
    assert lines[1].split() == ["3", "PNG", "L", "(4,", "5),", "uint8"]
    assert lines[-1].split()[0] == "1"
    assert "PNG      L" in stack._repr_html_()
    picked = stack[[0, 1]].summary()
    assert [(header.format, count) for header, count in picked.counts] == [("PNG", 2)]
    assert pickle.loads(pickle.dumps(stack)).summary() == summary


# --- verify -----------------------------------------------------------------------------------------------------


def cut(path, n_bytes=30):
    path.write_bytes(path.read_bytes()[:-n_bytes])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", [1, 4, 20])
def test_verify_leaves_out_what_cannot_be_decoded(tmp_path, chunks, scheduler):
    for i in range(12):
        write_image(tmp_path / f"img{i}.jpg", random_pixels((64, 48)))
    whole = open_stack(tmp_path).data.compute()
    cut(tmp_path / "img3.jpg")
    cut(tmp_path / "img10.jpg")
    stack = open_stack(tmp_path, chunks=chunks)
    with (
        dask.config.set(scheduler=scheduler),
        pytest.warns(UserWarning, match="2 of 12 images cannot be decoded") as caught,
    ):
        good = stack.verify()
    assert caught[0].filename == __file__
    assert [name for name, _ in good.problems] == [str(tmp_path / f"img{i}.jpg") for i in (3, 10)]
    assert all("truncated" in reason for _, reason in good.problems)
    np.testing.assert_array_equal(good.data.compute(), np.delete(whole, [3, 10], axis=0))
    assert good.verify() is good
    assert len(stack) == 12


def test_verify_of_pages_names_the_page(tmp_path):
    path = tmp_path / "a.tif"
    pixels = random_pixels((6, 40, 40))
    tifffile.imwrite(path, pixels, photometric="minisblack", compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        start, n_bytes = tiff.pages[2].dataoffsets[0], tiff.pages[2].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start + 10 : start + n_bytes] = bytes(n_bytes - 10)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="1 of 6"):
        good = open_stack(path, chunks=4).verify()
    assert [name for name, _ in good.problems] == [f"{path}[2]"]
    np.testing.assert_array_equal(good.data.compute(), np.delete(pixels, 2, axis=0))


def test_verify_of_a_store_that_lost_a_chunk(tmp_path):
    pixels = random_pixels((6, 4, 4))
    store = save_stack(pixels, tmp_path / "x.zarr")
    assert len(open_stack(store).verify()) == 6
    stack = open_stack(store)
    for chunk in (tmp_path / "x.zarr" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    with pytest.raises(BadImageError, match=r"has lost its chunk .*nor can any of the 6"):
        stack.verify()
    with pytest.raises(StoreError):
        stack.data.compute()


# --- to_xarray --------------------------------------------------------------------------------------------------


def test_to_xarray(tmp_path):
    pytest.importorskip("xarray")
    pixels = np.concatenate([write_folder(tmp_path / name, 3) for name in "ab"])
    stack = open_stack(tmp_path, recursive=True)
    array = stack.to_xarray()
    assert array.dims == ("sample", "y", "x", "channel")
    assert array.coords["sample"].values.tolist() == list(stack.files)
    assert array.coords["label"].values.tolist() == ["a"] * 3 + ["b"] * 3
    assert dask.is_dask_collection(array.data)
    np.testing.assert_array_equal(array.sel(sample=stack.files[4]).values, pixels[4])
    grey = open_stack(tmp_path, recursive=True, mode="L").to_xarray()
    assert grey.dims == ("sample", "y", "x")


# --- every kind of source ---------------------------------------------------------------------------------------


def sources(folder):
    """The same twelve images by every road; memory:// is left out, which other processes do not share."""
    pixels = write_folder(folder / "png", 12, shape=(8, 6))
    tifffile.imwrite(folder / "pages.tif", pixels, photometric="minisblack")
    tifffile.imwrite(folder / "tiles.tif", pixels, photometric="minisblack", compression="zlib", tile=(16, 16))
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for path in (folder / "png").iterdir():
            archive.write(path, path.name)
    np.save(folder / "x.npy", pixels)
    zarr.create_array(folder / "x.zarr", data=pixels, chunks=(4, 8, 6))
    save_stack(pixels, folder / "own.zarr")
    found = [
        folder / "png",
        f"simplecache::file://{folder}/png",
        folder / "pages.tif",
        folder / "tiles.tif",
        folder / "x.zip",
        folder / "x.npy",
        folder / "x.zarr",
        folder / "own.zarr",
    ]
    try:
        import h5py
    except ImportError:
        return pixels, found
    with h5py.File(folder / "x.h5", "w") as file:
        file["images"] = pixels
    return pixels, [*found, f"{folder}/x.h5::images"]


def test_every_kind_on_a_cluster(tmp_path):
    from distributed import Client, LocalCluster

    pixels, found = sources(tmp_path)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        for source in found:
            for options in ({}, {"shape": (4, 4), "fit": "crop"}):
                stack = open_stack(source, chunks=5, **options)
                expected = pixels[:, 2:6, 1:5] if options else pixels
                np.testing.assert_array_equal(client.compute(stack[::-1].data).result(), expected[::-1])
                assert len(pickle.dumps(stack.reader)) < 1000, source
        assert open_stack(found[0]).verify().problems == ()


def test_every_kind_is_small_and_read_the_same(tmp_path):
    pixels, found = sources(tmp_path)
    for source in found:
        stack = open_stack(source, chunks=6)
        tasks = dict(dask.optimize(stack.data)[0].__dask_graph__())
        assert len(tasks) == 2
        assert max(len(pickle.dumps(task)) for task in tasks.values()) < 1000 + len(pickle.dumps(stack.files[:6]))
        np.testing.assert_array_equal(stack.data.compute(scheduler="threads"), pixels)
        order = np.random.default_rng(0).permutation(12)
        np.testing.assert_array_equal(stack[order].data.compute(), pixels[order])
        copy = pickle.loads(pickle.dumps(stack))
        assert copy.data.name == stack.data.name
        assert open_stack(source, chunks=6).data.name == stack.data.name


# --- many files -------------------------------------------------------------------------------------------------

MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import numpy as np
from imgstack_ml import open_stack
stack = open_stack(sys.argv[1], chunks=16)
one = stack.data.compute(scheduler="synchronous")
many = stack.data.compute(scheduler="threads", num_workers=16)
print(len(stack), np.array_equal(one, many))
"""


@pytest.mark.parametrize("n", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_files_with_few_handles(tmp_path, n):
    path = write_image(tmp_path / "one.png", random_pixels((8, 6)))
    content = (tmp_path / "one.png").read_bytes()
    (tmp_path / "many").mkdir()
    for i in range(n):
        (tmp_path / "many" / f"{i}.png").write_bytes(content)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 256
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path / "many")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(n), "True"]
    assert path.endswith("one.png")


def test_graph_of_many_pages_is_small(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5000, 2, 2), "u1"), photometric="minisblack", metadata=None)
    stack = open_stack(tmp_path / "a.tif")
    assert len(stack) == 5000
    assert len(pickle.dumps(dask.optimize(stack.data)[0])) < 50 * 5000
