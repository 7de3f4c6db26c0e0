"""Bars of images: moved task by task on threads and on clusters, which changes no result and keeps none alive."""

import asyncio
import gc
import warnings

import dask
import dask.array as da
import numpy as np
import pytest

import imgstack_ml as im
from imgstack_ml.passes.progress import ImageBar


@pytest.fixture
def moves(monkeypatch):
    """Label and images of each move of a bar."""
    seen, plain = [], ImageBar.advance

    def advance(self, n_images):
        if n_images and not self.disable:
            seen.append((self.desc.removesuffix(": "), n_images))
        plain(self, n_images)

    monkeypatch.setattr(ImageBar, "advance", advance)
    return seen


@pytest.fixture(scope="module")
def stack():
    """24 images in blocks of 4."""
    return da.random.default_rng(0).integers(0, 255, (24, 64, 64), dtype="uint8", chunks=(4, 64, 64))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    """Let a block be a batch, as blocks of 32 MB are."""
    monkeypatch.setattr("imgstack_ml.passes.batches.BATCH_BYTES", 4 * 64 * 64)


def kept(client):
    """Results that a client holds on to, once garbage is collected and its event loop has done what it was told."""
    gc.collect()
    client.sync(asyncio.sleep, 0)
    return dict(client.futures)


@pytest.fixture(scope="module")
def means(stack):
    return im.IntensityDisplay.from_stack(stack).means


def test_a_bar_moves_with_the_batches(stack, means, moves, capsys):
    np.testing.assert_array_equal(im.IntensityDisplay.from_stack(stack, progress=True).means, means)
    assert moves == [("read 1: intensities", 4)] * 6
    assert "100%" in capsys.readouterr().err


def test_one_bar_a_pass_named_for_what_it_is_for(stack, moves):
    im.ImagePCA(2, svd_solver="randomized", random_state=0, progress=True).fit(stack[:, :16, :16])
    assert list(dict.fromkeys(label for label, _ in moves)) == ["read 1: images into memory", "summary"]
    assert sum(n for _, n in moves) == 48


@pytest.fixture(params=["threads", "cluster"])
def scheduler(request):
    """Both kinds of schedulers, whose bars are moved in different ways."""
    if request.param == "cluster":
        request.getfixturevalue("client")
        yield
    else:
        with dask.config.set(scheduler="threads"):
            yield


def labels(moves):
    return list(dict.fromkeys(label for label, _ in moves))


@pytest.mark.usefixtures("scheduler")
def test_a_read_that_learners_share_says_what_for(stack, moves):
    learners = [
        im.StackCenterer(),
        im.IntensityRescaler(in_range="stack"),
        im.ImageHistogram(4, range="stack"),
        im.ChannelStatistics(),
    ]
    for some, purpose in [
        (learners, "mean image, range"),
        (learners[:1], "mean image"),
        (learners[1:], "range"),
        (learners[2:3], "range"),
    ]:
        moves.clear()
        im.fit_together(some, stack[:, :8, :8], progress=True)
        assert labels(moves) == [f"read 1: {purpose}"]
        assert sum(n for _, n in moves) == 24
    moves.clear()
    im.fit_together(learners[3:], stack, progress=True)
    assert not moves  # there is nothing to be learned


# Fits that have no room for the images: shape, memory limit, what the reads are for.
READS = {
    "randomized": ((30_000, 32, 32), "95MB", ["read 1: summary", "read 2: components"]),
    "covariance_eigh": ((60_000, 16, 16), "50MB", ["read 1: covariance"]),
    "gram": ((400, 256, 256), "100MB", ["panel into memory", "inner products", "components"]),
    "tsqr": ((60_000, 8, 8), "16MB", ["read 1: triangular factor"]),
}


def labels_of_fit(solver, moves):
    shape, limit, expected = READS[solver]
    # A page of noise for all blocks: nothing here is about values.
    page = np.random.default_rng(0).random((shape[0] // 40, *shape[1:]), np.float32)
    stack = da.concatenate([da.from_array(page, chunks=-1)] * 40)
    pca = im.ImagePCA(2, svd_solver=solver, memory_limit=limit, tol=1e-12, max_passes=2, random_state=0, progress=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two reads do not make it exact
        pca.fit(stack)
    return labels(moves), expected


@pytest.mark.parametrize("solver", READS)
def test_each_read_of_a_fit_says_what_for(solver, moves):
    found, expected = labels_of_fit(solver, moves)
    if solver == "gram":  # as many panels as there is room for
        found = list(dict.fromkeys(label.split(": ")[1] for label in found))
    assert found == expected


def test_tsqr_on_a_cluster_has_a_bar(moves, client):
    """It runs in one piece, beside what runs all other reads."""
    found, expected = labels_of_fit("tsqr", moves)
    assert found == expected
    assert sum(n for _, n in moves) == 60_000


def test_bars_on_a_cluster_move_before_the_end(stack, means, moves, client, tmp_path):
    np.testing.assert_array_equal(im.IntensityDisplay.from_stack(stack, progress=True).means, means)
    assert moves == [("read 1: intensities", 4)] * 6
    moves.clear()
    small = stack[:, :8, :8]
    path = im.save_stack(small, tmp_path / "x.zarr", progress=True)
    assert moves == [("save_stack", 4)] * 6
    assert not kept(client)
    np.testing.assert_array_equal(im.open_stack(path).data.compute(), small.compute())


def test_a_failure_on_a_cluster_is_named_under_a_bar(stack, client):
    small = stack[:, :8, :8].astype("float32")
    bad = da.where(da.arange(24, chunks=4)[:, None, None] == 13, np.nan, small)
    with pytest.raises(im.NonFiniteError, match="image 13 "):
        im.ImagePCA(2, progress=True).fit(bad)
    assert not kept(client)
