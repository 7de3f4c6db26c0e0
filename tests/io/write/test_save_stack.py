import contextlib
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import threading

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from imgstack_ml.errors import BadImageError, StoreError
from imgstack_ml.io import open_stack, save_stack
from imgstack_ml.io.formats.store import MARKER
from tests.lib.faults import every_fault
from tests.lib.images import count_decoded, random_pixels, write_folder, write_image


@pytest.fixture(autouse=True)
def two_threads():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


@pytest.fixture
def store(tmp_path):
    """Ten images stored four to a chunk."""
    return save_stack(da.from_array(random_pixels((10, 8, 6)), chunks=(4, -1, -1)), tmp_path / "stack.zarr")


def chunk_files(path):
    return sorted(os.path.join(parent, name) for parent, _, names in os.walk(os.path.join(path, "c")) for name in names)


# --- round trip -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(10, 8, 6), (10, 8, 6, 3), (10, 5)])
def test_arrays(tmp_path, shape, dtype):
    pixels = random_pixels(shape, dtype)
    for name, stack in [("numpy", pixels), ("dask", da.from_array(pixels, chunks=3))]:
        path = save_stack(stack, tmp_path / name)
        assert path == str(tmp_path / name)
        stored = open_stack(path)
        assert (stored.shape, stored.dtype, stored.labels, stored.problems) == (shape, dtype, None, ())
        assert stored.files[7] == f"{path}[7]"
        np.testing.assert_array_equal(stored.data.compute(), pixels)
    assert sorted(os.listdir(tmp_path)) == ["dask", "numpy"]


def test_stack_of_files_keeps_names_and_labels(tmp_path):
    for i in range(6):
        write_image(tmp_path / "in" / f"class{i % 2}" / f"{i}.png", random_pixels((4, 4), seed=i))
    stack = open_stack(tmp_path / "in", recursive=True)
    stored = open_stack(save_stack(stack, tmp_path / "out.zarr"))
    assert stored.files == stack.files
    assert stored.labels.tolist() == stack.labels.tolist() == ["class0"] * 3 + ["class1"] * 3
    np.testing.assert_array_equal(stored.data.compute(), stack.data.compute())


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"\xff<1>.png")
    write_image(tmp_path / "a.png", random_pixels((4, 4)))
    os.rename(tmp_path / "a.png", tmp_path / name)
    stored = open_stack(save_stack(open_stack(tmp_path), tmp_path / "out.zarr"))
    assert stored.files == (str(tmp_path / name),)


def test_selection_reads_the_same_images(store):
    stack = open_stack(store)
    pixels = random_pixels((10, 8, 6))
    for key in (slice(3, 9), slice(None, None, -2), [9, 0, 4, 4], np.arange(10) > 6, []):
        selected = stack[key]
        np.testing.assert_array_equal(selected.data.compute(), pixels[key])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(selected)).data.compute(), pixels[key])
    np.testing.assert_array_equal(stack[-1].compute(), pixels[-1])


def test_blocks_are_whole_chunks(tmp_path):
    pixels = random_pixels((100, 4, 4))
    path = save_stack(da.from_array(pixels, chunks=(7, -1, -1)), tmp_path / "x.zarr")
    assert open_stack(path).data.chunks[0] == (14,) * 7 + (2,)
    assert open_stack(path, chunks=20).data.chunks[0] == (20,) * 5


@pytest.mark.parametrize(
    ("chunks", "stored"),
    [
        (((4, 4, 2), (8,), (6,)), (4, 8, 6)),
        (((2, 5, 3), (8,), (6,)), (5, 8, 6)),  # irregular: the largest block
        (((10,), (3, 5), (4, 2)), (10, 5, 4)),
    ],
)
def test_chunks_follow_the_blocks(tmp_path, chunks, stored):
    pixels = random_pixels((10, 8, 6))
    path = save_stack(da.from_array(pixels, chunks=chunks), tmp_path / "x.zarr")
    assert zarr.open_array(path, mode="r").chunks == stored
    np.testing.assert_array_equal(open_stack(path).data.compute(), pixels)


@pytest.mark.parametrize(
    ("shape", "rows", "per_chunk"),
    [
        ((70, 1000, 1000), 70, 1),  # one image is 1 MB
        ((60, 500, 400), 12, 4),  # at most 5, and 4 leaves the blocks as they are
        ((39, 500, 400), 13, 5),  # no such divisor
        ((40, 20, 20), 10, 10),
    ],
)
def test_chunks_are_about_a_megabyte(tmp_path, shape, rows, per_chunk):
    pixels = np.broadcast_to(np.arange(shape[0], dtype="uint8")[:, None, None], shape)
    path = save_stack(da.from_array(pixels, chunks=(rows, -1, -1)), tmp_path / "x.zarr")
    assert zarr.open_array(path, mode="r").chunks == (per_chunk, *shape[1:])
    np.testing.assert_array_equal(open_stack(path).data.compute(), pixels)


def test_chunks_of_zeros_are_written(tmp_path):
    path = save_stack(np.zeros((5, 4, 4)), tmp_path / "x.zarr")
    assert len(chunk_files(path)) == 1
    assert not open_stack(path).data.compute().any()


def test_images_are_decoded_once(tmp_path, monkeypatch):
    decoded = count_decoded(monkeypatch)
    write_folder(tmp_path / "in", 25)
    save_stack(open_stack(tmp_path / "in", chunks=4), tmp_path / "out.zarr")
    assert list(decoded.values()) == [1] * 25


def test_progress_bar(tmp_path, capsys):
    save_stack(np.ones((5, 4, 4)), tmp_path / "x.zarr", progress=True)
    bar = capsys.readouterr().err
    assert "save_stack: 100%" in bar
    assert "5/5" in bar
    assert "MB/s" in bar


def test_processes_of_a_cluster(tmp_path):
    from distributed import Client, LocalCluster

    pixels = np.zeros((9, 8, 6), dtype="uint8")
    pixels[7] = 1
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        path = save_stack(da.from_array(pixels, chunks=(2, -1, -1)), tmp_path / "x.zarr")
        assert len(chunk_files(path)) == 5  # those of zeros too
        stack = open_stack(path)
        np.testing.assert_array_equal(client.compute(stack[::-1].data).result(), pixels[::-1])


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int32", "float16", "float32", ">f8", "bool", "complex64"])
@pytest.mark.parametrize(
    "chunks", [(4, 8, 6), (3, 5, 4), ((2, 5, 3), (8,), (6,)), (1, -1, -1)], ids=["rows", "tiles", "irregular", "single"]
)
def test_other_tools_read_it(tmp_path, dtype, chunks):
    pixels = (random_pixels((10, 8, 6), "uint16") % 7 - 1.0).astype(dtype)
    path = save_stack(da.from_array(pixels, chunks=chunks), tmp_path / "x.zarr")
    array = zarr.open_array(path, mode="r")
    assert (array.metadata.zarr_format, array.shape, array.dtype) == (3, pixels.shape, pixels.dtype.newbyteorder("="))
    np.testing.assert_array_equal(array[:], pixels)
    np.testing.assert_array_equal(da.from_zarr(path).compute(), pixels)


def test_chunks_are_those_that_zarr_writes(tmp_path):
    pixels = random_pixels((10, 8, 6), "uint16")
    path = save_stack(da.from_array(pixels, chunks=(4, 5, 6)), tmp_path / "x.zarr")
    like = zarr.open_array(path, mode="r")
    theirs = zarr.create_array(
        tmp_path / "y.zarr", shape=like.shape, chunks=like.chunks, dtype=like.dtype, compressors=like.compressors
    )
    theirs[:] = pixels
    for ours in chunk_files(path):
        with open(ours, "rb") as one, open(ours.replace("x.zarr", "y.zarr"), "rb") as other:
            assert one.read() == other.read()


def test_graphs_are_small_however_many_blocks(tmp_path, monkeypatch):
    sizes = []
    compute = dask.compute
    monkeypatch.setattr(
        dask, "compute", lambda *values, **kwargs: sizes.append(len(values)) or compute(*values, **kwargs)
    )
    stack = da.from_array(random_pixels((500, 4, 4)), chunks=(1, -1, -1))
    path = save_stack(stack, tmp_path / "x.zarr")
    assert sum(sizes) == 500
    assert max(sizes) == 64
    np.testing.assert_array_equal(open_stack(path).data.compute(), stack.compute())


@pytest.mark.parametrize("chunks", [(1, -1, -1), ((2, 3) * 12, (40,), (50,))], ids=["as stored", "regrouped"])
def test_blocks_live_until_they_are_written(tmp_path, chunks):
    """Blocks alive at once, counted as they come and go, are those of the threads at work."""
    alive, most, lock = [0], [0], threading.Lock()

    class Tracked(np.ndarray):
        def __del__(self):
            if self.base is None:
                with lock:
                    alive[0] -= len(self)

    def make(block):
        out = np.ndarray.__new__(Tracked, block.shape, block.dtype)
        out[...] = 1
        with lock:
            alive[0] += len(out)
            most[0] = max(most[0], alive[0])
        return out

    stack = da.zeros((60, 40, 50), chunks=chunks, dtype="u1").map_blocks(make, meta=np.empty((0, 0, 0), "u1"))
    with dask.config.set(scheduler="threads", num_workers=2):
        save_stack(stack, tmp_path / "x.zarr")
    assert 1 <= most[0] <= 6 * max(stack.chunks[0])


def test_what_holds_no_numbers_is_refused(tmp_path):
    with pytest.raises(TypeError, match="only numbers are stored"):
        save_stack(np.array(["a", "b"]), tmp_path / "x.zarr")


# --- resuming ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def broken(file):
    """A file that cannot be decoded for a while, and is then as it was, its time of change included."""
    state = os.stat(file)
    with open(file, "r+b") as opened:
        content = opened.read()
        opened.truncate(len(content) // 2)
    yield
    with open(file, "wb") as opened:
        opened.write(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def interrupted(tmp_path):
    """Store six of twelve images, and return all of them and the folder of the unfinished store."""
    write_folder(tmp_path / "in", 12)
    stack = open_stack(tmp_path / "in", chunks=2)
    with broken(stack.files[7]), pytest.raises(BadImageError):
        save_stack(stack, tmp_path / "x.zarr", resume=True)
    (unfinished,) = tmp_path.glob(".x-*.tmp.zarr")
    return stack, unfinished


def test_a_failed_write_goes_on(tmp_path, monkeypatch):
    stack, unfinished = interrupted(tmp_path)
    assert not (tmp_path / "x.zarr").exists()
    assert len(chunk_files(unfinished)) == 3
    decoded = count_decoded(monkeypatch)
    stored = open_stack(save_stack(open_stack(tmp_path / "in", chunks=2), tmp_path / "x.zarr", resume=True))
    assert decoded == {(file, None): 1 for file in stack.files[6:]}
    assert stored.files == stack.files
    np.testing.assert_array_equal(stored.data.compute(), stack.data.compute())
    assert sorted(os.listdir(tmp_path)) == ["in", "x.zarr"]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "lost"])
def test_damaged_chunks_are_stored_again(tmp_path, monkeypatch, damage):
    stack, unfinished = interrupted(tmp_path)
    chunk = chunk_files(unfinished)[1]
    with open(chunk, "rb") as file:
        content = bytearray(file.read())
    content[len(content) // 2] ^= 1
    with open(chunk, "wb") as file:
        file.write({"cut": content[:-3], "empty": b"", "flipped": content, "lost": b""}[damage])
    if damage == "lost":
        os.remove(chunk)
    (unfinished / "c" / "3" / "0" / "0").mkdir(parents=True)
    (unfinished / "c" / "3" / "0" / "0" / "0.partial").touch()  # what was being written
    decoded = count_decoded(monkeypatch)
    path = save_stack(stack, tmp_path / "x.zarr", resume=True)
    assert decoded == {(file, None): 1 for file in (*stack.files[2:4], *stack.files[6:])}
    np.testing.assert_array_equal(open_stack(path).data.compute(), stack.data.compute())


def change_a_file(stack):
    os.utime(stack.files[0], (1, 1))
    return open_stack(os.path.dirname(stack.files[0]), chunks=2)


@pytest.mark.parametrize(
    "change",
    [change_a_file, lambda stack: stack[1:], lambda stack: stack[::-1], lambda stack: stack.data + 0],
    ids=["file", "fewer", "order", "array"],
)
def test_another_input_uses_nothing_and_says_so(tmp_path, change):
    stack, _ = interrupted(tmp_path)
    other = change(stack)
    with pytest.warns(UserWarning, match="another input or by another version; none of it is used"):
        path = save_stack(other, tmp_path / "x.zarr", resume=True)
    data = getattr(other, "data", other) if hasattr(other, "files") else other
    np.testing.assert_array_equal(open_stack(path).data.compute(), data.compute())
    assert sorted(os.listdir(tmp_path)) == ["in", "x.zarr"]


def test_another_version_uses_nothing(tmp_path, monkeypatch):
    from imgstack_ml.io.write import save_stack as save

    stack, _ = interrupted(tmp_path)
    monkeypatch.setattr(save, "__version__", "another")
    with pytest.warns(UserWarning, match="by another version"):
        save_stack(stack, tmp_path / "x.zarr", resume=True)


def test_a_call_without_resume_begins_anew(tmp_path, monkeypatch):
    stack, _ = interrupted(tmp_path)
    decoded = count_decoded(monkeypatch)
    save_stack(stack, tmp_path / "x.zarr")
    assert list(decoded.values()) == [1] * 12
    assert sorted(os.listdir(tmp_path)) == ["in", "x.zarr"]


def test_the_bar_begins_where_the_last_call_ended(tmp_path, capsys):
    stack, _ = interrupted(tmp_path)
    save_stack(stack, tmp_path / "x.zarr", resume=True, progress=True)
    bar = capsys.readouterr().err
    assert "6/12" in bar
    assert "12/12" in bar


@pytest.mark.parametrize("resume", [False, True])
def test_every_fault_leaves_the_old_store_or_the_new_one(tmp_path, monkeypatch, resume):
    old, new = np.ones((2, 3, 3), "u1"), random_pixels((4, 8, 6))
    target = tmp_path / "x.zarr"
    save_stack(old, target)
    stack = da.from_array(new, chunks=(2, -1, -1))
    seen = set()
    for failed in every_fault(monkeypatch, tmp_path, lambda: save_stack(stack, target, overwrite=True, resume=resume)):
        found = open_stack(target).data.compute()
        seen.add((failed, len(found)))
        np.testing.assert_array_equal(found, old if len(found) == 2 else new)
        assert [name for name in os.listdir(tmp_path) if name[0] != "."] == ["x.zarr"]
        if len(found) == 4:
            save_stack(old, target, overwrite=True)
    assert {"open", "write", "fsync", "replace", "exchange"} <= {failed for failed, _ in seen}
    np.testing.assert_array_equal(open_stack(target).data.compute(), new)
    assert os.listdir(tmp_path) == ["x.zarr"]


# --- incomplete and damaged stores ------------------------------------------------------------------------------


def test_store_without_marker_is_refused(store):
    os.remove(os.path.join(store, MARKER))
    with pytest.raises(StoreError, match=r"stack\.zarr' is incomplete: .*save_stack\(stack, .*overwrite=True\)"):
        open_stack(store)


@pytest.mark.parametrize("marker", ["", "text", "[]", "{}"])
def test_damaged_marker_is_refused(store, marker):
    with open(os.path.join(store, MARKER), "w") as file:
        file.write(marker)
    with pytest.raises(StoreError, match=r"is damaged: \.imgstack-complete cannot be read"):
        open_stack(store)


def test_lost_and_cut_chunks_are_refused(store):
    chunk = chunk_files(store)[1]
    with open(chunk, "rb") as file:
        content = file.read()
    with open(chunk, "wb") as file:
        file.write(content[:-1])
    with pytest.raises(StoreError, match=r"is damaged: it holds 3 chunks of [\d,]+ bytes, and was written with 3"):
        open_stack(store)
    os.remove(chunk)
    with pytest.raises(StoreError, match="is damaged: it holds 2 chunks"):
        open_stack(store)


@pytest.mark.parametrize("content", [None, b"text", b"{}"])
def test_damaged_metadata_is_refused(store, content):
    metadata = os.path.join(store, "zarr.json")
    if content is None:
        os.remove(metadata)
    else:
        with open(metadata, "wb") as file:
            file.write(content)
    with pytest.raises(StoreError, match=r"cannot be opened as a zarr array: .*overwrite=True"):
        open_stack(store)


@pytest.mark.parametrize("attributes", [{}, {"format": 2, "files": None, "labels": None}])
def test_other_formats_are_refused(store, attributes):
    zarr.open_array(store, mode="r+").attrs["imgstack_ml"] = attributes
    with pytest.raises(StoreError, match="is not in format 1"):
        open_stack(store)


def test_chunk_lost_after_opening_is_not_read_as_zeros(store):
    stack = open_stack(store)
    os.remove(chunk_files(store)[1])
    with pytest.raises(StoreError, match=r"has lost its chunk 'c/1/0/0'"):
        stack.data.compute()
    assert stack[:4].data.compute().all()  # other chunks are still read


KILLED = """
import os, signal, sys
import dask.array as da
import numpy as np
from imgstack_ml.io import save_stack

calls = []

def block():
    calls.append(None)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.ones((2, 4, 4))

array = da.map_blocks(block, chunks=((2,) * 4, (4,), (4,)), dtype=float, meta=np.empty((0, 0, 0)))
save_stack(array, sys.argv[1], overwrite=True)
"""


def test_kill_leaves_the_old_store(store, tmp_path):
    process = subprocess.run([sys.executable, "-c", KILLED, store], env={**os.environ, "DASK_SCHEDULER": "synchronous"})
    assert process.returncode == -signal.SIGKILL
    np.testing.assert_array_equal(open_stack(store).data.compute(), random_pixels((10, 8, 6)))
    (remains,) = [name for name in os.listdir(tmp_path) if name.endswith(".zarr") and name != "stack.zarr"]
    assert remains.startswith(".stack-")
    assert len(chunk_files(tmp_path / remains)) == 2
    with pytest.raises(StoreError, match="is incomplete"):
        open_stack(tmp_path / remains)


# --- refusals ---------------------------------------------------------------------------------------------------


def test_overwrite_rules(store):
    with pytest.raises(StoreError, match="exists already; pass overwrite=True"):
        save_stack(np.ones((2, 4, 4)), store)
    assert len(open_stack(store)) == 10
    save_stack(np.ones((2, 4, 4)), store, overwrite=True)
    assert open_stack(store).shape == (2, 4, 4)
    os.remove(os.path.join(store, MARKER))  # an incomplete store may be replaced as well
    save_stack(np.ones((3, 4, 4)), store, overwrite=True)
    assert open_stack(store).shape == (3, 4, 4)


def test_only_a_zarr_array_is_replaced(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").touch()
    with pytest.raises(StoreError, match="holds no zarr array, so it is not replaced"):
        save_stack(np.ones((2, 4, 4)), folder, overwrite=True)
    with pytest.raises(StoreError, match="is a file"):
        save_stack(np.ones((2, 4, 4)), folder / "chapter1.tex", overwrite=True)
    assert os.listdir(folder) == ["chapter1.tex"]


def test_output_over_or_in_the_input_is_refused(store, tmp_path):
    stack = open_stack(store)
    inside = os.path.join(store, "inside.zarr")
    for target in (store, inside, tmp_path):
        with pytest.raises(StoreError, match="is, holds or lies in the input"):
            save_stack(stack[:3], target, overwrite=True)
    write_folder(tmp_path / "images", 2)
    stack = open_stack(tmp_path / "images")
    for target in (tmp_path / "images", stack.files[0]):
        with pytest.raises(StoreError, match="is, holds or lies in the input"):
            save_stack(stack, target, overwrite=True)
    assert len(open_stack(save_stack(stack, tmp_path / "images" / "beside.zarr"))) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_failing_block_leaves_nothing(tmp_path, store, overwrite):
    write_folder(tmp_path / "in", 6)
    stack = open_stack(tmp_path / "in", chunks=2)
    with open(stack.files[4], "r+b") as file:
        file.truncate(60)
    target = store if overwrite else tmp_path / "new.zarr"
    with pytest.raises(BadImageError, match=r"img4\.png"):
        save_stack(stack, target, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["in", "stack.zarr"]
    assert len(open_stack(store)) == 10


def test_full_disk(tmp_path):
    with pytest.raises(StoreError, match=r"needs 9,000,000,000,000,000 bytes, but only [\d,]+ bytes are free"):
        save_stack(da.zeros((1_000, 3_000_000, 3_000_000), dtype="u1", chunks=-1), tmp_path / "x.zarr")

    def fail(block):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    array = da.ones((4, 8, 8), chunks=(2, 8, 8)).map_blocks(fail, meta=np.empty((0, 0, 0)))
    with pytest.raises(StoreError, match=r"the disk is full: .*x\.zarr' needs up to 2,048 bytes"):
        save_stack(array, tmp_path / "x.zarr")
    assert os.listdir(tmp_path) == []


def test_what_is_not_a_stack(tmp_path):
    unknown = da.ones((4, 3, 3))
    unknown = unknown[unknown[:, 0, 0] > 0]
    with pytest.raises(ValueError, match=r"stack\.compute_chunk_sizes\(\)"):
        save_stack(unknown, tmp_path / "x.zarr")
    for stack in ([1, 2], np.float64(3), None):
        with pytest.raises(TypeError, match="an ImageStack, a Dask array or an ndarray is needed"):
            save_stack(stack, tmp_path / "x.zarr")
    assert os.listdir(tmp_path) == []


def test_description_is_plain_json(store):
    with open(os.path.join(store, "zarr.json")) as file:
        assert json.load(file)["attributes"] == {"imgstack_ml": {"format": 1, "files": None, "labels": None}}
