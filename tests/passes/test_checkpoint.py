"""Fits that stop on the way and go on: what is read again, what is equal, what is said."""

import json
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import dask
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import imgstack_ml
from imgstack_ml import ImagePCA, open_stack
from imgstack_ml.errors import BadImageError, StoreError
from imgstack_ml.files.locks import lock_output
from imgstack_ml.linalg.gram import Scatter
from imgstack_ml.passes import checkpoint as _checkpoint
from imgstack_ml.passes import runner as _passes
from imgstack_ml.passes.checkpoint import Checkpoint, open_checkpoint
from tests.lib import fit_stack
from tests.lib.faults import every_fault

SOLVERS = list(fit_stack.CASES)


class StopError(Exception):
    """What a read was told to raise."""


class Reads:
    """Counts the blocks that are read, and lets read `fail_at` fail."""

    def __init__(self, fail_at=None):
        self.blocks = []
        self.fail_at = fail_at

    def make(self, block_id, case, log, seconds):
        self.blocks.append(block_id[0])
        if len(self.blocks) == self.fail_at:
            raise StopError
        return fit_stack.pixels(case, block_id[0])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "unfinished"


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


@pytest.fixture
def every_wave(monkeypatch):
    monkeypatch.setattr(_checkpoint, "_SHARE", float("inf"))
    monkeypatch.setattr(_passes, "_LONG_WAVE", 1)


@contextmanager
def quiet_fits():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "After . products")  # tol=0, so that all passes are made
        yield


def fit(solver, reads, folder=None, **params):
    with quiet_fits():
        return fit_stack.estimator(solver, folder, **params).fit(fit_stack.stack(solver, reads.make))


def stop(solver, folder, fail_at, **params):
    reads = Reads(fail_at)
    with pytest.raises(StopError):
        fit(solver, reads, folder, **params)
    return reads


@contextmanager
def interrupted(folder, fit=None, begun=None):
    """Open a checkpoint, and end as a fit does that fails."""
    with pytest.raises(StopError), open_checkpoint(folder, fit or {}, begun or {}) as checkpoint:  # noqa: PT012
        yield checkpoint
        raise StopError


def learned(pca):
    values = {name: value for name, value in vars(pca).items() if name.endswith("_")}
    certificate = values.pop("certificate_")
    return values | ({} if certificate is None else {f"certificate.{k}": v for k, v in vars(certificate).items()})


def assert_same_fit(found, expected):
    assert learned(found).keys() == learned(expected).keys()
    for name, value in learned(expected).items():
        assert_array_equal(learned(found)[name], value, err_msg=name, strict=True)


@pytest.fixture(scope="module")
def whole():
    """Fits that nothing stopped, and how many blocks they read."""
    fits = {}
    with dask.config.set(scheduler="synchronous", num_workers=2):
        for solver in SOLVERS:
            reads = Reads()
            fits[solver] = fit(solver, reads), len(reads.blocks)
    return fits


@pytest.mark.usefixtures("every_wave")
@pytest.mark.parametrize(
    ("solver", "part"),
    [(solver, part) for solver in SOLVERS for part in (0.02, 0.3, 0.45, 0.7, 0.99) if solver != "gram" or part > 0.4],
)
def test_a_fit_goes_on_where_it_stopped(solver, part, whole, folder, monkeypatch):
    expected, n_blocks = whole[solver]
    waves = []
    run_wave = _passes.PassRunner._run_wave
    monkeypatch.setattr(
        _passes.PassRunner, "_run_wave", lambda self, *args: waves.append(args[3]) or run_wave(self, *args)
    )
    before = stop(solver, folder, max(2, int(part * n_blocks)))
    again = Reads()
    resumed = fit(solver, again, folder)
    assert_same_fit(resumed, expected)
    redone = len(before.blocks) + len(again.blocks) - n_blocks
    panel = 3 if solver == "gram" else 0  # blocks, which all waves of that panel need
    assert redone <= panel + max(wave[-1][-1].stop - wave[0][0].first for wave in waves)
    assert n_blocks - len(again.blocks) >= part * n_blocks - 12
    assert not folder.exists()


@pytest.mark.usefixtures("every_wave")
def test_it_may_stop_many_times(whole, folder):
    expected, n_blocks = whole["randomized"]
    total = 0
    for _ in range(100):
        reads = Reads(fail_at=17)
        try:
            resumed = fit("randomized", reads, folder)
        except StopError:
            total += len(reads.blocks)
            continue
        break
    assert total > n_blocks
    assert_same_fit(resumed, expected)


def test_a_checkpoint_changes_nothing_and_leaves_nothing(whole, folder):
    for solver in SOLVERS:
        reads = Reads()
        assert_same_fit(fit(solver, reads, folder), whole[solver][0])
        assert len(reads.blocks) == whole[solver][1]
        assert not folder.exists()


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


# kinds of results


def test_results_come_back_as_they_were(folder, every_wave):
    value = (
        [np.arange(6.0).reshape(2, 3).T, np.float32([1.5]), np.array(2.5), np.zeros((0, 3))],
        Scatter(3, np.ones(2), np.eye(2)),
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


def test_what_a_pass_was_given_is_part_of_it(folder, every_wave):
    with interrupted(folder) as checkpoint:
        checkpoint.begin_pass("x", np.ones(3)).save(1, 1, 7.0)
    others = [("y", np.ones(3)), ("x", np.ones(4)), ("x", np.ones(3, np.float32)), ("x", np.nextafter(np.ones(3), 2))]
    for given, n_done in [*((other, 0) for other in others), (("x", np.ones(3)), 1)]:
        with interrupted(folder) as checkpoint:
            assert checkpoint.begin_pass(*given).load().n_done == n_done


def test_other_kinds_of_results_are_refused(folder, every_wave):
    with pytest.raises(TypeError, match="a dict is not saved"), open_checkpoint(folder, {}, {}) as checkpoint:
        checkpoint.begin_pass("x").save(1, 1, ({},))


# what has changed


@pytest.mark.usefixtures("every_wave")
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tol": 1e-12}, r"tol was 0\.0 and is 1e-12"),
        ({"max_passes": 2}, "max_passes was 3 and is 2"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"memory_limit": "51MB"}, "memory_limit was '50MB' and is '51MB'"),
    ],
)
def test_of_other_parameters_nothing_is_used(params, message, whole, folder):
    stop("randomized", folder, 60)
    again = Reads()
    with pytest.warns(UserWarning, match=message):
        found = fit("randomized", again, folder, **params)
    expected = Reads()
    assert_same_fit(found, fit("randomized", expected, **params))
    assert sorted(again.blocks) == sorted(expected.blocks)
    assert not folder.exists()


@pytest.mark.usefixtures("every_wave")
def test_of_another_version_nothing_is_used(whole, folder, monkeypatch):
    stop("randomized", folder, 60)
    monkeypatch.setattr(sys.modules[ImagePCA.__module__], "__version__", "99.0")
    again = Reads()
    with pytest.warns(UserWarning, match=rf"the version of imgstack_ml was {imgstack_ml.__version__} and is 99\.0"):
        assert_same_fit(fit("randomized", again, folder), whole["randomized"][0])
    assert len(again.blocks) == whole["randomized"][1]


@pytest.mark.usefixtures("every_wave")
def test_of_other_files_nothing_is_used(tmp_path, folder):
    rng = np.random.default_rng(0)
    source = tmp_path / "images"
    imgstack_ml.write_images(rng.random((1000, 64, 64), np.float32), source, format="tiff")
    names = sorted(os.listdir(source))
    pca = fit_stack.estimator("randomized", folder, memory_limit="47MB")
    assert pca.plan(open_stack(source, chunks=10)).n_passes > 1
    good = (source / names[-1]).read_bytes()
    stack = open_stack(source, chunks=10)
    (source / names[-1]).write_bytes(good[:-10])
    with pytest.raises(BadImageError, match=names[-1]):
        pca.fit(stack)
    assert (folder / "fit.json").exists()
    (source / names[-1]).write_bytes(good)  # later than the stack was opened, though its bytes are the same
    with pytest.warns(UserWarning, match="the images, .* was images-.* and is images-"), quiet_fits():
        pca.fit(open_stack(source, chunks=10))
    assert not folder.exists()


@pytest.mark.usefixtures("every_wave")
def test_what_auto_chose_is_kept(whole, folder, monkeypatch):
    """The memory available and a seed of the moment differ when the fit goes on."""
    from imgstack_ml.passes import memory as _memory

    monkeypatch.setattr(_memory, "_available", lambda: 100_000_000)
    params = {"memory_limit": "auto", "random_state": None}
    stop("randomized", folder, 60, **params)
    begun = json.loads((folder / "fit.json").read_text())["begun"]
    assert begun["limit"] == 50_000_000
    monkeypatch.setattr(_memory, "_available", lambda: 900_000_000)
    again = Reads()
    found = fit("randomized", again, folder, **params)
    assert_same_fit(found, fit("randomized", Reads(), memory_limit=50_000_000, random_state=_Seed(begun["seed"])))
    assert len(again.blocks) < whole["randomized"][1] - 40


class _Seed(np.random.RandomState):
    """Draws one number."""

    def __init__(self, seed):
        super().__init__()
        self._number = seed

    def randint(self, *_):
        return self._number


@pytest.mark.usefixtures("every_wave")
def test_less_memory_than_the_fit_began_with(whole, folder, monkeypatch):
    from imgstack_ml.passes import memory as _memory

    monkeypatch.setattr(_memory, "_available", lambda: 90_000_000)
    stop("gram", folder, 60, memory_limit="auto")
    monkeypatch.setattr(_memory, "_available", lambda: 86_000_000)
    with pytest.warns(UserWarning, match="it takes .*MiB of memory, and 41.01 MiB are left"):
        assert_same_fit(fit("gram", Reads(), folder, memory_limit="auto"), whole["gram"][0])


# what is not saved


def test_images_in_memory_are_not_saved(folder):
    X = np.random.default_rng(0).random((30, 8, 8))
    ImagePCA(3, checkpoint=folder).fit(X)
    ImagePCA(3, checkpoint=folder).fit(dask.array.from_array(X, chunks=(5, 8, 8)))
    assert not folder.exists()


def test_a_fit_in_one_piece_says_that_it_is_not_saved(folder):
    stack = dask.array.random.default_rng(0).random((200_000, 4, 4), chunks=(1000, 4, 4))
    with pytest.warns(UserWarning, match="svd_solver='tsqr' runs in one piece"):
        ImagePCA(3, svd_solver="tsqr", memory_limit="25MB", checkpoint=folder).fit(stack)
    assert not folder.exists()


# folders, locks, faults


@pytest.mark.parametrize("checkpoint", [3, True, b"bytes"])
def test_what_is_no_folder_is_refused(checkpoint):
    with pytest.raises(ValueError, match="must be None or a folder"):
        fit("randomized", Reads(), checkpoint)


def test_folders_of_others_are_refused_before_anything_is_read(tmp_path, folder):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    reads = Reads()
    for path, message in (
        (tmp_path / "mine", "'thesis.txt'; a checkpoint needs a folder of its own"),
        (tmp_path / "file", "is a file; give the name of a folder"),
        (tmp_path / "no" / "folder", "there is no folder '.*no' to make a checkpoint in"),
    ):
        with pytest.raises(StoreError, match=message):
            fit("randomized", reads, path)
    folder.mkdir()
    with lock_output(folder / "fit"), pytest.raises(StoreError, match="is being written by process"):
        fit("randomized", reads, folder)
    assert not reads.blocks
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


@pytest.mark.usefixtures("every_wave")
@pytest.mark.parametrize("name", ["fit.json", "pass-0000.safetensors", "pass-0001.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_damaged_files_are_not_used(name, content, whole, folder):
    stop("randomized", folder, 70)
    good = (folder / name).read_bytes()
    (folder / name).write_bytes(good[: len(good) // 2] if content is None else content)
    with pytest.warns(UserWarning, match="damaged"):
        assert_same_fit(fit("randomized", Reads(), folder), whole["randomized"][0])
    assert not folder.exists()


@pytest.mark.usefixtures("every_wave")
def test_strays_of_a_killed_process_go(whole, folder):
    stop("randomized", folder, 30)
    (folder / ".pass-0000-0123456789ab.tmp.safetensors").write_bytes(b"half")
    fit("randomized", Reads(), folder)
    assert not folder.exists()


@pytest.mark.usefixtures("every_wave")
def test_every_fault_costs_the_checkpoint_and_not_the_fit(whole, folder, monkeypatch):
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
        _checkpoint.remove_checkpoint(folder)
    assert {"open", "fsync", "replace"} <= seen


SMALL_DISK = """
import os, sys, warnings
sys.path.append(sys.argv[2])
import dask
from tests.lib import fit_stack
from tests.lib.full_disk import fill
fit_stack.save_every_wave()
folder = os.path.join(sys.argv[1], "unfinished")
n = 0
def make(block_id, case, log, seconds):
    global n
    n += 1
    if n == 50:
        fill(sys.argv[1])
    return fit_stack.pixels(case, block_id[0])
with dask.config.set(scheduler="synchronous", num_workers=2), warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    full = fit_stack.estimator("randomized", folder).fit(fit_stack.stack("randomized", make))
    said = [str(w.message) for w in seen if "checkpoint" in str(w.message)]
    assert len(said) == 1 and "bytes" in said[0] and "No space left" in said[0], said
    whole = fit_stack.estimator("randomized").fit(fit_stack.stack("randomized"))
assert (full.components_ == whole.components_).all()
assert os.listdir(sys.argv[1]) == ["ballast"], os.listdir(sys.argv[1])
"""


def test_a_full_disk_is_named_and_the_fit_goes_on(tmp_path):
    from tests.campaigns.test_full_disk import in_own_mounts

    if in_own_mounts(tmp_path, "true").returncode:
        pytest.skip("no small file system can be mounted here: unshare --user --mount is not allowed")
    root = str(Path(__file__).parents[2])
    done = in_own_mounts(tmp_path, sys.executable, "-c", SMALL_DISK, str(tmp_path), root)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_is_no_pickle_and_readable_by_others(folder, every_wave):
    from safetensors import safe_open

    stop("covariance_eigh", folder, 50)
    assert json.loads((folder / "fit.json").read_text())["fit"]["svd_solver"] == "'covariance_eigh'"
    with safe_open(folder / "pass-0000.safetensors", framework="np") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F64"}  # noqa: SIM118 (no dict)
