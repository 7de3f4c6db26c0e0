"""Plans: the choice of a solver, and peak memory below the limit, from metadata alone."""

import pickle
import re

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgstack_ml import ImagePCA, MemoryLimitError, StackCenterer
from imgstack_ml.decomposition import streaming
from imgstack_ml.decomposition.krylov_basis import KrylovBasis
from imgstack_ml.decomposition.plan import plan_fit, tall_height
from imgstack_ml.decomposition.records import FitSize
from imgstack_ml.decomposition.solvers import SOLVERS
from imgstack_ml.passes.batches import Batch, Layout, plan_groups
from imgstack_ml.passes.memory import Allowance
from tests.lib.stacks import assert_fitted, counted, photographs, stack_of_spectrum


@st.composite
def sizes(draw):
    n, p = draw(st.integers(2, 50_000)), draw(st.integers(1, 3_000_000))
    k = draw(st.integers(1, min(n, p, 300)))
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint16", "float32", "float64"])))
    wanted = draw(st.just(k) | st.just(None) | st.floats(0.01, 0.99))
    passes, extra = draw(st.integers(1, 10)), draw(st.integers(0, 50))
    block = draw(st.none() | st.integers(1, n))
    return FitSize.of((n, p), dtype, wanted, block, max_passes=passes, n_oversamples=extra)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(sizes(), st.sampled_from(["auto", *SOLVERS]), st.integers(10, 45))
def test_a_plan_stays_below_its_limit_or_proposes_one_that_works(size, solver, log_limit):
    limit = 2**log_limit
    try:
        plan = plan_fit(size, solver, Allowance(limit, limit))
    except MemoryLimitError as error:
        proposed = str(error).split("memory_limit='")[1].split("'")[0]
        other = str(error).split("svd_solver='")[-1].split("'")[0]
        limit = dask.utils.parse_bytes(proposed)
        plan = plan_fit(size, other, Allowance(limit, limit))
    assert plan.peak_bytes <= limit
    assert plan.n_passes >= 1
    assert solver in ("auto", plan.solver)
    assert "passes" in repr(plan)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(sizes(), st.sampled_from(["gram", "randomized"]), st.integers(20, 44))
def test_more_memory_never_means_more_reads(size, solver, log_limit):
    passes = []
    for limit in (2**log_limit, 2 ** (log_limit + 1)):
        try:
            passes.append(plan_fit(size, solver, Allowance(limit, limit)).n_passes)
        except MemoryLimitError:
            assume(False)
    assert passes[0] >= passes[1] - 1e-9


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_a_limit_too_small_is_refused_before_any_read_and_the_line_proposed_works(solver):
    source = counted(photographs(80, (12, 10), "uint8"), 20)
    with pytest.raises(MemoryLimitError, match="Nothing was read") as refusal:
        ImagePCA(3, svd_solver=solver, memory_limit="2kB").fit(source.data)
    assert not source.reads
    line = str(refusal.value).split("Set ")[1].split(")")[0] + ")"
    assert line.startswith("ImagePCA(")
    pca = eval(line, {"ImagePCA": ImagePCA}).set_params(n_components=3)
    assert_fitted(pca.fit(source.data), photographs(80, (12, 10), "uint8"))


def test_auto_streams_what_is_too_large_for_the_exact_solvers():
    stack = da.zeros((20_032, 256, 256, 3), dtype=np.uint8, chunks=(64, 256, 256, 3))
    assert ImagePCA(10, memory_limit="1GB").plan(stack).solver == "randomized"
    assert ImagePCA(10).plan(stack[:200]).solver == "gram"
    assert ImagePCA(10).plan(da.zeros((100_000, 28, 28), chunks=(1_000, 28, 28))).solver == "covariance_eigh"


def test_a_plan_says_that_a_centerer_costs_a_read():
    stack = counted(photographs(60, (8, 8)), 10).data
    centred = StackCenterer().fit(stack).transform(stack)
    assert "took a read" in repr(ImagePCA(3).plan(centred))
    assert "took a read" in ImagePCA(3).plan(centred)._repr_html_()
    assert "took a read" not in repr(ImagePCA(3).plan(stack))


def test_a_plan_shows_what_does_not_fit_and_the_one_chosen():
    stack = da.zeros((20_032, 256, 256, 3), dtype=np.uint8, chunks=(64, 256, 256, 3))
    plan = ImagePCA(10, memory_limit="1GB").plan(stack)
    assert plan.peak_bytes == plan.chosen.peak_bytes <= plan.memory_limit == 10**9
    assert {one.solver for one in plan.considered} == set(SOLVERS)
    for one in plan.considered:
        fits = one.peak_bytes <= plan.memory_limit
        mark = "->" if one is plan.chosen else " " if fits else "x"
        assert f"{mark}{one.solver} " in repr(plan)
    assert not all(one.peak_bytes <= plan.memory_limit for one in plan.considered)
    assert "x: does not fit the memory limit" in repr(plan)


def test_a_notebook_shows_plans_in_words():
    stack = da.zeros((20_032, 256, 256, 3), dtype=np.uint8, chunks=(64, 256, 256, 3))
    large = ImagePCA(10, memory_limit="1GB").plan(stack)
    cells = re.findall("<t[dh][^>]*>([^<]*)", large._repr_html_())
    first = cells.index("randomized")
    assert cells[first + 1] == "3 reads"
    estimate = large.n_passes * stack.nbytes / 2e8 + large.chosen.seconds
    assert float(cells[first + 3].replace(",", "")) == pytest.approx(estimate, rel=0.06)
    assert cells[first + 5] == "chosen: the fastest that fits the memory limit"
    assert cells[cells.index("tsqr") + 5] == "does not fit the memory limit"
    small = ImagePCA(10).plan(stack[:200])
    for words in ("1 read<", "exact", "chosen: the fastest", "slower, "):
        assert words in small._repr_html_()
    asked = ImagePCA(10, svd_solver="randomized").plan(stack[:200])
    assert "chosen: svd_solver=&#x27;randomized&#x27; asks for it" in asked._repr_html_()
    assert "not asked for" in asked._repr_html_()


@pytest.mark.parametrize(("short", "tall", "height"), [(10, 1_000, 100), (10, 200, 44), (10, 15, 15), (10, 25, 20)])
def test_a_tall_block_is_as_large_as_all_triangular_factors(short, tall, height):
    assert tall_height(short, tall) == height


def test_a_plan_leaves_the_estimator_alone():
    X = photographs(20, (6, 5))
    pca = ImagePCA(2).fit(X)
    before = pickle.dumps(pca)
    plan = pca.plan(photographs(50, (4, 4, 3)))
    assert pickle.dumps(pca) == before
    assert plan.solver in repr(plan)
    assert plan.peak_bytes <= plan.memory_limit
    assert not hasattr(ImagePCA(2), "n_features_in_")


def test_blocks_of_one_image_share_batches_where_results_are_larger_than_the_stack():
    stack = da.zeros((2000, 12, 12), dtype="uint8", chunks=(1, 12, 12))
    cost = ImagePCA(3, svd_solver="covariance_eigh").plan(stack).chosen
    groups = plan_groups(Layout(range(2001), 144), Batch(0, 2000), cost.reading_bytes, 3 * 8 * 144**2).groups
    assert sum(map(len, groups)) <= 4


@pytest.mark.parametrize("lazy", [False, True])
def test_auto_goes_over_to_the_exact_solver_where_the_streaming_one_does_not_converge(lazy):
    """White noise: its variances hardly differ. The result is that of the exact solver, to the last bit."""
    X = np.random.default_rng(0).integers(0, 256, (1_000, 40, 40), dtype=np.uint8)
    source = counted(X, 200)
    images = source.data if lazy else X
    auto, exact = (ImagePCA(2, svd_solver=solver, random_state=0) for solver in ("auto", "gram"))
    plan = auto.plan(images)
    assert (plan.solver, plan.chosen.instead.solver) == ("randomized", "gram")
    assert f"'gram' goes on where more than {plan.chosen.patience} products would be needed" in repr(plan)
    scores = np.asarray(auto.fit_transform(images))
    assert source.n_reads == lazy
    assert (auto.svd_solver_, auto.n_iter_, auto.n_passes_, auto.certificate_) == ("gram", 0, 1, None)
    np.testing.assert_array_equal(scores, exact.fit_transform(images))
    assert np.array_equal(auto.components_, exact.components_)
    assert np.array_equal(auto.explained_variance_, exact.explained_variance_)


def test_auto_gives_up_early_where_convergence_is_out_of_reach(monkeypatch):
    X = np.random.default_rng(0).integers(0, 256, (1_000, 40, 40), dtype=np.uint8)
    made = []
    multiply = KrylovBasis.multiply
    monkeypatch.setattr(KrylovBasis, "multiply", lambda basis: made.append(1) or multiply(basis))
    pca = ImagePCA(10, random_state=0)
    assert pca.fit(X).svd_solver_ == "gram"
    assert 1 < len(made) < pca.plan(X).chosen.patience


@pytest.mark.parametrize(
    ("far", "left"),
    [
        ([1e4], 0),  # nothing is known
        ([1e4, 1e3], 3),
        ([1e8, 1e4, 1e4 / 2, 1e4 / 4, 1e4 / 8, 1e4 / 16, 1e4 / 32], np.log2(1e4 / 32)),  # the last five count
        ([1e4, 1e2, 90, 80], np.log(80) / np.log(1e2)),  # the fastest of them
        ([50, 60], np.inf),
        ([np.inf, 1e4], 0),  # a share of the variance was not reached before
        ([1e4, np.inf], 0),
    ],
)
def test_products_left_follow_the_fastest_of_the_last_ones(far, left):
    assert streaming._products_left(far) == pytest.approx(left)


def test_auto_stays_with_the_streaming_solver_that_converges():
    X = stack_of_spectrum(1_500, (48, 48), [1e4 * 0.5**j for j in range(12)], offset=128).astype(np.uint8)
    auto, streamed = (ImagePCA(2, svd_solver=s, random_state=0).fit(X) for s in ("auto", "randomized"))
    assert auto.svd_solver_ == "randomized"
    assert auto.certificate_.converged
    assert np.array_equal(auto.components_, streamed.components_)


def test_nothing_replaces_a_solver_that_was_asked_for_nor_one_that_reads_again():
    stack = da.zeros((1_500, 48, 48), dtype=np.uint8, chunks=(100, 48, 48))
    assert ImagePCA(2, svd_solver="randomized").plan(stack).chosen.instead is None
    large = da.zeros((20_032, 256, 256, 3), dtype=np.uint8, chunks=(64, 256, 256, 3))
    assert ImagePCA(10, memory_limit="1GB").plan(large).chosen.instead is None


@pytest.mark.parametrize(("n", "side", "dtype"), [(1_500, 48, "uint8"), (3_000, 128, "uint16"), (3_000, 128, "uint8")])
def test_the_time_before_the_exact_solver_is_at_most_its_own(n, side, dtype):
    cost = ImagePCA(5, memory_limit="20GB").plan(da.zeros((n, side, side), dtype=dtype, chunks=(64, -1, -1))).chosen
    first = cost.seconds - cost.n_products * cost.product_seconds
    spent = first + cost.patience * cost.product_seconds
    assert cost.instead.seconds - cost.product_seconds < spent <= cost.instead.seconds
