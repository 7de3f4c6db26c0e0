"""Images from chosen components, residuals, and statistics of outliers, against NumPy in float64."""

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from imgstack_ml import ComponentFilter, ImagePCA, NonFiniteError, StoreError, open_stack, save_stack, write_images
from imgstack_ml.decomposition.projection import rounded
from tests.lib.fits import by_panels, streamed, unkept
from tests.lib.grids import CHUNKS, chunked
from tests.lib.images import write_folder
from tests.lib.stacks import assert_residual_variance, counted, photographs, stack_of_spectrum

# Of a pixel's variance; components in float32 are known to 6e-8, their sums to a few more.
ROUNDING = {"uint8": 3e-6, "float64": 2e-14}


def drawn(pca, X, components=None):
    """The reconstruction of rows, (n, p), in float64."""
    A = np.asarray(X, np.float64).reshape(len(X), -1) - pca.mean_
    axes = pca.components_.astype(np.float64)
    axes = axes if components is None else axes[list(components)]
    return pca.mean_ + A @ axes.T @ axes


@pytest.mark.parametrize("components", [None, [0], [-1, 2], [], range(3), np.array([1])], ids=str)
@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 5, 3), "uint8"), ((6, 5), "uint16"), ((30,), "float64"), ((6, 5), "int32")], ids=str
)
def test_images_are_drawn_from_chosen_components(components, shape, dtype):
    X = photographs(40, shape, "uint8").astype(dtype)
    X = X * 40 if dtype == "uint16" else X
    pca = ImagePCA(5).fit(X)
    expected = drawn(pca, X, components).reshape(X.shape)
    atol = 1e-12 * X.max() if pca.components_.dtype == np.float64 else 1e-6 * X.max()
    for how in CHUNKS if components is None else ["numpy", "uneven"]:
        data = chunked(X, how)
        found, left = pca.reconstruct(data, components), pca.residuals(data, components)
        assert found.dtype == left.dtype == pca.components_.dtype
        assert isinstance(found, da.Array) == isinstance(left, da.Array) == (how != "numpy")
        assert_allclose(np.asarray(found), expected, rtol=0, atol=atol)
        assert_allclose(np.asarray(left), X - expected, rtol=0, atol=atol)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_each_is_lazy_and_reads_once(scheduler):
    X = photographs(30, (6, 5))
    pca, source = ImagePCA(3).fit(X), counted(X, 7)
    lazy = [pca.reconstruct(source.data, [0], "uint8"), pca.residuals(source.data), pca.outlier_statistics(source.data)]
    assert not source.reads
    expected = [pca.reconstruct(X, [0], "uint8"), pca.residuals(X), pca.outlier_statistics(X)]
    for number, (one, other) in enumerate(zip(lazy, expected, strict=True), start=1):
        (found,) = dask.compute(one, scheduler=scheduler)
        assert set(source.reads.values()) == {number}
        assert_allclose(np.asarray(found), np.asarray(other), rtol=1e-5, atol=1e-5)


def test_on_a_cluster(client):
    X = photographs(30, (6, 5))
    pca, lazy = ImagePCA(3).fit(X), da.from_array(X, chunks=(7, 6, 5))
    assert_array_equal(pca.reconstruct(lazy, dtype="uint8").compute(), pca.reconstruct(X, dtype="uint8"))
    assert_allclose(pca.residuals(lazy).compute(), pca.residuals(X), atol=1e-4)
    found = dask.compute(*pca.outlier_statistics(lazy))
    assert_allclose(found, pca.outlier_statistics(X), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">u2"])
@pytest.mark.parametrize("floats", ["float32", "float64"])
def test_integers_round_half_to_even_and_clip(dtype, floats):
    """As exact fractions: the largest integers of 32 and 64 bits are no floats of that precision."""
    info, top = np.iinfo(dtype), np.finfo(floats).max
    ends = [float(info.max), np.nextafter(float(info.max), 0), 2 * float(info.max), top, float(info.min), -top]
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, *ends], floats)
    expected = [min(max(round(float(value)), int(info.min)), int(info.max)) for value in values]
    found = rounded(values.copy(), np.dtype(dtype))
    assert found.dtype == np.dtype(dtype)
    assert [int(value) for value in found] == expected


def test_dtypes():
    X = photographs(20, (6, 5))
    pca = ImagePCA(3).fit(X)
    plain = pca.reconstruct(X)
    assert_array_equal(pca.reconstruct(X, dtype=np.float16), plain.astype(np.float16))
    assert_array_equal(pca.reconstruct(X, dtype=np.uint8), np.rint(plain).clip(0, 255))
    for dtype, message in ((bool, "threshold"), ("complex64", "none of images"), ("no such", "none of NumPy's")):
        with pytest.raises(TypeError, match=message):
            pca.reconstruct(X, dtype=dtype)
    with pytest.raises(ValueError, match="float16 ends at"):
        ImagePCA(1).fit(X * 1e6).reconstruct(X * 1e6, dtype=np.float16)


@pytest.mark.parametrize(
    ("components", "error", "message"),
    [
        ([True, False, True], TypeError, r"has True.*integers from 0 to 2.*flatnonzero"),
        (np.array([True]), TypeError, "flatnonzero"),
        ([0.0], TypeError, r"has 0\.0"),
        (2, TypeError, r"components=2 is no list.*range\(3\)"),
        ("01", TypeError, "is no list"),
        ([3], IndexError, "no component 3 of 3: positions go from 0 to 2"),
        ([-4], IndexError, "no component -4"),
        ([0, -3], ValueError, "has component 0 twice"),
    ],
)
def test_what_names_no_component_is_refused(components, error, message):
    X = photographs(12, (6, 5))
    pca = ImagePCA(3).fit(X)
    for method in (pca.reconstruct, pca.residuals):
        with pytest.raises(error, match=message):
            method(X, components)


def test_before_a_fit_and_for_other_images():
    X = photographs(12, (6, 5))
    spoilt = X.astype(np.float32)
    spoilt[7, 2] = np.nan
    for name in ("reconstruct", "residuals", "outlier_statistics"):
        with pytest.raises(NotFittedError):
            getattr(ImagePCA(2), name)(X)
        with pytest.raises(ValueError, match="was fitted on images of shape"):
            getattr(ImagePCA(2).fit(X), name)(X[:, :4])
        with pytest.raises(NonFiniteError, match="image 7"):
            dask.compute(getattr(ImagePCA(2).fit(X), name)(da.from_array(spoilt, chunks=5)))


@pytest.mark.parametrize("units", [1e-24, 1.0, 1e18])
def test_units_are_a_factor(units):
    X = photographs(20, (6, 5)).astype(np.float64)
    scaled = (X * units).astype(np.float32 if units != 1 else np.float64)
    pca = ImagePCA(3).fit(scaled)
    assert_allclose(pca.residuals(scaled) / units, ImagePCA(3).fit(X).residuals(X), atol=3e-4)
    found, expected = pca.outlier_statistics(scaled), ImagePCA(3).fit(X).outlier_statistics(X)
    assert_allclose(found.q / units**2, expected.q, rtol=1e-4)
    assert_allclose(found.t2, expected.t2, rtol=1e-4)
    assert_allclose(pca.residual_variance_image_ / units**2, ImagePCA(3).fit(X).residual_variance_image_, rtol=1e-3)


# Statistics


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("whiten", [False, True])
def test_statistics_are_those_of_residuals_and_whitened_scores(dtype, whiten):
    X = photographs(40, (6, 5), dtype)
    pca = ImagePCA(4, whiten=whiten).fit(X[:30])
    found = pca.outlier_statistics(X)
    assert found.q.dtype == found.t2.dtype == np.float64
    A = X.reshape(40, -1).astype(np.float64)
    scores = (A - pca.mean_) @ pca.components_.T.astype(np.float64)
    assert_allclose(found.q, ((A - drawn(pca, X)) ** 2).sum(axis=1), rtol=1e-6 if dtype != "float64" else 1e-10)
    assert_allclose(found.t2, (scores**2 / pca.explained_variance_).sum(axis=1), rtol=1e-9)


def test_faint_residuals_of_bright_images_keep_their_digits():
    """As a difference of squares, 2.4e-4 of 2.5e9 would be rounding."""
    X = stack_of_spectrum(60, (10, 10), [5e4, 3e4, *[1e-2] * 20], offset=30_000.0)
    pca = ImagePCA(2).fit(X)
    assert_allclose(pca.outlier_statistics(X).q, ((X.reshape(60, -1) - drawn(pca, X)) ** 2).sum(axis=1), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The 10 images have")
def test_directions_of_variance_0_count_in_the_residual():
    X = stack_of_spectrum(10, (5, 5), [9.0, 4.0])
    pca = ImagePCA(4).fit(X)
    strange = (pca.mean_image_ + 7 * pca.eigenimages_[3])[None]
    assert_allclose(pca.outlier_statistics(strange), [[49.0], [0.0]], atol=1e-9)


# Residual variance


@pytest.mark.filterwarnings("ignore::imgstack_ml.RankWarning")
def test_constant_images_have_no_direction_and_all_counts_in_the_residual():
    pca = ImagePCA(2).fit(np.ones((5, 4, 3)))
    q, t2 = pca.outlier_statistics(np.full((2, 4, 3), 3.0))
    assert_allclose(q, 4 * 12)
    assert not t2.any()


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("solver", ["gram", "covariance_eigh", "tsqr", "randomized"])
def test_the_fit_makes_the_residual_variance_of_the_pixels_without_a_read(solver, dtype):
    for n, shape in ((30, (9, 7)), (90, (4, 5))):
        X = photographs(n, shape, dtype)
        source = counted(X, 8)
        pca = ImagePCA(4, svd_solver=solver, random_state=0).fit(source.data)
        assert pca.n_passes_ == source.n_reads == 1
        assert_residual_variance(pca, X, ROUNDING[dtype])
    assert_residual_variance(ImagePCA(4, svd_solver=solver).fit(X), X, ROUNDING[dtype])


@pytest.mark.parametrize(
    ("how", "n_reads"), [("panels", 3), ("covariance_eigh", 1), ("tsqr", 1), (2, 2), (4, 4)], ids=str
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_nor_does_it_where_images_are_not_kept(how, n_reads):
    """Ritz vectors that have not converged are no eigenvectors: what the basis leaves of them counts."""
    n, p = {"panels": (60, 150), 2: (200, 250), 4: (200, 250)}.get(how, (200, 50))
    X = np.random.default_rng(0).standard_normal((n, p)) + np.linspace(0, 2, n)[:, None] + 100
    if isinstance(how, int):
        source = counted(X, 20)
        factors, runner = streamed(source.data, 4, tol=0, max_passes=how)
    else:
        factors, runner, source = by_panels(X, 20, 10, 4) if how == "panels" else unkept(how, X, 4, 20)
    assert runner.n_passes == pytest.approx(source.n_reads)
    assert source.n_reads == pytest.approx(n_reads)
    factors, A = factors.in_intensities(), X - X.mean(axis=0)
    left = A - A @ factors.components.T @ factors.components
    assert_allclose(factors.left, (left**2).sum(axis=0), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_after_partial_fit_it_is_what_lower_bounds_leave():
    X = photographs(120, (9, 7), "float64")
    batches = ImagePCA(3)
    for i in range(0, 120, 40):
        batches.partial_fit(X[i : i + 40])
    started = ImagePCA(3).fit(X[:40]).partial_fit(X[40:])
    for pca in (batches, started):
        explained = (pca.explained_variance_[:, None] * pca.components_**2).sum(axis=0)
        whole = X.reshape(120, -1).var(axis=0, ddof=1)
        assert_allclose(pca.residual_variance_image_.ravel() + explained, whole, rtol=1e-12)
    assert_residual_variance(batches, X, 1e-2)


# Into files


def test_names_and_labels_go_into_files(tmp_path):
    for label in "ab":
        write_folder(tmp_path / "in" / label, 3, shape=(8, 6))
    stack = open_stack(tmp_path / "in", recursive=True)
    pca = ImagePCA(2).fit(stack)
    again = open_stack(save_stack(pca.residuals(stack), tmp_path / "left.zarr"))
    assert (again.files, again.labels.tolist()) == (stack.files, stack.labels.tolist())
    assert_allclose(again.data.compute(), pca.residuals(stack.data.compute()), atol=1e-4)
    names = write_images(pca.reconstruct(stack, dtype="uint8"), tmp_path / "drawn")
    assert [Path(name).name for name in names] == [f"{i}_img{i % 3}.png" for i in range(6)]
    scores = pca.transform(stack)
    assert open_stack(save_stack(pca.inverse_transform(scores), tmp_path / "b.zarr")).files == stack.files
    assert open_stack(save_stack(stack.data[:4], tmp_path / "c.zarr")).files != stack.files[:4]
    with pytest.raises(StoreError, match="lies in the input"):
        write_images(pca.reconstruct(stack, dtype="uint8"), tmp_path / "in" / "a")


# Masks


@pytest.mark.parametrize(
    ("how", "dtype"), [("numpy", "float64"), ("uneven", "uint8"), ("pixels", "uint8"), ("empty", "float64")]
)
def test_pixels_outside_a_mask_are_not_looked_at(how, dtype):
    X = photographs(30, (6, 5, 3), dtype)
    mask = np.ones((6, 5, 3), bool)
    mask[2:4, 1] = mask[0] = False
    inside = ImagePCA(3).fit(X[:, mask])
    spoilt = np.where(mask, X, np.nan) if dtype == "float64" else X
    pca, data = ImagePCA(3, mask=mask).fit(spoilt), chunked(spoilt, how)
    atol = (1e-11 if dtype == "float64" else 1e-6) * X.max()
    filtered = ComponentFilter(FrozenEstimator(pca), remove=[1]).fit(data).transform(data)
    for found, rows in (
        (pca.reconstruct(data, [0]), inside.reconstruct(X[:, mask], [0])),
        (pca.residuals(data), inside.residuals(X[:, mask])),
        (filtered, inside.residuals(X[:, mask], [1]) + inside.mean_),
        (pca.residual_variance_image_[None], inside.residual_variance_image_[None]),
    ):
        assert_allclose(np.asarray(found)[:, mask], rows, rtol=0, atol=10 * atol)
        assert not np.asarray(found)[:, ~mask].any()
    assert_allclose(dask.compute(*pca.outlier_statistics(data)), inside.outlier_statistics(X[:, mask]), rtol=1e-5)
    assert_array_equal(pca.to_xarray().mean_image, pca.mean_image_)
    started = ImagePCA(3, mask=mask).fit(spoilt[:20]).partial_fit(spoilt[20:])
    explained = (started.explained_variance_[:, None] * started.components_.astype(float) ** 2).sum(axis=0)
    whole = X[:, mask].var(axis=0, ddof=1, dtype=float)
    assert_allclose((started.residual_variance_image_.ravel() + explained)[mask.ravel()], whole, rtol=1e-5)
