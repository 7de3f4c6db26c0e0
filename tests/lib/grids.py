"""Grids of parameters for tests: ways to chunk a stack, and combinations in which every pair of values occurs."""

from itertools import combinations, product

import dask.array as da

LAZY = ["uneven", "pixels", "empty"]  # ways to chunk a stack
CHUNKS = ["numpy", *LAZY]


def chunked(X, how):
    """`X` itself ("numpy"), or lazy: in "uneven" blocks, cut between "pixels" too, or with an "empty" block."""
    n = len(X)
    if how == "numpy":
        return X
    rows = {"uneven": (n // 4, 1, n - n // 4 - 1), "pixels": max(1, n // 3), "empty": (n // 3, 0, n - n // 3)}[how]
    pixels = (5, 9, 2) if how == "pixels" else (-1, -1, -1)
    return da.from_array(X, chunks=(rows, *pixels[: X.ndim - 1]) if n > 3 else 1)


def pairwise(*factors):
    """A few rows of one value a factor, in which any two values of two factors occur together.

    They show each fault that one value causes, or two together. They are the same in every process.
    """
    indices = [range(len(factor)) for factor in factors]
    missing = {
        (a, i, b, j) for a, b in combinations(range(len(factors)), 2) for i, j in product(indices[a], indices[b])
    }
    rows = []
    while missing:
        row = dict([min(missing)[:2], min(missing)[2:]])
        for k in [k for k in range(len(factors)) if k not in row]:
            row[k] = max(indices[k], key=lambda i, k=k: sum(_pair(k, i, a, j) in missing for a, j in row.items()))
        missing -= {_pair(a, row[a], b, row[b]) for a, b in combinations(row, 2)}
        rows.append(tuple(factor[row[k]] for k, factor in enumerate(factors)))
    return rows


def _pair(a, i, b, j):
    return (a, i, b, j) if a < b else (b, j, a, i)
