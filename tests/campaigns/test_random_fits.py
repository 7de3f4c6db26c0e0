"""Thousands of random fits against NumPy in float64: 40 kinds of stacks, 15 dtypes, all solvers, any chunks and units.

``python -m tests.campaigns.test_random_fits 20000`` tries as many, and prints those that fail, by their seeds. With two
numbers, it tries the seeds between them.
"""

import contextlib
import sys
import time
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import dask
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from imgstack_ml import ImagePCA, RankWarning
from imgstack_ml.decomposition import records
from imgstack_ml.decomposition.certificate import in_units
from tests.lib.brackets import check_bracket, check_exact
from tests.lib.kinds import KINDS, as_pixels
from tests.lib.stacks import counted, reference

DTYPES = [
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "float32", "float64", ">u2", ">f4", ">f8"),
]
SOLVERS = ["gram", "covariance_eigh", "tsqr", "randomized", "randomized", "randomized", "partial_fit"]
SECONDS = 20  # a fit that takes longer counts as hanging

# Seeds that fail, with the reason why that is accepted.
KNOWN = {
    3073: "variances of a flat floor that differ by 1e-4 of themselves: the estimated errors see 2e-7, the bounds hold",
}


class Case(NamedTuple):
    """A stack and how it is fitted."""

    kind: str
    n: int
    p: int
    k: int
    dtype: str
    offset: float
    power: int  # values are multiplied by 2^power
    chunks: int
    lazy: bool
    solver: str
    memory_limit: str
    tol: float
    max_passes: int
    single: bool  # products in float32, as large stacks have them
    batches: int  # calls of partial_fit


def case_of(seed):
    """The same case for the same seed, and its stack."""
    rng = np.random.default_rng(seed)
    ranges = [(2, 12), (13, 60), (60, 150)]
    n, p = (int(rng.integers(*ranges[i])) for i in rng.integers(3, size=2))
    p = int(rng.integers(1, 4)) if rng.random() < 0.1 else p
    dtype = str(rng.choice(DTYPES))
    powers = {"e": [0], "f": [0, 0, -96, -70, -33, 20, 59, 96], "d": [0, 0, -460, -200, 33, 300, 460]}
    case = Case(
        kind=str(rng.choice(sorted(KINDS))),
        n=n,
        p=p,
        k=int(rng.integers(1, min(n, p, 12) + 1)),
        dtype=dtype,
        offset=float(rng.choice([0.0, 2.0, 1e4])),
        power=int(rng.choice(powers.get(np.dtype(dtype).char, [0]))),
        chunks=int(rng.integers(1, n + 1)),
        lazy=bool(rng.random() < 0.4),
        solver=str(rng.choice(SOLVERS)),
        memory_limit=str(rng.choice(["1GB", "least"])),
        tol=float(rng.choice([0.0, 1e-9, 1e-6, 1e-4, 1e-2])),
        max_passes=int(rng.integers(1, 5) if rng.random() < 0.6 else rng.integers(5, 15)),
        single=bool(rng.random() < 0.5),
        batches=int(rng.integers(1, 5)),
    )
    return case, as_pixels(KINDS[case.kind](rng, n, p), case.dtype, case.offset)


def fitted(case, images, seed):
    """An ImagePCA fitted as the case says."""
    limit = "1GB" if case.memory_limit == "1GB" or case.solver == "partial_fit" else least_limit(case, images)
    solver = "randomized" if case.solver == "partial_fit" else case.solver
    how = {"tol": case.tol, "max_passes": case.max_passes, "random_state": seed, "memory_limit": limit}
    pca = ImagePCA(case.k, svd_solver=solver, **how)
    if case.solver != "partial_fit":
        return pca.fit(images)
    for part in np.array_split(np.arange(case.n), min(case.batches, case.n)):
        pca.partial_fit(images[part[0] : part[-1] + 1])
    return pca


def least_limit(case, images):
    """The smallest memory limit that the solver can do with, so that a lazy stack is not kept."""
    if not case.lazy:
        return "1GB"
    with pytest.raises(ValueError, match="memory_limit=") as refused:
        ImagePCA(case.k, svd_solver=case.solver, memory_limit="1kB").plan(images)
    return str(refused.value).split("memory_limit='")[1].split("'")[0]


def unscaled(pca, power):
    """The results of an ImagePCA in the units before the images were multiplied by 2^power."""
    return SimpleNamespace(
        n_components_=pca.n_components_,
        components_=pca.components_,
        singular_values_=np.ldexp(pca.singular_values_, -power),
        explained_variance_=np.ldexp(pca.explained_variance_, -2 * power),
        mean_=np.ldexp(pca.mean_, -power),
        certificate_=None if pca.certificate_ is None else in_units(pca.certificate_, power),
        tol=pca.tol,
    )


def complaints(seed):
    """What is wrong with the fit of a case."""
    case, X = case_of(seed)
    scaled = np.ldexp(X, case.power).astype(X.dtype) if case.power else X
    source = counted(scaled, case.chunks) if case.lazy else None
    stack, n_images_read = (scaled, None) if source is None else (source.data, source.reads)
    with _as_large_stacks(case.single):
        start = time.perf_counter()
        pca = fitted(case, stack, seed)
        seconds = time.perf_counter() - start
        n_read = case.n if n_images_read is None else sum(n_images_read.values())
        scores = np.asarray(pca.transform(scaled), np.float64)
        again = fitted(case, stack, seed) if seed % 10 == 0 else pca
    found, eps = unscaled(pca, case.power), np.finfo(pca.components_.dtype).eps
    axes, rows, ref = pca.components_.astype(np.float64), X.astype(np.float64).reshape(case.n, -1), reference(X)
    largest = np.abs(rows).max()
    apart = np.abs(axes @ axes.T - np.eye(len(axes))).max()
    off = np.abs(np.ldexp(scores, -case.power) - (rows - found.mean_) @ axes.T).max()
    claims = {
        "in time": seconds < SECONDS,
        "reads": case.solver == "partial_fit" or n_read == round(pca.n_passes_ * case.n),
        "repeats": np.array_equal(again.components_, pca.components_),
        "orthonormal": apart <= (1e-5 if eps > 1e-10 else 1e-12),
        "scores": off <= 32 * eps * largest * case.p**0.5,
        "mean": np.abs(found.mean_ - ref.mean).max() <= max(1e-14, eps) * largest,
    }
    wrong = [claim for claim, true in claims.items() if not true]
    return wrong + (check_exact if pca.certificate_ is None else check_bracket)(found, X)


@contextlib.contextmanager
def _as_large_stacks(single):
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(dask.config.config, "scheduler", "synchronous")
        for category in (ConvergenceWarning, RankWarning):
            warnings.simplefilter("ignore", category)
        if single:
            patch.setattr(records, "FEW_PRODUCTS", 0)
        yield


def failures(seeds):
    """Yield the seed of each case that fails, the case, and what is wrong."""
    for seed in seeds:
        if seed in KNOWN:
            continue
        try:
            wrong = complaints(seed)
        except Exception as error:
            wrong = [repr(error)]
        if wrong:
            yield seed, case_of(seed)[0], wrong


@pytest.mark.parametrize("n", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_fits_are_right(n):
    assert list(failures(range(n))) == []


if __name__ == "__main__":
    for failure in failures(range(*map(int, sys.argv[1:]))):
        print(*failure, flush=True)
