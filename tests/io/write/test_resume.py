"""Storing that is resumed, and storing that fails."""

import contextlib
import os

import dask.array as da
import numpy as np
import pytest

from imgstack_ml import open_stack, save_stack
from imgstack_ml.errors import BadImageError
from tests.lib.arrays import chunk_files
from tests.lib.faults import every_fault
from tests.lib.images import count_decoded, random_pixels, write_folder


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
    with pytest.warns(UserWarning, match="another input or another version; none of them is used") as caught:
        path = save_stack(other, tmp_path / "x.zarr", resume=True)
    assert caught[0].filename == __file__
    data = getattr(other, "data", other) if hasattr(other, "files") else other
    np.testing.assert_array_equal(open_stack(path).data.compute(), data.compute())
    assert sorted(os.listdir(tmp_path)) == ["in", "x.zarr"]


def test_another_version_uses_nothing(tmp_path, monkeypatch):
    from imgstack_ml.io.write import save_stack as save

    stack, _ = interrupted(tmp_path)
    monkeypatch.setattr(save, "__version__", "another")
    with pytest.warns(UserWarning, match="another version") as caught:
        save_stack(stack, tmp_path / "x.zarr", resume=True)
    assert caught[0].filename == __file__


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
