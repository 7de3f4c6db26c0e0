"""Graphs of a pass: the order of merges, the images of each task, blocks as tasks."""

import cProfile
import pstats
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml.base.validation import Images
from imgstack_ml.passes.batches import Batch, Layout
from imgstack_ml.passes.graphs import batches_as_tasks, wave_graph, without_empty_blocks
from imgstack_ml.passes.runner import PassRunner

X = np.arange(7 * 4).reshape(7, 2, 2)
LAYOUT = Layout([0, 1, 2, 3, 4, 5, 7], X[0].nbytes)
BLOCKS = [X[a:b] for a, b in pairwise(LAYOUT.starts)]


def first_image(blocks, start):
    return start


def pair(a, b):
    return (a, b)


def groups(*sizes):
    """Groups of so many batches of one block each."""
    edges = np.cumsum([0, *sizes])
    return [[Batch(i, i + 1) for i in range(a, b)] for a, b in pairwise(edges)]


def run(groups, total=None, step=first_image, merge=pair, shared=()):
    sources = [BLOCKS[batch.first : batch.stop] for group in groups for batch in group]
    graph, images_of = wave_graph(step, merge, groups, sources, LAYOUT, shared, total)
    return graph.compute(scheduler="synchronous"), images_of, graph


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1], 0),
        ([2], (0, 1)),
        ([3], ((0, 1), 2)),
        ([5], (((0, 1), (2, 3)), 4)),
        ([6], (((0, 1), (2, 3)), (4, 5))),
        ([1, 1, 1], ((0, 1), 2)),
        ([2, 3, 1], (((0, 1), ((2, 3), 4)), 5)),
    ],
)
def test_batches_are_merged_in_a_tree_and_groups_one_after_the_other(sizes, expected):
    assert run(groups(*sizes))[0] == expected


def test_the_result_so_far_comes_first():
    assert run(groups(2, 1), total="before")[0] == (("before", (0, 1)), 2)
    assert run(groups(1), total=0, merge=lambda a, b: [a, b])[0] == [0, 0]


def test_the_result_so_far_is_passed_on_and_not_copied():
    total = [np.zeros(3)]
    assert run(groups(1), total=total, merge=lambda a, b: a)[0] is total


def test_waves_give_what_one_graph_gives():
    whole, first = groups(2, 2, 2), run(groups(2, 2, 2)[:1])[0]
    assert run(whole[1:], total=first)[0] == run(whole)[0]


def test_a_step_is_given_its_blocks_and_the_position_of_the_first():
    def step(blocks, start, *shared):
        return [(start, [block.sum() for block in blocks], shared)]

    batches = [[Batch(1, 3)], [Batch(3, 6)]]
    found = run(batches, step=step, merge=lambda a, b: a + b, shared=(2.0, "x"))[0]
    sums = [block.sum() for block in BLOCKS]
    assert found == [(1, sums[1:3], (2.0, "x")), (3, sums[3:], (2.0, "x"))]


def test_images_are_counted_by_the_task_of_their_batch():
    _, images_of, graph = run([[Batch(0, 2), Batch(2, 3)], [Batch(3, 6)]])
    assert sorted(images_of.values()) == [1, 2, 4]
    assert images_of.keys() <= dict(graph.dask).keys()


@pytest.mark.parametrize("derived", [False, True])
def test_batches_as_tasks(derived):
    stack = da.from_array(X, chunks=(2, 2, 2))
    stack, expected = (stack.map_blocks(np.negative) + 1, 1 - X) if derived else (stack, X)
    tasks = batches_as_tasks(stack, [Batch(1, 2), Batch(2, 4)])
    both = dask.compute(*tasks, scheduler="synchronous")
    for task, found, cuts in zip(tasks, both, ([2, 4], [4, 6, 7]), strict=True):
        blocks = [expected[a:b] for a, b in pairwise(cuts)]
        for result in (found, task.compute(scheduler="synchronous")):
            assert len(result) == len(blocks)
            for block, wanted in zip(result, blocks, strict=True):
                assert_array_equal(block, wanted)
    assert {key[1] for key in tasks[0].dask if isinstance(key, tuple) and key[0] == stack.name} == {1}


@pytest.mark.parametrize("n_blocks", [300, 1_200])
def test_the_time_grows_with_the_number_of_blocks(n_blocks):
    """No more than Dask's own sum over them, counted in calls of functions, which do not depend on the machine."""
    stack = da.zeros((n_blocks, 2, 2), chunks=(1, 2, 2), dtype=np.uint8)
    ours = calls_of(lambda: PassRunner(Images(stack, None)).run(raw_sum, np.add))
    assert ours <= 1.5 * calls_of(lambda: stack.sum(axis=0).compute(scheduler="synchronous"))


def raw_sum(blocks, start):
    return sum(block.sum(axis=0) for block in blocks)


def calls_of(function):
    """Calls of Python functions while `function` runs."""
    profile = cProfile.Profile(builtins=False)
    with dask.config.set(scheduler="synchronous"):
        profile.runcall(function)
    return pstats.Stats(profile).total_calls


def test_blocks_of_no_image_are_joined_with_others():
    stack = da.from_array(X, chunks=((0, 2, 0, 5, 0), 2, 2))
    joined = without_empty_blocks(stack)
    assert joined.chunks[0] == (2, 5)
    assert_array_equal(joined.compute(scheduler="synchronous"), X)
    assert without_empty_blocks(joined) is joined
