"""Kinds of random stacks, by name: functions of (rng, n, p) that return (n, p) values in any units."""

import numpy as np

from tests.lib.stacks import stack_of_spectrum


def of_values(values):
    """A kind of stack: singular vectors at random, `values(m)` the m singular values."""

    def make(rng, n, p):
        m = min(n - 1, p)
        return stack_of_spectrum(n, (p,), values(m), seed=int(rng.integers(2**31))) if m else np.zeros((n, p))

    return make


def repeated(m):
    return np.where(np.arange(m) < 12, 10.0, 1.0)


def low_rank(rng, n, p):
    r = int(rng.integers(1, 6))
    return rng.standard_normal((n, r)) @ rng.standard_normal((r, p))


def duplicates(rng, n, p):
    return rng.standard_normal((7, p))[rng.integers(0, 7, n)]


def sorted_by_class(rng, n, p):
    return 3 * rng.standard_normal((5, p))[np.arange(n) * 5 // n] + rng.standard_normal((n, p))


def drifting(rng, n, p):
    time = np.linspace(0, 1, n)[:, None]
    return 20 * time * rng.standard_normal(p) + np.cos(9 * time) * rng.standard_normal(p) + rng.standard_normal((n, p))


def one_outlier(rng, n, p):
    X = rng.standard_normal((n, p))
    X[rng.integers(n)] *= 1000
    return X


def constant(rng, n, p):
    return np.full((n, p), 0.7)


def local(rng, n, p):
    """Directions that few images have each, over one that all have."""
    X = np.outer(rng.standard_normal(n), rng.standard_normal(p))
    return X + 4 * rng.standard_normal((1 + n // 4, p))[np.arange(n) // 4]


def one_pixel_toggles(rng, n, p):
    X = np.tile(rng.random(p), (n, 1))
    X[:, rng.integers(p)] += 0.2 * (rng.random(n) < 0.5)
    return X


def grey_levels(rng, n, p):
    return np.tile(rng.choice([0.1, 0.4, 0.7, 1.0], n)[:, None], (1, p))


def sparse(rng, n, p):
    return (rng.random((n, p)) < 0.02) * rng.random((n, p))


def spots(rng, n, p):
    """One smooth spot, which moves: a spectrum that decays to nothing."""
    at, width = rng.random(n)[:, None], 0.05 + 0.2 * rng.random()
    return np.exp(-(((np.linspace(0, 1, p) - at) / width) ** 2))


def hot_pixel(rng, n, p):
    X = 0.001 * rng.random((n, p))
    X[:, rng.integers(p)] = rng.random(n)
    return X


KINDS = {
    "decaying": of_values(lambda m: 0.8 ** np.arange(m)),
    "fast": of_values(lambda m: 0.3 ** np.arange(m)),
    "power law": of_values(lambda m: 1 / np.arange(1, m + 1)),
    "slow": of_values(lambda m: np.arange(1, m + 1) ** -0.5),
    "noise": lambda rng, n, p: rng.standard_normal((n, p)),
    "repeated": of_values(repeated),
    "graded": of_values(lambda m: 10.0 ** -np.linspace(0, 12, m)),
    "graded to 1e-5": of_values(lambda m: 10.0 ** (-5 * np.arange(m) / 11)),
    "clusters": of_values(lambda m: 0.1 ** (np.arange(m) // 4)),
    "flat floor": of_values(lambda m: np.where(np.arange(m) < 5, 1, 1e-3)),
    "low floor": of_values(lambda m: np.where(np.arange(m) < 3, 1, 2e-7)),
    "low rank": low_rank,
    "duplicates": duplicates,
    "sorted by class": sorted_by_class,
    "drifting": drifting,
    "one outlier": one_outlier,
    "local": local,
    "constant": constant,
    "one pixel toggles": one_pixel_toggles,
    "grey levels": grey_levels,
    "sparse": sparse,
    "spots": spots,
    "hot pixel": hot_pixel,
}


def as_pixels(X, dtype, offset):
    """Values of an image dtype, over most of its range; float ones at a distance from zero."""
    X = (X - X.min()) / (np.ptp(X) or 1.0)
    if np.dtype(dtype).kind == "f":
        return (offset + X).astype(dtype)
    return np.rint(X * np.iinfo(dtype).max).astype(dtype)
