"""Stacks whose chunks hold parts of images: sums over pixels run over the chunks, each read once, in little memory."""

import re
import threading
from collections import Counter

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from imgstack_ml import (
    ChannelStatistics,
    ImageHistogram,
    ImagePCA,
    IntensityRescaler,
    MemoryLimitError,
    NonFiniteError,
    RankWarning,
    StackCenterer,
    fit_together,
    open_stack,
    save_stack,
)
from imgstack_ml.base.images import Images
from imgstack_ml.base.lazy import samples_of
from imgstack_ml.inspection.statistics import read_statistics
from imgstack_ml.io import lazy
from imgstack_ml.io.formats.arrays import ArrayReader
from imgstack_ml.passes.regions import assembled, bands, n_values, shares_of
from imgstack_ml.passes.runner import PassRunner
from imgstack_ml.passes.steps import concatenated, raw_regions
from tests.lib.fits import traced_peak
from tests.lib.stacks import photographs

CHUNKS = {(24, 30): (40, 8, 11), (24, 30, 3): (40, 8, 11, 3), (20, 16, 2): (50, 20, 7, 1)}


class Store:
    """An array that counts how often each of its chunks is read, all of it at a time."""

    def __init__(self, images, chunks):
        self.images, self.chunks, self.lock, self.reads = images, chunks, threading.Lock(), Counter()
        self.shape, self.dtype, self.ndim = images.shape, images.dtype, images.ndim

    def __getitem__(self, place):
        for part, size, length in zip(place, self.chunks, self.shape, strict=True):
            assert part.start % size == 0
            assert part.stop in (part.start + size, length)
        with self.lock:
            self.reads[tuple(part.start for part in place)] += 1
        return self.images[place]

    @property
    def lazy(self):
        return da.from_array(self, chunks=self.chunks, name=False)

    def times(self):
        """How often each chunk was read since the last call; one number, as all must be equal."""
        (times,), n = set(self.reads.values()), len(self.reads)
        assert n == np.prod([-(-length // size) for length, size in zip(self.shape, self.chunks, strict=True)])
        self.reads.clear()
        return times


@pytest.fixture(params=CHUNKS, ids=str)
def store(request):
    return Store(photographs(120, request.param, "uint16"), CHUNKS[request.param])


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_sums_over_pixels_read_each_chunk_once_and_are_those_of_whole_images(store, scheduler):
    with dask.config.set(scheduler=scheduler):
        channels = -1 if len(store.shape) == 4 else None
        learners = [
            lambda: StackCenterer(with_std=True),
            lambda: IntensityRescaler(in_range="stack", channel_axis=channels),
            lambda: ImageHistogram(8, range="stack"),
        ]
        fitted = [make() for make in learners]
        assert fit_together(fitted, store.lazy) == store.times() == 1
        for estimator, make in zip(fitted, learners, strict=True):
            expected = make().fit(store.images)
            for name in ("mean_", "scale_", "in_range_", "range_"):
                if hasattr(expected, name):
                    assert_allclose(getattr(estimator, name), getattr(expected, name), rtol=1e-14)


def over_parts(store):
    """Estimators, fitted to images in memory, whose `transform` needs no whole images."""
    channels = -1 if len(store.shape) == 4 else None
    ranges = "stack", (1000, 30_000), "dtype"
    made = [IntensityRescaler(one, out_range=out) for one, out in zip(ranges, ("uint8", (0, 1), "dtype"), strict=True)]
    made += [StackCenterer(), StackCenterer(with_std=True), IntensityRescaler("stack", channel_axis=channels)]
    made += [ChannelStatistics(), ChannelStatistics(("std",)), ImageHistogram(8), ImageHistogram(8, density=True)]
    return [one.fit(store.images) for one in made]


def test_transforms_and_features_run_over_the_chunks(store):
    weights = np.arange(len(store.images)) % 3
    weighted = StackCenterer(with_std=True).fit(store.lazy, sample_weight=weights)
    assert store.times() == 1
    repeated = np.repeat(store.images, weights, axis=0)
    assert_allclose(weighted.mean_, repeated.mean(axis=0), rtol=1e-13)
    assert_allclose(weighted.scale_, repeated.std(axis=0), rtol=1e-12)
    for estimator in over_parts(store):
        found, expected = estimator.transform(store.lazy), estimator.transform(store.images)
        whole_channels = getattr(estimator, "channel_axis", None) is not None
        assert expected.ndim == 2 or found.chunks == store.lazy.rechunk({3: -1} if whole_channels else {}).chunks
        assert found.dtype == expected.dtype
        assert_allclose(found, expected, rtol=1e-12, atol=1e-9 * expected.max())
        assert store.times() == 1, estimator
    scaled = IntensityRescaler((0, 65535), out_range=(0, 1)).fit(store.images)
    pca = ImagePCA(2, svd_solver="gram").fit(StackCenterer().fit(store.images).transform(scaled.transform(store.lazy)))
    assert pca.n_passes_ == store.times() == 1
    expected = np.linalg.svd((store.images - store.images.mean(axis=0)).reshape(120, -1) / 65535, compute_uv=False)
    assert_allclose(pca.singular_values_, expected[:2], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_statistics_of_images_in_parts(store, dtype):
    images = (store.images // 256).astype(dtype)
    images[7], images[8], images[9, :4], images[10, -3:] = images[3], 5, 1, 0
    images[11] = images[11] > images[11].mean()
    store = Store(images, store.chunks)
    found, expected = read_statistics(store.lazy), read_statistics(images)
    assert store.times() == 1
    for name, values in expected._asdict().items():
        if name != "digests":
            assert_allclose(getattr(found, name), values, rtol=1e-3 if name == "signatures" else 1e-12, atol=1e-12)
    assert found.digests[7] == found.digests[3]
    assert len(set(found.digests)) == len(set(expected.digests))


@pytest.mark.parametrize(("missing", "masked"), [("mean", True), ("mean", False), ("als", True)])
def test_missing_pixels_of_images_in_parts(missing, masked):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(120, 3)) * [8, 4, 2] @ rng.normal(size=(3, 2400)) + rng.normal(size=(120, 2400)) + 100
    images[rng.random(images.shape) < 0.2] = np.nan
    images[5, :900] = np.nan  # whole parts
    store = Store(images.reshape(120, 40, 60), (40, 10, 20))
    mask = np.zeros((40, 60), bool)
    mask[3:33, 22:51] = True
    pca = ImagePCA(3, missing=missing, mask=mask if masked else None, random_state=0)
    expected = clone(pca).fit(store.images)
    pca.fit(store.lazy)
    assert set(store.reads.values()) == {pca.n_passes_}
    assert len(store.reads) == (24 if masked and missing == "mean" else 36)
    assert_allclose(pca.explained_variance_, expected.explained_variance_, rtol=1e-5)
    assert_allclose(pca.mean_, expected.mean_, rtol=1e-6)
    store.reads.clear()
    scores, whole = expected.transform(store.lazy), expected.transform(store.images)
    assert_allclose(scores, whole, atol=1e-6 * np.abs(whole).max())
    assert set(store.reads.values()) == {1}
    assert len(store.reads) == (24 if masked else 36)
    store.images[17] = np.nan
    for run in (clone(pca).fit, lambda stack: expected.transform(stack).compute()):
        with pytest.raises(NonFiniteError, match="image 17 shows 0 pixels"):
            run(store.lazy)


def test_finite_pixels_are_found_over_the_chunks():
    store = Store(photographs(30, (16, 20), "float32"), (15, 8, 10))
    store.images[3, 2, 5] = np.inf
    pca = ImagePCA(2, mask="finite", svd_solver="gram").fit(store.lazy)
    assert pca.n_passes_ == store.times() == 2
    assert np.argwhere(~pca.mask_).tolist() == [[2, 5]]


@pytest.mark.parametrize(
    ("limit", "n_passes", "dtype"),
    [("auto", 1, "uint8"), ("auto", 1, "float32"), ("least", 2, "uint16"), ("least", 2, "float64")],
)
def test_inner_products_and_scores_run_over_the_chunks(limit, n_passes, dtype):
    store = Store(photographs(120, (40, 600), dtype), (40, 40, 100))
    pca = ImagePCA(4, svd_solver="gram", memory_limit=limit if limit == "auto" else refusal(ImagePCA(4), store.lazy))
    pca.fit(store.lazy)
    assert pca.n_passes_ == store.times() == n_passes
    expected = ImagePCA(4, svd_solver="gram").fit(store.images)
    assert_allclose(pca.explained_variance_, expected.explained_variance_, rtol=1e-5)
    assert_allclose(pca.components_, expected.components_, atol=1e-5)
    assert_allclose(pca.mean_, expected.mean_, rtol=1e-12)
    scores = pca.transform(store.lazy)
    assert scores.chunks == ((40, 40, 40), (4,))
    assert scores.dtype == scores.compute().dtype
    assert store.times() == 1
    whole = pca.transform(store.images)
    assert_allclose(scores, whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize(
    ("limit", "dtype", "scheduler"),
    [("auto", "uint8", "threads"), ("least", "float32", "synchronous")],
)
def test_with_a_mask_chunks_outside_are_not_read(limit, dtype, scheduler):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(120, 6)) * 2.0 ** np.arange(6) @ rng.normal(size=(6, 48_000)) + rng.random(48_000) * 60
    images = (images + 100).clip(0, 255).astype(dtype).reshape(120, 40, 600, 2)
    mask = np.zeros((40, 600, 2), bool)
    mask[7:38, 110:390] = mask[3, 410, 1] = True  # all of some chunks, parts of others, a single pixel
    if dtype != "uint8":
        images[:, ~mask] = np.nan
    store = Store(images, (40, 10, 100, 2))
    weights = np.arange(120) % 3
    pca = ImagePCA(4, svd_solver="gram", mask=mask)
    if limit == "least":
        pca.set_params(memory_limit=refusal(pca, store.lazy))
    with dask.config.set(scheduler=scheduler):
        pca.fit(store.lazy, sample_weight=weights)
    places = {(y, x) for _, y, x, _ in store.reads}
    assert places == {(y, x) for y in (0, 10, 20, 30) for x in (100, 200, 300)} | {(0, 400)}
    assert set(store.reads.values()) == {pca.n_passes_} == {1 if limit == "auto" else 2}
    rows = np.repeat(images[:, mask].astype(float), weights, axis=0)
    mean = rows.mean(axis=0)
    _, singular, directions = np.linalg.svd(rows - mean, full_matrices=False)
    assert_allclose(pca.singular_values_, singular[:4], rtol=1e-6)
    assert_allclose(np.abs(np.sum(pca.components_[:, mask.ravel()] * directions[:4], axis=1)), 1, rtol=1e-6)
    assert_allclose(pca.mean_[mask.ravel()], mean, rtol=1e-6)
    assert not pca.components_[:, ~mask.ravel()].any()


@pytest.mark.parametrize("chunks", [(10, (3, 0, 5), 6, 2), (10, (0, 8), 6, (1, 0, 1)), (10, (8, 0), 6, 2)])
def test_chunks_of_no_pixels_have_no_scores(chunks):
    images = photographs(30, (8, 6, 2), "uint8")
    pca = ImagePCA(3, svd_solver="gram").fit(da.from_array(images, chunks=chunks))
    rows = images.reshape(30, -1) - images.reshape(30, -1).mean(axis=0)
    assert_allclose(pca.singular_values_, np.linalg.svd(rows, compute_uv=False)[:3], rtol=1e-6)
    scores = pca.transform(da.from_array(images, chunks=chunks))
    assert scores.shape == (30, 3)
    assert_allclose(scores, rows @ pca.components_.T, atol=1e-5 * np.abs(scores).max().compute())


def test_constant_images_in_parts_have_components_of_no_variance():
    images = np.full((12, 6, 4), 7, "uint8")
    with pytest.warns(RankWarning):
        pca = ImagePCA(2, svd_solver="gram").fit(da.from_array(images, chunks=(12, 2, 4)))
    assert_array_equal(pca.singular_values_, 0)
    assert_array_equal(pca.mean_, 7)
    assert_allclose(pca.components_ @ pca.components_.T, np.eye(2), atol=1e-6)


def test_parts_in_memory_are_not_sent_back_to_a_cluster(client):
    images = photographs(30, (16, 20), "uint8")
    runner = PassRunner(Images(da.from_array(images, chunks=(15, 8, 10)), None))
    assert not runner.executor.shares_memory
    runner.keep_by_region()
    assert runner.executor.shares_memory
    read = runner.run(raw_regions, concatenated, by_region=True)
    parts = [np.concatenate(chunks).reshape(30, -1) for chunks in read]
    assert_array_equal(assembled(parts, list(runner.regions.values())), images.reshape(30, -1))
    assert runner.n_passes == 1


def test_a_limit_too_small_for_whole_images_is_kept_over_chunks():
    store = Store(photographs(200, (96, 96), "uint16"), (100, 16, 32))
    for solver in ("randomized", "tsqr"):
        with pytest.raises(MemoryLimitError, match=r"Chunks of shape \(100, 16, 32\).*save_stack\(X, .*, chunks=1\)"):
            ImagePCA(3, svd_solver=solver, memory_limit="4MB").fit(store.lazy)
    for run in (
        lambda: ImagePCA(3, missing="als", memory_limit="4MB").fit(store.lazy.astype("float32")),
        lambda: fit_together([StackCenterer()], store.lazy, memory_limit=1),
    ):
        with pytest.raises(MemoryLimitError, match=r"Chunks of shape \(100, 16, 32\).*save_stack\(X, .*, chunks=1\)"):
            run()
    with dask.config.set(scheduler="threads", num_workers=2):
        for estimator in (ImagePCA(3), StackCenterer(with_std=True)):
            limit = refusal(estimator, store.lazy)
            peak = traced_peak(lambda: fit_within(estimator, store.lazy, limit))  # noqa: B023
            assert peak <= int(limit.removesuffix("MB")) * 1e6 < 25e6, estimator
    with dask.config.set(scheduler="synchronous"):  # a chunk has 0.1 MB, and a block of whole images 1.8 MB
        for estimator in over_parts(store)[1:6]:  # those that give images: 3 to 11 MB of whole ones
            lazy = estimator.transform(store.lazy).to_delayed().ravel()[0]
            assert traced_peak(lazy.compute) < 1.5e6, estimator


def fit_within(estimator, stack, limit):
    """Fit within a memory limit."""
    if isinstance(estimator, ImagePCA):
        estimator.set_params(svd_solver="gram", memory_limit=limit).fit(stack)
    else:
        fit_together([estimator], stack, memory_limit=limit)


def refusal(estimator, stack):
    """The smallest limit that is accepted, as the refusal names it."""
    with pytest.raises(MemoryLimitError, match="Nothing was read") as refused:
        fit_within(clone(estimator), stack, 1)
    return re.search(r"memory_limit='(\w+)'", str(refused.value))[1]


def test_a_pixel_that_is_no_number_is_named_with_its_image():
    images = photographs(30, (16, 20), "float32")
    images[17, 3, 15] = np.nan
    stack = Store(images, (10, 8, 10)).lazy
    for run in (StackCenterer().fit, ImagePCA(2, svd_solver="gram").fit):
        with pytest.raises(NonFiniteError, match="image 17"):
            run(stack)
    fitted = ImagePCA(2).fit(np.nan_to_num(images))
    with pytest.raises(NonFiniteError, match="image 17"):
        fitted.transform(stack).compute()


def test_open_stack_knows_the_chunks_of_zarr(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "_BLOCK_BYTES", 10_000)  # a chunk of whole images would be larger than a block
    monkeypatch.setattr(lazy, "_PART_BYTES", 1)
    images = photographs(60, (32, 24), "uint16")
    array = zarr.create_array(tmp_path / "space.zarr", shape=images.shape, chunks=(20, 8, 12), dtype=images.dtype)
    array[:] = images
    stack = open_stack(tmp_path / "space.zarr")
    assert stack.data.chunks[1:] == ((32,), (24,))  # of whole images to everybody
    reads, region_of = Counter(), ArrayReader._region

    def count(self, array, place):
        reads[tuple((part.start, part.stop) for part in place)] += 1
        return region_of(self, array, place)

    monkeypatch.setattr(ArrayReader, "_region", count)
    centerer = StackCenterer().fit(stack)
    assert set(reads.values()) == {1}
    assert len(reads) == 3 * 4 * 2
    assert_array_equal(centerer.mean_, images.mean(axis=0))
    pca, expected = ImagePCA(3, svd_solver="gram").fit(stack), ImagePCA(3, svd_solver="gram").fit(images)
    assert_allclose(pca.components_, expected.components_, atol=1e-5)
    assert_allclose(pca.transform(stack), pca.transform(images), atol=1e-2)
    assert samples_of(pca.transform(stack)) is stack
    some = stack[[41, 3, 17]]
    assert_array_equal(StackCenterer().fit(some).mean_, images[[41, 3, 17]].mean(axis=0))
    saved = open_stack(save_stack(stack, tmp_path / "whole.zarr", chunks=4))
    assert zarr.open_array(tmp_path / "whole.zarr").chunks == (4, 32, 24)
    assert_array_equal(saved.data.compute(), images)
    with pytest.raises(ValueError, match="chunks=0 is not a number"):
        save_stack(stack, tmp_path / "none.zarr", chunks=0)


def test_regions_make_up_an_image():
    regions = bands((7, 3, 2), 4)
    assert sum(map(n_values, regions)) == 42
    assert sum(shares_of(regions, 101)) == 101
    image = np.arange(84).reshape(2, 7, 3, 2)
    parts = [image[(slice(None), *region)].reshape(2, -1) for region in regions]
    assert_array_equal(assembled(parts, regions), image.reshape(2, -1))
