import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import dask
import fsspec
import numpy as np
import pytest
import tifffile

from imgstack_ml import BadImageError
from imgstack_ml.io import open_stack
from imgstack_ml.io.locations.base import Window
from imgstack_ml.io.locations.names import split_member
from imgstack_ml.io.locations.open import read_state
from tests.lib.images import random_pixels, write_folder


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


def pack(folder, path, compression=zipfile.ZIP_STORED):
    """Pack a folder into a zip or tar archive."""
    names = sorted(
        os.path.relpath(os.path.join(parent, name), folder) for parent, _, files in os.walk(folder) for name in files
    )
    if str(path).endswith(".zip"):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name in names:
                archive.write(folder / name, name)
    else:
        with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as archive:
            for name in names:
                archive.add(folder / name, name)
    return str(path)


KINDS = [
    (".zip", zipfile.ZIP_STORED),
    (".zip", zipfile.ZIP_DEFLATED),
    (".zip", zipfile.ZIP_LZMA),
    (".tar", None),
]


@pytest.mark.parametrize("image", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize(("suffix", "compression"), KINDS)
def test_archive_is_its_folder(tmp_path, suffix, compression, image):
    write_folder(tmp_path / "in" / "a", 12, suffix=image)
    write_folder(tmp_path / "in" / "b", 3, suffix=image)
    (tmp_path / "in" / "notes.txt").write_text("none")
    (tmp_path / "in" / ".hidden.png").write_text("none")
    path = pack(tmp_path / "in", tmp_path / f"x{suffix}", compression)
    expected = open_stack(tmp_path / "in", recursive=True)
    stack = open_stack(path, recursive=True, chunks=4)
    assert stack.files == tuple(f"{path}::{name[len(str(tmp_path)) + 4 :]}" for name in expected.files)
    assert stack.labels.tolist() == expected.labels.tolist() == ["a"] * 12 + ["b"] * 3
    assert stack.inputs == (path,)
    pixels = expected.data.compute()
    for scheduler in ("synchronous", "threads"):
        np.testing.assert_array_equal(stack.data.compute(scheduler=scheduler), pixels)
    order = np.random.default_rng(0).permutation(15)
    np.testing.assert_array_equal(stack[order].data.compute(), pixels[order])
    assert open_stack(path).labels is None


def test_parts_of_an_archive(tmp_path):
    pixels = write_folder(tmp_path / "in" / "a", 12)
    write_folder(tmp_path / "in" / "b", 3)
    path = pack(tmp_path / "in", tmp_path / "x.zip")
    for part, n in [("a", 12), ("a/", 12), ("b", 3), ("*1*.png", 4), ("a/img2.png", 1)]:
        stack = open_stack(f"{path}::{part}")
        assert len(stack) == n
    np.testing.assert_array_equal(open_stack(f"{path}::a").data.compute(), pixels)
    np.testing.assert_array_equal(open_stack(f"zip://a/*.png::{path}").data.compute(), pixels)
    listed = open_stack([f"{path}::a/img2.png", tmp_path / "in/a/img1.png"])
    np.testing.assert_array_equal(listed.data.compute(), pixels[[2, 1]])
    for part in ("c", "*.tif", "a/img99.png"):
        with pytest.raises(FileNotFoundError, match=r"searched the archive .*x\.zip.* holds 15 files, e\.g\. 'a/img0"):
            open_stack(f"{path}::{part}")


def test_multi_page_members(tmp_path):
    pixels = random_pixels((20, 9, 7), "uint16")
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", pixels[:12], photometric="minisblack")
    tifffile.imwrite(tmp_path / "in" / "b.tif", pixels[12:], photometric="minisblack", compression="zlib")
    for path in (
        pack(tmp_path / "in", tmp_path / "x.zip", zipfile.ZIP_DEFLATED),
        pack(tmp_path / "in", tmp_path / "y.tar"),
    ):
        stack = open_stack(path, chunks=5)
        assert stack.files[3] == f"{path}::a.tif[3]"
        np.testing.assert_array_equal(stack[::-1].data.compute(), pixels[::-1])


def test_damaged_archives_are_named(tmp_path):
    write_folder(tmp_path / "in", 3)
    path = pack(tmp_path / "in", tmp_path / "x.zip", zipfile.ZIP_DEFLATED)
    whole = Path(path).read_bytes()
    stack = open_stack(path)
    for n_bytes in (0, 5, 50, len(whole) // 2, len(whole) - 1):
        with open(path, "wb") as file:
            file.write(whole[:n_bytes])
        with pytest.raises(BadImageError, match=r"x\.zip"):
            open_stack(path)
        with pytest.raises(BadImageError, match=r"x\.zip::img0\.png"):
            stack.data.compute()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.png", b"text")
    with pytest.raises(BadImageError, match=r"img0\.png.*holds no file of this name"):
        stack.data.compute()


def test_damaged_member_is_named(tmp_path):
    pixels = write_folder(tmp_path / "in", 3)
    path = pack(tmp_path / "in", tmp_path / "x.zip", zipfile.ZIP_DEFLATED)
    content = bytearray(Path(path).read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[1].header_offset + 60
    content[start : start + 40] = bytes(40)
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(BadImageError, match=r"x\.zip::img1\.png"):
        open_stack(path).data.compute()
    with pytest.warns(UserWarning, match="1 of 3"):
        stack = open_stack(path, on_error="skip")
    np.testing.assert_array_equal(stack.data.compute(), pixels[[0, 2]])
    assert [name for name, _ in stack.problems] == [f"{path}::img1.png"]


def test_compressed_tar_is_refused(tmp_path):
    write_folder(tmp_path / "in", 2)
    path = pack(tmp_path / "in", tmp_path / "x.tar.gz")
    os.rename(path, tmp_path / "x.tar")
    with pytest.raises(BadImageError, match=r"x\.tar' cannot be read"):
        open_stack(tmp_path / "x.tar")


def test_names_within_archives_are_only_names(tmp_path):
    png = io.BytesIO()
    from PIL import Image

    Image.fromarray(random_pixels((4, 4))).save(png, "png")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a/../../up.png", "/etc/abs.png", "a::b.png", "<img onerror=1>.png"):
            archive.writestr(name, png.getvalue())
    before = sorted(tmp_path.rglob("*"))
    stack = open_stack(tmp_path / "x.zip")
    assert len(stack.data.compute()) == 3  # what leads upwards counts as hidden
    assert sorted(tmp_path.rglob("*")) == before
    assert "<img onerror" not in stack._repr_html_()


def test_bomb_in_an_archive_costs_nothing(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.png", "w") as member,
    ):
        for _ in range(200):
            member.write(bytes(1_000_000))
    with pytest.raises(BadImageError, match=r"its 194,.* would inflate to 200,000,000, .* unpack it first"):
        open_stack(tmp_path / "x.zip")


def test_handles_and_list_are_not_kept(tmp_path):
    write_folder(tmp_path / "in", 3)
    path = pack(tmp_path / "in", tmp_path / "x.zip")
    before = os.listdir("/proc/self/fd")
    open_stack(path).data.compute(scheduler="threads")
    assert len(os.listdir("/proc/self/fd")) <= len(before)
    write_folder(tmp_path / "in", 5)
    pack(tmp_path / "in", tmp_path / "x.zip")
    assert len(open_stack(path)) == 5


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_tasks_are_small(tmp_path, suffix):
    write_folder(tmp_path / "in", 40, shape=(4, 4))
    stack = open_stack(pack(tmp_path / "in", tmp_path / f"x{suffix}"), chunks=20)
    assert len(pickle.dumps(stack.reader)) < 1000
    tasks = dict(dask.optimize(stack.data)[0].__dask_graph__())
    assert max(len(pickle.dumps(task)) for task in tasks.values()) < 1000 + len(pickle.dumps(stack.files[:20]))


# --- fsspec -----------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path):
    """A folder of images, and the same one in fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    pixels = write_folder(tmp_path / "in" / "a", 12)
    pack(tmp_path / "in" / "a", tmp_path / "in" / "x.zip")
    root = f"/{tmp_path.name}"
    system.put(str(tmp_path / "in"), root, recursive=True)
    yield f"memory:/{root}", pixels
    system.rm(root, recursive=True)


def test_memory(memory):
    url, pixels = memory
    for source in (f"{url}/a", f"{url}/a/", f"{url}/a/*.png", f"{url}/x.zip", f"zip://*.png::{url}/x.zip"):
        stack = open_stack(source, chunks=5)
        np.testing.assert_array_equal(stack.data.compute(scheduler="threads"), pixels)
        assert stack.inputs == ()
    assert open_stack(f"{url}/a").files[10] == f"{url}/a/img10.png"
    assert open_stack(f"{url}/x.zip").files[10] == f"{url}/x.zip::img10.png"
    assert open_stack([f"{url}/a/img3.png"]).data.compute().tobytes() == pixels[3].tobytes()
    labelled = open_stack(url, recursive=True)
    assert set(labelled.labels.tolist()) == {"a"}


def test_cache_in_front_of_memory(memory):
    url, pixels = memory
    stack = open_stack(f"simplecache::{url}/a/*.png")
    assert stack.files[2] == f"simplecache::{url}/a/img2.png"
    np.testing.assert_array_equal(stack.data.compute(), pixels)


def test_remote_files_that_are_missing_or_change(memory):
    url, _ = memory
    with pytest.raises(FileNotFoundError, match="no images found: searched"):
        open_stack(f"{url}/none/*.png")
    with pytest.raises(BadImageError, match=r"none\.png"):
        open_stack(f"{url}/none.png")
    stack = open_stack(f"{url}/a")
    fsspec.filesystem("memory").pipe(f"{url}/a/img3.png", b"text")
    with pytest.raises(BadImageError, match=r"img3\.png.*neither JPEG"):
        stack.data.compute()
    with pytest.warns(UserWarning, match="1 of 12"):
        assert open_stack(f"{url}/a", on_error="skip").data.name != stack.data.name


def test_file_urls_are_local_paths(tmp_path):
    pixels = write_folder(tmp_path / "in", 4)
    path = pack(tmp_path / "in", tmp_path / "x.zip")
    for source in (f"file://{tmp_path}/in", f"file://{tmp_path}/in/*.png", f"zip://*.png::file://{path}"):
        stack = open_stack(source)
        assert stack.files[0].startswith(str(tmp_path))
        np.testing.assert_array_equal(stack.data.compute(), pixels)


def test_unknown_protocols_are_named():
    with pytest.raises(ValueError, match="nosuch"):
        open_stack("nosuch://bucket/a.png")


# --- the pieces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("/a/b.png", None),
        ("/a/b::c.png", None),
        ("/a.zip", None),
        ("/a.zip::b/c.png", ("/a.zip", "b/c.png")),
        ("/a.TAR::b::c.png", ("/a.TAR", "b::c.png")),
        ("simplecache::s3://b/x.zip::c.png", ("simplecache::s3://b/x.zip", "c.png")),
    ],
)
def test_split_member(name, parts):
    assert split_member(name) == parts


def test_window_is_a_file():
    window = Window(io.BytesIO(b"0123456789"), 2, 5)
    assert (window.read(2), window.tell(), window.read(), window.read(1)) == (b"23", 2, b"456", b"")
    assert (window.seek(-2, os.SEEK_END), window.read(9)) == (3, b"56")
    assert (window.seek(1), window.seek(1, os.SEEK_CUR), window.read(1)) == (1, 2, b"4")
    with pytest.raises(ValueError, match="in front of its beginning"):
        window.seek(-1)
    window.seek(20)
    assert window.read(1) == b""


def test_state_differs_when_a_file_does(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    before = read_state(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"12")
    assert read_state(str(tmp_path / "a")) != before


def test_file_whose_name_looks_like_a_members(tmp_path):
    pixels = random_pixels((5, 6, 3), np.uint8)
    path = tmp_path / "a.zip::b.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    (image,) = open_stack([path]).data.compute()
    np.testing.assert_array_equal(image, pixels)
