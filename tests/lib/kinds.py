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


def random_walk(rng, n, p):
    """Images that follow each other, as in a film."""
    return np.cumsum(rng.standard_normal((n, p)), axis=0)


def moving_edge(rng, n, p):
    return (np.arange(p) < p * rng.random(n)[:, None]).astype(float)


def stripes(rng, n, p):
    return np.sin(np.arange(p) * (0.2 + rng.random(n)[:, None]))


def poisson(rng, n, p):
    return rng.poisson(5 * (1 + np.sin(np.arange(p) / 7) * rng.random(n)[:, None])).astype(float)


def flickering(rng, n, p):
    """A bright scene whose brightness varies a little, and faint noise."""
    return (1 + 0.1 * rng.random((n, 1))) * (1 + rng.random(p)) + 1e-4 * rng.standard_normal((n, p))


def dark_first(rng, n, p):
    X = rng.standard_normal((n, p)) + 5
    X[: n // 2] = 0
    return X


def last_tenth_differs(rng, n, p):
    X = rng.standard_normal((n, p)) @ np.diag(0.9 ** np.arange(p))
    X[-(1 + n // 10) :] += 10 * rng.standard_normal(p)
    return X


def alternating(rng, n, p):
    return np.outer((-1.0) ** np.arange(n), rng.random(p)) + 0.01 * rng.standard_normal((n, p))


def saturated(rng, n, p):
    return np.clip(rng.standard_normal((n, p)) * 3, -1, 1)


def two_levels(rng, n, p):
    return (rng.random((n, p)) < 0.5).astype(float)


def own_pixel(rng, n, p):
    """Each image is bright in one pixel: all variances are equal, or nearly."""
    return np.eye(p)[np.arange(n) % p]


def one_differs(rng, n, p):
    X = np.tile(rng.random(p), (n, 1))
    X[rng.integers(n)] += rng.random(p)
    return X


def one_value_differs(rng, n, p):
    X = np.full((n, p), 0.5)
    X[rng.integers(n), rng.integers(p)] = 1
    return X


def heavy_tails(rng, n, p):
    return rng.standard_cauchy((n, p)).clip(-1e4, 1e4)


def hidden_by_a_hot_pixel(rng, n, p):
    """A faint pattern that is 1e-5 of one pixel's changes."""
    X = 1e-5 * np.outer(rng.standard_normal(n), rng.standard_normal(p))
    X[:, rng.integers(p)] += rng.standard_normal(n)
    return X


def clusters_of_images(rng, n, p):
    return rng.standard_normal((3, p))[rng.integers(0, 3, n)] + 1e-3 * rng.standard_normal((n, p))


def two_scales(rng, n, p):
    return np.hstack([rng.standard_normal((n, p - p // 2)), 1e-6 * rng.standard_normal((n, p // 2))])


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
    "random walk": random_walk,
    "moving edge": moving_edge,
    "stripes": stripes,
    "poisson": poisson,
    "flickering": flickering,
    "dark first": dark_first,
    "last tenth differs": last_tenth_differs,
    "alternating": alternating,
    "saturated": saturated,
    "two levels": two_levels,
    "own pixel": own_pixel,
    "one differs": one_differs,
    "one value differs": one_value_differs,
    "heavy tails": heavy_tails,
    "hidden by a hot pixel": hidden_by_a_hot_pixel,
    "clusters of images": clusters_of_images,
    "two scales": two_scales,
}


def as_pixels(X, dtype, offset):
    """Values of an image dtype, over most of its range; float ones at a distance from zero."""
    X, dtype = (X - X.min()) / (np.ptp(X) or 1.0), np.dtype(dtype)
    if dtype.kind == "f":
        return (offset + X).astype(dtype)
    # float64 tells integers apart up to 2^53.
    return np.rint(X * (1 if dtype.kind == "b" else min(np.iinfo(dtype).max, 2**53))).astype(dtype)
