"""The pass runner: plan, order, counts, limits, errors."""

import threading
from functools import partial
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from imgstack_ml.base.validation import Images
from imgstack_ml.errors import NonFiniteError
from imgstack_ml.passes import batches
from imgstack_ml.passes.blas import one_blas_thread
from imgstack_ml.passes.executors import LocalExecutor
from imgstack_ml.passes.regions import assembled
from imgstack_ml.passes.runner import PassRunner
from imgstack_ml.passes.steps import Pass

SHAPE = (23, 6, 5)
STACK = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


def span(blocks, start):
    """A partial result that shows which images a step saw, and how."""
    return [(start, tuple(len(block) for block in blocks), int(sum(block.sum() for block in blocks)))]


def joined(a, b):
    return a + b


def weighted(blocks, start, factor, offset):
    return sum(float(block.sum()) for block in blocks) * factor + offset * len(blocks)


def plus(a, b):
    return a + b


def counting_stack(chunks=4):
    """A lazy stack and the list of blocks that were really made."""
    made, lock = [], threading.Lock()

    def make(block, block_info=None):
        with lock:
            made.append(block_info[0]["array-location"][0])
        return block

    return da.from_array(STACK, chunks=(chunks, -1, -1)).map_blocks(make, dtype=STACK.dtype, meta=STACK[:0]), made


def blas_threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


@pytest.mark.parametrize(
    ("chunks", "read_bytes", "scheduler"),
    [
        (chunks, read_bytes, ["synchronous", "threads"][(i + j) % 2])
        for i, chunks in enumerate([(23, 6, 5), (4, 6, 5), (1, 6, 5), (7, 4, 2)])
        for j, read_bytes in enumerate([1, 400, 2**28])
    ],
)
def test_every_image_once_and_in_order(scheduler, read_bytes, chunks):
    stack = da.from_array(STACK, chunks=chunks)
    with dask.config.set(scheduler=scheduler):
        seen = PassRunner(Images(stack, None), read_bytes=read_bytes).run(span, joined)
    starts = [start for start, _, _ in seen]
    sizes = [sum(rows) for _, rows, _ in seen]
    assert starts == [0, *np.cumsum(sizes)[:-1]]
    assert sum(sizes) == len(STACK)
    for (start, _, total), size in zip(seen, sizes, strict=True):
        assert total == STACK[start : start + size].sum()


def test_batches_do_not_depend_on_the_scheduler():
    stack = da.from_array(STACK, chunks=(2, 6, 5))
    seen = []
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            seen.append(PassRunner(Images(stack, None), read_bytes=500).run(span, joined))
    assert seen[0] == seen[1]


def test_numpy_input_goes_the_same_way():
    runner = PassRunner(Images(STACK, None))
    assert runner.run(span, joined) == [(0, (23,), int(STACK.sum()))]
    assert runner.n_passes == 1
    runner.run(span, joined)
    assert runner.n_passes == 1


def test_empty_blocks_are_left_out():
    wanted = np.ones(len(STACK), bool)
    wanted[4:8] = False
    stack = da.from_array(STACK, chunks=(4, 6, 5))[da.from_array(wanted, chunks=4)].compute_chunk_sizes()
    assert 0 in stack.chunks[0]
    (seen,) = PassRunner(Images(stack, None)).run(span, joined)
    assert sum(seen[1]) == len(STACK) - 4
    assert 0 not in seen[1]


def test_reads_are_counted_as_they_happen():
    stack, made = counting_stack(4)
    runner = PassRunner(Images(stack, None))
    runner.run(span, joined)
    assert len(made) == 6
    assert runner.n_passes == 1
    runner.run(span, joined, span=(2, 6))
    assert len(made) == 10
    assert runner.n_images_read == 23 + 15
    runner.keep()
    assert len(made) == 16
    runner.run(span, joined)
    runner.run_pixels(lambda blocks, lo, hi: [(lo, hi)], joined)
    assert len(made) == 16
    assert runner.n_images_read == 23 + 15 + 23
    np.testing.assert_array_equal(np.concatenate(runner.blocks), STACK)


@pytest.mark.parametrize(("read_bytes", "threads"), [(800, 1), (800, 8), (1000, 3), (2000, 8), (5000, 3)])
def test_a_wave_holds_no_more_than_it_may(monkeypatch, read_bytes, threads):
    """Blocks and results alive at once, counted as they come and go, stay within the bytes given to reading.

    Beside them there is a result of each merge that runs, and the one so far.
    """
    monkeypatch.setattr(batches, "BATCH_BYTES", 200)
    alive, most, lock = [0], [0], threading.Lock()

    class Tracked(np.ndarray):
        def __del__(self):
            if self.base is None or not isinstance(self.base, Tracked):
                with lock:
                    alive[0] -= self.nbytes

    def tracked(shape):
        out = np.ndarray.__new__(Tracked, shape, np.uint8)
        out[...] = 1
        with lock:
            alive[0] += out.nbytes
            most[0] = max(most[0], alive[0])
        return out

    def make(block):
        return tracked(block.shape)

    stack = da.zeros((320, 100), chunks=(1, 100), dtype=np.uint8).map_blocks(make, meta=np.empty((0, 0), np.uint8))
    with dask.config.set(num_workers=threads):
        runner = PassRunner(Images(stack, None), read_bytes=read_bytes)
        runner.run(lambda blocks, start: tracked(50), lambda a, b: tracked(50), partial_bytes=50)
    together = read_bytes // 250
    assert 250 <= most[0] <= read_bytes + 50 * (min(threads, (together + 1) // 2) + 1)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_results_do_not_depend_on_the_length_of_waves(monkeypatch, scheduler):
    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    stack = da.from_array(STACK, chunks=(1, 6, 5))
    shapes = []
    for length in (1, 2, 16):
        monkeypatch.setattr(batches, "_LONG_WAVE", length)
        with dask.config.set(scheduler=scheduler, num_workers=2):
            runner = PassRunner(Images(stack, None), read_bytes=150)  # five batches a group
            shapes.append(runner.run(lambda blocks, start: start, lambda a, b: (a, b)))
    assert shapes[0] == shapes[1] == shapes[2]


def test_shared_arguments_reach_every_step():
    stack = da.from_array(STACK, chunks=(5, 6, 5))
    result = PassRunner(Images(stack, None), read_bytes=1).run(weighted, plus, shared=(2.0, 1000))
    assert result == 2.0 * STACK.sum() + 5 * 1000


def test_pixel_ranges_cover_all_pixels_in_order():
    runner = PassRunner(Images(STACK, None))
    ranges = runner.run_pixels(lambda blocks, lo, hi: [(lo, hi)], joined)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 30
    assert all(a[1] == b[0] for a, b in pairwise(ranges))


@pytest.mark.parametrize("files", [None, [f"{i}.tif" for i in range(23)]], ids=["no files", "files"])
def test_bad_pixels_are_named(files):
    bad = STACK.astype(np.float32)
    bad[17, 2, 3] = np.nan
    stack = da.from_array(bad, chunks=(5, 6, 5))
    with pytest.raises(NonFiniteError, match=r"image 17 \('17.tif'\)" if files else r"image 17 contains"):
        PassRunner(Images(stack, files)).run(span, joined)


def test_large_finite_values_are_no_error():
    huge = np.full((4, 6), np.finfo(np.float64).max)
    PassRunner(Images(da.from_array(huge), None)).run(lambda blocks, start: 0, plus)


@pytest.mark.usefixtures("two_blas_threads")
def test_one_blas_thread_within_a_pass_and_the_old_number_after():
    before = blas_threads()

    def look(blocks, start):
        return [blas_threads()]

    stack = da.from_array(STACK, chunks=(2, 6, 5))
    for seen in PassRunner(Images(stack, None), read_bytes=1).run(look, joined):
        assert set(seen) == {1}
    assert blas_threads() == before


@pytest.mark.usefixtures("two_blas_threads")
def test_the_old_number_comes_back_after_an_error_and_after_overlap():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        PassRunner(Images(STACK, None)).run(lambda blocks, start: 1 / 0, plus)
    assert blas_threads() == before
    first, second = threading.Event(), threading.Event()

    def early():
        with one_blas_thread():
            first.set()
            second.wait(10)

    thread = threading.Thread(target=early)
    thread.start()
    assert first.wait(10)
    with one_blas_thread():  # entered second, left last
        second.set()
        thread.join(10)
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_steps_of_a_tree_merge_are_joined_in_order(monkeypatch):
    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    stack = da.from_array(STACK, chunks=(1, 6, 5))
    seen = PassRunner(Images(stack, None), read_bytes=300).run(span, joined)
    assert [start for start, _, _ in seen] == list(range(23))


def test_progress_counts_every_image(capsys):
    stack = da.from_array(STACK, chunks=(4, 6, 5))
    PassRunner(Images(stack, None), read_bytes=1, progress=True).run(span, joined, label="looking")
    bar = capsys.readouterr().err
    assert "looking: 100%" in bar
    assert "23/23" in bar


def test_progress_is_silent_by_default(capsys):
    PassRunner(Images(STACK, None)).run(span, joined)
    assert capsys.readouterr().err == ""


def test_a_pass_repeats_bit_for_bit():
    values = np.random.default_rng(1).standard_normal((120, 40))
    stack = da.from_array(values, chunks=(3, 40))
    run = partial(
        PassRunner(Images(stack, None), read_bytes=5000).run, lambda b, s: np.concatenate(b).sum(axis=0), plus
    )
    first = run()
    for _ in range(3):
        np.testing.assert_array_equal(run(), first)


def test_waves_are_merged_in_order_where_the_result_so_far_stays_behind(monkeypatch):
    """A cluster is not sent the result so far: it is merged with that of each wave in this process."""
    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    monkeypatch.setattr(batches, "_LONG_WAVE", 1)
    executor = LocalExecutor("threads", keeps_total=False)
    monkeypatch.setattr(PassRunner, "executor", property(lambda self: executor))
    seen = PassRunner(Images(da.from_array(STACK, chunks=(1, 6, 5)), None), read_bytes=150).run(span, joined)
    assert [start for start, _, _ in seen] == list(range(23))


def test_large_images_make_no_results_of_their_own(monkeypatch):
    stack, made = counting_stack(chunks=3)
    sizes = []

    def fold(total, parts):
        sizes.append(parts[0].shape[1:])
        total = np.zeros(parts[0].shape[1:]) if total is None else total
        for part in parts:  # in place, in the order of the images
            for image in part:
                total *= 0.5
                total += image
        return total

    expected = 0.0
    for image in STACK:
        expected = expected * 0.5 + image
    learned = Pass(None, None, 2**30, "sums", fold, lambda totals, regions: assembled(totals, regions))
    found = []
    for scheduler, workers, read_bytes in (("threads", 2, 200), ("threads", 5, 2**28), ("synchronous", 1, 1)):
        with dask.config.set(scheduler=scheduler, num_workers=workers):
            runner = PassRunner(Images(stack, None))
            monkeypatch.setattr("imgstack_ml.passes.runner.read_bytes_within", lambda *a, n=read_bytes, **k: n)
            found.append(runner.run_together([learned])[0].reshape(SHAPE[1:]))
            assert runner.n_images_read == len(STACK)
    assert sorted(first for first, _ in made) == sorted(3 * list(range(0, 23, 3)))
    assert {shape[0] for shape in sizes} == {1, 2}  # 6 lines, in up to 8, 20 and 4 bands
    for one in found:
        np.testing.assert_array_equal(one, expected)
