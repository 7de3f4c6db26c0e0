"""Files that were cut, that lie, or were made to do harm. ``pytest -s`` on this file prints the figures."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
import zarr

from imgstack_ml import BadImageError, StoreError
from imgstack_ml.io import open_stack, save_stack
from tests.lib.bombs import BOMBS, ome
from tests.lib.fuzz import archive, make_seeds
from tests.lib.images import png_bytes, random_pixels, write_image

HERE = Path(__file__).parents[1] / "lib"


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


def run_python(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- cut --------------------------------------------------------------------------------------------------------


def outcome(path, expected):
    """Whether a file is named, read with all of its pixels, or read in silence."""
    try:
        pixels = open_stack(path).data.compute()
    except (BadImageError, StoreError) as error:
        return "named" if str(path) in str(error) else "named wrongly"
    return "whole" if np.array_equal(pixels, expected) else "silent"


def test_cut_at_twenty_places(tmp_path):
    start, counts, whole_of = time.perf_counter(), Counter(), Counter()
    for name, content in make_seeds().items():
        path = tmp_path / name
        path.write_bytes(content)
        pixels = open_stack(path).data.compute()
        for end in np.linspace(0, len(content) - 1, 20).astype(int).tolist():
            cut = content[:end]
            path.write_bytes(cut)
            files = [path]
            if not name.endswith((".zip", ".tar", ".npy")):  # the same as members of an archive that is whole
                for suffix, method in ((".zip", zipfile.ZIP_STORED), (".zip", zipfile.ZIP_DEFLATED), (".tar", None)):
                    files.append(tmp_path / f"{method}{suffix}")
                    files[-1].write_bytes(archive(suffix, {"a" + path.suffix: cut}, method))
            found = [outcome(file, pixels) for file in files]
            counts.update(found)
            whole_of[name] += found.count("whole")
    print(
        f"\ncut: {counts.total():,} files tried, {counts['named']:,} named, {counts['whole']} read whole, "
        f"silent = {counts['silent']}, {time.perf_counter() - start:.1f} s"
    )
    assert set(counts) <= {"named", "whole"}
    # Only remarks were cut off: those that tifffile writes behind the directories, and the padding of a tar.
    assert {name for name, n in whole_of.items() if n} <= {
        "pages.tif",
        "deflate_pages.tif",
        "described.tif",
        "imagej.tif",
        "a.tar",
    }


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
    with pytest.raises(BadImageError, match="it has no end behind its 1 files"):
        open_stack(path)


@pytest.mark.parametrize("interlaced", [False, True])
def test_png_of_few_rows(tmp_path, interlaced):
    named = 0
    for rows in range(64):
        (tmp_path / "a.png").write_bytes(png_bytes(random_pixels((64, 64)), rows=rows, interlaced=interlaced))
        named += outcome(tmp_path / "a.png", None) == "named"
    print(f"\nvalid PNG with 0 to 63 of 64 rows, interlaced {interlaced}: 64 files tried, {named} named")
    assert named == 64


# --- no images --------------------------------------------------------------------------------------------------


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
    with pytest.warns(UserWarning, match="2 of 4"):
        stack = open_stack(tmp_path, on_error="skip")
    assert [Path(name).name for name in stack.files] == ["good.png", "tiff.jpg"]
    np.testing.assert_array_equal(stack.data.compute(), [pixels, pixels])
    others = sorted(set(os.listdir(tmp_path)) - {"good.png", "tiff.jpg"})
    for name in others:
        with pytest.raises(BadImageError if (tmp_path / name).exists() else FileNotFoundError, match=re.escape(name)):
            open_stack([tmp_path / "good.png", tmp_path / name] if (tmp_path / name).exists() else tmp_path / name)
    seconds = time.perf_counter() - start
    print(f"\nno images: {len(others)} tried, {len(others)} named, hangs = 0, {seconds:.2f} s")
    assert seconds < 10


# --- bombs ------------------------------------------------------------------------------------------------------


def test_bombs(tmp_path):
    for name, write in BOMBS.items():
        write(tmp_path / name)
    found = run_python(HERE / "bombs.py", tmp_path, *BOMBS)
    seconds = max(seconds for seconds, _, _ in found.values())
    growth = max(growth for _, growth, _ in found.values())
    print(f"\nbombs: {len(found)} tried, slowest refused in {seconds:.2f} s, largest growth {growth / 2**20:.1f} MB")
    for name, (seconds, growth, said) in found.items():
        assert said.startswith("BadImageError"), (name, said)
        assert growth < 64 << 20, name
        assert seconds < 1, name


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "other", ["pipe.tif", "{folder}/pipe.tif", "secret.tif", "../secret.tif", "{folder}/secret.tif"]
)
def test_files_named_in_a_tiff_are_not_opened(tmp_path, monkeypatch, named, other):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    os.mkfifo(tmp_path / "pipe.tif")  # opening it would wait without an end
    secret = random_pixels((3, 9, 7), seed=1)
    for folder in (tmp_path, tmp_path / "in"):
        tifffile.imwrite(folder / "secret.tif", secret, photometric="minisblack", metadata=None)
    link = f'PlaneCount="3"><UUID FileName="{other.format(folder=tmp_path)}">%s</UUID></TiffData>'
    path = tmp_path / "a.ome.tif"
    ome(path, {'PlaneCount="3"/>': link % "@OWN"})  # a file that was called otherwise once
    np.testing.assert_array_equal(open_stack(path).data.compute(), random_pixels((3, 9, 7)))
    ome(path, {'PlaneCount="3"/>': link % "urn:uuid:1"}, named=named)
    if not named:  # it could be this very file
        np.testing.assert_array_equal(open_stack(path).data.compute(), random_pixels((3, 9, 7)))
        return
    with pytest.raises(BadImageError, match=r"a\.ome\.tif.*(several files|lacks some of the pages)"):
        open_stack(path)


# --- names and folders ------------------------------------------------------------------------------------------

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
    stack = open_stack(folder, recursive=True)
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


# --- arrays that lie --------------------------------------------------------------------------------------------


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def test_npy_runs_no_code(tmp_path, monkeypatch):
    harm = tmp_path / "harm"
    monkeypatch.setenv("HARM", str(harm))
    objects = np.empty((2, 3, 4), object)
    objects[...] = Harmful()
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    import pickle

    (tmp_path / "b.npy").write_bytes(pickle.dumps(Harmful()))
    np.savez(tmp_path / "c.npz", random_pixels((2, 3, 4)))
    os.rename(tmp_path / "c.npz", tmp_path / "c.npy")
    for name in "abc":
        with pytest.raises(BadImageError, match=rf"{name}\.npy"):
            open_stack(tmp_path / f"{name}.npy")
    assert not harm.exists()


@pytest.mark.parametrize(
    "shape", ["(9, 4, 4)", "(2, -3, 4)", "(10**9, 4, 4)", "(2, 3.5, 4)", "(2,)", "(2, 0, 4)", "()"]
)
def test_npy_that_lies_about_its_shape(tmp_path, shape):
    np.save(tmp_path / "a.npy", random_pixels((2, 3, 4)))
    content = (tmp_path / "a.npy").read_bytes()
    # As long as it was, for the padding behind it.
    changed = re.sub(rb"'shape': \(2, 3, 4\), \} *", f"'shape': {shape}, }}".encode().ljust(60), content)
    (tmp_path / "a.npy").write_bytes(changed[: len(content)])
    with pytest.raises(BadImageError, match=r"a\.npy"):
        open_stack(tmp_path / "a.npy").data.compute()


def test_hdf5_that_was_cut(tmp_path):
    h5py = pytest.importorskip("h5py")
    pixels, path = random_pixels((20, 30, 30)), tmp_path / "a.h5"
    counts = Counter()
    for options in ({}, {"chunks": (3, 30, 30)}, {"chunks": (3, 30, 30), "compression": "gzip"}):
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=pixels, **options)
        content = path.read_bytes()
        for end in np.linspace(0, len(content) - 1, 20).astype(int).tolist():
            path.write_bytes(content[:end])
            try:
                found = open_stack(f"{path}::images").data.compute()
            except (BadImageError, FileNotFoundError) as error:
                counts["named" if "a.h5" in str(error) else "named wrongly"] += 1
            else:
                counts["whole" if np.array_equal(found, pixels) else "silent"] += 1
    print(f"\nHDF5 cut: {counts.total()} files tried, {counts['named']} named, silent = {counts['silent']}")
    assert set(counts) == {"named"}


def test_stored_stack_that_was_cut(tmp_path):
    store = save_stack(random_pixels((20, 30, 30)), tmp_path / "a.zarr")
    chunks = sorted(path for path in Path(store, "c").rglob("*") if path.is_file())
    whole = chunks[0].read_bytes()
    ends = np.linspace(0, len(whole) - 1, 20).astype(int).tolist()
    for end in ends:
        chunks[0].write_bytes(whole[:end])
        with pytest.raises(StoreError, match=r"a\.zarr"):
            open_stack(store)
    print(f"\nchunks of a stored stack cut: {len(ends)} tried, {len(ends)} named")


@pytest.mark.parametrize("codec", [None, "zstd", "gzip"])
def test_chunks_of_other_zarrs_that_were_cut(tmp_path, codec):
    codecs = {None: None, "zstd": zarr.codecs.ZstdCodec(), "gzip": zarr.codecs.GzipCodec()}[codec]
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 30, 30), chunks=(4, 30, 30), dtype="u1", compressors=codecs, fill_value=0
    )
    array[...] = random_pixels((4, 30, 30))
    (chunk,) = (path for path in (tmp_path / "a.zarr" / "c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    for end in np.linspace(0, len(whole) - 1, 20).astype(int).tolist():
        chunk.write_bytes(whole[:end])
        with pytest.raises(BadImageError, match=r"a\.zarr"):
            open_stack(tmp_path / "a.zarr").data.compute()


# --- found by the fuzzer ----------------------------------------------------------------------------------------


def test_tiff_without_a_place_of_its_pixels(tmp_path):
    """Read from the beginning of the file, headers would be pixels."""
    path = write_image(tmp_path / "a.tif", random_pixels((9, 7)))
    content = Path(path).read_bytes()
    Path(path).write_bytes(content.replace(struct.pack("<HH", 273, 4), struct.pack("<HH", 600, 4)))
    with pytest.raises(BadImageError, match="strips or tiles are missing"):
        open_stack(path)


def test_tiff_of_no_image(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        random_pixels((9, 7)),
        photometric="minisblack",
        metadata=None,
        description="ImageJ=1\nimages=0",
    )
    with pytest.raises(BadImageError, match=r"a\.tif.*holds no image"):
        open_stack(tmp_path / "a.tif")


def test_of_two_tags_the_first_counts(tmp_path):
    """As for libtiff and tifffile."""
    path = write_image(tmp_path / "a.tif", random_pixels((9, 7)), description="x" * 40)
    content = Path(path).read_bytes()
    # The entry of the resolution's unit, behind it, becomes another width.
    unit = content.index(struct.pack("<HHI", 296, 3, 1))
    Path(path).write_bytes(content[:unit] + struct.pack("<HHII", 256, 3, 1, 5) + content[unit + 12 :])
    np.testing.assert_array_equal(open_stack(path).data.compute()[0], random_pixels((9, 7)))


def test_stored_member_that_claims_more_than_the_archive(tmp_path):
    content = bytearray(archive(".zip", {"a.png": png_bytes(random_pixels((4, 4)))}))
    entry = content.index(b"PK\1\2")
    content[entry + 20 : entry + 28] = struct.pack("<II", 50_000_000, 50_000_000)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadImageError, match="not where its archive says"):
        open_stack(tmp_path / "a.zip")


def test_npy_whose_header_is_no_python(tmp_path):
    np.save(tmp_path / "a.npy", random_pixels((2, 3, 4)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"'shape': (2, 3, 4), }", b"'shape': (2, 3, 4), ("))
    with pytest.raises(BadImageError, match=r"a\.npy"):
        open_stack(tmp_path / "a.npy")


def test_last_chunk_of_a_png_that_claims_4_gb(tmp_path):
    """Pillow reads on to the end of the chunk: what is there is read, and room is made for no more."""
    content = png_bytes(random_pixels((4, 4)))
    place = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:place] + b"\xff\xff\xff\xf0" + content[place + 4 :])
    assert outcome(tmp_path / "a.png", random_pixels((1, 4, 4))) in ("named", "whole")


def test_strips_longer_than_their_pixels(tmp_path):
    """Some programs write a full strip where a shorter one is left; what is inflated beyond is bounded."""
    import zlib

    pixels = random_pixels((10, 16))
    for rows, match in ((10, None), (16, None), (64, "inflates to more than twice its 160 bytes")):
        path = tmp_path / "a.tif"
        strip = zlib.compress(np.resize(pixels, (rows, 16)).tobytes())
        tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None, compression="zlib")
        end = os.path.getsize(path)
        with tifffile.TiffFile(path, mode="r+") as found:
            for name, value in (("StripOffsets", end), ("StripByteCounts", len(strip))):
                found.pages.first.tags[name].overwrite(value)
        with open(path, "ab") as file:
            file.write(strip)
        if match is None:
            np.testing.assert_array_equal(open_stack(path).data.compute()[0], pixels)
        else:
            with pytest.raises(BadImageError, match=match):
                open_stack(path).data.compute()


def test_checksum_of_a_strip_is_looked_at(tmp_path):
    pixels = random_pixels((10, 16))
    path = write_image(tmp_path / "a.tif", pixels, compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as found:
        place, n_bytes = found.pages.first.dataoffsets[0], found.pages.first.databytecounts[0]
    content = bytearray(Path(path).read_bytes())
    content[place + n_bytes - 1] ^= 1
    Path(path).write_bytes(content)
    with pytest.raises(BadImageError, match="incorrect data check"):
        open_stack(path).data.compute()


# --- fuzzing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_fuzz(tmp_path, monkeypatch, seconds):
    monkeypatch.setenv("FUZZ_FOLDER", str(tmp_path))
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), "--seconds", str(seconds), "--seed", str(seconds)],
        capture_output=True,
        text=True,
        timeout=seconds * 10 + 100,
    )
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


# --- very many --------------------------------------------------------------------------------------------------

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
