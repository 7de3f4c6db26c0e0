"""Fits of ImagePCA that stop and are resumed: what is read again, what is equal, what is said."""

import errno
import json
import os
import shutil
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest

import imgstack_ml
from imgstack_ml import ImagePCA, open_stack
from imgstack_ml.decomposition import records
from imgstack_ml.errors import BadImageError, StoreError
from imgstack_ml.files.atomic import lock_output
from imgstack_ml.linalg import integers
from imgstack_ml.passes import checkpoint as _checkpoint
from imgstack_ml.passes import memory as _memory
from tests.lib import fit_stack
from tests.lib.fit_stack import CASES, READ_AGAIN, Reads, StopError, assert_same_fit, fit


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "unfinished"


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


@pytest.fixture(autouse=True)
def save_every_wave(monkeypatch):
    fit_stack.save_every_wave(monkeypatch.setattr)


@pytest.fixture(scope="module")
def whole():
    """Fits that nothing stopped, and how many blocks they read."""
    fits = {}
    with dask.config.set(scheduler="synchronous", num_workers=2):
        for solver in CASES:
            reads = Reads()
            fits[solver] = fit(solver, reads), len(reads.blocks)
    return fits


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "unfinished"
    with dask.config.set(scheduler="synchronous", num_workers=2), pytest.MonkeyPatch.context() as patch:
        fit_stack.save_every_wave(patch.setattr)
        stop("randomized", folder, 30)
    return folder


@pytest.fixture
def stopped(stopped_once, folder):
    """A fit of the streaming solver that stopped in the middle of its second read."""
    return Path(shutil.copytree(stopped_once, folder))


def stop(solver, folder, fail_at, **params):
    reads = Reads(fail_at)
    with pytest.raises(StopError):
        fit(solver, reads, folder, **params)
    return reads


@pytest.mark.parametrize(
    ("solver", "part"),
    [
        *(("randomized", part) for part in (0.02, 0.45, 0.99)),
        *(("covariance_eigh", part) for part in (0.02, 0.7)),
        *(("gram", part) for part in (0.45, 0.99)),
    ],
)
def test_a_fit_goes_on_where_it_stopped(solver, part, whole, folder):
    expected, n_blocks = whole[solver]
    before = stop(solver, folder, max(2, int(part * n_blocks)))
    again = Reads()
    assert_same_fit(fit(solver, again, folder), expected)
    assert 0 <= len(before.blocks) + len(again.blocks) - n_blocks <= READ_AGAIN[solver]
    assert not folder.exists()


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.arange(4096).reshape(64, 64) % 3 == 0, id="array"),
        pytest.param("finite", marks=pytest.mark.slow),
    ],
)
def test_a_fit_is_resumed_with_its_mask_only(mask, folder):
    options = {"mask": mask, "memory_limit": "38MB" if isinstance(mask, np.ndarray) else "34MB"}
    reads, again = Reads(), Reads()
    expected = fit("randomized", reads, **options)
    before = stop("randomized", folder, int(0.7 * len(reads.blocks)), **options)
    if isinstance(mask, np.ndarray):
        other = shutil.copytree(folder, folder.with_name("other"))
        with pytest.warns(UserWarning, match=r"mask was 1366 pixels \(\w+\) and is 1366 pixels \(\w+\)"):
            stop("randomized", other, 1, **{**options, "mask": np.roll(mask, 1)})
    assert_same_fit(fit("randomized", again, folder, **options), expected)
    assert expected.n_passes_ == len(reads.blocks) / 20 == (3 if isinstance(mask, np.ndarray) else 4)
    assert 0 <= len(before.blocks) + len(again.blocks) - len(reads.blocks) <= READ_AGAIN["randomized"]


@pytest.mark.parametrize("first", ["with kernels", "without"])
def test_exact_products_are_not_mixed_with_rounded_ones(first, folder, monkeypatch):
    """A fit that goes on where the processor multiplies no bytes, or where only the new one does."""
    compiled = integers._compiled()
    monkeypatch.setattr(records, "FEW_PRODUCTS", 0)
    monkeypatch.setattr(integers, "_compiled", lambda: compiled if first == "with kernels" else None)
    stop("covariance_eigh", folder, 20)
    monkeypatch.setattr(integers, "_compiled", lambda: None if first == "with kernels" else compiled)
    assert_same_fit(fit("covariance_eigh", Reads(), folder), fit("covariance_eigh", Reads()))


def test_it_may_stop_many_times(whole, folder):
    expected, n_blocks = whole["randomized"]
    total = 0
    for _ in range(100):
        reads = Reads(fail_at=11)
        try:
            resumed = fit("randomized", reads, folder)
        except StopError:
            total += len(reads.blocks)
            continue
        break
    assert total > n_blocks
    assert_same_fit(resumed, expected)


def test_a_checkpoint_changes_nothing_and_leaves_nothing(whole, folder):
    for solver in CASES:
        reads = Reads()
        assert_same_fit(fit(solver, reads, folder), whole[solver][0])
        assert len(reads.blocks) == whole[solver][1]
        assert not folder.exists()


# what has changed


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tol": 1e-12}, r"tol was 0\.0 and is 1e-12"),
        ({"max_passes": 2}, "max_passes was 3 and is 2"),
    ],
    ids=["tol", "max_passes"],
)
def test_of_other_parameters_nothing_is_used(params, message, stopped):
    again = Reads()
    with pytest.warns(UserWarning, match=message) as record:
        found = fit("randomized", again, stopped, **params)
    assert record[0].filename == fit_stack.__file__
    expected = Reads()
    assert_same_fit(found, fit("randomized", expected, **params))
    assert sorted(again.blocks) == sorted(expected.blocks)
    assert not stopped.exists()


@pytest.mark.parametrize(
    ("name", "was", "now"),
    [
        ("n_components", 4, 3),
        ("svd_solver", "randomized", "covariance_eigh"),
        ("n_oversamples", 10, 11),
        ("memory_limit", "34MB", "3GB"),
        ("random_state", 0, 1),
        ("random_state", 0, None),
    ],
)
def test_every_parameter_that_decides_is_compared(name, was, now, stopped):
    """Before anything is read: the fit fails at its first block."""
    pca = fit_stack.estimator("randomized", stopped).set_params(**{name: now})
    if name == "svd_solver":
        pca.set_params(memory_limit="3GB")
    message = f"{name} was {was!r} and is {'no int' if now is None else repr(now)}"
    with pytest.warns(UserWarning, match=message) as record, pytest.raises(StopError):
        pca.fit(fit_stack.stack("randomized", Reads(1).make))
    assert record[0].filename == __file__


# What version 0.1.0 wrote of the same fit.
FIT_OF_0_1_0 = {
    "fit": {
        "n_components": "4",
        "svd_solver": "'randomized'",
        "n_oversamples": "10",
        "tol": "0.0",
        "max_passes": "3",
        "memory_limit": "'34MB'",
        "random_state": "0",
        "the name of the images, which follows from files, sizes, times of change and blocks,": "the-same-randomized",
        "the version of imgstack_ml": "0.1.0",
    },
    "begun": {"limit": 50_000_000, "keep": 50_000_000, "seed": 209652396},
}


def test_of_another_version_nothing_is_used(whole, stopped):
    (stopped / "fit.json").write_text(json.dumps(FIT_OF_0_1_0, indent=2))
    again = Reads()
    with pytest.warns(UserWarning, match=r"starts again: the version of imgstack_ml was 0\.1\.0 and is") as record:
        assert_same_fit(fit("randomized", again, stopped), whole["randomized"][0])
    assert len(record) == 1
    assert str(record[0].message).endswith(f"and is {imgstack_ml.__version__}.")
    assert len(again.blocks) == whole["randomized"][1]
    assert not stopped.exists()


def test_of_other_files_nothing_is_used(tmp_path, folder):
    source = tmp_path / "images"
    rng = np.random.default_rng(0)
    imgstack_ml.write_images(rng.random((256, 128, 192), np.float32), source, format="tiff")
    names = sorted(os.listdir(source))
    pca = ImagePCA(4, svd_solver="gram", checkpoint=folder, memory_limit="48MB")
    stack = open_stack(source, chunks=16)
    assert pca.plan(stack).n_passes > 1
    good = (source / names[-1]).read_bytes()
    (source / names[-1]).write_bytes(good[:-10])
    with pytest.raises(BadImageError, match=names[-1]):
        pca.fit(stack)
    assert (folder / "fit.json").exists()
    (source / names[-1]).write_bytes(good)  # later than the stack was opened, though its bytes are the same
    with pytest.warns(UserWarning, match=r"the stack \(its files, .* was images-.* and is images-"):
        pca.fit(open_stack(source, chunks=16))
    assert not folder.exists()


class OneSeed(np.random.RandomState):
    """Draws one number."""

    def __init__(self, seed):
        super().__init__()
        self._number = seed

    def randint(self, *_):
        return self._number


def test_what_auto_chose_is_kept(whole, folder, monkeypatch):
    """The memory available and a seed of the moment differ when the fit is resumed."""
    monkeypatch.setattr(_memory, "_available", lambda: 68_000_000)
    params = {"memory_limit": "auto", "random_state": None}
    stop("randomized", folder, 30, **params)
    begun = json.loads((folder / "fit.json").read_text())["begun"]
    assert begun["limit"] == 34_000_000
    monkeypatch.setattr(_memory, "_available", lambda: 900_000_000)
    again = Reads()
    found = fit("randomized", again, folder, **params)
    assert_same_fit(found, fit("randomized", Reads(), memory_limit=34_000_000, random_state=OneSeed(begun["seed"])))
    assert len(again.blocks) < whole["randomized"][1] - 20


def test_less_memory_than_the_fit_began_with(whole, folder, monkeypatch):
    monkeypatch.setattr(_memory, "_available", lambda: 90_000_000)
    stop("gram", folder, 30, memory_limit="auto")
    monkeypatch.setattr(_memory, "_available", lambda: 88_000_000)
    with pytest.warns(UserWarning, match=r"it takes .*MiB of memory, and 41\.96 MiB are left") as record:
        assert_same_fit(fit("gram", Reads(), folder, memory_limit="auto"), whole["gram"][0])
    assert record[0].filename == fit_stack.__file__


# what is not saved, or cannot be


def test_images_in_memory_are_not_saved(folder):
    X = np.random.default_rng(0).random((30, 8, 8))
    ImagePCA(3, checkpoint=folder).fit(X)
    ImagePCA(3, checkpoint=folder).fit(da.from_array(X, chunks=(5, 8, 8)))
    assert not folder.exists()


def test_a_fit_in_one_piece_says_that_it_is_not_saved(folder):
    stack = da.random.default_rng(0).random((200_000, 4, 4), chunks=(5_000, 4, 4))
    with pytest.warns(UserWarning, match="svd_solver='tsqr' runs in one piece") as record:
        ImagePCA(3, svd_solver="tsqr", memory_limit="25MB", checkpoint=folder).fit(stack)
    assert record[0].filename == __file__
    assert not folder.exists()


def test_a_full_disk_is_named_and_the_fit_goes_on(whole, folder, monkeypatch):
    """A real disk that fills up is in tests/lib/full_disk.py."""
    calls = []

    def full(*args):
        calls.append(args)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_checkpoint, "save_tensors", full)
    with pytest.warns(UserWarning, match=r"needs [\d,]{6,} bytes \(.*No space left.*The fit continues") as record:
        assert_same_fit(fit("randomized", Reads(), folder), whole["randomized"][0])
    assert len(record) == 1
    assert record[0].filename == fit_stack.__file__
    assert len(calls) > 1
    assert not folder.exists()


def test_no_fit_without_its_checkpoint(tmp_path, folder):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    reads = Reads()
    with pytest.raises(StoreError, match=r"'thesis\.txt'; a checkpoint needs a folder of its own"):
        fit("randomized", reads, tmp_path / "mine")
    folder.mkdir()
    with lock_output(folder / "fit"), pytest.raises(StoreError, match="is being written by process"):
        fit("randomized", reads, folder)
    assert not reads.blocks


def test_a_damaged_file_is_not_used(whole, stopped):
    good = (stopped / "pass-0000.safetensors").read_bytes()
    (stopped / "pass-0000.safetensors").write_bytes(good[: len(good) // 2])
    with pytest.warns(UserWarning, match="damaged"):
        assert_same_fit(fit("randomized", Reads(), stopped), whole["randomized"][0])
    assert not stopped.exists()
