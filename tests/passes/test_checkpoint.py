"""Checkpoints: what is saved and found again, folders and locks, damage and faults."""

import json
import os
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors import safe_open

from imgstack_ml.errors import StoreError
from imgstack_ml.files.locks import lock_output
from imgstack_ml.linalg.gram import Scatter
from imgstack_ml.passes import checkpoint as _checkpoint
from imgstack_ml.passes.checkpoint import Checkpoint, holds_checkpoint, open_checkpoint, remove_checkpoint
from tests.lib import fit_stack
from tests.lib.faults import every_fault
from tests.lib.fit_stack import StopError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "unfinished"


@pytest.fixture
def save_every_time(monkeypatch):
    fit_stack.save_every_wave(monkeypatch.setattr)


@contextmanager
def interrupted(folder, fit=None, begun=None):
    """Open a checkpoint, and end as a fit does that fails."""
    with pytest.raises(StopError), open_checkpoint(folder, fit or {}, begun or {}) as checkpoint:  # noqa: PT012
        yield checkpoint
        raise StopError


def files(folder):
    """Names of its files, without the lock."""
    return sorted(name for name in os.listdir(folder) if name[0] != ".")


def test_saving_takes_its_share_of_the_time_at_most(folder, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(_checkpoint, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Checkpoint, "_write", lambda self, *_: clock.__setitem__(0, clock[0] + 0.5))
    with open_checkpoint(folder, {}, {}) as checkpoint:
        record, saved = checkpoint.begin_pass("read"), []
        for second in range(1, 1001):
            clock[0] += 1
            if record.save(second, second, np.zeros(10)):
                saved.append(second)
    most = 1000 * _checkpoint._SHARE / 0.5 + 1
    assert 0.8 * most <= len(saved) <= most
    assert saved[0] <= 2


# what is saved


@pytest.mark.usefixtures("save_every_time")
def test_results_come_back_as_they_were(folder):
    value = (
        [np.arange(6.0).reshape(2, 3).T, np.float32([1.5]), np.array(2.5), np.zeros((0, 3))],
        Scatter(3, np.ones(2), np.zeros(2), np.eye(2), 32),
        (1, 0.1, float("inf"), None, True),
    )
    with interrupted(folder, {"a": "1"}) as checkpoint:
        assert checkpoint.begin_pass("x", np.ones(3)).save(2, 20, value)
    with open_checkpoint(folder, {"a": "1"}, {}) as checkpoint:
        saved = checkpoint.begin_pass("x", np.ones(3)).load()
    assert saved[:2] == (2, 20)
    arrays, scatter, rest = saved.value
    assert isinstance(scatter, Scatter)
    assert rest == value[2]
    for found, expected in zip([*arrays, *scatter], [*value[0], *value[1]], strict=True):
        assert_array_equal(found, expected, strict=isinstance(expected, np.ndarray))


@pytest.mark.usefixtures("save_every_time")
def test_what_a_pass_was_given_is_part_of_it(folder):
    with interrupted(folder) as checkpoint:
        checkpoint.begin_pass("x", np.ones(3)).save(1, 1, 7.0)
    others = [("y", np.ones(3)), ("x", np.ones(4)), ("x", np.ones(3, np.float32)), ("x", np.nextafter(np.ones(3), 2))]
    for given, n_done in [*((other, 0) for other in others), (("x", np.ones(3)), 1)]:
        with interrupted(folder) as checkpoint:
            assert checkpoint.begin_pass(*given).load().n_done == n_done


@pytest.mark.usefixtures("save_every_time")
def test_the_result_of_several_passes_replaces_theirs(folder):
    with interrupted(folder) as checkpoint:
        whole = checkpoint.begin_pass("whole")
        for number in range(2):
            checkpoint.begin_pass("part", number).save(1, 1, 0.0)
        assert files(folder) == ["fit.json", "pass-0001.safetensors", "pass-0002.safetensors"]
        whole.save(1, 2, 5.0)
        checkpoint.begin_pass("next").save(1, 1, 6.0)
        assert files(folder) == ["fit.json", "pass-0000.safetensors", "pass-0003.safetensors"]
    with open_checkpoint(folder, {}, {}) as checkpoint:
        assert checkpoint.begin_pass("whole").load().value == 5.0
        assert checkpoint.begin_pass("next").load().value == 6.0


@pytest.mark.usefixtures("save_every_time")
def test_other_kinds_of_results_are_refused(folder):
    with pytest.raises(TypeError, match="a dict is not saved"), open_checkpoint(folder, {}, {}) as checkpoint:
        checkpoint.begin_pass("x").save(1, 1, ({},))


@pytest.mark.usefixtures("save_every_time")
def test_a_checkpoint_is_no_pickle_and_readable_by_others(folder):
    with interrupted(folder, {"svd_solver": "'gram'"}, {"seed": 3}) as checkpoint:
        checkpoint.begin_pass("x").save(1, 1, np.ones(3))
    assert json.loads((folder / "fit.json").read_text()) == {"fit": {"svd_solver": "'gram'"}, "begun": {"seed": 3}}
    with safe_open(folder / "pass-0000.safetensors", framework="np") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F64"}  # noqa: SIM118 (no dict)


# what is used again


@pytest.mark.usefixtures("save_every_time")
def test_a_resumed_fit_takes_over_what_the_first_one_began_with(folder):
    with interrupted(folder, {"a": "1"}, {"seed": 3}) as checkpoint:
        checkpoint.begin_pass("x").save(1, 1, 7.0)
    assert holds_checkpoint(folder)
    with interrupted(folder, {"a": "1"}, {"seed": 4}) as checkpoint:
        assert checkpoint.begun == {"seed": 3}
        checkpoint.begin_pass("x").save(2, 2, 8.0)
    with interrupted(folder, {"a": "1"}, {"seed": 5}) as checkpoint:
        assert checkpoint.begun == {"seed": 3}
        assert checkpoint.begin_pass("x").load().value == 8.0


@pytest.mark.usefixtures("save_every_time")
@pytest.mark.parametrize(
    ("fit", "change"),
    [({"a": "2"}, "a was 1 and is 2"), ({}, "a was 1 and is None"), ({"a": "1", "b": "2"}, "b was None and is 2")],
    ids=["other", "fewer", "more"],
)
def test_of_another_fit_nothing_is_used(fit, change, folder):
    with interrupted(folder, {"a": "1"}, {"seed": 3}) as checkpoint:
        for number in range(2):
            checkpoint.begin_pass(number).save(1, 1, 7.0)
    with (  # noqa: PT031
        pytest.warns(UserWarning, match=f"is not used, and the fit starts again: {change}") as record,
        interrupted(folder, fit, {"seed": 4}) as checkpoint,
    ):
        assert checkpoint.begun == {"seed": 4}
        assert checkpoint.begin_pass(0).load().n_done == 0
        assert len(files(folder)) == 3  # nothing is removed before there is something new
        checkpoint.begin_pass(1).save(1, 1, 8.0)
    assert record[0].filename == __file__
    assert files(folder) == ["fit.json", "pass-0001.safetensors"]
    assert json.loads((folder / "fit.json").read_text()) == {"fit": fit, "begun": {"seed": 4}}


@pytest.mark.usefixtures("save_every_time")
@pytest.mark.parametrize("content", [b"", b"{}", None], ids=["empty", "braces", "half"])
@pytest.mark.parametrize("name", ["fit.json", "pass-0001.safetensors"])
def test_damaged_files_are_not_used(name, content, folder):
    with interrupted(folder, {"a": "1"}) as checkpoint:
        for number in range(2):
            checkpoint.begin_pass(number).save(1, 1, np.ones(3))
    good = (folder / name).read_bytes()
    (folder / name).write_bytes(good[: len(good) // 2] if content is None else content)
    with pytest.warns(UserWarning, match="damaged") as record, open_checkpoint(folder, {"a": "1"}, {}) as checkpoint:
        found = [checkpoint.begin_pass(number).load().n_done for number in range(2)]
    assert found == ([0, 0] if name == "fit.json" else [1, 0])
    assert [warning.filename for warning in record] == [__file__]
    assert not folder.exists()


# folders, locks, faults


def test_folders_of_others_are_refused(tmp_path, folder):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path / "mine", "'thesis.txt'; a checkpoint needs a folder of its own"),
        (tmp_path / "file", "is a file; give the name of a folder"),
        (tmp_path / "no" / "folder", "there is no folder '.*no' to make a checkpoint in"),
    ):
        with pytest.raises(StoreError, match=message), open_checkpoint(path, {}, {}):
            pass
    with pytest.raises(StoreError, match="thesis"):
        remove_checkpoint(tmp_path / "mine")
    folder.mkdir()
    with lock_output(folder / "fit"), pytest.raises(StoreError, match="is being written by process"):
        remove_checkpoint(folder)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


@pytest.mark.usefixtures("save_every_time")
def test_a_checkpoint_can_be_removed(folder):
    remove_checkpoint(folder)
    with interrupted(folder) as checkpoint:
        checkpoint.begin_pass("x").save(1, 1, 7.0)
    remove_checkpoint(folder)
    assert not folder.exists()
    assert not holds_checkpoint(folder)


@pytest.mark.usefixtures("save_every_time")
def test_strays_of_a_killed_process_go(folder):
    with interrupted(folder) as checkpoint:
        checkpoint.begin_pass("x").save(1, 1, 7.0)
    (folder / ".pass-0000-0123456789ab.tmp.safetensors").write_bytes(b"half")
    with interrupted(folder):
        assert not list(folder.glob(".*.safetensors"))
    with open_checkpoint(folder, {}, {}):
        pass
    assert not folder.exists()


@pytest.mark.usefixtures("save_every_time")
def test_every_fault_costs_the_checkpoint_and_not_the_fit(folder, monkeypatch):
    seen = set()

    def saving():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "The checkpoint .* could not be written")
            with interrupted(folder, {"a": "1"}, {"b": 2}) as checkpoint:
                record = checkpoint.begin_pass("x")
                for n in (1, 2):
                    record.save(n, n, np.full(5, float(n)))

    for failed in every_fault(monkeypatch, folder.parent, saving):
        seen.add(failed)
        if not folder.exists():
            continue
        with interrupted(folder, {"a": "1"}, {"b": 2}) as checkpoint:
            saved = checkpoint.begin_pass("x").load()
        assert saved.value is None or set(saved.value) == {float(saved.n_done)}
        remove_checkpoint(folder)
    assert {"open", "fsync", "replace"} <= seen
