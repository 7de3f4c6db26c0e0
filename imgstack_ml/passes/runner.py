"""The pass runner: every graph that a fit runs.

A pass reads and decodes each block of images once. A *step*, a plain NumPy function, turns a batch of
consecutive blocks into a small partial result, and a *merge* joins two partial results. Batches run in waves,
so that a million files never stand in one graph; batch plan and merge order follow the position of the images,
never the order of completion, so that results repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from itertools import accumulate, pairwise
from math import ceil
from typing import Any, NamedTuple, TypeVar

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT

from ..base.lazy import whole_images
from ..base.validation import Images, first_nonfinite, rows_are_views
from ..errors import MemoryLimitError, NonFiniteError
from .blas import one_blas_thread
from .checkpoint import Checkpoint, PassRecord
from .cluster import client_of
from .memory import allowance, format_bytes, return_freed_memory, reuse_freed_memory
from .progress import ImageBar, compute_with_bar

__all__ = ["Pass", "PassRunner", "batch_rows", "nothing"]

Partial = TypeVar("Partial")
_LONG_WAVE = 16  # groups of batches; threads wait for the last of them, and then begin anew
_READ_BYTES = 2**28  # of raw images and partial results in flight, unless a plan says otherwise
_WORK_BYTES = 2**23  # of a step on one thread: tiles of float values, and what NumPy makes on the way
BATCH_BYTES = 2**25  # raw images handed to one task; larger batches pass 2 threads no faster


class Pass(NamedTuple):
    """What one pass is to learn: see `PassRunner.run`."""

    step: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    partial_bytes: int = 0
    label: str = "features"


class PassRunner:
    """Runs the passes of one fit over one stack, and counts what they read.

    Parameters
    ----------
    images : Images
        Checked input.
    read_bytes : int, optional
        Bytes of raw images and partial results that may be alive at once while a pass runs: 256 MiB, or half of the
        memory available to this process where that is less and the work is done here.
    progress : bool
        Show one bar a pass, on stderr.
    checkpoint : Checkpoint, optional
        Where results of passes that read are saved, and taken from. Images in memory are not worth it.

    Attributes
    ----------
    n_images_read : int
        Images read and decoded so far, repeats included; NumPy input counts as read once, and what an earlier
        process read for the checkpoint as well.
    blocks : list of ndarray
        After `keep`: the raw images, (b, *image_shape) each; later passes use them and read nothing.
    """

    def __init__(
        self,
        images: Images,
        *,
        read_bytes: int | None = None,
        progress: bool = False,
        checkpoint: Checkpoint | None = None,
    ):
        reuse_freed_memory()
        data = images.data
        self._files = images.files
        self._progress = progress
        self._checkpoint = checkpoint
        self._image_bytes = data.dtype.itemsize * images.n_pixels
        self.n_images = len(data)
        self.n_pixels = images.n_pixels
        self.n_images_read = 0
        self.blocks: list[np.ndarray] | None = None
        self._lazy: da.Array | None = None
        self._images_of_part: dict[Any, int] = {}  # of what `as_array` stacks
        if isinstance(data, np.ndarray) and not rows_are_views(data):
            data = da.from_array(data, chunks=(batch_rows(images), *images.image_shape), name=False)
        if isinstance(data, da.Array):
            self._lazy = whole_images(_without_empty_blocks(data))
            sizes = self._lazy.chunks[0]
        else:
            rows = batch_rows(images)
            self.blocks = [data[i : i + rows] for i in range(0, len(data), rows)]
            sizes = tuple(len(block) for block in self.blocks)
            self.n_images_read = self.n_images
        self.starts = [0, *accumulate(sizes)]
        if read_bytes is None:  # the room of this process is not that of a cluster's
            read_bytes = _READ_BYTES if self._client is not None else min(_READ_BYTES, allowance("auto").limit)
        self._read_bytes = read_bytes

    @property
    def n_passes(self) -> float:
        """Reads of the whole stack so far; 1.5 means that images were decoded 1.5 times on average."""
        return self.n_images_read / self.n_images

    @property
    def n_blocks(self) -> int:
        """Number of blocks of the stack."""
        return len(self.starts) - 1

    def run(
        self,
        step: Callable[..., Partial],
        merge: Callable[[Partial, Partial], Partial],
        *,
        shared: tuple = (),
        partial_bytes: int = 0,
        batch_bytes: int = 0,
        span: tuple[int, int] | None = None,
        label: str = "read",
        save: bool = True,
    ) -> Partial:
        """Pass over the images and return the merged result.

        Parameters
        ----------
        step : callable
            ``step(blocks, start, *shared) -> partial`` of consecutive raw blocks, `start` being the position of
            their first image in the stack. It must not change the blocks.
        merge : callable
            ``merge(earlier, later) -> partial``; may reuse neither argument's arrays.
        shared : tuple
            Further arguments of every step.
        partial_bytes : int
            Bytes of one partial result and of the step's buffers, for the memory bound.
        batch_bytes : int
            Bytes of raw images that make a partial result worth its merging, as far as memory allows.
        span : (int, int), optional
            First block and one past the last; all blocks by default.
        label : str
            What it is for, as the progress bar says.
        save : bool
            Whether the result goes into the checkpoint, if there is one: arrays and numbers in tuples and lists.

        Raises
        ------
        NonFiniteError
            Naming an image, and its file where known, with a NaN or infinite pixel.
        """
        first, stop = span or (0, self.n_blocks)
        aim = max(1, min(max(BATCH_BYTES, batch_bytes), self._read_bytes // 2 - partial_bytes))
        batches = self._plan_batches(first, stop, aim)
        widest = max(self._bytes_of(batch) for batch in batches) + partial_bytes
        if batch_bytes:  # no more results than planned where blocks make smaller batches
            widest = max(widest, aim + partial_bytes)
        together = max(1, self._read_bytes // widest)
        groups = [batches[i : i + together] for i in range(0, len(batches), together)]
        record = self._begin_record(label, groups, shared) if save else None
        longest = self._groups_in_a_wave(together)
        with self._bar(label, self.starts[stop] - self.starts[first]) as bar, self._named_errors():
            total = self._run_groups(step, merge, groups, shared, bar, longest, record)
            return_freed_memory()
        if self._reads:
            self.n_images_read += self.starts[stop] - self.starts[first]
        return total

    def run_together(self, passes: Sequence[Pass], memory_limit: str | int | float = "auto") -> list:
        """Learn what several passes would in one: each block is read once and handed to every step in turn.

        Raises
        ------
        MemoryLimitError
            If that takes more than `memory_limit`; nothing was read then.
        """
        partial_bytes = sum(one.partial_bytes for one in passes)
        self._hold_to(memory_limit, partial_bytes)
        return self.run(
            partial(_steps, [one.step for one in passes]),
            partial(_merges, [one.merge for one in passes]),
            partial_bytes=partial_bytes,
            label=", ".join(dict.fromkeys(one.label for one in passes)),
        )

    def _hold_to(self, memory_limit: str | int | float, partial_bytes: int) -> None:
        """Have a pass take no more than allowed, beside what a step and a merge on each thread work with."""
        allowed = allowance(memory_limit)
        if memory_limit == "auto" and self._client is not None:  # the room of this process is not that of a cluster's
            return
        working = self._n_threads * (_WORK_BYTES + partial_bytes) + partial_bytes
        rows = max(stop - start for start, stop in pairwise(self.starts))
        block = rows * self._image_bytes if self._reads else 0
        least = working + block + partial_bytes
        if least > allowed.limit:
            smaller = f"Open the stack in smaller blocks, e.g. open_stack(..., chunks={ceil(rows / 2)}), or give"
            raise MemoryLimitError(
                f"A pass over blocks of {rows} images needs at least {format_bytes(least)}, and the memory limit is "
                f"{format_bytes(allowed.limit)}. Nothing was read. {smaller if block and rows > 1 else 'Give'} "
                f"fit_together([...], X, memory_limit='{ceil(least / 1e6)}MB')."
            )
        self._read_bytes = min(_READ_BYTES, allowed.limit - working)

    def once(self, compute: Callable[[], Partial], label: str) -> Partial:
        """Return what `compute` does, with passes of its own, or what an earlier process saved of it."""
        record = self._begin_record(label, (), ())
        saved = None if record is None else record.load()
        if saved is not None and saved.n_done:
            self.n_images_read += saved.n_images
            return saved.value
        before = self.n_images_read
        result = compute()
        if record is not None:
            record.save(1, self.n_images_read - before, result)
        return result

    def fetch(self, span: tuple[int, int] | None = None, label: str = "read") -> list[np.ndarray]:
        """Read the blocks of `span` into memory, raw."""
        return self.run(_as_they_are, _concatenated, span=span, label=label, save=False)

    def keep(self) -> None:
        """Read the whole stack into memory, raw; later passes decode nothing."""
        if self.blocks is None:
            self.blocks = self.fetch(label="images into memory")
            self._lazy = None

    def run_pixels(
        self,
        step: Callable[..., Partial],
        merge: Callable[[Partial, Partial], Partial],
        blocks: list[np.ndarray] | None = None,
    ) -> Partial:
        """Cut images in memory into one range of pixels a thread, ``step(blocks, lo, hi)``, and merge in order.

        The images are those that were kept, or `blocks` as `fetch` returned them.
        """
        images = self.blocks if blocks is None else blocks
        assert images is not None, "keep() comes first"
        edges = np.linspace(0, self.n_pixels, 1 + min(self._n_threads, self.n_pixels), dtype=int)
        task = dask.delayed(step, pure=False, traverse=False)
        shared = dask.delayed(images, pure=False, traverse=False)
        parts = [task(shared, int(lo), int(hi)) for lo, hi in pairwise(edges)]
        with one_blas_thread():
            partials = dask.compute(*parts, scheduler=self._local_scheduler)
        return reduce(merge, partials)

    def as_array(
        self, step: Callable[..., np.ndarray], width: int, height: int, prepare: Callable[..., Any]
    ) -> tuple[da.Array, Any]:
        """Stack rows ``step(blocks, start, prepared)``, one an image, without running anything.

        Parameters
        ----------
        step : callable
            Gives float64 rows (b, width) of b images.
        width, height : int
            Columns; rows up to which consecutive blocks are joined.
        prepare : callable
            ``prepared = prepare([first block])``.

        Returns
        -------
        rows : dask array of shape (n_images, width)
        prepared : Delayed
        """
        sources = self._sources(0, self.n_blocks)
        prepared = dask.delayed(prepare, pure=False)(sources[:1])
        task = dask.delayed(_checked_step, pure=False)
        parts = []
        self._images_of_part = {}
        for batch in self._plan_batches(0, self.n_blocks, height * self._image_bytes):
            start, stop = self.starts[batch.first], self.starts[batch.stop]
            part = task(step, sources[batch.first : batch.stop], start, [prepared])
            self._images_of_part[part.key] = stop - start
            parts.append(da.from_delayed(part, shape=(stop - start, width), dtype=np.float64))
        return da.concatenate(parts), prepared

    def pixels_as_array(self, step: Callable[..., np.ndarray], height: int) -> da.Array:
        """Stack rows ``step(blocks, lo, hi)``, one a pixel of the kept images and float64, without running it."""
        task = dask.delayed(step, pure=False, traverse=False)
        blocks = dask.delayed(self.blocks, pure=False, traverse=False)
        parts = []
        for lo in range(0, self.n_pixels, height):
            hi = min(lo + height, self.n_pixels)
            part = task(blocks, lo, hi)
            parts.append(da.from_delayed(part, shape=(hi - lo, self.n_images), dtype=np.float64))
        return da.concatenate(parts)

    def compute(self, *collections: Any, label: str = "") -> tuple:
        """Run graphs made by `as_array` or `pixels_as_array` in one pass, and show a bar of it if it reads."""
        with one_blas_thread(), self._named_errors():
            if self._progress and self._reads:
                results = self._compute_watched(collections, label)
            else:
                results = dask.compute(*collections, scheduler=self._scheduler)
        if self._reads:
            self.n_images_read += self.n_images
        return results

    def _compute_watched(self, collections: tuple, label: str) -> tuple:
        """Compute arrays of one block, and delayed values, whose graphs keep the names of the parts that count."""
        values = [
            one.to_delayed(optimize_graph=False).item() if isinstance(one, da.Array) else one for one in collections
        ]
        with self._bar(label, self.n_images) as bar:
            return compute_with_bar(values, self._images_of_part, bar, self._scheduler)

    @property
    def _reads(self) -> bool:
        return self._lazy is not None

    @property
    def _scheduler(self) -> Any:
        """The user's scheduler for lazy input; kept images stay in this process."""
        return dask.base.get_scheduler(collections=[self._lazy]) if self._reads else self._local_scheduler

    @property
    def _local_scheduler(self) -> str:
        return "synchronous" if dask.base.get_scheduler() is dask.local.get_sync else "threads"

    @property
    def _client(self) -> Any:
        """The distributed client that would run the graph, or None."""
        return client_of(self._scheduler)

    @property
    def _n_threads(self) -> int:
        """Threads for work on images in this process."""
        if self._local_scheduler == "synchronous":
            return 1
        return dask.config.get("num_workers", None) or CPU_COUNT

    def _bytes_of(self, batch: _Batch) -> int:
        return self._image_bytes * self._images_of(batch)

    def _images_of(self, batch: _Batch) -> int:
        return self.starts[batch.stop] - self.starts[batch.first]

    def _plan_batches(self, first: int, stop: int, n_bytes: int) -> list[_Batch]:
        """Group consecutive blocks up to `n_bytes`; a block that is larger stands alone."""
        batches = [_Batch(first, first + 1)]
        for block in range(first + 1, stop):
            longer = _Batch(batches[-1].first, block + 1)
            if self._bytes_of(longer) <= n_bytes:
                batches[-1] = longer
            else:
                batches.append(_Batch(block, block + 1))
        return batches

    @contextmanager
    def _sent(self, shared: tuple) -> Iterator[tuple]:
        """Send large constants to the cluster once, not with every task, and have it forget them afterwards."""
        if self._client is None:
            yield tuple(dask.delayed(item, pure=False, traverse=False) for item in shared)
            return
        futures = tuple(self._client.scatter([item], broadcast=True, hash=False)[0] for item in shared)
        try:
            yield futures
        finally:
            for future in futures:
                future.release()

    def _groups_in_a_wave(self, together: int) -> int:
        """Count the groups of batches that may stand in one graph, a process having room for `together` batches.

        Threads take batches in order: each holds one at a time, and results that wait for their neighbours. So a long
        wave, whose end threads seldom wait for, holds no more than a group does that has two batches for each thread.
        Where a process has room for fewer, it gets one group at a time.
        """
        client = self._client
        if client is None:
            processes, threads = 1, self._n_threads
        else:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            processes, threads = max(1, len(workers)), max((w["nthreads"] for w in workers), default=1)
        return processes * (_LONG_WAVE if together >= 2 * threads else 1)

    def _begin_record(self, label: str, groups: Sequence[Sequence[_Batch]], shared: tuple) -> PassRecord | None:
        """Give the record of a pass that reads, if there is a checkpoint."""
        if self._checkpoint is None or not self._reads:
            return None
        return self._checkpoint.begin_pass(label, tuple(map(tuple, groups)), *shared)

    def _run_groups(
        self,
        step: Callable,
        merge: Callable,
        groups: Sequence[Sequence[_Batch]],
        shared: tuple,
        bar: ImageBar,
        longest: int,
        record: PassRecord | None,
    ) -> Any:
        """Run all groups of batches but those whose result was saved, in waves of up to `longest` groups.

        Waves are as long with a checkpoint as without: threads wait at the end of each, and on a cluster the last
        digits depend on their length.
        """
        n_done, _, _, total = (0, 0, 0, None) if record is None else record.load()
        n_images = sum(self._images_of(batch) for group in groups[:n_done] for batch in group)
        bar.initial = n_images
        bar.advance(n_images)
        if n_done == len(groups):
            return total
        with self._sent(shared) as sent:
            while n_done < len(groups):
                wave = groups[n_done : n_done + longest]
                total = self._run_wave(step, merge, wave, sent, bar, total)
                n_done += len(wave)
                if record is not None:
                    n_images += sum(self._images_of(batch) for group in wave for batch in group)
                    record.save(n_done, n_images, total)
        return total

    def _run_wave(
        self,
        step: Callable,
        merge: Callable,
        groups: Sequence[Sequence[_Batch]],
        shared: tuple,
        bar: ImageBar,
        total: Any,
    ) -> Any:
        """Run some groups of batches and join them with what came before, where there is any.

        Batches of a group are joined in a tree, groups one after the other, however many of them are in a wave.
        """
        first = groups[0][0].first
        sources = self._sources(first, groups[-1][-1].stop)
        task, join = dask.delayed(_checked_step, pure=False), dask.delayed(merge, pure=False)
        results, images_of = [], {}
        if total is not None and self._client is None:  # a cluster would be sent it back
            results.append(dask.delayed(total, pure=False, traverse=False))
            total = None
        for group in groups:
            level = []
            for batch in group:
                blocks = sources[batch.first - first : batch.stop - first]
                level.append(task(step, blocks, self.starts[batch.first], shared))
                images_of[level[-1].key] = self._images_of(batch)
            while len(level) > 1:
                pairs = [join(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
                level = pairs + level[2 * len(pairs) :]
            results += level
        with one_blas_thread():
            (result,) = compute_with_bar([reduce(join, results)], images_of, bar, self._scheduler)
        return result if total is None else merge(total, result)

    def _sources(self, first: int, stop: int) -> list:
        """Return some blocks: arrays that are kept, or tasks that read them."""
        if self._lazy is None:
            assert self.blocks is not None
            return self.blocks[first:stop]
        rest = (0,) * (self._lazy.ndim - 1)
        keys = [(self._lazy.name, i, *rest) for i in range(first, stop)]
        # As `self._lazy.blocks[first:stop].to_delayed()`, which has a cluster run one more task for each block.
        graph = self._lazy.__dask_optimize__(self._lazy.__dask_graph__(), keys)
        layer = f"delayed-{self._lazy.name}"
        graph = HighLevelGraph.from_collections(layer, graph, dependencies=())
        return [Delayed(key, graph, layer=layer) for key in keys]

    @contextmanager
    def _bar(self, label: str, n_images: int) -> Iterator[ImageBar]:
        what = f"read {int(self.n_passes) + 1}: {label}" if self._reads else label
        with ImageBar(self._image_bytes, total=n_images, desc=what, disable=not self._progress) as bar:
            yield bar

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except NonFiniteError as error:
            file = error.file if self._files is None else str(self._files[error.index])
            raise NonFiniteError(error.index, file) from None


def batch_rows(images: Images) -> int:
    """Images in a batch of a NumPy stack."""
    return max(1, BATCH_BYTES // (images.data.dtype.itemsize * images.n_pixels))


def nothing(a: None, b: None) -> None:
    """Join the results of steps that write in place."""


def _without_empty_blocks(data: da.Array) -> da.Array:
    sizes = data.chunks[0]
    return data if all(sizes) else data.rechunk({0: tuple(size for size in sizes if size)})


class _Batch(NamedTuple):
    """Blocks `first` to `stop` (one past the last), handled by one task."""

    first: int
    stop: int


def _checked_step(step: Callable[..., Partial], blocks: list[np.ndarray], start: int, shared: tuple) -> Partial:
    position = start
    for block in blocks:
        bad = first_nonfinite(block)
        if bad is not None:
            raise NonFiniteError(position + bad)
        position += len(block)
    with one_blas_thread():
        return step(blocks, start, *shared)


def _steps(steps: list[Callable], blocks: list[np.ndarray], start: int) -> list:
    return [step(blocks, start) for step in steps]


def _merges(merges: list[Callable], earlier: list, later: list) -> list:
    return [merge(a, b) for merge, a, b in zip(merges, earlier, later, strict=True)]


def _as_they_are(blocks: list[np.ndarray], start: int) -> list[np.ndarray]:
    return [_owned(block) for block in blocks]


def _owned(block: np.ndarray) -> np.ndarray:
    """Copy a view of something larger, which would stay in memory with it, and what is not in C order."""
    larger = isinstance(block.base, np.ndarray) and block.base.nbytes > block.nbytes
    return block.copy() if larger or not block.flags.c_contiguous else block


def _concatenated(earlier: list[np.ndarray], later: list[np.ndarray]) -> list[np.ndarray]:
    return earlier + later
