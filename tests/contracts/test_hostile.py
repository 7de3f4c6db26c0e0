"""Files that were cut, that lie, or were made to do harm. ``pytest -n0 -s`` on this file prints the figures."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import unicodedata
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import dask
import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError, StoreError
from tests.lib.bombs import BOMBS
from tests.lib.fuzz import archive, make_seeds
from tests.lib.images import png_bytes, random_pixels, write_image
from tests.lib.workers import run_script

HERE = Path(__file__).parents[1] / "lib"


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


def run_python(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def outcome(path, expected):
    """Whether a file is named, read with all of its pixels or its first pages alone, or read in silence."""
    with warnings.catch_warnings(record=True) as told:
        for text in ("was cut, or is damaged: nothing is left", "describes .* planes, and holds"):
            warnings.filterwarnings("always", message=f"'{re.escape(str(path))}.* {text}")
        try:
            pixels = open_stack(path).data.compute()
        except (BadImageError, StoreError) as error:
            return "named" if str(path) in str(error) else "named wrongly"
    planes = expected if expected.ndim < 4 else np.moveaxis(expected, 3, 1).reshape(-1, *expected.shape[1:3])
    if told and len(pixels) < len(planes) and np.array_equal(pixels, planes[: len(pixels)]):
        return "first pages"
    return "whole" if np.array_equal(pixels, expected) else "silent"


def test_cut_at_twenty_places(tmp_path):
    start, counts, whole_of = time.perf_counter(), Counter(), Counter()
    for name, content in make_seeds().items():
        path = tmp_path / name
        path.write_bytes(content)
        pixels = open_stack(path).data.compute()
        for i, end in enumerate(np.linspace(0, len(content) - 1, 20).astype(int).tolist()):
            cut = content[:end]
            path.write_bytes(cut)
            files = [path]
            if not name.endswith((".zip", ".tar", ".npy")):  # the same as a member of an archive that is whole
                suffix, method = ((".zip", zipfile.ZIP_STORED), (".zip", zipfile.ZIP_DEFLATED), (".tar", None))[i % 3]
                files.append(tmp_path / f"{method}{suffix}")
                files[-1].write_bytes(archive(suffix, {"a" + path.suffix: cut}, method))
            found = [outcome(file, pixels) for file in files]
            counts.update(found)
            whole_of[name] += found.count("whole")
    print(
        f"\ncut: {counts.total():,} files tried, {counts['named']:,} named, {counts['whole']} read whole, "
        f"of {counts['first pages']} the first pages, "
        f"silent = {counts['silent']}, {time.perf_counter() - start:.1f} s"
    )
    assert set(counts) <= {"named", "whole", "first pages"}
    # Only what is no pixel was cut off: remarks that tifffile writes behind the directories, a directory without
    # pixels, the padding of a tar, the ends that TGA and QOI mark, the mask of an icon.
    assert {name for name, n in whole_of.items() if n} <= {
        "packbits.tif",
        "pages.tif",
        "deflate_pages.tif",
        "described.tif",
        "imagej.tif",
        "zct.tif",
        "series.tif",
        "pyramid.tif",
        "a.tar",
        "a.tga",
        "a.qoi",
        "a.ico",
    }


@pytest.mark.parametrize("interlaced", [False, True])
def test_png_of_few_rows(tmp_path, interlaced):
    named = 0
    few_rows = [*range(0, 64, 3), 1, 2, 61, 62]
    for rows in few_rows:
        (tmp_path / "a.png").write_bytes(png_bytes(random_pixels((64, 64)), rows=rows, interlaced=interlaced))
        named += outcome(tmp_path / "a.png", None) == "named"
    print(f"\nvalid PNG with 0 to 63 of 64 rows, interlaced {interlaced}: {len(few_rows)} files tried, {named} named")
    assert named == len(few_rows)


def test_what_lies_in_folders(tmp_path):
    pixels = random_pixels((4, 5))
    write_image(tmp_path / "good.png", pixels)
    write_image(tmp_path / "tiff.tif", pixels)
    os.rename(tmp_path / "tiff.tif", tmp_path / "tiff.jpg")
    for name, content in {"empty.png": b"", "text.png": b"text", ".dot.png": b"text", "Thumbs.db": b"text"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "x.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    start = time.perf_counter()
    with (
        pytest.warns(UserWarning, match="3 of 5 files cannot be read"),
        pytest.warns(UserWarning, match="holds 2 images of kinds that are not read"),
    ):
        stack = open_stack(tmp_path, on_error="skip")
    assert stack.summary().unread == ((".png (no regular file)", 2),)
    assert [Path(name).name for name in stack.files] == ["good.png", "tiff.jpg"]
    np.testing.assert_array_equal(stack.data.compute(), [pixels, pixels])
    others = sorted(set(os.listdir(tmp_path)) - {"good.png", "tiff.jpg"})
    for name in others:
        with pytest.raises(BadImageError if (tmp_path / name).exists() else FileNotFoundError, match=re.escape(name)):
            open_stack([tmp_path / "good.png", tmp_path / name] if (tmp_path / name).exists() else tmp_path / name)
    seconds = time.perf_counter() - start
    print(f"\nno images: {len(others)} tried, {len(others)} named, hangs = 0, {seconds:.2f} s")
    assert seconds < 10


def test_bombs(tmp_path):
    for name, write in BOMBS.items():
        write(tmp_path / name)
    done = run_script(HERE / "bombs.py", tmp_path, *BOMBS)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    seconds = max(seconds for seconds, _, _ in found.values())
    growth = max(growth for _, growth, _ in found.values())
    print(f"\nbombs: {len(found)} tried, slowest refused in {seconds:.2f} s, largest growth {growth / 2**20:.1f} MB")
    for name, (seconds, growth, said) in found.items():
        assert said.startswith("BadImageError"), (name, said)
        assert growth < 64 << 20, name
        assert seconds < 1, name


NAMES = [
    unicodedata.normalize("NFC", "é.png"),
    unicodedata.normalize("NFD", "é.png"),
    "with space.png",
    "new\nline.png",
    "[1].png",
    "st*r?.png",
    "-x.png",
    "--help.png",
    os.fsdecode(b"\xff\xfe.png"),
    "<img onerror=alert(1)>.png",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.png",
    "{0}%s$HOME.png",
    "::x.png",
]


def test_names_of_all_kinds(tmp_path):
    folder = tmp_path / "run[1] *"
    expected = {name: np.full((4, 4), i, "uint8") for i, name in enumerate(NAMES)}
    orders, rng = set(), np.random.default_rng(0)
    for _ in range(20):
        for name in rng.permutation(NAMES).tolist():
            write_image(folder / name, expected[name])
        stack = open_stack(folder)
        names = tuple(map(os.path.basename, stack.files))
        orders.add(names)
        np.testing.assert_array_equal(stack.data.compute(), [expected[name] for name in names])
        shutil.rmtree(folder)
    print(f"\nnames: {len(NAMES)} tried, {len(orders.pop())} read, orders in 20 shuffles = {1 + len(orders)}")
    assert not orders
    assert sorted(names) == sorted(NAMES)
    assert "<img onerror" not in stack._repr_html_()
    repr(stack).encode("utf-8", "backslashreplace")


def test_links_out_of_the_folder_loops_and_duplicates(tmp_path):
    pixels = random_pixels((4, 4))
    outside = write_image(tmp_path / "outside" / "o.png", pixels)
    folder = tmp_path / "in"
    write_image(folder / "a.png", pixels)
    (folder / "b.png").symlink_to("a.png")
    os.link(folder / "a.png", folder / "c.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "o.png").symlink_to(outside)
    for name in ("up", "self"):
        (folder / name).symlink_to({"up": "..", "self": "."}[name])
    start = time.perf_counter()
    linked = pytest.warns(UserWarning, match="holds 1 link to folders")  # "up": "self" leads nowhere else
    with linked, pytest.raises(BadImageError, match=r"loop\.png"):
        open_stack(folder, recursive=True)
    with linked, pytest.warns(UserWarning, match="1 of 5 files cannot be read"):
        stack = open_stack(folder, recursive=True, on_error="skip")
    assert [Path(name).name for name in stack.files] == ["a.png", "b.png", "c.png", "o.png"]
    np.testing.assert_array_equal(stack.data.compute(), [pixels] * 4)
    assert time.perf_counter() - start < 10
    with pytest.raises(BadImageError, match=r"loop\.png"):
        open_stack([folder / "a.png", folder / "loop.png"])


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_names_that_lead_out_of_an_archive_write_nothing(tmp_path, suffix):
    content = png_bytes(random_pixels((4, 4)))
    names = ["../up.png", "a/../../../up.png", "/etc/absolute.png", f"{tmp_path}/target.png", "C:\\up.png", "ok.png"]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(archive(suffix, dict.fromkeys(names, content)))
    if suffix == ".tar":
        with tarfile.open(path, "a") as packed:
            for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                packed.addfile(info)
    before = sorted(tmp_path.rglob("*"))
    stack = open_stack(path)
    np.testing.assert_array_equal(stack.data.compute(), [random_pixels((4, 4))] * len(stack))
    read = {name.partition("::")[2] for name in stack.files}
    assert read == {"/etc/absolute.png", f"{tmp_path}/target.png", "C:\\up.png", "ok.png"}
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("/etc/absolute.png")


def test_last_chunk_of_a_png_that_claims_4_gb(tmp_path):
    """Pillow reads on to the end of the chunk: what is there is read, and room is made for no more."""
    content = png_bytes(random_pixels((4, 4)))
    place = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:place] + b"\xff\xff\xff\xf0" + content[place + 4 :])
    assert outcome(tmp_path / "a.png", random_pixels((1, 4, 4))) in ("named", "whole")


@pytest.mark.parametrize(("seconds", "seed"), [(2, 8), pytest.param(300, 300, marks=pytest.mark.slow)])
def test_fuzz(tmp_path, monkeypatch, seconds, seed):
    monkeypatch.setenv("FUZZ_FOLDER", str(tmp_path))
    done = run_script(HERE / "fuzz.py", "--seconds", seconds, "--seed", seed)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout)
    outcomes = Counter(found["outcomes"])
    print(
        f"\nfuzz: {outcomes.total():,} files tried, {outcomes['read']:,} read as declared, "
        f"{outcomes.total() - outcomes['read']:,} named, failures = {len(found['failures'])}, "
        f"slowest {found['slowest']:.2f} s of CPU, {found['seconds']:.0f} s"
    )
    assert not found["failures"], "\n".join(map(str, found["failures"]))
    assert outcomes.total() > 100


OPEN = """
import json, pickle, resource, sys, time
start = time.perf_counter()
from imgstack_ml import open_stack
imported = time.perf_counter()
stack = open_stack(sys.argv[1])
n_tasks = len(stack.data.__dask_graph__())
opened = time.perf_counter()
image = stack[len(stack) // 2].compute()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n_bytes = len(pickle.dumps(stack.data))
print(json.dumps([len(stack), opened - imported, n_tasks, peak / 1024, n_bytes, int(image.sum())]))
"""


@pytest.mark.slow
def test_a_hundred_thousand_files(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    pixels = random_pixels((8, 6))
    for i in range(100_000):
        if i % 20_000 == 0:  # a file system allows some ten thousand links to one file
            original = write_image(tmp_path / f"{i}.png", pixels)
        os.link(original, folder / f"image_{i}.png")
    n, seconds, n_tasks, peak, n_bytes, total = run_python("-c", OPEN, folder)
    print(
        f"\n100,000 files opened, graph of {n_tasks} tasks, {n_bytes / 1e6:.1f} MB pickled: "
        f"{seconds:.1f} s, {peak:.0f} MB"
    )
    assert (n, total) == (100_000, int(pixels.sum()))
    assert seconds < 15
