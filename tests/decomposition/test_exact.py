"""The exact solvers: precision where it is hard, reads counted, peak memory as planned.

Here are "gram", "covariance_eigh" and what all exact solvers have in common; see also test_tsqr.py.
"""

from functools import cache

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml import ImagePCA, RankWarning
from imgstack_ml.linalg import integers
from imgstack_ml.passes.blas import one_blas_thread
from tests.lib.fits import EXACT, by_panels, fresh_process, linux, noise, traced_peak, unkept
from tests.lib.stacks import assert_fitted, counted, photographs, reference, stack_of_spectrum, tolerance

SHAPES = [(60, 12, 10), (400, 5, 4)]  # more pixels than images, and fewer


def in_blocks(X, n_blocks=7):
    """X as a lazy array in so many blocks of images, or some more, the last of which is smaller."""
    return da.from_array(X, chunks=(max(2, len(X) // n_blocks), *X.shape[1:]))


# digits


LAYOUTS = [("spread", "few"), ("few", "spread"), ("drift", "spread")]
SIZES = [("gram", 9, 20_000), ("gram", 200, 51_000), ("covariance_eigh", 20_000, 9), ("covariance_eigh", 60_000, 190)]
LAST = [8e-2, 4e-2, 1.2e-2]


@pytest.mark.parametrize(
    ("solver", "n", "p", "images", "pixels", "last"),
    [(*size, *LAYOUTS[(i + j) % 3], last) for i, size in enumerate(SIZES) for j, last in enumerate(LAST)],
)
def test_five_digits_wherever_float32_gives_way_to_float64(solver, n, p, images, pixels, last):
    """Products in float32 serve large singular values; where they stop serving, the solver must know."""
    s = np.array([1, 0.5, 0.1, last]) * 1e4
    X = stack_of_spectrum(n, (p,), s, dtype="float32", images=images, pixels=pixels)
    pca = ImagePCA(4, svd_solver=solver).fit(X)
    assert_allclose(pca.explained_variance_, s**2 / (n - 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("n", "p", "panel", "images", "pixels", "last"),
    [
        (*size, *layout, LAST[(i + j) % 2])
        for i, size in enumerate([(12, 2_000, 4), (200, 51_000, 100)])
        for j, layout in enumerate(LAYOUTS)
    ],
)
def test_five_digits_by_panels(n, p, panel, images, pixels, last):
    s = np.array([1, 0.5, 0.1, last]) * 1e4
    X = stack_of_spectrum(n, (p,), s, dtype="float32", images=images, pixels=pixels)
    found, _, _ = by_panels(X, panel, panel // 4, 4)
    assert_allclose(found.singular_values**2, s**2, rtol=1e-5)


@pytest.mark.parametrize(("images", "pixels"), LAYOUTS)
@pytest.mark.parametrize(
    ("n", "p", "solver"),
    [
        (12, 3_000, "gram"),
        (12, 3_000, "tsqr"),
        (12, 3_000, "panels"),
        (90, 100, "gram"),
        (90, 100, "covariance_eigh"),
        (3_000, 12, "covariance_eigh"),
        (3_000, 12, "tsqr"),
    ],
)
def test_ten_digits_in_float64_down_to_a_thousandth(n, p, solver, images, pixels):
    s = np.array([1, 0.3, 0.01, 1.1e-3]) * 1e4
    X = stack_of_spectrum(n, (p,), s, images=images, pixels=pixels)
    if solver == "panels":  # which look once: rounding of the largest eigenvalue is all there is
        assert_allclose(by_panels(X, 4, 2, 4)[0].singular_values ** 2, s**2, rtol=1e-8, atol=1e-15 * s[0] ** 2)
    else:
        pca = ImagePCA(4, svd_solver=solver).fit(in_blocks(X))
        assert_allclose(pca.singular_values_**2, s**2, rtol=1e-10)


@cache
@one_blas_thread()
def large_photographs(shape, dtype):
    """A stack and the squares of its leading singular values, by the smaller matrix of inner products in float64."""
    X = photographs(shape[0], shape[1:], dtype)
    rows = X.reshape(len(X), -1) - X.reshape(len(X), -1).mean(axis=0)
    rows = rows if len(rows) < rows.shape[1] else rows.T
    return X, np.linalg.eigvalsh(rows @ rows.T)[:-5:-1]


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint8 without kernels", pytest.param("uint16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("shape", "solver"),
    [((280, 160, 170), "gram"), ((280, 160, 170), "panels"), ((30_000, 16, 17), "covariance_eigh")],
)
def test_stacks_large_enough_for_float32_products(shape, solver, dtype, monkeypatch):
    """Of 8-bit images they are exact, where the processor multiplies bytes."""
    X, expected = large_photographs(shape, "uint16" if dtype == "uint16" else "uint8")
    if dtype == "int8":
        X = (X ^ 128).view("int8")
    if dtype == "uint8 without kernels":
        monkeypatch.setattr(integers, "_compiled", lambda: None)
    if solver == "panels":
        s = by_panels(X, 140, 35, 4)[0].singular_values
    else:
        lazy = da.from_array(X, chunks=(shape[0] // 7, 90, 100))
        s = ImagePCA(4, svd_solver=solver).fit(lazy).singular_values_
    assert_allclose(s**2, expected, rtol=1e-11 if integers.are_fast(X.dtype) else 1e-5)


@pytest.mark.parametrize("solver", ["gram", "covariance_eigh"])
@pytest.mark.parametrize("shape", [(60, 40, 20), (600, 5, 8)], ids=["wide", "tall"])
def test_squares_that_lose_small_singular_values_give_way_to_stages(solver, shape):
    X = stack_of_spectrum(shape[0], shape[1:], np.geomspace(1, 1e-7, 8) * 300)
    pca = ImagePCA(8, svd_solver=solver).fit(in_blocks(X))
    assert_allclose(pca.singular_values_, reference(X).singular_values[:8], rtol=1e-6)
    assert pca.n_passes_ == 1


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("shape", [(40, 12, 10), (400, 5, 4)], ids=["wide", "tall"])
def test_a_small_change_on_a_large_offset(solver, shape):
    """uint16 with mean 30,000 and standard deviation 10; float32 with offset 1e6."""
    rng = np.random.default_rng(0)
    fine = photographs(*shape[:1], shape[1:], "float64") / 1000
    fine = 10 * (fine - fine.mean()) / fine.std()
    single = (1e6 + fine + rng.standard_normal(shape)).astype(np.float32)
    for X in ((30_000 + fine).round().astype(np.uint16), single, 1e9 + fine):
        lazy = da.from_array(X, chunks=(7, *shape[1:]))
        assert_fitted(ImagePCA(4, svd_solver=solver).fit(lazy), X, rtol=max(1e-9, tolerance(X.dtype)))


def drifting(X):
    return X + np.linspace(0, 300, len(X)).reshape(-1, 1, 1)


def first_is_an_outlier(X):
    X = X.copy()
    X[0] += 5_000
    return X


def sorted_by_class(X):
    return X + 500.0 * (np.arange(len(X)) * 5 // len(X)).reshape(-1, 1, 1)


def last_tenth_differs(X):
    X = X.copy()
    X[-len(X) // 10 :] = X[-len(X) // 10 :, ..., ::-1] * 30
    return X


ARRANGED = [drifting, first_is_an_outlier, sorted_by_class, last_tenth_differs]


@pytest.mark.parametrize(
    ("arranged", "solver", "shape"),
    [
        (arranged, solver, SHAPES[(i + j) % 2])
        for i, arranged in enumerate(ARRANGED)
        for j, solver in enumerate([*EXACT, "panels"])
    ],
)
def test_order_does_not_matter(arranged, solver, shape):
    X = arranged(photographs(shape[0], shape[1:], "float64") / 10).astype(np.float32)
    if solver == "panels":
        found, _, _ = by_panels(X, 25 * len(X) // 60, len(X) // 8, 4)
        assert_allclose(found.singular_values**2, reference(X).singular_values[:4] ** 2, rtol=1e-5)
    else:
        assert_fitted(ImagePCA(4, svd_solver=solver).fit(in_blocks(X)), X)


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1e-19, 1e-17, 1e17, 1e25])
def test_the_unit_of_intensity_does_not_matter_in_float32(solver, scale):
    """Squares of 1e-21 are no float32 any more."""
    X = (stack_of_spectrum(30, (400,), [1, 0.5, 0.2, 0.1]) * scale).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        pca = ImagePCA(4, svd_solver=solver).fit(X)
    assert_allclose(pca.singular_values_ / scale, reference(X / scale).singular_values[:4], rtol=1e-5)


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("scale", [1e-140, 1e140])
def test_the_unit_of_intensity_does_not_matter_in_float64(solver, scale):
    X = stack_of_spectrum(30, (40,), [1, 0.5, 0.2, 0.1]) * scale
    pca = ImagePCA(4, svd_solver=solver).fit(X)
    assert_allclose(pca.singular_values_ / scale, [1, 0.5, 0.2, 0.1], rtol=1e-10)


PANELS = [(1, 10, 5), (3, 10, (3, 1, 9, 4, 10, 2)), (6, 6, 3), (3, 28, 1)]


@pytest.mark.parametrize(
    ("dtype", "k", "panel", "chunks"),
    [
        (dtype, *PANELS[(i + shift) % 4])
        for i, dtype in enumerate(["uint8", "uint16", "float32", "float64"])
        for shift in range(2)
    ],
)
def test_panels_agree_with_numpy(dtype, k, panel, chunks):
    X = photographs(29, (9, 8), dtype) if chunks != 5 else photographs(30, (9, 8), dtype)
    found, _, _ = by_panels(X, panel, chunks, k)
    ref, rtol = reference(X), tolerance(dtype)
    assert_allclose(found.singular_values**2, ref.singular_values[:k] ** 2, rtol=rtol)
    assert_allclose(np.abs(np.sum(found.components * ref.components[:k], axis=1)), 1, atol=1e-6)
    assert_allclose(found.mean, ref.mean, rtol=1e-7)
    assert_allclose(found.total, ref.total, rtol=rtol)
    scores = (X.reshape(len(X), -1).astype(float) - ref.mean) @ found.components.T.astype(float)
    assert_allclose(found.scores, scores, rtol=0, atol=1e-5 * ref.singular_values[0])


@pytest.mark.parametrize("last", [1e-4, 1e-6, 1e-10])
def test_panels_give_no_noise_for_a_component(last):
    """What the Gram matrix cannot see has variance 0; what it sees is right to rounding of the largest."""
    s = np.append(np.geomspace(1, 1e-3, 4), last)
    X = stack_of_spectrum(30, (9, 8), s)
    found, _, _ = by_panels(X, 10, 5, 5)
    assert_allclose(found.singular_values[:4] ** 2, s[:4] ** 2, rtol=1e-9)
    if found.singular_values[4] > 0:
        assert_allclose(found.singular_values[4], last, rtol=1e-3)
    assert found.rank == np.count_nonzero(found.singular_values)
    assert_allclose(found.components @ found.components.T, np.eye(5), atol=1e-9)


@pytest.mark.parametrize("duplicated", [False, True])
def test_panels_of_low_rank(duplicated):
    X = photographs(24, (9, 8), "uint8")
    X = X[np.arange(24) % 4] if duplicated else np.full_like(X, 7)
    found, _, _ = by_panels(X, 8, 4, 6)
    rank = 3 if duplicated else 0
    assert found.rank == rank
    assert_allclose(found.singular_values[:rank], reference(X).singular_values[:rank], rtol=1e-6)
    assert np.all(found.singular_values[rank:] == 0)
    assert_allclose(found.components @ found.components.T, np.eye(6), atol=1e-5)


# reads


@pytest.mark.parametrize(
    ("solver", "shape", "dtype", "scheduler"),
    [
        (solver, shape, ["uint8", "float64"][i % 2], ["synchronous", "threads"][(i + j) % 2])
        for i, solver in enumerate(EXACT)
        for j, shape in enumerate(SHAPES)
    ],
)
def test_every_solver_reads_each_image_once(solver, shape, dtype, scheduler):
    source = counted(photographs(shape[0], shape[1:], dtype), shape[0] // 6)
    pca = ImagePCA(3, svd_solver=solver)
    plan = pca.plan(source.data)
    assert not source.reads
    with dask.config.set(scheduler=scheduler):
        pca.fit(source.data)
    assert set(source.reads.values()) == {1}
    assert len(source.reads) == shape[0]
    assert plan.n_passes == pca.n_passes_ == 1


def test_repairing_a_bad_choice_of_precision_costs_no_read():
    source = counted(photographs(40, (12, 10), "uint8")[np.arange(40) % 5], 8)
    with pytest.warns(RankWarning):
        ImagePCA(10, svd_solver="gram").fit(source.data)
    assert source.n_reads == 1


@pytest.mark.parametrize(("panel", "chunks"), [(10, 10), (20, 5), (30, 1), (40, 5), (40, 10)])
def test_panels_read_what_they_say(panel, chunks):
    n = 60
    _, runner, source = by_panels(photographs(n, (20, 15), "uint8"), panel, chunks, 3)
    panels = -(-n // panel)
    assert source.n_reads == pytest.approx(panels - panel * panels * (panels - 1) / (2 * n) + 1)
    assert runner.n_passes == pytest.approx(source.n_reads)


def test_uneven_panels_count_what_they_read():
    _, runner, source = by_panels(photographs(29, (20, 15), "uint8"), 10, (3, 1, 9, 4, 10, 2), 3)
    assert runner.n_passes == pytest.approx(source.n_reads)


@pytest.mark.parametrize("last", [0.2, 1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_covariance_of_a_stack_that_does_not_fit_counts_its_reads(last, dtype):
    X = stack_of_spectrum(400, (5, 4), np.append(np.geomspace(1, last, 3), last / 2), dtype=dtype)
    found, runner, source = unkept("covariance_eigh", X, 4, 50)
    assert runner.n_passes == source.n_reads
    assert source.n_reads >= 1
    assert_allclose(found.singular_values, reference(X).singular_values[:4], rtol=1e-5)


@pytest.mark.slow
def test_a_limit_makes_panels_and_the_plan_says_so():
    """A stack of 300 MB of which some images fit at a time, found with `plan` alone."""
    y, x = np.ogrid[:1024, :1024]
    waves = [125 + 90 * np.sin(y / 90 + j) + 30 * np.cos(x * j / 200) for j in range(5)]
    waves = np.array(waves).astype(np.uint8)

    def make(start, stop):
        return waves[np.arange(start, stop) ** 2 % 7 % 5]

    source = counted((make, (300, 1024, 1024), np.uint8), 5)
    pca = ImagePCA(2, svd_solver="gram", memory_limit=limit_for_panels(source.data, 3))
    plan = pca.plan(source.data)
    assert not source.reads
    pca.fit(source.data)
    assert source.n_reads == pytest.approx(pca.n_passes_) == pytest.approx(plan.n_passes)
    assert plan.n_passes > 2
    whole = ImagePCA(2, svd_solver="gram", memory_limit="2GB").fit(source.data)
    assert whole.n_passes_ == 1
    assert_allclose(pca.explained_variance_, whole.explained_variance_, rtol=1e-5)
    assert_allclose(np.abs(np.sum(pca.components_ * whole.components_, axis=1)), 1, atol=1e-6)


def limit_for_panels(X, panels):
    """Bytes that leave room for 1/panels of the images at the most, and for some."""
    limit = 2**34
    while ImagePCA(2, svd_solver="gram", memory_limit=limit).plan(X).chosen.panel * (panels - 1) >= len(X):
        limit = int(0.98 * limit)
    return limit


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("shape", [(40, 12, 10), (160, 4, 5)], ids=["wide", "tall"])
def test_results_repeat_bit_for_bit(solver, shape):
    stack = da.from_array(photographs(shape[0], shape[1:], "uint8"), chunks=(7, 5, 5))
    with dask.config.set(scheduler="threads"):
        first = ImagePCA(4, svd_solver=solver).fit(stack)
        for _ in range(3):
            again = ImagePCA(4, svd_solver=solver).fit(stack)
            for name in ("components_", "explained_variance_", "mean_"):
                assert_array_equal(getattr(again, name), getattr(first, name))


# memory


WIDE = (40, (192, 192), 5)
TALL = (6_000, (8, 16), 500)
MEMORY = {
    "gram": ("gram", WIDE, {}, 8),
    "gram, float32": ("gram", (*WIDE, "float32"), {}, 8),
    "gram, float64": ("gram", (*WIDE, "float64"), {}, 8),
    "gram, all components": ("gram", WIDE, {}, None),
    "gram, a share": ("gram", WIDE, {}, 0.8),
    "gram, one distinct image": ("gram", (40, (384, 384), 5), {"distinct": 1}, 40),
    "gram, few distinct images": ("gram", WIDE, {"distinct": 9}, 30),
    "covariance": ("covariance_eigh", TALL, {}, 8),
    "covariance, float64": ("covariance_eigh", (*TALL, "float64"), {}, None),
}


@pytest.mark.parametrize(("solver", "shape", "options", "k"), MEMORY.values(), ids=MEMORY.keys())
@pytest.mark.filterwarnings("ignore::imgstack_ml.RankWarning")
def test_numpy_takes_no_more_than_planned(solver, shape, options, k):
    stack = noise(*shape, **options)
    pca = ImagePCA(k, svd_solver=solver)
    planned = pca.plan(stack).peak_bytes
    ImagePCA(1, svd_solver=solver).fit(noise(4, (3, 2), 2))  # what is made once per process
    assert traced_peak(lambda: pca.fit(stack)) <= planned


@pytest.mark.parametrize(
    ("solver", "shape"),
    [("gram", (600, (30, 40), 50)), ("tsqr", (200, (96, 96), 20)), ("covariance_eigh", (4_000, (18, 18), 100))],
)
def test_many_threads_take_no_more_than_planned(solver, shape):
    stack = noise(*shape)
    with dask.config.set(num_workers=16):
        pca = ImagePCA(5, svd_solver=solver)
        planned = pca.plan(stack).peak_bytes
        assert traced_peak(lambda: pca.fit(stack)) <= planned


VIEWS = {
    "crop": lambda x: x[:, ::8, 10:30],
    "transposed": lambda x: x.transpose(0, 2, 1),
    "flipped": lambda x: x[:, ::-1],
    "every third": lambda x: x[::3],
}


@pytest.mark.parametrize(
    ("solver", "view"), [*(("gram", view) for view in VIEWS), ("tsqr", "crop"), ("tsqr", "every third")]
)
def test_views_hold_no_more_than_planned(solver, view):
    """A block that is a view keeps all of its base alive unless it is copied."""
    stack = VIEWS[view](noise(48, (256, 320), 4))
    pca = ImagePCA(4, svd_solver=solver)
    planned = pca.plan(stack).peak_bytes
    reading = 2 * 2 * 4 * 256 * 320  # two blocks decoded whole at a time, as they came and copied
    assert traced_peak(lambda: pca.fit(stack)) <= planned + reading


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    ("solver", "shape", "k", "limit"),
    [
        ("gram", (600, (512, 512), 20), 10, "auto"),
        ("gram", (300, (512, 512), 10, "float32"), 10, "auto"),
        ("gram", (400, (1024, 1024), 8), 4, "340MB"),
        ("gram", (100, (512, 512), 10), None, "auto"),
        ("covariance_eigh", (400_000, (16, 16), 4_000), 10, "auto"),
        ("covariance_eigh", (400_000, (16, 16), 4_000), 10, "150MB"),
        ("covariance_eigh", (100_000, (24, 24), 2_000, "float32"), 300, "400MB"),
        ("tsqr", (200, (512, 512), 10), 10, "auto"),
        ("tsqr", (100, (512, 512), 10, "float64"), None, "auto"),
        ("tsqr", (400_000, (16, 16), 4_000), 10, "450MB"),
    ],
)
def test_a_fresh_process_takes_no_more_than_planned(solver, shape, k, limit):
    pca = ImagePCA(k, svd_solver=solver, memory_limit=limit)
    measured, planned, passes, planned_passes = fresh_process(pca, f"noise(*{shape!r})")
    assert passes == pytest.approx(planned_passes)
    assert measured <= planned


@pytest.mark.parametrize(("dtype", "small", "large"), [("float32", 1e-20, 1e20), ("float64", 1e-100, 1e100)])
@pytest.mark.parametrize("first", ["small", "large", "zero"])
def test_panels_in_units_far_apart(dtype, small, large, first):
    factors = {
        "small": [small, small, large, small],
        "large": [large, small, small, large],
        "zero": [0, small, 0, large],
    }
    X = np.random.default_rng(0).random((40, 6, 50)) * np.repeat(factors[first], 10)[:, None, None]
    found, _, _ = by_panels(X.astype(dtype), 10, 5, 3)
    expected = reference(X / large).singular_values[:3]
    assert_allclose(
        found.in_intensities().singular_values / large, expected, rtol=1e-5 if dtype == "float32" else 1e-10
    )
