"""Certificates of thousands of random fits against NumPy: no bound is false, nothing converges falsely.

``python -m tests.campaigns.test_brackets 20000`` tries as many, and prints those that fail, by their seeds.
"""

import sys
import warnings
from typing import NamedTuple

import dask.array as da
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from imgstack_ml import ImagePCA, RankWarning
from imgstack_ml.decomposition import records, streaming
from tests.lib.brackets import check_bracket
from tests.lib.kinds import KINDS, as_pixels


class Case(NamedTuple):
    """A stack and how it is fitted; `batches` is the number of calls of partial_fit, or 0 for fit."""

    kind: str
    n: int
    p: int
    k: int
    dtype: str
    offset: float
    chunks: int
    tol: float
    max_passes: int
    lazy: bool
    single: bool
    batches: int


def case_of(seed):
    """The same case for the same seed, and its stack."""
    rng = np.random.default_rng(seed)
    ranges = [(2, 12), (13, 60), (60, 300)]
    n, p = (int(rng.integers(*ranges[i])) for i in rng.integers(3, size=2))
    p = int(rng.integers(1, 4)) if rng.random() < 0.1 else p
    case = Case(
        str(rng.choice(sorted(KINDS))),
        n,
        p,
        int(rng.integers(1, min(n, p, 12) + 1)),
        str(rng.choice(["uint8", "uint16", "float32", "float64"])),
        float(rng.choice([0.0, 2.0, 1e4])),
        int(rng.integers(1, n + 1)),
        float(rng.choice([0.0, 1e-9, 1e-6, 1e-4, 1e-2])),
        int(rng.integers(1, 5) if rng.random() < 0.6 else rng.integers(5, 15)),
        bool(rng.random() < 0.5),
        bool(rng.random() < 0.5),
        int(rng.integers(1, 9)) if rng.random() < 0.2 else 0,
    )
    return case, as_pixels(KINDS[case.kind](rng, n, p), case.dtype, case.offset)


def complaints(seed):
    """What is wrong with the certificate of a case."""
    case, X = case_of(seed)
    images = da.from_array(X, chunks=(case.chunks, -1)) if case.lazy else X
    pca = ImagePCA(
        case.k, svd_solver="randomized", tol=case.tol, max_passes=case.max_passes, random_state=seed, memory_limit="1GB"
    )
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RankWarning)
        if case.single:  # products in float32, as large stacks have them
            patch.setattr(streaming, "FEW_PRODUCTS", 0)
            patch.setattr(records, "FEW_PRODUCTS", 0)
        if case.batches:
            for part in np.array_split(np.arange(case.n), min(case.batches, case.n)):
                pca.partial_fit(images[part[0] : part[-1] + 1])
        else:
            pca.fit(images)
    return check_bracket(pca, X)


def failures(seeds):
    """Yield the seed of each case that fails, the case, and what is wrong."""
    for seed in seeds:
        if wrong := complaints(seed):
            yield seed, case_of(seed)[0], wrong


@pytest.mark.slow
def test_certificates_of_random_fits_are_true():
    assert list(failures(range(2000))) == []


if __name__ == "__main__":
    for failure in failures(range(int(sys.argv[1]))):
        print(*failure, flush=True)
