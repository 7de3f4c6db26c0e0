"""The right answer for a stack, in float64, and how far another one is from it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.linalg

from ._stacks import Source

__all__ = ["Accuracy", "Truth", "accuracy", "truth_of"]

LARGEST_MATRIX = 4096  # images or values up to which all inner products are made
N_VECTORS = 64
MOST_READS = 20
RESIDUAL = 1e-9  # of the last component, as a share of its variance
TILE = 8192  # values


class Truth(NamedTuple):
    """Mean (p,), leading variances (k,) and components (k, p) of a stack, in float64."""

    mean: np.ndarray
    variance: np.ndarray
    components: np.ndarray


class Accuracy(NamedTuple):
    """How far an answer is from the truth.

    Attributes
    ----------
    variance : float
        Relative error of the last variance.
    angle : float
        Largest principal angle between the subspaces found and true, in radians.
    lost : float
        Variance that the true components capture and those found do not, as a share of it.
    """

    variance: float
    angle: float
    lost: float


def truth_of(path: Path, k: int) -> Truth:
    """Work out the truth of a stack, or take it from the file beside the stack that it was kept in."""
    kept = path.with_name(f"{path.name}.truth-{k}.npz")
    if not kept.exists():
        source = Source(path)
        solve = _by_images if source.n <= source.p else _by_values
        if min(source.n, source.p) > LARGEST_MATRIX:
            solve = _by_reads
        np.savez(kept, **solve(source, _mean(source), k)._asdict())
    with np.load(kept) as arrays:
        return Truth(**arrays)


def accuracy(path: Path, found: dict[str, np.ndarray], truth: Truth) -> Accuracy:
    """Compare variances and components; reads the stack once, to see what the components found capture."""
    Q = scipy.linalg.qr(found["components"].astype(np.float64).T, mode="economic")[0]
    outside = Q - truth.components.T @ (truth.components @ Q)
    # The sine of the angle rather than its cosine, which knows no small angles.
    sine = min(1.0, float(np.sqrt(max(scipy.linalg.eigvalsh(outside.T @ outside)[-1], 0.0))))
    k = len(truth.variance)
    best = truth.variance.sum()
    return Accuracy(
        variance=float(abs(found["variance"][k - 1] / truth.variance[k - 1] - 1)),
        angle=float(np.arcsin(sine)),
        lost=float(max(0.0, 1 - _captured(Source(path), Q, truth.mean) / best)),
    )


def _captured(source: Source, Q: np.ndarray, mean: np.ndarray) -> float:
    """Variance of all images along the columns of Q."""
    middle, total = mean @ Q, 0.0
    for _, block in source.blocks():
        total += float(((block.astype(np.float64) @ Q - middle) ** 2).sum())
    return total / (source.n - 1)


def _mean(source: Source) -> np.ndarray:
    total = np.zeros(source.p)
    for _, block in source.blocks():
        total += block.sum(axis=0, dtype=np.float64)
    return total / source.n


def _by_images(source: Source, mean: np.ndarray, k: int) -> Truth:
    """From inner products of images."""
    raw = np.empty((source.n, source.p), source.dtype)
    for start, block in source.blocks():
        raw[start : start + len(block)] = block
    gram = np.zeros((source.n, source.n))
    for a in range(0, source.p, TILE):
        tile = raw[:, a : a + TILE] - mean[a : a + TILE]
        gram += tile @ tile.T
    values, vectors = _leading(gram, k)
    weights = vectors / np.sqrt(values)
    components = np.empty((k, source.p))
    for a in range(0, source.p, TILE):
        components[:, a : a + TILE] = weights.T @ (raw[:, a : a + TILE] - mean[a : a + TILE])
    return Truth(mean, values / (source.n - 1), components)


def _by_values(source: Source, mean: np.ndarray, k: int) -> Truth:
    """From inner products of pixels."""
    scatter = np.zeros((source.p, source.p))
    for _, block in source.blocks():
        rows = block - mean
        scatter += rows.T @ rows
    values, vectors = _leading(scatter, k)
    return Truth(mean, values / (source.n - 1), vectors.T)


def _by_reads(source: Source, mean: np.ndarray, k: int) -> Truth:
    """By a subspace iteration that stops when residuals say that nothing is left to gain.

    A residual r puts a variance theta within |r|^2 / gap of a true one: far below rounding where |r| is 1e-9 theta.
    """
    V = _orthonormal(np.random.default_rng(0).standard_normal((N_VECTORS, source.p)))
    for _ in range(MOST_READS):
        products = np.zeros_like(V)
        middle = V @ mean
        for _, block in source.blocks():
            rows = block.astype(np.float64)
            scores = rows @ V.T - middle
            products += scores.T @ rows
            products -= np.outer(scores.sum(axis=0), mean)
        products /= source.n - 1
        values, vectors = _leading(V @ products.T, k)
        components = vectors.T @ V
        residuals = np.linalg.norm(vectors.T @ products - values[:, None] * components, axis=1)
        if (residuals / values).max() <= RESIDUAL:
            return Truth(mean, values, components)
        V = _orthonormal(products)
    raise ArithmeticError(f"{source.path.name!r} has no truth to {RESIDUAL} after {MOST_READS} reads")


def _leading(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenvalues, descending, and eigenvectors in columns."""
    n = len(matrix)
    values, vectors = scipy.linalg.eigh((matrix + matrix.T) / 2, subset_by_index=(n - k, n - 1))
    return values[::-1], vectors[:, ::-1]


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(scipy.linalg.qr(rows.T, mode="economic")[0].T)
