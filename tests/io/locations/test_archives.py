"""Members of archives."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.fuzz import archive
from tests.lib.images import pack, png_bytes, random_pixels, write_folder

KINDS = [
    (".zip", zipfile.ZIP_STORED, ".png"),
    (".zip", zipfile.ZIP_STORED, ".tif"),
    (".zip", zipfile.ZIP_DEFLATED, ".jpg"),
    (".zip", zipfile.ZIP_DEFLATED, ".tif"),
    (".zip", zipfile.ZIP_LZMA, ".png"),
    (".zip", zipfile.ZIP_LZMA, ".tif"),
    (".tar", None, ".png"),
    (".tar", None, ".jpg"),
]


@pytest.mark.parametrize(("suffix", "compression", "image"), KINDS)
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
    with pytest.warns(UserWarning, match="1 of 3") as caught:
        stack = open_stack(path, on_error="skip")
    assert caught[0].filename == __file__
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
        for _ in range(70):
            member.write(bytes(1_000_000))
    with pytest.raises(BadImageError, match=r"its \d\d,.* would inflate to 70,000,000, .* unpack it first"):
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


def test_tar_that_ends_early_is_named(tmp_path):
    path, members = tmp_path / "a.tar", {f"{i}.png": png_bytes(random_pixels((4, 4))) for i in range(3)}
    content = archive(".tar", members)
    path.write_bytes(content)
    with tarfile.open(path) as packed:
        starts = [info.offset for info in packed] + [packed.offset]
    for start in starts[1:]:
        path.write_bytes(content[:start])  # tarfile and tar themselves say nothing
        with pytest.raises(BadImageError, match=r"a\.tar.* it has no end"):
            open_stack(path)
    damaged = bytearray(content)
    damaged[starts[1] + 148 : starts[1] + 156] = b"00000000"  # its checksum
    path.write_bytes(damaged)
    with pytest.raises(BadImageError, match="it has no end after its 1 files"):
        open_stack(path)


def test_stored_member_that_claims_more_than_the_archive(tmp_path):
    content = bytearray(archive(".zip", {"a.png": png_bytes(random_pixels((4, 4)))}))
    entry = content.index(b"PK\1\2")
    content[entry + 20 : entry + 28] = struct.pack("<II", 50_000_000, 50_000_000)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadImageError, match="not where its archive says"):
        open_stack(tmp_path / "a.zip")
