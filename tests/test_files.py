import os

import pytest

from imgstack_ml._errors import StoreError
from imgstack_ml._files import atomic_folder, atomic_path, require_space


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


def test_longest_file_name(tmp_path):
    target = tmp_path / ("n" * 251 + ".csv")
    with atomic_path(target) as temporary, open(temporary, "w"):
        pass
    assert target.exists()


@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_existing_target_needs_overwrite(tmp_path, atomic):
    target = tmp_path / "out"
    target.touch() if atomic is atomic_path else target.mkdir()
    with pytest.raises(StoreError, match=r"out' exists already; pass overwrite=True"):
        atomic(target, overwrite=False).__enter__()


@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_missing_parent_is_named(tmp_path, atomic):
    with pytest.raises(StoreError, match=r"no folder .*missing.*os\.makedirs"):
        atomic(tmp_path / "missing" / "out").__enter__()


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


def test_space_is_named_in_bytes(tmp_path):
    require_space(tmp_path, 1)
    with pytest.raises(StoreError, match=r"needs 4,611,686,018,427,387,904 bytes, but only [\d,]+ bytes are free"):
        require_space(tmp_path, 1 << 62)
