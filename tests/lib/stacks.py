"""Stacks with known spectra, lazy sources that count their reads, and what a result must agree with."""

import itertools
import threading
from collections import Counter
from typing import NamedTuple

import dask.array as da
import numpy as np
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph

from imgstack_ml.passes.blas import one_blas_thread

_fresh = itertools.count()


def named(array, name):
    """Call an array exactly so: older Dask adds a token to the name that `map_blocks` is given."""
    if array.name == name:
        return array
    graph = {(name, *key[1:]): key for key in flatten(array.__dask_keys__())}
    graph = HighLevelGraph.from_collections(name, graph, dependencies=[array])
    return da.Array(graph, name, array.chunks, meta=array._meta)


@one_blas_thread()  # on a busy machine, threads of BLAS wait for each other most of the time
def stack_of_spectrum(
    n_images, image_shape, singular_values, *, offset=0.0, dtype="float64", seed=0, images="spread", pixels="spread"
):
    """Images whose singular values about their mean are as given, up to the rounding of `dtype`.

    `images` and `pixels` say how the singular vectors lie: "spread" at random; "few", where all but the first live
    on two images, or pixels, each; "drift" for images that change steadily from the first to the last.
    """
    rng = np.random.default_rng(seed)
    k, p = len(singular_values), int(np.prod(image_shape))
    left = _orthonormal(rng, n_images, k, images, centred=True)  # the mean image stays `offset`
    right = _orthonormal(rng, p, k, pixels, centred=False)
    return ((left * singular_values) @ right.T + offset).astype(dtype).reshape(n_images, *image_shape)


def _orthonormal(rng, n, k, kind, *, centred):
    columns = rng.standard_normal((n, k))
    if kind == "drift":
        columns = np.cos(np.pi * np.arange(1, k + 1) * (np.arange(n)[:, None] + 0.5) / n)
    elif kind == "few":
        columns[:] = 0
        columns[:, 0] = np.where(np.arange(n) < n // 2, 1, -1)
        for j in range(1, k):
            columns[2 * j, j], columns[2 * j + 1, j] = 1, -1
    if centred:
        return np.linalg.qr(np.column_stack([np.ones(n), columns]))[0][:, 1:]
    return np.linalg.qr(columns)[0]


@one_blas_thread()
def photographs(n_images, image_shape, dtype="uint8", seed=0):
    """Images with a decaying spectrum of separate singular values over noise, in the range of `dtype`."""
    rng = np.random.default_rng(seed)
    p = int(np.prod(image_shape))
    k = max(1, min(6, n_images - 1, p))
    X = (rng.standard_normal((n_images, k)) * 0.6 ** np.arange(k)) @ rng.standard_normal((k, p))
    X += 0.05 * rng.standard_normal((n_images, p)) + rng.standard_normal(p)
    X = (X - X.min()) / (X.max() - X.min())
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1000.0
    X = np.rint(X * top) if np.dtype(dtype).kind == "u" else X * top
    return X.astype(dtype).reshape(n_images, *image_shape)


def images(shape, dtype="uint8"):
    """Photographs of few intensities, which every dtype can hold; Booleans where they are bright."""
    values = photographs(shape[0], shape[1:], "uint8") // 2
    return (values > 60) if dtype == "bool" else values.astype(dtype)


class Source(NamedTuple):
    """A lazy stack, and how often each of its images was read so far."""

    data: da.Array
    reads: Counter

    @property
    def n_reads(self):
        """Reads of the whole stack."""
        return sum(self.reads.values()) / len(self.data)


def counted(pixels, chunks):
    """Serve `pixels` lazily in `chunks` of whole images, counting; threads and synchronous schedulers only.

    `pixels` is an array, or ``(make, shape, dtype)`` with ``make(start, stop)`` for stacks too large to hold.
    """
    reads, lock = Counter(), threading.Lock()
    if isinstance(pixels, np.ndarray):
        make, shape, dtype = (lambda start, stop: pixels[start:stop]), pixels.shape, pixels.dtype
    else:
        make, shape, dtype = pixels

    def read(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        with lock:
            reads.update(range(start, stop))
        return make(start, stop)

    sizes = da.core.normalize_chunks((chunks, *shape[1:]), shape)
    meta = np.empty((0,) * len(shape), dtype)
    return Source(da.map_blocks(read, chunks=sizes, dtype=dtype, meta=meta, name=f"counted-{next(_fresh)}"), reads)


class Reference(NamedTuple):
    """The singular value decomposition of the centred stack in float64."""

    n_images: int
    mean: np.ndarray
    singular_values: np.ndarray
    components: np.ndarray
    total: float

    def explained_variance(self, k):
        """Variances of the leading k components."""
        return np.pad(self.singular_values, (0, k))[:k] ** 2 / (self.n_images - 1)


@one_blas_thread()
def reference(X):
    """NumPy's answer for a stack in memory."""
    X = np.asarray(X, dtype=np.float64).reshape(len(X), -1)
    mean = X.mean(axis=0)
    mean = mean + (X - mean).mean(axis=0)  # a sum of large numbers loses digits that the difference still has
    _, s, Vt = np.linalg.svd(X - mean, full_matrices=False)
    return Reference(len(X), mean, s, Vt, float(s @ s))


def tolerance(dtype):
    """Relative error allowed in an explained variance of images of `dtype`."""
    return 1e-10 if np.dtype(dtype) in (np.float64, np.int64, np.int32, np.uint32, np.uint64) else 1e-5


def assert_explained(pca, ref, rtol):
    """Variances to `rtol` of themselves down to sigma_1/1000, beyond that of the largest; ratio of the exact total."""
    found, expected = pca.explained_variance_, ref.explained_variance(pca.n_components_)
    strong = expected >= 1e-6 * expected[0]
    np.testing.assert_allclose(found[strong], expected[strong], rtol=rtol)
    np.testing.assert_allclose(found[~strong], expected[~strong], rtol=0, atol=rtol * expected[0])
    np.testing.assert_allclose(pca.singular_values_**2, found * (ref.n_images - 1), rtol=1e-12)
    ratio = expected * (ref.n_images - 1) / ref.total
    np.testing.assert_allclose(pca.explained_variance_ratio_[strong], ratio[strong], rtol=rtol)


def assert_components(pca, ref):
    """Axes orthonormal, right where their singular value is separate, and signed by their largest entry."""
    k, axes = pca.n_components_, pca.components_.astype(np.float64)
    eps = np.finfo(pca.components_.dtype).eps
    np.testing.assert_allclose(axes @ axes.T, np.eye(k), rtol=0, atol=20 * eps)
    for j in separate(ref.singular_values, k):
        assert abs(axes[j] @ ref.components[j]) >= 1 - 1e-6, f"component {j}"
    size = np.abs(axes)
    first = np.argmax(size >= (1 - 1e-4) * size.max(axis=1, keepdims=True), axis=1)
    assert np.all(axes[np.arange(k), first] > 0)


def separate(s, k):
    """Indices below k of singular values of at least sigma_1/1000 and 1 % off both neighbours."""
    s = np.append(s, 0.0)
    gap = np.minimum(np.append(np.inf, -np.diff(s)), np.append(-np.diff(s), 0.0))
    return [j for j in range(min(k, len(s) - 1)) if s[j] >= 1e-3 * s[0] and gap[j] >= 1e-2 * s[j]]


def assert_fitted(pca, X, rtol=None):
    """All of a fit, against NumPy: variances, axes, mean, and the variance left over."""
    ref = reference(X)
    rtol = tolerance(X.dtype) if rtol is None else rtol
    assert_explained(pca, ref, rtol)
    assert_components(pca, ref)
    spread = ref.singular_values[0] / np.sqrt(ref.n_images)
    np.testing.assert_allclose(pca.mean_, ref.mean, rtol=1e-12, atol=0.01 * rtol * spread)
    k, most = pca.n_components_, min(ref.n_images, ref.mean.size)
    left = (ref.singular_values[k:] ** 2).sum() / (ref.n_images - 1) / max(1, most - k)
    assert abs(pca.noise_variance_ - left) <= rtol * (left + 1e-4 * ref.explained_variance(1)[0])
    assert_residual_variance(pca, X, rtol)
    return ref


def assert_residual_variance(pca, X, rtol):
    """Variances of the pixels of residuals, within `rtol` of the largest of a pixel, and what is left of the total."""
    A = np.asarray(X, dtype=np.float64).reshape(len(X), -1)
    A = A - A.mean(axis=0)
    axes = pca.components_.astype(np.float64)
    whole, left = ((part**2).sum(axis=0) / (len(X) - 1) for part in (A, A - A @ axes.T @ axes))
    assert pca.residual_variance_image_.shape == pca.image_shape_
    np.testing.assert_allclose(pca.residual_variance_image_.ravel(), left, rtol=0, atol=rtol * whole.max())
    unexplained = whole.sum() * (1 - pca.explained_variance_ratio_.sum())
    np.testing.assert_allclose(pca.residual_variance_image_.sum(), unexplained, rtol=0, atol=rtol * whole.sum())


def assert_scores(pca, scores, X, rtol=1e-5):
    """Scores are the centred images times the axes found, within `rtol` of sigma_1."""
    ref = reference(X)
    expected = (np.asarray(X, np.float64).reshape(len(X), -1) - ref.mean) @ pca.components_.T.astype(np.float64)
    scores = np.asarray(scores, dtype=np.float64)
    if pca.whiten:
        scores = scores * np.sqrt(pca.explained_variance_)
    assert np.abs(scores - expected).max() <= rtol * ref.singular_values[0]
