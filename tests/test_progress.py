"""Bars of images: moved task by task on threads and on clusters, which changes no result and keeps none alive."""

import asyncio

import dask.array as da
import numpy as np
import pytest

import imgstack_ml as im
from imgstack_ml._progress import ImageBar


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
    monkeypatch.setattr("imgstack_ml._passes.BATCH_BYTES", 4 * 64 * 64)


def kept(client):
    """Results that a client holds on to, once its event loop has done what it was told."""
    client.sync(asyncio.sleep, 0)
    return dict(client.futures)


@pytest.fixture(scope="module")
def means(stack):
    return im.IntensityDisplay.from_stack(stack).means


def test_a_bar_moves_with_the_batches(stack, means, moves, capsys):
    np.testing.assert_array_equal(im.IntensityDisplay.from_stack(stack, progress=True).means, means)
    assert moves == [("intensities", 4)] * 6
    assert "100%" in capsys.readouterr().err


def test_one_bar_a_pass_named_for_what_it_is_for(stack, moves):
    im.ImagePCA(2, svd_solver="randomized", random_state=0, progress=True).fit(stack[:, :16, :16])
    assert list(dict.fromkeys(label for label, _ in moves)) == ["read", "summary"]
    assert sum(n for _, n in moves) == 48


def test_bars_on_a_cluster_move_before_the_end(stack, means, moves, client, tmp_path):
    np.testing.assert_array_equal(im.IntensityDisplay.from_stack(stack, progress=True).means, means)
    assert moves == [("intensities", 4)] * 6
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
