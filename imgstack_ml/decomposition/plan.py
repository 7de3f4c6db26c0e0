"""Planning a fit: reads, multiply-adds and peak memory of each solver, from metadata alone, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from html import escape
from math import ceil, isqrt
from typing import TypeAlias

import dask
import numpy as np
from dask.system import CPU_COUNT

from ..base.notebook import table
from ..errors import MemoryLimitError
from ..passes.batches import BATCH_BYTES
from ..passes.memory import Allowance, format_bytes
from .records import ALS, FitSize, SolverCost
from .streaming_plan import randomized_cost

__all__ = ["COSTS", "Plan", "plan_fit", "tall_height"]

_READ_RATE = 2e8  # bytes of decoded images a second. A constant, so that every machine makes the same choice.
_THREADS = 4  # buffers are planned for at least this many threads, so that small machines make the same plan
_IN_FLIGHT = 2**30  # bytes of regions and their products that many threads may hold together
_ACCURACY = {"randomized": "estimated, with certain bounds", ALS: "least squares, to tol"}
_PREFER_EXACT = 1.3  # "auto" chooses an exact solver if it takes at most this many times as long


@dataclass(frozen=True)
class Plan:
    """What a fit will do, computed from metadata without reading a pixel. Made by `ImagePCA.plan`.

    Its repr is a table of all solvers, which marks the chosen one, and those that do not fit the memory limit. In a
    notebook the table also has estimated seconds and says why.

    Attributes
    ----------
    chosen : SolverCost
        Name, reads, multiply-adds and peak memory of the solver that will be used.
    memory_limit : int
        Bytes that the fit may hold.
    considered : tuple of SolverCost
        The same of all solvers, fastest first by nominal time.
    notes : tuple of str
        Hints, such as a step before that costs a read.
    raw_bytes : int
        Bytes of the decoded images, from which estimated seconds follow.
    svd_solver : str
        The solver asked for, or ``"auto"``.

    Examples
    --------
    >>> import dask.array as da
    >>> from imgstack_ml import ImagePCA
    >>> stack = da.zeros((200, 64, 64), dtype="uint8", chunks=(50, 64, 64))
    >>> plan = ImagePCA(n_components=10).plan(stack)
    >>> plan.solver, plan.n_passes
    ('gram', 1)
    """

    chosen: SolverCost
    memory_limit: int
    considered: tuple[SolverCost, ...]
    notes: tuple[str, ...] = ()
    raw_bytes: int = 0
    svd_solver: str = "auto"

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
        """Peak memory in bytes, above what the process held before the fit."""
        return self.chosen.peak_bytes

    def with_one_read_more(self) -> Plan:
        """Return the plan of a fit that first reads the images once."""
        considered = tuple(cost._replace(n_passes=cost.n_passes + 1) for cost in self.considered)
        return replace(self, chosen=considered[self.considered.index(self.chosen)], considered=considered)

    def __repr__(self) -> str:
        lines = [f"Plan: {self.chosen.setting} within {format_bytes(self.memory_limit)}"]
        lines.append(f"  {'':2}{'solver':<17}{'passes':>7}{'multiply-adds':>15}{'peak memory':>14}")
        for r in self.considered:
            mark = "->" if r is self.chosen else ("  " if r.peak_bytes <= self.memory_limit else " x")
            memory = format_bytes(r.peak_bytes)
            lines.append(f"  {mark}{r.solver:<17}{r.n_passes:>7.3g}{r.multiply_adds:>15.2g}{memory:>14}")
        if any(r.peak_bytes > self.memory_limit for r in self.considered):
            lines.append("   x: does not fit the memory limit")
        if self.chosen.instead is not None:
            most, other = self.chosen.patience, self.chosen.instead.solver
            lines.append(f"   {other!r} goes on where more than {most} products would be needed: it takes less time")
        lines += [f"   {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            (
                r.solver,
                f"{r.n_passes:.3g} read{'' if r.n_passes == 1 else 's'}",
                _ACCURACY.get(r.solver, "exact"),
                f"{float(f'{_time(r, self.raw_bytes):.2g}'):,.10g}",  # 470, and not 4.7e+02
                format_bytes(r.peak_bytes),
                self._why(r),
            )
            for r in self.considered
        ]
        header = ("solver", "reads of the images", "accuracy", "estimated seconds", "peak memory", "why")
        caption = f"Plan: {self.chosen.setting} within {format_bytes(self.memory_limit)}"
        hints = ["Seconds are those of a laptop that decodes 200 MB/s; they rank the solvers.", *self.notes]
        return table(rows, header=header, caption=caption) + "".join(f"<p>{escape(hint)}</p>" for hint in hints)

    def _why(self, r: SolverCost) -> str:
        """Say why a solver would be chosen, or not."""
        ratio = _time(r, self.raw_bytes) / (_time(self.chosen, self.raw_bytes) or 1.0)
        if r is not self.chosen:
            if r.peak_bytes > self.memory_limit:
                return "does not fit the memory limit"
            if self.svd_solver == r.solver or self.svd_solver == "auto":
                return "faster, but not exact" if ratio < 1 else f"slower, {ratio:.2g} times"
            return "not asked for"
        if self.svd_solver != "auto":
            return f"chosen: svd_solver={self.svd_solver!r} asks for it"
        fastest = next(one for one in self.considered if one.peak_bytes <= self.memory_limit)
        if r is fastest:
            other = f"; {r.instead.solver} goes on if it needs long" if r.instead else ""
            return f"chosen: the fastest that fits the memory limit{other}"
        near = ratio * _time(self.chosen, self.raw_bytes) <= _PREFER_EXACT * _time(fastest, self.raw_bytes)
        return "chosen: exact, and nearly as fast" if near else "chosen: exact in one read, however many others need"


def plan_fit(
    size: FitSize, svd_solver: str, allowed: Allowance, cost_functions: Mapping[str, CostOf] | None = None
) -> Plan:
    """Choose the fastest solver, by nominal time, of those that fit the memory; of all solvers, or of those given.

    The choice depends on metadata and limit only, except that more than four threads need more buffers.

    Raises
    ------
    MemoryLimitError
        If the solver asked for, or every solver, needs more than the limit.
    """
    threads = max(_THREADS, dask.config.get("num_workers", None) or CPU_COUNT)
    costs = []
    for solver, cost_of in (cost_functions or COSTS).items():
        # The exact solver of inner products needs no whole images.
        beside = size.graph_bytes + (0 if solver == "gram" else 2 * size.joining_bytes)
        cost = cost_of(size, Allowance(allowed.limit - beside, allowed.keep - beside), threads)
        costs.append(cost._replace(peak_bytes=cost.peak_bytes + beside))
    considered = tuple(sorted(costs, key=lambda r: _time(r, size.raw_bytes)))
    candidates = [r for r in considered if svd_solver in ("auto", r.solver)]
    fitting = [r for r in candidates if r.peak_bytes <= allowed.limit]
    if not fitting:
        raise MemoryLimitError(_too_large(size, candidates, allowed))
    chosen = _preferred(fitting, size)
    if svd_solver == "auto" and chosen.solver == "randomized" and chosen.keeps_images:
        chosen = _with_another(chosen, fitting, size)
    considered = tuple(chosen if r.solver == chosen.solver else r for r in considered)
    return Plan(chosen, allowed.limit, considered, raw_bytes=size.raw_bytes, svd_solver=svd_solver)


def _with_another(chosen: SolverCost, fitting: list[SolverCost], size: FitSize) -> SolverCost:
    """Add the fastest exact solver of images in memory, if there is one: how many products are needed is unknown."""
    instead = next((r for r in fitting if r.solver in ("gram", "covariance_eigh") and r.keeps_images), None)
    if instead is None:
        return chosen
    return chosen._replace(instead=instead, peak_bytes=max(chosen.peak_bytes, instead.peak_bytes))


def _preferred(fitting: list[SolverCost], size: FitSize) -> SolverCost:
    """Return the fastest solver, or an exact one that is nearly as fast.

    If a share of the variance, or all components, are asked for, an exact solver that reads once is preferred: how many
    iterations the streaming solver would need is unknown.
    """
    fastest, *others = fitting
    if fastest.solver != "randomized":
        return fastest
    for other in others:
        near = _time(other, size.raw_bytes) <= _PREFER_EXACT * _time(fastest, size.raw_bytes)
        if near or ((size.share or size.k >= min(size.n, size.p)) and other.n_passes == 1):
            return other
    return fastest


def _time(r: SolverCost, raw_bytes: int) -> float:
    return r.n_passes * raw_bytes / _READ_RATE + r.seconds


def _too_large(size: FitSize, candidates: list[SolverCost], allowed: Allowance) -> str:
    least = min(candidates, key=lambda r: r.peak_bytes)
    limit = ceil(least.peak_bytes / 1e6)
    return (
        f"{size.n} images of {size.p} values with {size.k} components need at least "
        f"{format_bytes(least.peak_bytes)} ({least.setting}), and the memory limit is "
        f"{format_bytes(allowed.limit)}. Nothing was read. Set ImagePCA(memory_limit='{limit}MB', "
        f"{least.setting}), ask for fewer components, or make the images smaller."
        f"{_of_chunks(size, least.solver)}"
    )


def _of_chunks(size: FitSize, solver: str) -> str:
    if not size.chunk or solver == "gram":  # which needs no whole images
        return ""
    return (
        f" Chunks of shape {size.chunk} hold parts of {size.block} images, so that whole images are read {size.block} "
        "at a time. Store the stack in chunks of whole images once: save_stack(X, 'whole.zarr', chunks=1); "
        "X = open_stack('whole.zarr')."
    )


def _gram(size: FitSize, allowed: Allowance, threads: int) -> SolverCost:
    n, p, k = size.n, size.p, size.k
    # The sum, one product and its merge for each thread, and the workspace of LAPACK's eigh.
    square = 8 * n * n
    products = threads * (2 * square + size.tile_bytes) + 3 * square
    # Images as read, of which a mask keeps a part, are gone when products are made.
    whole = size.result_bytes + size.held_bytes + max(products, size.kept_bytes - size.held_bytes)
    multiply_adds = n * n * p / 2 + k * n * p + 4 * n**3
    if size.chunk:
        return _gram_by_regions(size, allowed, threads, multiply_adds)
    room = allowed.room_to_keep(randomized_cost(size, allowed, threads).peak_bytes)
    if size.in_memory or whole <= room:
        return SolverCost("gram", 1, multiply_adds, whole, True, n, size.keeping_bytes, _gram_seconds(size, 1))
    # Strips of the matrix are partial results of tasks. A panel of raw images stays in memory.
    block_bytes = size.block * size.image_bytes
    fixed = size.result_bytes * 2 + 6 * square + threads * 2 * size.tile_bytes
    reading = size.reading_bytes(allowed, fixed + block_bytes, threads)
    room = min(allowed.limit, max(allowed.keep, fixed + 3 * reading)) - fixed - reading
    panel_bytes = size.block * p * size.itemsize
    panel = min(n, max(1, room // panel_bytes) * size.block)
    panels = ceil(n / panel)
    passes = panels - panel * panels * (panels - 1) / (2 * n) + 1
    peak = fixed + reading + panel * p * size.itemsize
    return SolverCost("gram", passes, 1.5 * multiply_adds, peak, False, panel, reading, _gram_seconds(size, passes))


def _gram_seconds(size: FitSize, passes: float) -> float:
    n, p, k = size.n, size.p, size.k
    more = 1 if passes == 1 else 1.5  # panels multiply whole blocks, where one product needs a half
    products = _exact_seconds(size, more * n * n * p / 2, passes * n * p)
    return products + size.seconds(4 * n**3, 0, size.dtype) + size.seconds(more * k * n * p, n * p, size.dtype)


def _exact_seconds(size: FitSize, multiply_adds: float, values_cast: float) -> float:
    """Nominal seconds of all inner products of images or pixels. Products of bytes cast nothing."""
    dtype = size.precision(min(size.n, size.p))
    if size.in_bytes and dtype == size.dtype:
        return size.seconds(multiply_adds, 0)
    return size.seconds(multiply_adds, values_cast, dtype)


def _gram_by_regions(size: FitSize, allowed: Allowance, threads: int, multiply_adds: float) -> SolverCost:
    """Cost over chunks that hold parts of images: inner products of all images in one such region after the other."""
    square, fixed = 8 * size.n**2, size.result_bytes + 3 * 8 * size.n**2
    batches = max(BATCH_BYTES, size.region_bytes), size.region_bytes
    # A batch holds its regions, inner products, those of a tile and of a neighbour.
    tile = min(size.tile_bytes, 8 * size.region_bytes // size.itemsize)
    each = [batch + 3 * square + 2 * tile for batch in batches]
    large = fixed + 2 * each[0] <= allowed.limit
    batch, taken = (batches[0], each[0]) if large else (batches[1], each[1])
    in_flight = max(1, min(threads, (allowed.limit - fixed) // taken, max(4, _IN_FLIGHT // taken)))
    reading, peak = in_flight * (batch + square), fixed + in_flight * taken
    kept = size.n * size.p * size.itemsize
    keeps = peak + kept <= allowed.room_to_keep(peak)
    peak, passes = (peak + kept, 1) if keeps else (peak, 2)
    return SolverCost("gram", passes, multiply_adds, peak, keeps, 0, reading, _gram_seconds(size, 1))


def _covariance(size: FitSize, allowed: Allowance, threads: int) -> SolverCost:
    n, p = size.n, size.p
    square = 8 * p * p
    fixed = size.result_bytes + threads * (3 * square + 2 * size.tile_bytes) + 3 * square
    whole = fixed + size.kept_bytes
    keeps = size.in_memory or whole <= allowed.keep
    # Results, which `fixed` has, can be larger than all images: with less for both, each block would be a batch.
    kept = size.keeping_bytes + 2 * threads * 3 * square
    reading = kept if keeps else size.reading_bytes(allowed, fixed, threads, 3 * square)
    peak = whole if keeps else fixed + reading
    products, factoring = n * p * p / 2, 4 * p**3
    seconds = _exact_seconds(size, products, n * p) + size.seconds(factoring, 0, size.dtype)
    return SolverCost("covariance_eigh", 1, products + factoring, peak, keeps, 0, reading, seconds)


def _tsqr(size: FitSize, allowed: Allowance, threads: int) -> SolverCost:
    n, p, k = size.n, size.p, size.k
    short, tall = sorted((n, p))
    # On each thread a tall block of float64, its Q and LAPACK's copy; and the stack of triangular factors.
    height = tall_height(short, tall)
    factors = threads * 3 * 8 * height * short + 2 * 8 * short * short * ceil(tall / height)
    fixed = size.result_bytes + factors + 4 * 8 * short * short
    if n <= p:  # components are computed in float64 and rounded at the end
        fixed += (16 - size.dtype.itemsize) * k * p
    keeps = size.in_memory or n <= p or fixed + size.kept_bytes <= allowed.keep
    reading = max(size.reading_bytes(allowed, fixed, threads), 2 * height * size.image_bytes)
    reading = size.keeping_bytes if keeps else reading
    peak = fixed + (size.kept_bytes if keeps else reading)
    # Householder QR with its Q, in float64 at half speed, and the SVD of R.
    multiply_adds = 2 * (2 * tall * short**2 + 10 * short**3) + k * n * p
    seconds = size.seconds(multiply_adds / 2, 2 * n * p, np.dtype(np.float64))
    return SolverCost("tsqr", 1, multiply_adds, peak, keeps, n if keeps else 0, reading, seconds)


def tall_height(short: int, tall: int) -> int:
    """Rows of a tall block, chosen so that a block is as large as the stack of all triangular factors."""
    return min(tall, max(2 * short, isqrt(short * tall)))


CostOf: TypeAlias = Callable[[FitSize, Allowance, int], SolverCost]
COSTS: dict[str, CostOf] = {"gram": _gram, "covariance_eigh": _covariance, "tsqr": _tsqr, "randomized": randomized_cost}
