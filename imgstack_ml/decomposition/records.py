"""Records of a fit: what is asked for, how large it is, what a solver costs, and the result."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, prod
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from ..base.validation import working_dtype
from ..linalg.tiles import TILE_BYTES
from ..passes.batches import BATCH_BYTES, SELECT_BYTES
from ..passes.memory import Allowance
from .certificate import Certificate, in_units

__all__ = [
    "ALS",
    "FEW_PRODUCTS",
    "ITERATIONS",
    "Factors",
    "FitRequest",
    "FitSize",
    "RowCounts",
    "SolverCost",
    "component_count",
]

# Rates of a typical laptop. They only rank the solvers, and are constants so that every machine makes the same choice.
_MULTIPLY_RATE = 5e10  # float32 multiply-adds a second
_DOUBLE = 0.5  # speed in float64, relative to float32
_BYTES = 2.0  # speed of products of bytes: 4.4 with the instructions for them, and 1 without
_CAST = 45  # multiply-adds that take as long as casting one value to float and subtracting the shift
_BATCH_BYTES = 9 * 2**23  # raw images in one task of the randomized solver; less would not be worth a merge
_READ_BYTES = 2**27  # raw images and partial results in flight while a pass runs
_LARGE_SUMMARY = 4096  # images up to which summaries are large
FEW_PRODUCTS = 2e9  # up to this many multiply-adds, float64 is used from the start
ITERATIONS = 30  # of the streaming solver at most, for images in memory, which cost no read
_LEAST = 2.0**-1000  # sum of squares that leaves float64 room for variances of 1e-7 of it
ALS = "als"  # the solver of images with missing pixels, chosen by another parameter
_GUESS = 32  # components that are planned for a share of the variance, before the data tell their number


class FitRequest(NamedTuple):
    """What a solver is asked for. The exact solvers use `n_components` only.

    Attributes
    ----------
    n_components : int, float or None
        Number of components, or the share of the variance that they explain, or None for all.
    tol : float
        Largest estimated relative error of an explained variance, and of the variance missed.
    max_passes : int
        Reads of the stack.
    seed : int
        Seed of the random sums of images.
    """

    n_components: int | float | None
    tol: float = 1e-4
    max_passes: int = 6
    seed: int = 0

    @classmethod
    def of(cls, n_components: Any, tol: float, max_passes: int, random_state: Any) -> FitRequest:
        """Make a request from parameters of `ImagePCA`; draws a seed."""
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
        return cls(n_components, float(tol), int(max_passes), int(seed))

    @property
    def share(self) -> float | None:
        """The share of the variance asked for, if one was."""
        asked = self.n_components
        return float(asked) if isinstance(asked, Real) and not isinstance(asked, Integral) else None


class RowCounts(NamedTuple):
    """Numbers of rows, each of the size of an image, that the randomized solver works with.

    Attributes
    ----------
    k : int
        Components, as far as known beforehand.
    summary : int
        Rows kept of the first read. Many more than `k`: they cost products in one read only, and save later reads.
    draws : int
        Random sums of images. They contain directions that every cut of the summary would drop.
    block : int
        Rows multiplied in each later read. A multiple of 16, for fast matrix products.
    dtype : dtype
        Precision of the first products.
    summary_bytes : int
        Bytes of a summary.
    batch_bytes : int
        Bytes of raw images in a batch, so that merging its summary is worth the time.
    """

    k: int
    summary: int
    draws: int
    block: int
    dtype: np.dtype
    summary_bytes: int
    batch_bytes: int


@dataclass(frozen=True)
class FitSize:
    """Sizes of a fit, from which its costs follow.

    Attributes
    ----------
    n, p : int
        Images, and values in an image that are used.
    k : int
        Components, at most; min(n, p) for a share of the variance, since only the data tell their number.
    itemsize : int
        Bytes of a raw value.
    dtype : dtype
        Precision of the arithmetic.
    block : int
        Images in the largest block.
    in_memory : bool
        Whether the images are in memory before the fit begins.
    integers : bool
        Whether the raw values are integers.
    share : bool
        Whether a share of the variance is asked for.
    chunk : tuple of int
        Shape of the largest chunk of a lazy stack whose chunks hold parts of images; else empty.
    n_oversamples, max_passes : int
        As `ImagePCA` has them, for the randomized solver.
    values_read : int
        Values in an image as it is read, if a mask leaves some out; otherwise 0.
    total_weight : float
        Sum of the weights of the images; 0 without weights.
    """

    n: int
    p: int
    k: int
    itemsize: int
    dtype: np.dtype
    block: int
    in_memory: bool
    integers: bool
    share: bool
    chunk: tuple[int, ...] = ()
    n_oversamples: int = 10
    max_passes: int = 6
    values_read: int = 0
    total_weight: float = 0.0

    @classmethod
    def of(
        cls, shape: tuple[int, int], dtype: np.dtype, n_components: object, block: int | None, **others: Any
    ) -> FitSize:
        """Describe a fit to (n, p) values of `dtype`, in blocks of up to `block` images, or in memory if None."""
        n, p = shape
        number = isinstance(n_components, Integral)
        k = int(n_components) if isinstance(n_components, Integral) else min(n, p)
        return cls(
            n,
            p,
            k,
            dtype.itemsize,
            working_dtype(dtype),
            block or min(n, max(1, BATCH_BYTES // (p * dtype.itemsize))),
            block is None,
            integers=dtype.kind in "biu",
            share=not number and n_components is not None,
            **others,
        )

    @property
    def degrees(self) -> float:
        """Degrees of freedom, by which sums of squares are divided."""
        return self.total_weight - 1 if self.total_weight else max(self.n - 1, 1)

    def row_counts(self, kept: bool = False) -> RowCounts:
        """Numbers of rows of the randomized solver, for images kept in memory or read in each iteration."""
        k = min(self.k, _GUESS) if self.share else self.k
        most, draws = min(self.n - 1, self.p), 8
        block = min(16 * ceil((k + self.n_oversamples + draws) / 16), most + draws)
        # A large summary saves a read. On long stacks its merging would cost as much as that read.
        large = self.n <= _LARGE_SUMMARY and not kept
        summary = min(2 * (k + self.n_oversamples) + 32 if large else k + self.n_oversamples, most)
        dtype = self.precision(summary)
        summary_bytes = (summary + draws) * self.p * dtype.itemsize + 24 * self.p
        batch_bytes = max(_BATCH_BYTES, 3 * summary * self.image_bytes)
        return RowCounts(k, summary, draws, block, dtype, summary_bytes, batch_bytes)

    def few_products(self, rows: int) -> bool:
        """Whether products of the images with so many rows are few, so that float64 costs no time to speak of."""
        return self.n * self.p * rows < FEW_PRODUCTS

    def precision(self, rows: int) -> np.dtype:
        """Precision that products of the images with so many rows begin with."""
        return np.dtype(np.float64) if self.few_products(rows) else self.dtype

    def seconds(self, multiply_adds: float, values_cast: float, dtype: np.dtype | None = None) -> float:
        """Nominal seconds of products in `dtype`, or in bytes if None, and of casts to float."""
        if dtype is None:
            return (multiply_adds / _BYTES + _CAST * values_cast) / _MULTIPLY_RATE
        speed = _DOUBLE if dtype == np.float64 else 1.0
        return (multiply_adds + _CAST * values_cast) / (speed * _MULTIPLY_RATE)

    @property
    def in_bytes(self) -> bool:
        """Whether images have 8 bits, whose products may be made of bytes; this machine does not count."""
        return self.integers and self.itemsize == 1

    @property
    def region_bytes(self) -> int:
        """Bytes of the part of all raw images that is in the largest chunks, and of one chunk that a mask cuts."""
        chunk = prod(self.chunk) if self.values_read else 0
        return (self.n * prod(self.chunk[1:]) + chunk) * self.itemsize

    @property
    def joining_bytes(self) -> int:
        """Bytes for making a block of whole images from chunks, which are alive beside it."""
        return self.block * self.image_bytes if self.chunk else 0

    @property
    def raw_bytes(self) -> int:
        """Bytes of the raw stack, and of the pixels inside a mask if there is one."""
        return self.n * self.image_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes that keeping the images in memory takes: with a mask the pixels inside, and a few images as read."""
        return self.held_bytes + (self.keeping_bytes if self.values_read else 0)

    @property
    def held_bytes(self) -> int:
        """Bytes of the images that are kept, once all are: with a mask of the pixels inside."""
        if not self.values_read:
            return 0 if self.in_memory else self.raw_bytes
        return self.n * self.p * self.itemsize

    @property
    def keeping_bytes(self) -> int:
        """Bytes of raw images in flight while images are read into memory."""
        block = self.block * self.image_bytes
        return min(self.raw_bytes, max(block, SELECT_BYTES)) if self.values_read else self.raw_bytes

    def reading_bytes(self, allowed: Allowance, rest: int, threads: int, partial_bytes: int = 0) -> int:
        """Bytes of raw images and of their results, `partial_bytes` each, in flight while a pass runs.

        At least two blocks. Otherwise a batch for each thread, as far as that takes no more than a quarter of the
        memory beside `rest`: the other three quarters are for panels.
        """
        block = self.block * self.image_bytes
        blocks = min(2, ceil(self.n / self.block)) * block
        batches = max(_READ_BYTES, threads * (max(BATCH_BYTES, block) + partial_bytes))
        return max(blocks, min(batches, self.raw_bytes, (allowed.limit - rest) // 4))

    @property
    def graph_bytes(self) -> int:
        """Bytes of Dask's graphs: of a block in those of a wave (up to 4096 blocks), and in those of the stack."""
        n_regions = ceil((self.values_read or self.p) / prod(self.chunk[1:])) if self.chunk else 1
        n_blocks = 0 if self.in_memory else ceil(self.n / self.block) * n_regions
        return 2500 * min(n_blocks, 4096) + 600 * n_blocks

    @property
    def image_bytes(self) -> int:
        """Bytes of one raw image, and of its pixels inside a mask if there is one."""
        return (self.p + self.values_read) * self.itemsize

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile of float64."""
        return min(TILE_BYTES, 8 * self.n * self.p)

    @property
    def result_bytes(self) -> int:
        """Bytes of the components, of one copy of them, and of five images in float64, such as the mean."""
        return 2 * self.k * self.p * self.dtype.itemsize + 40 * self.p + self.embedding_bytes

    @property
    def embedding_bytes(self) -> int:
        """Bytes of the results with the pixels outside a mask, of the mask, and of the positions of those inside."""
        return self.values_read * (self.k * self.dtype.itemsize + 10) + 8 * self.p if self.values_read else 0


class SolverCost(NamedTuple):
    """What one solver costs.

    Attributes
    ----------
    solver : str
        Name of the solver.
    n_passes : float
        Reads of the stack. A fit reads once more if small singular values need more precision and the images were not
        kept.
    multiply_adds : float
        Multiply-adds of matrix products and factorisations.
    peak_bytes : int
        Peak memory: the largest sum of arrays alive at once, results included.
    keeps_images : bool
        Whether raw images stay in memory between passes.
    panel : int
        Images held at a time: all `n` if they are kept, 0 if the solver holds none.
    reading_bytes : int
        Part of the peak for raw images and partial results in flight.
    seconds : float
        Nominal seconds without reading, for ranking the solvers.
    room : int
        Rows of the size of an image that the randomized solver may hold.
    counts : RowCounts, optional
        Rows of the randomized solver.
    product_seconds : float
        Nominal seconds of each product of the randomized solver.
    n_products : int
        Products that `seconds` of the randomized solver has.
    instead : SolverCost, optional
        The exact solver that goes on, where ``"auto"`` began with the randomized one and that has not converged when
        the exact one would have ended.
    """

    solver: str
    n_passes: float
    multiply_adds: float
    peak_bytes: int
    keeps_images: bool
    panel: int
    reading_bytes: int
    seconds: float
    room: int = 0
    counts: RowCounts | None = None
    product_seconds: float = 0.0
    n_products: int = 0
    instead: SolverCost | None = None

    @property
    def setting(self) -> str:
        """The parameter of `ImagePCA` that chooses the solver."""
        return f"svd_solver={self.solver!r}" if self.solver != ALS else f"missing={ALS!r}"

    @property
    def patience(self) -> int:
        """Products that the randomized solver makes before the exact one instead: at most the time of that one."""
        assert self.instead is not None
        left = self.instead.seconds - self.seconds + self.n_products * self.product_seconds
        return min(max(0, floor(left / self.product_seconds)), ITERATIONS)


class Factors(NamedTuple):
    """Leading singular triplets of the centred stack.

    Attributes
    ----------
    mean : ndarray of shape (p,), float64
    components : ndarray of shape (k, p), float32 or float64
        Orthonormal rows; their signs are arbitrary.
    singular_values : ndarray of shape (k,), float64
        Descending; exactly 0 beyond the numerical rank.
    total : float
        Sum of squares of the centred stack.
    rank : int
        Numerical rank, or `k` if it is at least that.
    scores : ndarray of shape (n, k), or None
        Projections of the images, if the solver has them without another read.
    n_iter : int
        Products of the covariance with a block; 0 for an exact solver.
    certificate : Certificate, or None
        Error bounds and estimates of approximate factors; None for exact ones.
    exponent : int
        Singular values, total, scores and certificate are in units of 2^exponent (or squares of them), see
        `linalg.scaling`. The mean is in those of the images.
    left : ndarray of shape (p,), float64, or None
        Sums of squares of each pixel about its mean, less those that the components explain, in the units of `total`.
    """

    mean: np.ndarray
    components: np.ndarray
    singular_values: np.ndarray
    total: float
    rank: int
    scores: np.ndarray | None
    n_iter: int = 0
    certificate: Certificate | None = None
    exponent: int = 0
    left: np.ndarray | None = None

    def in_intensities(self) -> Factors:
        """Return the same in the units of the images.

        Raises
        ------
        OverflowError
            If the sum of squares is beyond float64, or below.
        """
        e = self.exponent
        with np.errstate(over="ignore"):
            total = float(np.ldexp(self.total, 2 * e))
        if not _LEAST * (self.total > 0) <= total < np.inf:
            raise OverflowError
        if e == 0:
            return self
        return self._replace(
            singular_values=np.ldexp(self.singular_values, e),
            total=total,
            scores=None if self.scores is None else np.ldexp(self.scores.astype(np.float64), e),
            certificate=None if self.certificate is None else in_units(self.certificate, -e),
            left=None if self.left is None else np.ldexp(self.left, 2 * e),
            exponent=0,
        )


def component_count(values: np.ndarray, total: float, most: int, request: FitRequest) -> int:
    """Return the number of components: `most`, or as many as explain more than the share of the variance asked for."""
    if request.share is None:
        return most
    explained = np.cumsum(values) / (total or 1.0)
    return min(most, int(np.searchsorted(explained, request.share, side="right")) + 1)
