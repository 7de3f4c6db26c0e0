"""The streaming solver: accuracy, reads, what it says of itself, peak memory as planned."""

import os
import re
import warnings
from functools import cache
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageFlattener, ImagePCA, IntensityRescaler, StackCenterer
from imgstack_ml.decomposition import records
from imgstack_ml.linalg import integers
from tests.lib.fits import fresh_process, linux, noise, planted, streamed, streaming, tight, traced_peak
from tests.lib.stacks import counted, photographs, reference, stack_of_spectrum

K = 10


def streamed_array(X, k=K, *, chunks=64, max_passes=6, **options):
    """Factors of images that are read again for every product, and their source."""
    source = counted(X, chunks)
    factors, runner = streamed(source.data, k, max_passes=max_passes, **options)
    assert runner.n_passes == source.n_reads <= max_passes
    return factors, source


def relative_errors(factors, X):
    """Of the variances; those below 1e-12 of the first count as nothing."""
    expected = np.pad(reference(X).singular_values, (0, K))[: len(factors.singular_values)] ** 2
    found = factors.singular_values**2
    real = expected > 1e-12 * expected[0]
    assert np.all(found[~real] <= 1e-12 * expected[0])
    return np.abs(found[real] / expected[real] - 1)


# accuracy

j = np.arange(1, 201)
SPECTRA = {
    "slow": j**-0.5,
    "inverse": 1.0 / j,
    "fast": 0.6**j,
    "flat floor": np.where(j <= 5, 10.0 / j, 0.5),
    "all equal": np.ones(200),
    "repeated": np.where(j <= 4, 10, np.where(j <= 12, 3, 0.1)),
    "rank below k": 1.0 / j[:6],
    "graded to 1e-3": np.where(j <= 10, 10.0 ** (-(j - 1) / 3), 1e-5),
    "graded to 1e-5": np.where(j <= 10, 10.0 ** (-(j - 1) * 5 / 9), 1e-7),
}


@pytest.mark.parametrize(
    ("name", "images"), [*((name, "spread") for name in SPECTRA), *((name, "drift") for name in list(SPECTRA)[::2])]
)
def test_spectra_in_float64(name, images):
    X = stack_of_spectrum(300, (500,), 1e3 * SPECTRA[name], offset=100.0, images=images)
    factors, _ = streamed_array(X)
    assert factors.certificate.converged
    assert relative_errors(factors, X).max() <= 1e-4


FLOAT32 = ["slow", "flat floor", "graded to 1e-3", "graded to 1e-5"]
LARGE = (2_000, 15_000)  # enough for products in float32


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, (300, 2_000)) for name in FLOAT32[:3]),
        *(pytest.param(name, LARGE, marks=pytest.mark.slow) for name in FLOAT32),
    ],
)
def test_spectra_in_float32(name, shape, monkeypatch):
    """Small singular values make the later reads work in float64."""
    if shape != LARGE:
        monkeypatch.setattr(records, "FEW_PRODUCTS", 0)
    X = stack_of_spectrum(shape[0], shape[1:], 1e3 * SPECTRA[name], offset=100.0, dtype="float32")
    factors, _ = streamed_array(X)
    assert factors.certificate.converged
    centred = X - X.mean(axis=0, dtype=np.float64)
    expected = np.linalg.eigvalsh(centred @ centred.T)[: -K - 1 : -1]
    assert_allclose(factors.singular_values**2, expected, rtol=1e-4)


def sorted_by_class(X):
    rng = np.random.default_rng(1)
    looks = np.repeat(rng.integers(0, 60, (5, *X.shape[1:])), len(X) // 5, axis=0)
    return (X // 2 + looks).astype(np.uint8)


def last_tenth_unlike(X):
    rolled = np.roll(X[-len(X) // 10 :], 7, axis=1)
    return np.concatenate([X[: -len(X) // 10], 255 - rolled])


def duplicates(X):
    return np.tile(X[:30], (len(X) // 30, 1, 1, 1))


def brightest_first(X):
    return X[np.argsort(-X.mean(axis=(1, 2, 3)))]


@pytest.mark.parametrize("arranged", [sorted_by_class, last_tenth_unlike, duplicates, brightest_first])
def test_order_and_repetition_do_not_matter(arranged):
    X = arranged(photographs(900, (12, 12, 3)))
    factors, _ = streamed_array(X, 5)
    assert factors.certificate.converged
    assert relative_errors(factors, X).max() <= 1e-4


@pytest.mark.parametrize(("offset", "dtype"), [(30_000, "uint16"), (1e6, "float64"), (-5e3, "float32")])
def test_a_small_change_on_a_large_offset(offset, dtype):
    s = 40.0 * 0.8 ** np.arange(20) * np.sqrt(600)
    X = stack_of_spectrum(600, (20, 20), s, offset=offset, dtype="float64")
    X = np.rint(X).astype(dtype) if dtype == "uint16" else X.astype(dtype)
    factors, _ = streamed_array(X)
    assert relative_errors(factors, X).max() <= 1e-4
    assert_allclose(factors.mean, reference(X).mean, rtol=0, atol=1e-6)


@cache
def white():
    return np.random.default_rng(0).integers(0, 256, (800, 20, 20), dtype=np.uint8)


def test_noise_is_slow_and_the_solver_says_so():
    with pytest.warns(ConvergenceWarning, match=r"max_passes=3.*tol="):
        factors, _ = streamed_array(white(), max_passes=3)
    certificate = factors.certificate
    assert not certificate.converged
    error = relative_errors(factors, white()).max()
    assert 1e-4 < error <= certificate.largest_error


@cache
def in_hundreds():
    X = stack_of_spectrum(300, (10, 12, 3), 1e3 * SPECTRA["inverse"], dtype="float32")
    return X, streamed_array(X, 5, chunks=100, tol=1e-9)[0]


@pytest.mark.parametrize(
    ("chunks", "scheduler"), [(1, "threads"), (37, "sync"), ((200, 1, 99), "threads"), (300, "sync")], ids=str
)
def test_chunks_and_schedulers_do_not_matter(chunks, scheduler):
    X, expected = in_hundreds()
    with dask.config.set(scheduler=scheduler):
        found, _ = streamed_array(X, 5, chunks=chunks, tol=1e-9)
    first = expected.singular_values[0]
    assert_allclose(found.singular_values, expected.singular_values, rtol=0, atol=1e-4 * first)
    assert_allclose(np.abs(np.sum(found.components * expected.components, axis=1)), 1, rtol=0, atol=1e-4)
    assert np.abs(np.abs(found.scores) - np.abs(expected.scores)).max() <= 1e-4 * first


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool"])
@pytest.mark.parametrize("max_passes", [1, 3])
def test_machines_without_products_of_bytes_give_the_same(max_passes, dtype, monkeypatch):
    monkeypatch.setattr(records, "FEW_PRODUCTS", 0)  # float32 for small stacks, too
    X = photographs(500, (20, 24), "uint8")
    X = X > 120 if dtype == "bool" else (X ^ (dtype == "int8") * np.uint8(128)).view(dtype)
    squares = reference(X.astype(np.float64)).singular_values[:5] ** 2
    found = []
    for compiled in (integers._compiled(), None):
        monkeypatch.setattr(integers, "_compiled", lambda compiled=compiled: compiled)
        factors, _ = streamed_array(X, 5, max_passes=max_passes)
        found.append(factors.singular_values**2)
        low, high = factors.certificate.explained_variance_bounds * (len(X) - 1)
        assert (low <= squares).all()
        assert (squares <= high).all()
    assert_allclose(*found, rtol=0, atol=1e-6 * squares[0])


def test_the_same_seed_repeats_bit_for_bit():
    X = photographs(300, (12, 12))
    twice = [ImagePCA(4, svd_solver="randomized", random_state=3).fit(X) for _ in range(2)]
    assert np.array_equal(twice[0].components_, twice[1].components_)
    other = ImagePCA(4, svd_solver="randomized", random_state=np.random.RandomState(7)).fit(X)
    assert_allclose(other.explained_variance_, twice[0].explained_variance_, rtol=1e-4)


# reads


@pytest.mark.parametrize("max_passes", [1, 2, 3, 6])
def test_reads_are_counted_and_limited(max_passes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        factors, source = streamed_array(white(), max_passes=max_passes)
    assert source.n_reads == max_passes
    assert factors.n_iter == max_passes - 1


def test_scores_come_without_a_read_and_are_those_of_transform():
    X = photographs(400, (16, 16, 3))
    factors, source = streamed_array(X, 5)
    before = source.n_reads
    expected = (X.reshape(400, -1) - factors.mean) @ factors.components.T
    assert np.abs(factors.scores - expected).max() <= 1e-5 * factors.singular_values[0]
    assert source.n_reads == before


def test_images_that_are_kept_are_read_once_and_iterated():
    X = white()
    source = counted(X, 100)
    pca = ImagePCA(3, svd_solver="randomized", random_state=0, max_passes=2).fit(source.data)
    assert source.n_reads == pca.n_passes_ == 1
    assert pca.n_iter_ > 1
    assert pca.certificate_.converged
    assert_allclose(pca.explained_variance_, reference(X).explained_variance(3), rtol=1e-4)


def test_reads_of_a_whole_pipeline():
    """One read to learn the mean image, one for the PCA, which keeps the images: the classifier costs none."""
    X = photographs(120, (14, 14))
    y = X.mean(axis=(1, 2)) > np.median(X.mean(axis=(1, 2)))
    source = counted(X, 20)
    steps = IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(5, svd_solver="randomized", random_state=0)
    pipeline = make_pipeline(*steps, LogisticRegression()).fit(source.data, y)
    assert source.n_reads == 2
    without = counted(X, 20)
    make_pipeline(steps[0], *steps[2:], LogisticRegression()).fit(without.data, y)
    assert without.n_reads == 1
    assert pipeline.score(source.data, y) > 0.5


# a single look


@pytest.mark.filterwarnings("error")
def test_a_single_read_gives_lower_bounds_and_the_exact_total():
    X = photographs(500, (14, 14, 3))
    factors, source = streamed_array(X, 5, max_passes=1)
    ref = reference(X)
    assert source.n_reads == 1
    assert factors.scores is None
    assert_allclose(factors.total, ref.total, rtol=1e-9)
    found, expected = factors.singular_values**2, ref.singular_values[:5] ** 2
    assert np.all(found <= expected * (1 + 1e-9))
    assert_allclose(found, expected, rtol=1e-2)
    certificate = factors.certificate
    assert not certificate.is_exact
    assert certificate.estimated_deficit is None
    assert np.all(certificate.explained_variance_bounds[1] * 499 >= expected)
    assert "at least" in repr(certificate)


# a share of the variance


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_a_share_is_reached_on_exact_variance(share):
    X = stack_of_spectrum(300, (20, 25), 1e3 * SPECTRA["inverse"], dtype="float32")
    factors, _ = streamed_array(X, share)
    ref = reference(X)
    explained = np.cumsum(ref.singular_values**2) / ref.total
    assert len(factors.singular_values) == np.searchsorted(explained, share, side="right") + 1
    assert (factors.singular_values**2).sum() > share * factors.total


def test_a_share_out_of_reach_warns_and_says_what_was_reached():
    with pytest.warns(ConvergenceWarning, match=r"n_components=0.99: \d+ components.*explain 0\.\d+ of the variance"):
        factors, _ = streamed_array(white(), 0.99, max_passes=3)
    assert 0.1 < (factors.singular_values**2).sum() / factors.total < 0.99


# peak memory


WIDE = (150, (128, 128), 10)
LONG = (3_000, (80, 80), 75)  # does not fit beside the basis with the least memory
MEMORY = {
    "kept": (WIDE, 8, {}),
    "read again": (LONG, 8, {"memory_limit": "least", "max_passes": 3}),
    "one image a block": ((60, (160, 160), 1), 8, {}),
    "one block": ((150, (128, 128), 150), 8, {}),
    "float64": ((100, (96, 96), 10, "float64"), 8, {}),
    "wide k": ((150, (96, 96), 15), 60, {}),
    "all components": ((60, (96, 96), 10), None, {}),
    "a share": ((100, (64, 64), 10), 0.5, {}),
    "many small images": ((2_000, (16, 16), 200), 8, {}),
    "one read": ((300, (96, 96), 15), 8, {"memory_limit": "least", "max_passes": 1}),
}


@pytest.mark.parametrize(("shape", "k", "options"), MEMORY.values(), ids=MEMORY.keys())
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_numpy_takes_no_more_than_planned(shape, k, options):
    stack, pca = noise(*shape), streaming(k, **options)
    if pca.memory_limit == "least":
        pca = tight(pca, stack)
        assert not pca.plan(stack).chosen.keeps_images
    planned = pca.plan(stack).peak_bytes
    streaming(1).fit(noise(8, (3, 2), 2))  # what is made once per process
    assert traced_peak(lambda: pca.fit(stack)) <= planned


@pytest.mark.parametrize(("shape", "k"), [(WIDE, 8), ((60, (96, 96), 10, "float64"), None)])
def test_images_in_memory_take_no_more_than_planned(shape, k):
    stack, pca = noise(*shape).compute(), streaming(k)
    planned = pca.plan(stack).peak_bytes
    assert traced_peak(lambda: pca.fit(stack)) <= planned


def test_squares_beneath_float32_take_no_more_than_planned(monkeypatch):
    """The first read is made again in float64, where little varies beside a bright pixel."""
    monkeypatch.setattr(records, "FEW_PRODUCTS", 0)
    X = (stack_of_spectrum(600, (96, 96), 100 * 0.7 ** np.arange(12), seed=3) * 1e-24).astype(np.float32)
    X[:, 0, 0] = 1
    stack = da.from_array(X, chunks=(20, -1, -1))
    pca = tight(streaming(10, max_passes=1), stack)
    plan = pca.plan(stack)
    assert not plan.chosen.keeps_images
    assert traced_peak(lambda: pca.fit(stack)) <= plan.peak_bytes
    assert pca.n_passes_ == 2


@linux
@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True])
def test_freed_memory_of_other_threads_stays_within_the_plan(earlier):
    """It took 470 MB where 189 MB were planned."""
    pca = streaming(10, memory_limit="190MB", max_passes=3)
    measured, planned, passes, _ = fresh_process(pca, "noise(600, (256, 256), 20, 'uint16')", 16, earlier)
    assert measured <= planned
    assert passes == 3


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("threads", "earlier"), [(2, False), (2, True), (16, True)])
@pytest.mark.parametrize(
    ("shape", "in_memory", "k", "options"),
    [
        ((40_000, (32, 32), 500), False, 10, {}),
        ((40_000, (32, 32), 500), True, 10, {}),
        ((40_000, (32, 32), 500), False, 10, {"memory_limit": "150MB", "max_passes": 3}),
        ((40, (1024, 1024), 4), False, 4, {}),
        ((600, (256, 256), 300), False, 10, {"memory_limit": "220MB"}),
        ((800, (256, 256, 3), 16), False, 10, {"memory_limit": "375MB", "max_passes": 3}),
        ((300, (256, 256, 3), 1), False, 10, {"memory_limit": "370MB", "max_passes": 2}),
        ((1_000, (256, 256), 20, "uint16"), False, 10, {"memory_limit": "195MB", "max_passes": 3}),
        ((500, (256, 256), 20, "float64"), False, 10, {"memory_limit": "290MB", "max_passes": 3}),
        ((500, (256, 256), 20, "float64"), True, 10, {}),
        ((600, (256, 256), 20), False, 200, {"max_passes": 3}),
        ((100, (256, 256), 10), False, None, {}),
        ((300, (128, 128), 10), False, 0.5, {}),
    ],
)
def test_a_fresh_process_takes_no_more_than_planned(shape, in_memory, k, options, threads, earlier):
    stack = f"noise(*{shape!r})" + ".compute()" * in_memory
    measured, planned, *_ = fresh_process(streaming(k, **options), stack, threads, earlier)
    assert measured <= planned


@pytest.mark.slow
@linux
@pytest.mark.parametrize("chunk", [16, 64])
def test_memory_does_not_grow_with_the_stack(chunk):
    lengths, peaks = np.array([1e9, 2e9, 4e9]), []
    pca = streaming(10, memory_limit="512MB", max_passes=3, tol=0.0)
    for n_bytes in lengths:
        measured, planned, passes, _ = fresh_process(pca, f"planted({int(n_bytes / 196_608)}, {chunk})")
        assert passes == 3
        assert measured <= planned <= 512e6
        peaks.append(measured)
    slope = np.polyfit(lengths, peaks, 1)[0]
    print(f"peaks {np.round(np.array(peaks) / 1e6)} MB, slope {slope:.4f}")
    assert slope <= 0.05


# a cluster


def test_a_cluster_gives_what_threads_give(client):
    stack = noise(600, (48, 48), 50, distinct=60)
    there, runner = streamed(stack, 4, tol=1e-9)
    with dask.config.set(scheduler="threads"):
        here, _ = streamed(stack, 4, tol=1e-9)
    assert there.n_iter == here.n_iter >= 1
    assert runner.n_passes == 1 + there.n_iter
    assert_allclose(there.singular_values**2, here.singular_values**2, rtol=1e-6)
    assert_allclose(np.abs(np.sum(there.components * here.components, axis=1)), 1, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["512MB", "auto"])
def test_a_cluster_neither_spills_nor_restarts(limit):
    stack = planted(20_480, 64)
    pca = streaming(10, memory_limit=limit, max_passes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, memory_limit="1GB", dashboard_address=":0"
            ) as cluster,
            Client(cluster) as client,
        ):
            before = client.run(worker_pid)
            pca.fit(stack)
            assert client.run(worker_pid) == before
            peaks, spilled = client.run(worker_peak), client.run(bytes_spilled)
        print(limit, "peaks", peaks, "spilled", spilled, "read", pca.n_passes_)
        assert not any(spilled.values())
        here = streaming(10, memory_limit=limit, max_passes=3).fit(stack)
    assert_allclose(pca.explained_variance_, here.explained_variance_, rtol=1e-6)


def worker_pid():
    return os.getpid()


def worker_peak():
    """Megabytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024


def bytes_spilled(dask_worker):
    """Ever written to disk for want of memory."""
    return dask_worker.data.cumulative_metrics.get(("disk-write", "bytes"), 0)
