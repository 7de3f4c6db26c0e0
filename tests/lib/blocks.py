"""Small blocks of images for tests of the kernels, and what NumPy makes of them in float64."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
DTYPES = ["uint8", "uint16", "int16", "bool", "float32", "float64", ">u2", ">f4"]


def steady(n_examples):
    """Settings of Hypothesis with the same examples in every run."""
    return settings(max_examples=n_examples, deadline=None, derandomize=True)


def images(n, shape=(5, 4, 3), dtype="uint8", seed=0):
    values = np.random.default_rng(seed).integers(0, 200, (n, *shape))
    return (values > 100) if dtype == "bool" else values.astype(dtype)


def cut(X, *edges):
    """Blocks of X between the edges."""
    return [X[a:b] for a, b in zip((0, *edges), (*edges, len(X)), strict=True)]


def flat(X):
    """Images as rows, float64."""
    return X.reshape(len(X), -1).astype(np.float64)


def centred(X):
    """Rows less their mean. The mean of large numbers loses digits that a second round brings back."""
    rows = flat(X) - flat(X).mean(axis=0)
    return rows - rows.mean(axis=0)


@st.composite
def cut_stacks(draw, n_blocks=3):
    """Some blocks of one stack: any dtype, any sizes, a large offset now and then."""
    p = draw(st.integers(1, 5))
    sizes = draw(st.lists(st.integers(1, 5), min_size=n_blocks, max_size=n_blocks))
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint16", "float32", "float64"])))
    if dtype.kind == "u":
        values = hnp.arrays(dtype, (sum(sizes), p))
    else:
        offset = draw(st.sampled_from([0.0, 1e6, -30_000.0]))
        elements = st.integers(-1000, 1000).map(lambda i: offset + i / 4)
        values = hnp.arrays(dtype, (sum(sizes), p), elements=elements)
    return cut(draw(values), *np.cumsum(sizes)[:-1])
