"""Choosing a solver: what each one would read, multiply and hold, worked out from metadata alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isqrt
from numbers import Integral, Real
from typing import Any, NamedTuple

import dask
import numpy as np
from dask.system import CPU_COUNT

from .._errors import MemoryLimitError
from .._memory import Allowance, format_bytes
from .._passes import BATCH_BYTES
from .._validation import working_dtype
from ..linalg.tiles import TILE_BYTES, tile_width

__all__ = ["Plan", "Problem", "Requirement", "plan_fit"]

# Nominal rates of a laptop. They only rank the solvers, and are fixed so that a choice repeats everywhere.
_READ_RATE = 2e8  # bytes of decoded images a second
_MULTIPLY_RATE = 5e10  # float32 multiply-adds a second; float64 runs at half
_THREADS = 4  # at least, for buffers: small machines then plan alike
_WALK = 25  # multiply-adds that take as long as casting a value to float in a tile
_BATCH_BYTES = 9 * 2**23  # of raw images in one task of the randomized solver, worth the merging of its result
_GROUP = 128  # images, at least, that a summary begins with
_READ_BYTES = 2**27  # raw images and partial results in flight while a pass runs
_PREFER_EXACT = 1.3  # "auto" takes an exact solver while it takes no more than this times as long
_NOMINAL_READS = 3  # of the randomized solver, which stops when its certificate allows
_KEPT_BLOCKS = 6  # stored by an iteration on images in memory, before it starts again from the best of them
_LARGE_SUMMARY = 4096  # images up to which summaries are large
FEW_PRODUCTS = 2e9  # fewer multiply-adds than this are made in float64 at once
_GUESS = 32  # components that a share of the variance is first thought to take


class Sizes(NamedTuple):
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
class Problem:
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
    ) -> Problem:
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

    def sizes(self, kept: bool = False) -> Sizes:
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
        return Sizes(k, summary, draws, block, dtype, summary_bytes, batch_bytes)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the raw stack."""
        return self.n * self.p * self.itemsize

    def reading_bytes(self, allowed: Allowance, rest: int) -> int:
        """Bytes of raw images in flight while a pass runs: two blocks at least, else what fits beside `rest`.

        A quarter of that room is enough for speed, and leaves the most for panels.
        """
        blocks = min(2, ceil(self.n / self.block)) * self.block * self.image_bytes
        return max(blocks, min(_READ_BYTES, self.raw_bytes, (allowed.limit - rest) // 4))

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


class Requirement(NamedTuple):
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
    sizes : Sizes, optional
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
    sizes: Sizes | None = None

    @property
    def seconds(self) -> float:
        """Nominal time without reading, at a laptop's rates; for ranking."""
        return (self.multiply_adds + _WALK * self.values_cast) / _MULTIPLY_RATE


@dataclass(frozen=True)
class Plan:
    """What a fit will do, worked out without reading a pixel.

    Attributes
    ----------
    chosen : Requirement
        Solver, passes, multiply-adds, peak bytes.
    memory_limit : int
        Bytes that the fit may hold.
    considered : tuple of Requirement
        All solvers, the chosen one included, in order of nominal time.
    notes : tuple of str
        What else costs reads.
    """

    chosen: Requirement
    memory_limit: int
    considered: tuple[Requirement, ...]
    notes: tuple[str, ...] = ()

    @property
    def solver(self) -> str:
        """Name of the chosen solver."""
        return self.chosen.solver

    @property
    def n_passes(self) -> float:
        """Reads of the stack."""
        return self.chosen.n_passes

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds of the chosen solver."""
        return self.chosen.multiply_adds

    @property
    def peak_bytes(self) -> int:
        """Largest sum of bytes alive at once in the process, above what it held before."""
        return self.chosen.peak_bytes

    def __repr__(self) -> str:
        lines = [f"Plan: svd_solver={self.solver!r} within {format_bytes(self.memory_limit)}"]
        lines.append(f"  {'':2}{'solver':<17}{'passes':>7}{'multiply-adds':>15}{'peak memory':>14}")
        for r in self.considered:
            mark = "->" if r is self.chosen else ("  " if r.peak_bytes <= self.memory_limit else " x")
            size = format_bytes(r.peak_bytes)
            lines.append(f"  {mark}{r.solver:<17}{r.n_passes:>7.3g}{r.multiply_adds:>15.2g}{size:>14}")
        if any(r.peak_bytes > self.memory_limit for r in self.considered):
            lines.append("   x: does not fit the memory limit")
        lines += [f"   {note}" for note in self.notes]
        return "\n".join(lines)


def plan_fit(problem: Problem, svd_solver: str, allowed: Allowance) -> Plan:
    """Choose a solver by nominal time among those that fit.

    Depends on metadata and limit only, but for the buffers of threads beyond four.

    Raises
    ------
    MemoryLimitError
        If the solver asked for, or every solver, needs more than the limit.
    """
    threads = max(_THREADS, dask.config.get("num_workers", None) or CPU_COUNT)
    requirements = (requirement(problem, allowed, threads) for requirement in _REQUIREMENTS.values())
    considered = tuple(sorted(requirements, key=lambda r: _time(r, problem)))
    candidates = [r for r in considered if svd_solver in ("auto", r.solver)]
    fitting = [r for r in candidates if r.peak_bytes <= allowed.limit]
    if not fitting:
        raise MemoryLimitError(_too_large(problem, candidates, allowed))
    return Plan(_preferred(fitting, problem), allowed.limit, considered)


def _preferred(fitting: list[Requirement], problem: Problem) -> Requirement:
    """Return the fastest, or an exact solver that is nearly as fast.

    A share of the variance takes nobody knows how many components: an exact solver that reads once is preferred.
    """
    fastest, *others = fitting
    if fastest.solver != "randomized":
        return fastest
    for other in others:
        near = _time(other, problem) <= _PREFER_EXACT * _time(fastest, problem)
        if near or ((problem.share or problem.k >= min(problem.n, problem.p)) and other.n_passes == 1):
            return other
    return fastest


def _time(r: Requirement, problem: Problem) -> float:
    return r.n_passes * problem.raw_bytes / _READ_RATE + r.seconds


def _too_large(problem: Problem, candidates: list[Requirement], allowed: Allowance) -> str:
    least = min(candidates, key=lambda r: r.peak_bytes)
    limit = ceil(least.peak_bytes / 1e6)
    return (
        f"{problem.n} images of {problem.p} values with {problem.k} components need at least "
        f"{format_bytes(least.peak_bytes)} (svd_solver={least.solver!r}), and the memory limit is "
        f"{format_bytes(allowed.limit)}. Nothing was read. Set ImagePCA(memory_limit='{limit}MB', "
        f"svd_solver={least.solver!r}), ask for fewer components, or make the images smaller."
    )


def _gram(problem: Problem, allowed: Allowance, threads: int) -> Requirement:
    n, p, k = problem.n, problem.p, problem.k
    # Sums, one product and its merge for each thread, and what LAPACK's eigh takes beside the matrix.
    square = 8 * n * n
    fixed = problem.result_bytes + threads * (2 * square + problem.tile_bytes) + 3 * square
    whole = fixed + (0 if problem.in_memory else problem.raw_bytes)
    multiply_adds = n * n * p / 2 + k * n * p + 4 * n**3
    if problem.in_memory or whole <= allowed.keep:
        return Requirement("gram", 1, multiply_adds, whole, True, n, problem.raw_bytes, 2 * n * p)
    # Strips and sums of the results leave the tasks as partial results; a panel of raw images stays.
    block_bytes = problem.block * problem.image_bytes
    fixed = problem.result_bytes * 2 + 6 * square + threads * 2 * problem.tile_bytes
    reading = problem.reading_bytes(allowed, fixed + block_bytes)
    room = min(allowed.limit, max(allowed.keep, fixed + 3 * reading)) - fixed - reading
    panel = min(n, max(1, room // block_bytes) * problem.block)
    panels = ceil(n / panel)
    passes = panels - panel * panels * (panels - 1) / (2 * n) + 1
    peak = fixed + reading + panel * problem.image_bytes
    return Requirement("gram", passes, 1.5 * multiply_adds, peak, False, panel, reading, 2 * passes * n * p)


def _covariance(problem: Problem, allowed: Allowance, threads: int) -> Requirement:
    n, p = problem.n, problem.p
    square = 8 * p * p
    fixed = problem.result_bytes + threads * (3 * square + 2 * problem.tile_bytes) + 3 * square
    whole = fixed + (0 if problem.in_memory else problem.raw_bytes)
    keeps = problem.in_memory or whole <= allowed.keep
    reading = problem.raw_bytes if keeps else problem.reading_bytes(allowed, fixed)
    peak = whole if keeps else fixed + reading
    return Requirement("covariance_eigh", 1, n * p * p / 2 + 4 * p**3, peak, keeps, 0, reading, 2 * n * p)


def _tsqr(problem: Problem, allowed: Allowance, threads: int) -> Requirement:
    n, p, k = problem.n, problem.p, problem.k
    short, tall = sorted((n, p))
    # A tall block of float64, its Q and LAPACK's copy on each thread; and the stacked triangular factors.
    height = tall_height(short, tall)
    factors = threads * 3 * 8 * height * short + 2 * 8 * short * short * ceil(tall / height)
    fixed = problem.result_bytes + factors + 4 * 8 * short * short
    if n <= p:  # components are made in float64 and rounded at the end
        fixed += (16 - problem.dtype.itemsize) * k * p
    keeps = problem.in_memory or n <= p or fixed + problem.raw_bytes <= allowed.keep
    reading = (
        problem.raw_bytes if keeps else max(problem.reading_bytes(allowed, fixed), 2 * height * problem.image_bytes)
    )
    peak = fixed + (0 if problem.in_memory else reading)
    # Householder QR with its Q, in float64 at half speed, and the SVD of R.
    multiply_adds = 2 * (2 * tall * short**2 + 10 * short**3) + k * n * p
    return Requirement("tsqr", 1, multiply_adds, peak, keeps, n if keeps else 0, reading, 2 * n * p)


def tall_height(short: int, tall: int) -> int:
    """Rows of a tall block: blocks and the stack of their factors are then of one size."""
    return min(tall, max(2 * short, isqrt(short * tall)))


def _randomized(problem: Problem, allowed: Allowance, threads: int) -> Requirement:
    if problem.in_memory:
        return _streaming(problem, allowed.limit, threads, kept=True)
    kept = _streaming(problem, allowed.keep - problem.raw_bytes, threads, kept=True)
    return kept if kept.peak_bytes <= allowed.keep else _streaming(problem, allowed.limit, threads, kept=False)


def _streaming(problem: Problem, limit: int, threads: int, kept: bool) -> Requirement:
    """Take the most batches in flight, then the most rows, that fit beside the raw images, if these are kept."""
    n, p, sizes = problem.n, problem.p, problem.sizes(kept)
    blocks = _KEPT_BLOCKS if kept else problem.max_passes  # the last one for products
    full = min(blocks * sizes.block, min(n - 1, p) + sizes.block)
    if problem.share and kept:
        full = min(n - 1, p) + sizes.block  # as many as it takes
    lowest = min(4 * sizes.block, full)
    rooms = (*range(full, lowest, -sizes.block), lowest)
    options = (_Streaming(problem, sizes, wave, room, threads, kept) for wave in (6, 4, 3, 2) for room in rooms)
    least = _Streaming(problem, sizes, 2, lowest, threads, kept)
    memory = next((option for option in options if option.peak_bytes <= limit), least)
    peak = memory.peak_bytes + (problem.raw_bytes if kept and not problem.in_memory else 0)
    reads = 1 if kept else min(_NOMINAL_READS, problem.max_passes)
    later = _NOMINAL_READS - 1 if kept else reads - 1
    # Inner products of batches, rows from them, merging; blocks, and the care of the basis.
    first = 1.5 * sizes.summary + sizes.summary + sizes.draws + 4 * sizes.summary / 3
    multiply_adds = n * p * (first + 2 * sizes.block * later) + later * 20 * sizes.block**2 * p
    cast = n * p * (2 + 2 * later)
    return Requirement(
        "randomized", reads, multiply_adds, peak, kept, 0, memory.reading_bytes, cast, memory.room, sizes
    )


class _Streaming(NamedTuple):
    """Bytes alive in the randomized solver, phase by phase, with `wave` batches in flight and a basis of `room` rows.

    Images that are kept are not counted.
    """

    problem: Problem
    sizes: Sizes
    wave: int
    room: int
    threads: int
    kept: bool

    @property
    def peak_bytes(self) -> int:
        """Of the largest phase; and float64 images: mean, shift, drift, and what they are made from."""
        phases = self._summing, self._beginning, self._multiplying, self._finishing, self._single_look
        return max(phases) + 40 * self.problem.p

    @property
    def reading_bytes(self) -> int:
        """Raw images and summaries in flight."""
        return self.wave * (self._batch_bytes + self.sizes.summary_bytes)

    @property
    def _batch_bytes(self) -> int:
        """Raw images of a task: large batches where many fit, else single blocks."""
        problem = self.problem
        block = problem.block * problem.image_bytes
        return block if self.wave == 2 else max(block, min(self.sizes.batch_bytes, problem.raw_bytes))

    def _tasks(self, partial_bytes: int) -> int:
        """Batches in flight at once whose results take so much each."""
        if self.problem.raw_bytes <= self._batch_bytes:
            return 1
        return 2 if self.wave == 2 else self.reading_bytes // (self._batch_bytes + partial_bytes)

    def _merging(self, tasks: int) -> int:
        """Results of merges beside those of the tasks, the one so far included."""
        return 0 if tasks == 1 else min(self.threads, (tasks + 1) // 2) + 1

    @property
    def _summing(self) -> int:
        problem, sizes = self.problem, self.sizes
        tasks = self._tasks(sizes.summary_bytes)
        running, merging = min(self.threads, tasks), self._merging(tasks)
        images = min(problem.n, ceil(self._batch_bytes / problem.image_bytes))
        group = max(_GROUP, 3 * sizes.summary)
        if images > group:  # a task merges summaries of its own
            merging = max(merging, 2 * running + 1)
        if not problem.integers and sizes.dtype == np.float32:  # room for summaries of squares beyond float32
            merging += 2
        height = max(min(images, group), 2 * sizes.summary + 1)
        raw = 0 if self.kept else tasks * self._batch_bytes
        factoring = 2 * self._tile(height) + 6 * 8 * height**2  # a matrix of inner products, and eigh of it
        return raw + (tasks + merging) * sizes.summary_bytes + running * (factoring + 28 * problem.p)

    @property
    def _beginning(self) -> int:
        """The summary is there still, and the first block beside the basis."""
        sizes, p = self.sizes, self.problem.p
        return sizes.summary_bytes + 2 * sizes.block * p * sizes.dtype.itemsize + self._basis

    @property
    def _multiplying(self) -> int:
        n, sizes = self.problem.n, self.sizes
        products = sizes.block * self.problem.p * self.problem.dtype.itemsize
        scores = 8 * n * sizes.block
        if self.kept:
            return self._basis + (self.threads + 3) * scores
        tasks = self._tasks(products)
        reading = self._batch_bytes + products if tasks == 1 else self.reading_bytes
        walking = min(self.threads, tasks) * 2 * self._tile(min(n, 512))
        return self._basis + reading + self._merging(tasks) * products + 4 * scores + walking

    @property
    def _finishing(self) -> int:
        """Components and their completion; scores, padded and signed."""
        k = min(self.problem.k, self.room)
        return self._basis + 2 * k * self.problem.p * self.problem.dtype.itemsize + 3 * 8 * self.problem.n * k

    @property
    def _single_look(self) -> int:
        """Components from the summary alone."""
        return self.sizes.summary_bytes + 3 * self.problem.k * self.problem.p * self.sizes.dtype.itemsize

    @property
    def _basis(self) -> int:
        """Rows, scores on them, ten matrices of their inner products, and tiles to care for them."""
        rows = self.room * self.problem.p * self.problem.dtype.itemsize
        return rows + 8 * self.problem.n * self.room + 10 * 8 * self.room**2 + self.threads * 3 * self._tile(self.room)

    def _tile(self, rows: int) -> int:
        """Bytes of a tile of float64."""
        return 8 * rows * min(self.problem.p, tile_width(rows, np.dtype(np.float64)))


_REQUIREMENTS = {"gram": _gram, "covariance_eigh": _covariance, "tsqr": _tsqr, "randomized": _randomized}


def check_n_components(n_components: Any, n: int, p: int) -> None:
    """Refuse what cannot be a number of components, or a share of the variance, of (n, p) data."""
    if n_components is None:
        return
    most = min(n, p)
    if isinstance(n_components, Integral) and not isinstance(n_components, bool):
        if not 1 <= int(n_components) <= most:
            raise ValueError(
                f"n_components={n_components} must be between 1 and min(n_samples, n_features)={most} "
                f"for {n} images of {p} values."
            )
    elif not (isinstance(n_components, Real) and 0 < float(n_components) < 1):
        raise ValueError(
            f"n_components={n_components!r} must be None, an int from 1 to {most}, or a share of the variance "
            f"between 0 and 1, e.g. ImagePCA(0.95)."
        )
