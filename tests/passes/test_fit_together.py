"""Memory of the fits that learn in one pass: what they may hold, and what they do hold."""

import re
import subprocess
import sys
from itertools import product

import dask
import dask.array as da
import numpy as np
import pytest

from imgstack_ml import ImageHistogram, IntensityRescaler, MemoryLimitError, StackCenterer, fit_together
from tests.lib.fits import noise, traced_peak
from tests.lib.stacks import counted

LEARNERS = {
    "mean": lambda: [StackCenterer()],
    "mean, deviation": lambda: [StackCenterer(with_std=True)],
    "range": lambda: [IntensityRescaler(in_range="stack")],
    "features": lambda: [ImageHistogram(8, range="stack")],
    "together": lambda: [StackCenterer(with_std=True), IntensityRescaler(in_range="stack")],
}
STACKS = {  # the long ones are a little larger than what may be held
    "long": (1_300, (128, 128), 20),
    "large images": (8, (1024, 1024), 1),
    "one block": (200, (256, 256), 200),
    "float32": (350, (128, 128), 10, "float32"),
    "float64": (180, (128, 128), 10, "float64"),
    "colour": (400, (96, 96, 3), 25),
}


def least(learners, stack):
    """The smallest limit that is accepted, as the refusal names it."""
    with pytest.raises(MemoryLimitError, match="Nothing was read") as refusal:
        fit_together(learners, stack, memory_limit=1)
    return re.search(r"memory_limit='(\w+)'", str(refusal.value))[1]


@pytest.mark.parametrize(
    ("kind", "learners"),
    [
        *product(STACKS, ["together"]),
        *product(["large images", "colour"], ["mean"]),
        *product(["long", "float64"], ["features"]),
    ],
)
def test_numpy_takes_no_more_than_allowed(kind, learners):
    shape, learners = STACKS[kind], LEARNERS[learners]
    stack = noise(*shape)
    with dask.config.set(scheduler="threads", num_workers=2):
        fit_together(learners(), noise(8, (3, 2) if len(shape[1]) == 2 else (3, 2, 3), 2))  # what is made only once
        limit = least(learners(), stack)
        fitted = learners()
        peak = traced_peak(lambda: fit_together(fitted, stack, memory_limit=limit))
    assert peak <= int(limit.removesuffix("MB")) * 1e6
    for estimator, expected in zip(fitted, learners(), strict=True):
        expected.fit(stack)
        for name in ("mean_", "scale_", "in_range_", "range_"):
            if getattr(expected, name, None) is not None:
                np.testing.assert_allclose(getattr(estimator, name), getattr(expected, name), rtol=1e-12)


def test_what_cannot_fit_is_refused_before_it_is_read():
    source = counted((np.zeros, (8, 4_000, 4_000), np.uint8), 8)
    with pytest.raises(MemoryLimitError, match=r"blocks of 8 images .*limit is 95\.37 MiB.*chunks=4\)"):
        fit_together([StackCenterer()], source.data, memory_limit="100MB")
    assert not source.reads
    for wrong in ("a lot", -1, True):
        with pytest.raises(ValueError, match="memory_limit"):
            fit_together([StackCenterer()], source.data, memory_limit=wrong)


def test_images_in_memory_need_room_for_the_result_only():
    images = np.zeros((200, 256, 256), np.uint8)
    with dask.config.set(scheduler="threads", num_workers=2):
        lazily, here = (
            int(least([StackCenterer()], stack).removesuffix("MB"))
            for stack in (da.from_array(images, chunks=(-1, -1, -1)), images)
        )
    assert lazily - here == pytest.approx(images.nbytes / 1e6, abs=1)


PEAK = """
import re, sys
import dask
sys.path.append({tests!r})
from tests.passes.test_fit_together import LEARNERS, fit_together, least, noise

def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

dask.config.set(scheduler="threads", num_workers=2)
stack, learners = noise(*{shape!r}), LEARNERS[{learners!r}]()
fit_together(learners, stack[:8])
limit = least(learners, stack) if {tight} else "600MB"
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
fit_together(learners, stack, memory_limit=limit)
print(status("VmHWM") - before, int(limit.removesuffix("MB")) * 10**6)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("tight", [True, False])
@pytest.mark.parametrize("learners", LEARNERS)
@pytest.mark.parametrize(
    "shape", [(20_000, (128, 128), 20), (100, (2048, 2048), 1), (3_000, (128, 128), 50, "float64")], ids=str
)
def test_a_fresh_process_takes_no_more_than_allowed(shape, learners, tight, request):
    code = PEAK.format(tests=str(request.config.rootpath), shape=shape, learners=learners, tight=tight)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    measured, allowed = map(int, run.stdout.split())
    print(f"\n{learners}, {shape}: {measured / 1e6:.0f} of {allowed / 1e6:.0f} MB")
    assert measured <= allowed
