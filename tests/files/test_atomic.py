"""Files and folders that appear whole or not at all, whichever call fails and whenever the process is killed."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from imgstack_ml.errors import StoreError
from imgstack_ml.files import atomic
from imgstack_ml.files.atomic import atomic_folder, atomic_path
from tests.lib.faults import every_fault


def test_file_appears_whole_at_the_end(tmp_path):
    target = tmp_path / "scores.csv"
    with atomic_path(target) as temporary:
        with open(temporary, "w") as file:
            file.write("new")
        assert os.path.dirname(temporary) == str(tmp_path)
        assert temporary.endswith(".csv")  # writers choose the format by the suffix
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["scores.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "scores.csv"
    target.write_text("old")

    def fail_half_way():
        with atomic_path(target) as temporary, open(temporary, "w") as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["scores.csv"]


def test_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "written") as temporary, open(temporary, "w"):
        pass
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with atomic_path(tmp_path / "link") as temporary, open(temporary, "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("letter", ["n", "é", "像", "🖼"])
def test_longest_file_name(tmp_path, letter):
    target = tmp_path / (letter * (251 // len(letter.encode())) + ".csv")
    with atomic_path(target) as temporary, open(temporary, "w"):
        pass
    assert target.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user for a moment")
def test_a_file_that_must_not_be_replaced_is_named():
    """As on Windows, where a program has it open."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model")
        open(file, "w").close()
        os.chmod(folder, 0o1777)  # as /tmp is: names belong to those who made them
        os.seteuid(65534)
        try:
            with pytest.raises(StoreError, match="model' cannot be replaced"), atomic_path(file) as temporary:
                open(temporary, "w").close()
        finally:
            os.seteuid(0)
        assert os.listdir(folder) == ["model"]


@pytest.mark.parametrize("opened", [atomic_path, atomic_folder])
def test_existing_target_needs_overwrite(tmp_path, opened):
    target = tmp_path / "out"
    target.touch() if opened is atomic_path else target.mkdir()
    with pytest.raises(StoreError, match=r"out' exists already; pass overwrite=True"):
        opened(target, overwrite=False).__enter__()


@pytest.mark.parametrize("opened", [atomic_path, atomic_folder])
def test_missing_parent_is_named(tmp_path, opened):
    with pytest.raises(StoreError, match=r"no folder .*missing.*os\.makedirs"):
        opened(tmp_path / "missing" / "out").__enter__()


def test_file_and_folder_do_not_replace_each_other(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a folder"):
        atomic_path(tmp_path / "folder", overwrite=True).__enter__()
    with pytest.raises(StoreError, match="is a file"):
        atomic_folder(tmp_path / "file", overwrite=True).__enter__()


def write_tree(folder, text):
    os.makedirs(os.path.join(folder, "a", "b"))
    with open(os.path.join(folder, "a", "b", "c"), "w") as file:
        file.write(text)


def test_folder_appears_whole_at_the_end(tmp_path):
    target = tmp_path / "stack.zarr"
    with atomic_folder(target) as temporary:
        write_tree(temporary, "new")
        assert not target.exists()
    assert (target / "a" / "b" / "c").read_text() == "new"
    assert os.listdir(tmp_path) == ["stack.zarr"]


@pytest.mark.parametrize("error", [None, OSError, KeyboardInterrupt])
def test_old_folder_stays_until_the_new_one_is_whole(tmp_path, error):
    target = tmp_path / "stack.zarr"
    write_tree(target, "old")
    (target / "only in the old one").touch()

    def replace():
        with atomic_folder(target, overwrite=True) as temporary:
            write_tree(temporary, "new")
            assert (target / "a" / "b" / "c").read_text() == "old"
            if error:
                raise error

    if error:
        with pytest.raises(error):
            replace()
    else:
        replace()
    assert (target / "a" / "b" / "c").read_text() == ("old" if error else "new")
    assert (target / "only in the old one").exists() == bool(error)
    assert os.listdir(tmp_path) == ["stack.zarr"]


# --- faults -----------------------------------------------------------------------------------------------------


def write_text(path, text):
    with atomic_path(path) as temporary, open(temporary, "w") as file:
        file.write(text)


def test_every_fault_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    target = tmp_path / "scores.csv"
    target.write_text("old" * 1000)
    seen = []
    for failed in every_fault(monkeypatch, tmp_path, lambda: write_text(target, "new" * 1000)):
        seen.append((failed, target.read_text()[:3]))
        assert target.read_text() in ("old" * 1000, "new" * 1000)
        assert os.listdir(tmp_path) == ["scores.csv"]
        target.write_text("old" * 1000)
    assert {"open", "write", "fsync", "replace"} <= {failed for failed, _ in seen}
    assert ("replace", "old") in seen
    assert target.read_text() == "new" * 1000


@pytest.mark.parametrize("exchanges", [True, False])
def test_every_fault_leaves_the_old_folder_or_the_new_one(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    target = tmp_path / "stack.zarr"
    (target / "a" / "b").mkdir(parents=True)
    (target / "a" / "b" / "c").write_text("old")

    def replace():
        with atomic_folder(target, overwrite=True) as temporary:
            write_tree(temporary, "new")

    n_faults = 0
    for _ in every_fault(monkeypatch, tmp_path, replace):
        n_faults += 1
        assert (target / "a" / "b" / "c").read_text() in ("old", "new")
        # Where the removal of what is left fails itself, that stays hidden until the next call.
        assert [name for name in os.listdir(tmp_path) if name[0] != "."] == ["stack.zarr"]
        (target / "a" / "b" / "c").write_text("old")
    assert n_faults > 10
    assert (target / "a" / "b" / "c").read_text() == "new"
    assert os.listdir(tmp_path) == ["stack.zarr"]


@pytest.mark.parametrize("n_renames", [1, 2])
def test_killed_between_two_renames(tmp_path, monkeypatch, n_renames):
    """Where the system cannot exchange two folders, the old one has another name for a moment."""
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    target = tmp_path / "stack.zarr"
    write_tree(target, "old")
    code = f"""
import os, signal, sys
from imgstack_ml.files import atomic
atomic._exchange = lambda *_: False
rename, calls = os.rename, []
def killed_after(*names):
    rename(*names)
    calls.append(names)
    if len(calls) == {n_renames}:
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = killed_after
with atomic.atomic_folder(sys.argv[1], overwrite=True) as temporary:
    os.mkdir(os.path.join(temporary, "new"))
"""
    process = subprocess.run([sys.executable, "-c", code, str(target)], timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert target.exists() == (n_renames == 2)
    with pytest.raises(StoreError, match="exists already"):
        atomic_folder(target).__enter__()
    assert os.listdir(target) == (["a"] if n_renames == 1 else ["new"])


# --- resuming -----------------------------------------------------------------------------------------


def fail_in(target, *, resume):
    def fail():
        with atomic_folder(target, resume=resume) as temporary:
            write_tree(temporary, "half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_unfinished_folder_stays_for_resume_only(tmp_path):
    target = tmp_path / "out"
    fail_in(target, resume=False)
    assert os.listdir(tmp_path) == []
    fail_in(target, resume=True)
    with atomic_folder(target, resume=True) as temporary:
        assert os.listdir(temporary) == ["a"]
    assert os.listdir(tmp_path) == ["out"]
    fail_in(tmp_path / "again", resume=True)
    with atomic_folder(tmp_path / "again") as temporary:
        assert os.listdir(temporary) == []
    assert sorted(os.listdir(tmp_path)) == ["again", "out"]


def test_second_writer_of_a_folder_is_refused(tmp_path):
    target = tmp_path / "stack.zarr"
    with atomic_folder(target), pytest.raises(StoreError, match=r"stack\.zarr' is being written by process"):
        atomic_folder(target).__enter__()
    assert os.listdir(tmp_path) == ["stack.zarr"]
