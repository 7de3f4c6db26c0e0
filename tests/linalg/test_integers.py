"""Products of bytes against NumPy's int64: the same integers, with the compiled kernels and without them."""

import os
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml import ImagePCA
from imgstack_ml.linalg import byte_kernels, integers
from imgstack_ml.linalg import gram as lin
from imgstack_ml.linalg.incremental import summarise
from tests.lib.blocks import SINGLE, centred, cut, steady

DTYPES = ["uint8", "int8", "bool"]


@pytest.fixture(params=["kernels", "float64"])
def arithmetic(request, monkeypatch):
    if request.param == "float64":
        monkeypatch.setattr(integers, "_compiled", lambda: None)
    elif integers._compiled() is None:
        pytest.skip("this processor does not multiply bytes")
    return request.param


def random_bytes(shape, dtype, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return values > 99 if dtype == "bool" else values.view(dtype)


def rows(X):
    return X.reshape(len(X), -1).astype(np.int64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (48, 48, 4), (97, 15, 13), (100, 2000), (260, 9, 9, 3)], ids=str)
def test_products_are_those_of_int64(shape, dtype, arithmetic):
    X = random_bytes(shape, dtype)
    expected, p = rows(X), rows(X).shape[1]
    blocks = cut(X, *range(7, len(X), 41))
    lo, hi = p // 5, p - p // 7
    pixels = np.zeros((2, p))
    matrix = integers.products_of_images(blocks, lo, hi, pixels)
    assert_array_equal(matrix, expected[:, lo:hi] @ expected[:, lo:hi].T)
    assert_array_equal(matrix, integers.products_of_images(blocks, lo, hi))
    mean, squares = pixels[:, lo:hi]
    assert_array_equal(mean, expected[:, lo:hi].sum(axis=0) / len(X))
    assert_allclose(squares, (centred(X)[:, lo:hi] ** 2).sum(axis=0), rtol=1e-12, atol=1e-9)
    assert not pixels[:, np.r_[:lo, hi:p]].any()
    some = X[: len(X) // 2 + 1]
    assert_array_equal(integers.products_of_two(blocks, [some]), expected @ rows(some).T)
    if p < 1000:
        matrix, sums = integers.products_of_pixels(blocks)
        assert_array_equal(matrix, expected.T @ expected)
        assert_array_equal(sums, expected.sum(axis=0))


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255), ("uint8", 0), ("int8", -128), ("int8", 127), ("bool", 1)])
def test_the_largest_products_do_not_overflow(dtype, value, arithmetic):
    """Sums of 32 bits hold 65,793 products of 255 and -128: more terms than that, in one image and in many."""
    X = np.full((3, 140_000), value, dtype)
    square = int(X[0, 0]) ** 2
    assert (integers.products_of_images([X], 0, 140_000) == 140_000 * square).all()
    assert (integers.products_of_two([X], [X[:2]]) == 140_000 * square).all()
    assert (integers.products_of_pixels([X.T])[0] == 140_000 * square).all()


@steady(30)
@given(st.data())
def test_views_in_any_layout(data):
    """Images that are reversed, strided, transposed: what is multiplied is what NumPy shows."""
    n, p, q = (data.draw(st.integers(1, 9)) for _ in range(3))
    X = random_bytes((2 * n, q, 3 * p), data.draw(st.sampled_from(DTYPES)), seed=n)
    X = X[:: data.draw(st.sampled_from([1, 2, -1])), :, :: data.draw(st.sampled_from([1, 3, -2]))]
    X = X if data.draw(st.booleans()) else X.transpose(0, 2, 1)
    assert_array_equal(integers.products_of_images([X], 0, rows(X).shape[1]), rows(X) @ rows(X).T)
    assert_array_equal(integers.products_of_pixels([X])[0], rows(X).T @ rows(X))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_made_of_them_is_rounded_once(dtype, arithmetic):
    """A large mean and a small change: digits that cancel are gone before float64 rounds."""
    X = random_bytes((90, 300), dtype)
    if dtype != "bool":
        X = (X // 64 + 100).astype(dtype)
    X[:, 200:] = X[0, 200:]
    A = centred(X)
    gram = integers.products_of_images([X], 0, 300)
    assert_allclose(lin.exactly_centred(gram), A @ A.T, rtol=0, atol=1e-14 * np.abs(A @ A.T).max())
    a, b = (lin.exact_scatter([part], 0) for part in cut(X, 33))
    for found in (lin.exact_scatter([X], 0), lin.merge_scatter(a, b)):
        assert_allclose(found.matrix, A.T @ A, rtol=0, atol=1e-14 * np.abs(A.T @ A).max())
        assert_allclose(found.mean, rows(X).mean(axis=0), rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_summaries(dtype, monkeypatch):
    """With all directions kept nothing is lost, and the total is exact."""
    X = random_bytes((500, 6, 7), dtype)
    expected = centred(X).T @ centred(X)
    for compiled in (integers._compiled(), None):
        monkeypatch.setattr(integers, "_compiled", lambda compiled=compiled: compiled)
        found = summarise(cut(X, 100, 333), 0, size=42, n_draws=3, seed=0, dtype=SINGLE)
        assert_allclose(found.total, np.trace(expected), rtol=1e-6 if compiled is None else 1e-14)
        assert_allclose(found.rows.T @ found.rows, expected, rtol=0, atol=1e-6 * np.trace(expected))


def test_images_of_more_than_a_byte_stay_in_floats():
    assert not any(integers.are_fast(np.dtype(dtype)) for dtype in ("uint16", "int16", "float16", "float32", "S1"))


def test_a_variable_turns_the_kernels_off():
    code = "import numpy as np; from imgstack_ml.linalg.integers import are_fast; print(are_fast(np.dtype('u1')))"
    environment = {**os.environ, "IMGSTACK_ML_INTEGER_PRODUCTS": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("broken", ["wrong", "raises"])
def test_kernels_that_do_not_work_are_not_used(broken, monkeypatch, caplog):
    class Wrong(byte_kernels.Kernels):
        def multiply(self, a, b, out):
            super().multiply(a, b, out)
            out[-1, 0] += 1

    def make():
        if broken == "raises":
            raise RuntimeError("LLVM does not like it")
        target = next(t for t in byte_kernels.TARGETS if t == integers._compiled().target)
        return Wrong(target)

    if integers._compiled() is None:
        pytest.skip("this processor does not multiply bytes")
    monkeypatch.setattr(byte_kernels, "make_kernels", make)
    assert integers._compiled_once.__wrapped__() is None
    assert "float32 is used" in caplog.text


def test_kernels_are_compiled_while_images_are_read():
    X, begun = random_bytes((400, 64, 200), "uint8"), []

    def read(block):
        begun.append(integers._LOCK.locked() or integers._compiled_once.cache_info().currsize == 1)
        return block

    integers._compiled_once.cache_clear()
    lazy = da.from_array(X, chunks=(200, -1, -1)).map_blocks(read, dtype=X.dtype, meta=X[:0])
    pca = ImagePCA(3, svd_solver="gram").fit(lazy)
    assert begun == [True, True]
    A = rows(X) - rows(X).mean(axis=0)  # float64
    assert_allclose(pca.singular_values_, np.sqrt(np.linalg.eigvalsh(A @ A.T)[:-4:-1]), rtol=1e-9)


@pytest.mark.parametrize("target", byte_kernels.TARGETS, ids=lambda target: target.feature)
def test_machine_code(target):
    """Each target compiles to its instruction; those of this processor give the right numbers as well."""
    instruction = "usdot" if target.machine == "aarch64" else "vpdpbusd"
    machine = "x86_64" if target.machine == "x86" else target.machine
    try:
        assembly = byte_kernels.assembly_of(target, f"{machine}-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip(f"this llvmlite has no instructions of {machine}")
    assert assembly.count(instruction) > target.height * target.vectors
    if byte_kernels.is_supported(target):
        assert integers._are_right(byte_kernels.Kernels(target))
