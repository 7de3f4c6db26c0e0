"""The right components of a stack, computed in float64, and the errors of other answers."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .stacks import Source

__all__ = ["Accuracy", "Truth", "accuracy", "truth_of"]

MAX_MATRIX = 4096  # images or values: up to here, all inner products of them are computed
N_VECTORS = 64  # in the subspace iteration
MAX_READS = 20
MAX_RESIDUAL = 1e-9  # of a component, relative to its variance
TILE = 8192  # values


class Truth(NamedTuple):
    """Mean (p,), largest variances (k,) and components (k, p) of a stack, in float64."""

    mean: np.ndarray
    variance: np.ndarray
    components: np.ndarray


class Accuracy(NamedTuple):
    """Errors of an answer.

    Attributes
    ----------
    variance : float
        Relative error of the last variance.
    angle : float
        Largest principal angle between the subspace of the answer and the true one, in radians.
    lost : float
        Share of the variance along the true components that the components of the answer do not capture.
    """

    variance: float
    angle: float
    lost: float


def truth_of(path: Path, k: int) -> Truth:
    """Return the truth of a stack. It is computed once, and stored in a file beside the stack."""
    stored = path.with_name(f"{path.name}.truth-{k}.npz")
    if not stored.exists():
        source = Source(path)
        solve = _from_products_of_images if source.n <= source.p else _from_products_of_values
        if min(source.n, source.p) > MAX_MATRIX:
            solve = _by_subspace_iteration
        np.savez(stored, **solve(source, _mean(source), k)._asdict())
    with np.load(stored) as arrays:
        return Truth(**arrays)


def accuracy(path: Path, answer: dict[str, np.ndarray], truth: Truth) -> Accuracy:
    """Compare an answer with the truth. Reads the stack once, for the variance that the components capture."""
    Q = scipy.linalg.qr(answer["components"].astype(np.float64).T, mode="economic")[0]
    outside = Q - truth.components.T @ (truth.components @ Q)
    # From the sine: the cosine of an angle below 1e-8 rounds to 1.
    sine = min(1.0, float(np.sqrt(max(scipy.linalg.eigvalsh(outside.T @ outside)[-1], 0.0))))
    k = len(truth.variance)
    best = truth.variance.sum()
    return Accuracy(
        variance=float(abs(answer["variance"][k - 1] / truth.variance[k - 1] - 1)),
        angle=float(np.arcsin(sine)),
        lost=float(max(0.0, 1 - _captured(Source(path), Q, truth.mean) / best)),
    )


def _captured(source: Source, Q: np.ndarray, mean: np.ndarray) -> float:
    """Return the variance of all images along the columns of Q."""
    middle, total = mean @ Q, 0.0
    for _, block in source.blocks():
        total += float(((block.astype(np.float64) @ Q - middle) ** 2).sum())
    return total / (source.n - 1)


def _mean(source: Source) -> np.ndarray:
    total = np.zeros(source.p)
    for _, block in source.blocks():
        total += block.sum(axis=0, dtype=np.float64)
    return total / source.n


def _from_products_of_images(source: Source, mean: np.ndarray, k: int) -> Truth:
    """Solve the eigenproblem of the inner products of all images, (n, n)."""
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


def _from_products_of_values(source: Source, mean: np.ndarray, k: int) -> Truth:
    """Solve the eigenproblem of the inner products of all values, (p, p)."""
    scatter = np.zeros((source.p, source.p))
    for _, block in source.blocks():
        rows = block - mean
        scatter += rows.T @ rows
    values, vectors = _leading(scatter, k)
    return Truth(mean, values / (source.n - 1), vectors.T)


def _by_subspace_iteration(source: Source, mean: np.ndarray, k: int) -> Truth:
    """Iterate a subspace until the residuals of all k components are negligible.

    A variance theta with a residual r is within ``|r|^2 / gap`` of a true one (Parlett, The Symmetric Eigenvalue
    Problem, 11.7). Where ``|r|`` is 1e-9 theta, that is far below rounding.
    """
    V = _orthonormal(np.random.default_rng(0).standard_normal((N_VECTORS, source.p)))
    for _ in range(MAX_READS):
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
        if (residuals / values).max() <= MAX_RESIDUAL:
            return Truth(mean, values, components)
        V = _orthonormal(products)
    raise ArithmeticError(f"{source.path.name!r} did not converge to a residual of {MAX_RESIDUAL} in {MAX_READS} reads")


def _leading(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest eigenvalues, descending, and their eigenvectors in columns."""
    n = len(matrix)
    values, vectors = scipy.linalg.eigh((matrix + matrix.T) / 2, subset_by_index=(n - k, n - 1))
    return values[::-1], vectors[:, ::-1]


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(scipy.linalg.qr(rows.T, mode="economic")[0].T)
