"""The pass runner: every read of a stack that a fit makes.

A pass reads and decodes each block of images once. A *step*, a plain NumPy function, turns a batch of
consecutive blocks into a small partial result, and a *merge* joins two partial results. Batches run in waves, so that
no graph holds a million files. Plan and merge order follow the position of the images, never the order of
completion, so that results repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import dask
import dask.array as da
import numpy as np

from ..base.gate import Check, Places, gated
from ..base.lazy import stored_parts, whole_images
from ..base.validation import Images, rows_are_views
from .batches import (
    READ_BYTES,
    SELECT_BYTES,
    Batch,
    Group,
    Layout,
    batch_rows,
    folds_pay,
    plan_groups,
    read_bytes_within,
    threads_of_batch,
)
from .blas import in_threads, one_blas_thread
from .checkpoint import Checkpoint, PassRecord
from .executors import Executor, executor_for, local_scheduler, n_local_threads
from .folding import fold_waves, layout_of_chunks, waves_of_chunks, waves_of_lines
from .graphs import batches_as_tasks, regions_as_tasks, without_empty_blocks
from .groups import Source, Work, run_groups
from .memory import return_freed_memory, reuse_freed_memory, within_plan
from .progress import ImageBar
from .regions import Region, assembled, bands, inside_regions, shares_of, stored_regions
from .steps import Pass, combined, concatenated, no_result, raw_blocks, raw_regions

__all__ = ["Pass", "PassRunner", "no_result"]

Partial = TypeVar("Partial")


class PassRunner:
    """Runs the passes of one fit over one stack, and counts the images that they read.

    Parameters
    ----------
    images : Images
        Checked input.
    read_bytes : int, optional
        Bytes of raw images and partial results that may be alive at once during a pass. Default: 256 MiB, or half of
        the memory available to this process if that is less and the tasks run here.
    progress : bool
        Show one bar a pass, on stderr.
    checkpoint : Checkpoint, optional
        Folder in which results of passes are saved and found again. Passes over images in memory are not saved.
    whole : bool
        Whether steps get whole images, although a mask leaves pixels out. Regions have all pixels then, and are not
        searched for NaN.

    Attributes
    ----------
    layout : Layout
        Blocks of the stack.
    n_images, n_pixels : int
        Images, and values in an image that are used: those inside the mask of the images, if they have one.
    dtype : dtype
        Of the images.
    n_images_read : int
        Images read and decoded so far. An image that is read twice counts twice. NumPy input counts as read once.
        What an earlier process read for the checkpoint counts as well.
    blocks : list of ndarray
        Raw images in memory, (b, *image_shape) each: NumPy input, or lazy input after `keep`. Passes then read
        nothing. If a mask leaves pixels out, these are rows of the pixels inside (b, n_pixels), and NumPy input is no
        such block before `keep` either: a pass takes the pixels of a batch at a time.
    """

    def __init__(
        self,
        images: Images,
        *,
        read_bytes: int | None = None,
        progress: bool = False,
        checkpoint: Checkpoint | None = None,
        whole: bool = False,
    ):
        reuse_freed_memory()
        data = images.data
        self._progress = progress
        self._checkpoint = checkpoint
        self.n_images = len(data)
        self.n_pixels = images.n_pixels
        self.weights = images.weights
        self.roots = None if images.weights is None else np.sqrt(images.weights)
        self.dtype = data.dtype
        self.n_images_read = 0
        self.blocks: list[np.ndarray] | None = None
        self._lazy: da.Array | None = None
        self._stored: da.Array | None = None
        self._mask: np.ndarray | None = None  # of chunks that hold parts of images
        self._kept: list[list[np.ndarray]] | None = None
        self._image_shape = images.image_shape
        self._unselected: list[np.ndarray] | None = None  # NumPy input of which a mask leaves pixels out
        self._inside, self._whole, self._missing = images.positions, whole, images.missing
        if isinstance(data, np.ndarray) and not rows_are_views(data):
            data = da.from_array(data, chunks=(batch_rows(images), *images.image_shape), name=False)
        if isinstance(data, da.Array):
            stored = stored_parts(data)
            self._lazy = whole_images(without_empty_blocks(data))
            if stored is not None:
                self._mask = None if self._inside is None or whole else images.mask
                checks: dict[str, Any] = {"finite": not whole, "mask": self._mask, "missing": self._missing}
                self._stored = gated(without_empty_blocks(stored), images.files, **checks)
            sizes = self._lazy.chunks[0]
        else:
            rows = batch_rows(images)
            blocks = [data[i : i + rows] for i in range(0, len(data), rows)]
            sizes = tuple(len(block) for block in blocks)
            self.n_images_read = self.n_images
            if self._inside is None:
                self.blocks = blocks
            else:
                self._unselected = blocks
        self._places = Places((sizes, *((size,) for size in images.image_shape)), images.files, n_axes=1)
        self.layout = Layout([0, *accumulate(sizes)], images.image_bytes)
        self._read_bytes = read_bytes or min(READ_BYTES, self.executor.allowance("auto").limit)

    @property
    def reads(self) -> bool:
        """Whether passes read the images: they are lazy."""
        return self._lazy is not None

    @property
    def n_passes(self) -> float:
        """Reads of the whole stack so far; 1.5 means that images were decoded 1.5 times on average."""
        return self.n_images_read / self.n_images

    @property
    def executor(self) -> Executor:
        """Where tasks run now: in this process if the images are in memory, else where Dask is set to."""
        return executor_for(self._lazy if self._kept is None else None)

    def run(
        self,
        step: Callable[..., Partial],
        merge: Callable[[Partial, Partial], Partial],
        *,
        shared: tuple[Any, ...] = (),
        partial_bytes: int = 0,
        batch_bytes: int = 0,
        span: tuple[int, int] | None = None,
        label: str = "read",
        save: bool = True,
        by_region: bool = False,
        n_merged: int = 2,
        divides: bool = False,
    ) -> Partial:
        """Pass over the images and return the merged result.

        Parameters
        ----------
        step : callable
            ``step(blocks, start, *shared) -> partial`` of consecutive raw blocks, `start` being the position of
            their first image in the stack. It must not change the blocks.
        merge : callable
            ``merge(earlier, later) -> partial``. It may reuse arrays of neither argument. With `n_merged`, it takes so
            many.
        shared : tuple
            Further arguments of every step.
        partial_bytes : int
            Bytes of one partial result and of the step's buffers, for the memory bound.
        batch_bytes : int
            Bytes of raw images that make a partial result worth merging, as far as memory allows.
        span : (int, int), optional
            First block and one past the last; all blocks by default.
        label : str
            Purpose of the pass, shown by the progress bar.
        save : bool
            Whether the result goes into the checkpoint, if there is one: arrays and numbers in tuples and lists.
        by_region : bool
            Whether a step gets a list for each of some regions, of the chunks of all images there, for stacks with
            `regions`. `start` means nothing then.
        n_merged : int
            Results that `merge` joins at once, at most.
        divides : bool
            Whether `step` and `merge` have a parameter `run`, see `linalg.ranges`, and so can use several threads.

        Raises
        ------
        TypeError, ValueError
            A block of a lazy stack is not what the stack declares; see `checked_block`. A NonFiniteError names an
            image, and its file where known, with a NaN or infinite pixel.
        """
        source = self._source(by_region)
        blocks = Batch(*(span or (0, source.layout.n_blocks)))
        plan = plan_groups(source.layout, blocks, self._read_bytes, partial_bytes, batch_bytes)
        threads = threads_of_batch(n_local_threads(), plan.together) if self.executor.shares_memory and divides else 1
        if threads > 1:
            divided: Any = partial(partial, run=in_threads(threads))
            step, merge = divided(step), divided(merge)
        given = shared if threads == 1 else (*shared, threads)
        record = self._begin_record(label, plan.groups, given) if save else None
        with self._bar(label, source.layout.n_images(blocks)) as bar:
            work = Work(step, merge, shared, self.inside, n_merged)
            total: Partial = run_groups(self.executor, source, work, plan, bar, record)
            return_freed_memory()
        self._count(source.layout.n_images(blocks))
        return total

    def run_together(self, passes: Sequence[Pass], memory_limit: str | int | float = "auto") -> list[Any]:
        """Learn what several passes learn in one: each block is read once and given to every step in turn.

        Raises
        ------
        MemoryLimitError
            If that takes more than `memory_limit`; nothing was read then.
        """
        one = combined(passes)
        allowed, reads = self.executor.allowance(memory_limit), self._lazy is not None
        folds = (
            one.fold is not None
            and self._inside is None
            and (self._stored is not None or (folds_pay(one.partial_bytes) and self.executor.shares_memory))
        )
        weights = () if self.weights is None else (self.weights,)
        layout, chunk = self.layout, () if self._stored is None else tuple(map(max, self._stored.chunks))
        if self._stored is not None and folds:
            layout = layout_of_chunks(self.layout, self._stored)
        self._read_bytes = read_bytes_within(
            allowed, layout, one.partial_bytes, n_local_threads(), reads=reads, folds=folds, chunk=chunk
        )
        with within_plan(allowed.limit):
            found: list[Any] = (
                self.fold(one)
                if folds
                else self.run(one.step, one.merge, shared=weights, partial_bytes=one.partial_bytes, label=one.label)
            )
        return found

    def fold(self, one: Pass) -> Any:
        """Pass over the images region by region, and return what ``one.join`` makes of the totals of all regions.

        Images are added to the total of a region in their order. Regions are those of the chunks, where chunks hold
        parts of images, each read once; else ranges of lines of the images, which are read in groups.
        """
        assert one.fold is not None
        if self._stored is not None:
            regions = list(self.regions.values())
            waves = waves_of_chunks(self._stored, self.regions, self.layout, self._read_bytes)
        else:
            regions = bands(self._image_shape, 4 * n_local_threads())
            groups = plan_groups(self.layout, Batch(0, self.layout.n_blocks), self._read_bytes).groups
            waves = waves_of_lines(groups, regions, self)
        with self._bar(one.label, self.n_images) as bar:
            found = fold_waves(one, waves, regions, self.executor, bar)
            return_freed_memory()
        self._count(self.n_images)
        return found

    @property
    def regions(self) -> dict[tuple[int, ...], Region]:
        """Regions of a lazy stack whose chunks hold parts of images, by the numbers of these chunks; else none.

        Regions outside a mask are left out: their chunks are not read.
        """
        return {} if self._stored is None else inside_regions(stored_regions(self._stored), self._mask)

    def assembled(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Images (..., n_pixels) from their parts in all regions."""
        return assembled(parts, list(self.regions.values()), self._mask)

    def once(self, compute: Callable[[], Partial], label: str) -> Partial:
        """Return the result of `compute`, which runs passes of its own, or the one that an earlier process saved."""
        record = self._begin_record(label, (), ())
        saved = None if record is None else record.load()
        if saved is not None and saved.n_done:
            self.n_images_read += saved.n_images
            value: Partial = saved.value
            return value
        before = self.n_images_read
        result = compute()
        if record is not None:
            record.save(1, self.n_images_read - before, result)
        return result

    def fetch(self, span: tuple[int, int] | None = None, label: str = "read") -> list[np.ndarray]:
        """Read the blocks of `span` into memory, raw; rows of the pixels inside, if a mask leaves pixels out."""
        return self.run(raw_blocks, concatenated, span=span, label=label, save=False)

    def keep(self) -> None:
        """Read the whole stack into memory, raw; later passes read nothing."""
        if self.blocks is None:
            before = self._read_bytes
            if self._inside is not None:  # otherwise all images in flight are kept
                self._read_bytes = min(before, SELECT_BYTES)
            self.blocks = self.fetch(label="images into memory")
            self._lazy = self._stored = self._unselected = self._inside = None
            self._read_bytes = before

    def keep_by_region(self) -> None:
        """Read the whole stack into memory, in chunks as they are stored; later passes by region read nothing."""
        kept: list[Any] = self.run(raw_regions, concatenated, label="images into memory", save=False, by_region=True)
        self._kept = kept

    def run_pixels(
        self,
        step: Callable[..., Partial],
        merge: Callable[[Partial, Partial], Partial],
        blocks: Sequence[np.ndarray] | None = None,
    ) -> Partial:
        """Call ``step(blocks, lo, hi)`` on one range of pixels per thread, and merge the results in order.

        Parameters
        ----------
        step, merge : callable
            As in `run`; `lo` and `hi` are pixels of the flattened images.
        blocks : sequence of ndarray, optional
            Images in memory, as `fetch` returns them; by default those that this runner keeps.
        """
        blocks = self.blocks if blocks is None else blocks
        assert blocks is not None, "no images in memory: call keep() before"
        edges = np.linspace(0, self.n_pixels, 1 + min(n_local_threads(), self.n_pixels), dtype=int)
        task = dask.delayed(step, pure=False, traverse=False)
        images = dask.delayed(blocks, pure=False, traverse=False)  # Dask neither hashes nor walks them
        parts = [task(images, int(lo), int(hi)) for lo, hi in pairwise(edges)]
        with one_blas_thread():
            partials = dask.compute(*parts, scheduler=local_scheduler())
        merged: Partial = reduce(merge, partials)
        return merged

    def compute(self, *collections: Any, images_of: dict[Any, int], label: str) -> tuple[Any, ...]:
        """Compute arrays of one block, or delayed values, whose graphs read the whole stack once.

        Parameters
        ----------
        *collections : dask arrays or Delayed
            Made from `sources`.
        images_of : dict
            Number of images that each task handles, by the key of the task; for the bar.
        label : str
            Purpose of the pass, shown by the progress bar.
        """
        with one_blas_thread():
            if self._progress and self._lazy is not None:
                values = [_unoptimized(one) for one in collections]
                with self._bar(label, self.n_images) as bar:
                    results = self.executor.compute(values, images_of, bar)
            else:
                results = dask.compute(*collections, scheduler=self.executor.scheduler)
        self._count(self.n_images)
        return results

    def check(self, span: Batch) -> Check | None:
        """Return the check of some blocks, for `checked_step`; None if they are in memory, checked already."""
        if self.blocks is not None:
            return None
        return self._places.check_of(self.dtype, *span, self._whole, self._missing)

    @property
    def inside(self) -> tuple[np.ndarray, ...]:
        """Further arguments of the checks: positions of the pixels inside the mask, if it leaves pixels out."""
        return () if self._inside is None else (self._inside,)

    def sources(self, batches: Sequence[Batch]) -> list[Any]:
        """Return the blocks of each batch: lists of arrays in memory, or tasks that read them and give lists."""
        if self._lazy is not None:
            return batches_as_tasks(self._lazy, batches)
        blocks = self._unselected or self.blocks
        assert blocks is not None
        return [blocks[batch.first : batch.stop] for batch in batches]

    def _source(self, by_region: bool) -> Source:
        if not by_region:
            return Source(self.layout, self.sources, self.check)
        assert self._stored is not None
        regions = list(self.regions.values())
        layout = Layout([0, *accumulate(shares_of(regions, self.n_images))], self.layout.image_bytes)
        if self._kept is not None:
            kept = self._kept
            return Source(layout, lambda batches: [kept[first:stop] for first, stop in batches], lambda batch: None)
        tasks = partial(regions_as_tasks, self._stored, places=list(self.regions))
        return Source(layout, lambda batches: list(tasks(batches)), lambda batch: None)  # they are checked

    def _count(self, n_images: int) -> None:
        if self._lazy is not None and self._kept is None:
            self.n_images_read += n_images

    def _begin_record(self, label: str, groups: Sequence[Group], shared: tuple[Any, ...]) -> PassRecord | None:
        """Return the record of a pass in the checkpoint; None if there is no checkpoint, or nothing is read."""
        if self._checkpoint is None or self._lazy is None:
            return None
        return self._checkpoint.begin_pass(label, tuple(map(tuple, groups)), *shared)

    @contextmanager
    def _bar(self, label: str, n_images: int) -> Iterator[ImageBar]:
        what = f"read {int(self.n_passes) + 1}: {label}" if self._lazy is not None else label
        with ImageBar(self.layout.image_bytes, total=n_images, desc=what, disable=not self._progress) as bar:
            yield bar


def _unoptimized(collection: Any) -> Any:
    """Take the graph as it is: an optimized one loses the keys by which a bar counts."""
    return collection.to_delayed(optimize_graph=False).item() if isinstance(collection, da.Array) else collection
