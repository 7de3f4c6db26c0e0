"""What a fit is about, and what a solver takes for it: the vocabulary of plans."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from numbers import Integral
from typing import NamedTuple

import numpy as np

from ..base.validation import working_dtype
from ..linalg.tiles import TILE_BYTES
from ..passes.batches import BATCH_BYTES
from ..passes.memory import Allowance

__all__ = ["FEW_PRODUCTS", "FitSize", "RowCounts", "SolverCost"]

# A nominal rate of a laptop. It only ranks the solvers, and is fixed so that a choice repeats everywhere.
_MULTIPLY_RATE = 5e10  # float32 multiply-adds a second; float64 runs at half
_WALK = 25  # multiply-adds that take as long as casting a value to float in a tile
_BATCH_BYTES = 9 * 2**23  # of raw images in one task of the randomized solver, worth the merging of its result
_READ_BYTES = 2**27  # raw images and partial results in flight while a pass runs
_LARGE_SUMMARY = 4096  # images up to which summaries are large
FEW_PRODUCTS = 2e9  # fewer multiply-adds than this are made in float64 at once
_GUESS = 32  # components that a share of the variance is first thought to take


class RowCounts(NamedTuple):
    """Rows that the randomized solver works with.

    Attributes
    ----------
    k : int
        Components, as far as known beforehand.
    summary : int
        Kept of the first read: many more than `k`, since they cost one read only and decide how soon it is good.
    draws : int
        Random sums of images, for directions that stay below every cut of the summary.
    block : int
        Multiplied in each later read: a multiple of 16, which matrix products like.
    dtype : dtype
        Of the first products.
    summary_bytes : int
        Of a summary.
    batch_bytes : int
        Of raw images that are worth a result as large as these, and its merging.
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
    """What the cost of a fit depends on.

    Attributes
    ----------
    n, p : int
        Images, and values in an image.
    k : int
        Components, at most; min(n, p) for a fraction, of which only the data know what it takes.
    itemsize : int
        Bytes of a raw value.
    dtype : dtype
        Of the arithmetic.
    block : int
        Images in the largest block.
    in_memory : bool
        Whether the images are in memory before the fit begins.
    integers : bool
        Whether the raw values are integers.
    share : bool
        Whether a share of the variance is asked for.
    n_oversamples, max_passes : int
        As `ImagePCA` has them, for the randomized solver.
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
    n_oversamples: int = 10
    max_passes: int = 6

    @classmethod
    def of(
        cls, shape: tuple[int, int], dtype: np.dtype, n_components: object, block: int | None, **randomized: int
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
            **randomized,
        )

    def row_counts(self, kept: bool = False) -> RowCounts:
        """Rows that the randomized solver works with, with images kept in memory or read again and again."""
        k = min(self.k, _GUESS) if self.share else self.k
        most, draws = min(self.n - 1, self.p), 8
        block = min(16 * ceil((k + self.n_oversamples + draws) / 16), most + draws)
        # A large summary saves a read, and costs as much as one on long stacks, where most of it is merging.
        large = self.n <= _LARGE_SUMMARY and not kept
        summary = min(2 * (k + self.n_oversamples) + 32 if large else k + self.n_oversamples, most)
        dtype = np.dtype(np.float64) if self.n * self.p * summary < FEW_PRODUCTS else self.dtype
        summary_bytes = (summary + draws) * self.p * dtype.itemsize + 16 * self.p
        batch_bytes = max(_BATCH_BYTES, 3 * summary * self.image_bytes)
        return RowCounts(k, summary, draws, block, dtype, summary_bytes, batch_bytes)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the raw stack."""
        return self.n * self.p * self.itemsize

    def reading_bytes(self, allowed: Allowance, rest: int, threads: int, partial_bytes: int = 0) -> int:
        """Bytes of raw images in flight while a pass runs, with the results of as much as `partial_bytes` they give.

        Two blocks at least, else what fits beside `rest`: a batch for each thread, but no more than a quarter of that
        room, which leaves the most for panels.
        """
        block = self.block * self.image_bytes
        blocks = min(2, ceil(self.n / self.block)) * block
        batches = max(_READ_BYTES, threads * (max(BATCH_BYTES, block) + partial_bytes))
        return max(blocks, min(batches, self.raw_bytes, (allowed.limit - rest) // 4))

    @property
    def image_bytes(self) -> int:
        """Bytes of one raw image."""
        return self.p * self.itemsize

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile of float64."""
        return min(TILE_BYTES, 8 * self.n * self.p)

    @property
    def result_bytes(self) -> int:
        """Bytes of components, of the copy they are made from, and of three float64 mean images."""
        return 2 * self.k * self.p * self.dtype.itemsize + 24 * self.p


class SolverCost(NamedTuple):
    """What one solver takes.

    Attributes
    ----------
    solver : str
        Its name.
    n_passes : float
        Reads of the stack; more where small singular values turn out to need more precision, and the images were not
        kept.
    multiply_adds : float
        Of matrix products and factorisations.
    peak_bytes : int
        Largest sum of what is alive at once, results included.
    keeps_images : bool
        Whether raw images stay in memory between passes.
    panel : int
        Images held at a time: all `n` where they are kept, 0 where a solver holds none.
    reading_bytes : int
        Share of the peak for raw images and partial results in flight.
    values_cast : float
        How many times a value is brought into a tile.
    room : int
        Rows of the size of an image that the randomized solver may hold.
    counts : RowCounts, optional
        Of its blocks.
    """

    solver: str
    n_passes: float
    multiply_adds: float
    peak_bytes: int
    keeps_images: bool
    panel: int
    reading_bytes: int
    values_cast: float
    room: int = 0
    counts: RowCounts | None = None

    @property
    def seconds(self) -> float:
        """Nominal time without reading, at a laptop's rates; for ranking."""
        return (self.multiply_adds + _WALK * self.values_cast) / _MULTIPLY_RATE
