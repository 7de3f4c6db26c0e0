"""How does the cost of a fit grow, and what would ten million images take on a hundred workers?

Takes a quarter of an hour, 7 GB of disk, 2 GB of memory. Trial: --scale 0.1 --rounds 1

Each series varies one size and keeps the others. Its exponent is the slope of a straight line through the logarithms of
sizes and seconds (the best of --rounds). The streaming solver makes three reads, of images that it may not keep.

Then the same fit runs on local clusters of one and two workers of one thread. Tasks, processor time of client and
scheduler, and bytes between processes are counted. A model scales these counts up to ten million images.
"""

import argparse
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import process_time
from timeit import default_timer
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imgstack_ml import ImagePCA, ImageStack, open_stack

from ..lib.command import command_parser, exit_on_sigterm
from ..lib.measure import seconds_of
from ..lib.pages import PAGE, machine_and_versions, markdown_table, replace_between_markers
from ..lib.stacks import write_planted

K = 10  # components
READS = 3
MIN_MEMORY = 1.4e8  # bytes: enough for the streaming solver with images of 65,536 values
CHUNK_BYTES = 2**20
# The stack of the clusters, of images of 256 x 256 x 3.
COLOUR_MEMORY = 4e8  # bytes
COLOUR_IMAGES = 8448  # half of them are too many for the large summaries of short stacks, as ten million are
MIN_COLOUR_IMAGES = 3072  # half of them do not fit COLOUR_MEMORY
COLOUR_BLOCK = 60  # images; the 64 MB blocks that open_stack chooses do not fit COLOUR_MEMORY

SHARED = "reading and multiplying, shared by the workers"

Timer = Callable[[Callable[[], object], Callable[[], object]], float]  # prepares by the first, times the second


class Series(NamedTuple):
    """Seconds by size, as one size grows."""

    what: str
    sizes: list[int]
    seconds: list[float]

    @property
    def exponent(self) -> float:
        """Slope of the logarithm of seconds over that of sizes."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])


# Growth, on this machine ------------------------------------------------------------------------------


def growth(folder: Path, scale: float, timer: Timer) -> Iterator[Series]:
    """Vary images, values, components and files, one at a time."""
    n = max(200, round(16_000 * scale))
    store = _planted(folder, 8 * n, (64, 128))  # enough values that products are in float32
    yield _series("images, streaming", [n, 2 * n, 4 * n, 8 * n], lambda m: _streaming(store[:m]), timer)
    shapes = {h * w: _planted(folder, n, (h, w)) for h, w in ((64, 128), (128, 128), (128, 256), (256, 256))}
    yield _series("values of an image, streaming", list(shapes), lambda p: _streaming(shapes[p]), timer)
    yield _series("components, streaming", [5, 10, 20, 40], lambda k: _streaming(shapes[128 * 128], k), timer)
    few = max(100, n // 32)
    gram = [few, 2 * few, 4 * few, 8 * few]
    yield _series("images, inner products of images", gram, lambda m: _exact(store[:m], "gram"), timer)
    small = {h * w: _planted(folder, n, (h, w)) for h, w in ((16, 16), (16, 32), (32, 32), (32, 64))}
    covariance = _series(
        "values, inner products of values", list(small), lambda p: _exact(small[p], "covariance_eigh"), timer
    )
    yield covariance
    files = {m: _write_files(folder / f"files-{m}", m) for m in (n // 16, n // 8, n // 4, n // 2)}
    yield _series("files, opened", list(files), lambda m: open_stack(files[m]), timer, lambda m: _touch(files[m]))
    yield _series(
        "files, opened and fitted", list(files), lambda m: _fit_files(files[m]), timer, lambda m: _touch(files[m])
    )


def _series(
    what: str,
    sizes: list[int],
    run: Callable[[int], object],
    timer: Timer,
    prepare: Callable[[int], object] = lambda _: None,
) -> Series:
    run(sizes[0])  # imports what is imported late
    return Series(what, sizes, [timer(partial(prepare, size), partial(run, size)) for size in sizes])


def _streaming(stack: ImageStack, k: int = K, memory: float | None = None) -> ImagePCA:
    """Fit in a fixed number of reads, in too little memory to keep the images."""
    limit = int(memory or max(MIN_MEMORY, stack.data.nbytes))
    pca = ImagePCA(k, svd_solver="randomized", tol=0, max_passes=READS, memory_limit=limit, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tolerance of 0, which is never reached
        return pca.fit(stack)


def _exact(stack: ImageStack, solver: str) -> ImagePCA:
    return ImagePCA(K, svd_solver=solver).fit(stack)


def _fit_files(files: list[str]) -> ImagePCA:
    return ImagePCA(K, random_state=0).fit(open_stack(files))


def _touch(files: list[str]) -> None:
    """Change the times of files. The package remembers the headers of files whose times are unchanged."""
    for file in files:
        os.utime(file)


def _planted(folder: Path, n: int, shape: tuple[int, ...], block: int | str = "auto") -> ImageStack:
    path = folder / f"{'x'.join(map(str, (n, *shape)))}.zarr"
    write_planted(path, n, shape, "uint8", max(1, CHUNK_BYTES // math.prod(shape)))
    return open_stack(path, chunks=block)


def _write_files(folder: Path, n: int) -> list[str]:
    folder.mkdir()
    rng = np.random.default_rng(n)
    paths = [str(folder / f"{i:06d}.png") for i in range(n)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    return paths


# On clusters of this machine --------------------------------------------------------------------------


class Run(NamedTuple):
    """One fit on a cluster: seconds, tasks, CPU seconds of client and scheduler, bytes sent by workers."""

    workers: int
    images: int
    seconds: float
    tasks: int
    own_cpu: float
    sent: int


def on_cluster(workers: int, stack: ImageStack, rounds: int) -> Run:
    """Fit on a local cluster of processes of one thread; return the fastest of some rounds, after one that warms up."""
    from distributed import Client, LocalCluster

    runs = []
    options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        assert len(client.scheduler_info()["workers"]) == workers
        for _ in range(1 + rounds):
            before = sum(client.run(_bytes_sent).values())
            with _finished_tasks(cluster.scheduler) as finished:
                start, cpu = default_timer(), process_time()
                _streaming(stack, memory=COLOUR_MEMORY)
                spent = default_timer() - start, process_time() - cpu
            sent = sum(client.run(_bytes_sent).values()) - before
            runs.append(Run(workers, len(stack), spent[0], len(finished), spent[1], sent))
    return min(runs[1:], key=lambda run: run.seconds)


def _bytes_sent(dask_worker: Any) -> int:
    return dask_worker.transfer_outgoing_bytes_total


@contextmanager
def _finished_tasks(scheduler: Any) -> Iterator[list[str]]:
    """Collect the keys of tasks that finish on workers."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    finished: list[str] = []

    class Counter(SchedulerPlugin):
        def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
            if start == "processing" and finish == "memory":
                finished.append(str(key))

    plugin = Counter()
    scheduler.add_plugin(plugin, name="counting")
    try:
        yield finished
    finally:
        scheduler.remove_plugin(name="counting")


# Ten million images on a hundred workers --------------------------------------------------------------


class Model(NamedTuple):
    """Cost of a fit to `n` images on `workers` workers, from measured runs.

    Part of the cost of a fit, such as orthonormalising the basis in the client, does not depend on the number of
    images. It is the same in a run on half of a stack and on all of it; the difference of the two is the part that
    grows.

    Attributes
    ----------
    half, whole : Run
        On half of a stack and on all of it, on one worker of one thread.
    half_of_two, whole_of_two : Run
        The same on two workers.
    image_bytes : int
        Bytes of the pixels of an image.
    file_seconds : float
        Seconds to open one file.
    """

    half: Run
    whole: Run
    half_of_two: Run
    whole_of_two: Run
    image_bytes: int
    file_seconds: float
    n: int = 10_000_000
    workers: int = 100

    def scaled_up(self, what: str, half: Run | None = None, whole: Run | None = None) -> float:
        """Return a figure of the runs, scaled up to `n` images."""
        half, whole = half or self.half, whole or self.whole
        difference = getattr(whole, what) - getattr(half, what)
        return max(0.0, difference / (whole.images - half.images)) * self.n

    @property
    def task_seconds(self) -> float:
        """CPU seconds of client and scheduler for a task.

        Least squares over the runs: a constant, a share of the seconds, and this for each task.
        """
        runs = self.half, self.whole, self.half_of_two, self.whole_of_two
        sizes = np.array([(1, run.seconds, run.tasks) for run in runs], np.float64)
        return max(0.0, float(np.linalg.lstsq(sizes, [run.own_cpu for run in runs])[0][2]))

    def parts(self) -> dict[str, float]:
        """Return the seconds of each part: two that one process does alone, and one that the workers share."""
        return {
            "opening the files, in the client": self.file_seconds * self.n,
            "graphs and scheduling, in client and scheduler": self.task_seconds * self.scaled_up("tasks"),
            SHARED: self.scaled_up("seconds") / self.workers,
        }

    def summary(self) -> str:
        """Return a table, and the part that is the bottleneck."""
        parts, tasks = self.parts(), self.scaled_up("tasks")
        sent = self.scaled_up("sent", self.half_of_two, self.whole_of_two)
        rows = [(name, f"{seconds / 60:,.0f} min") for name, seconds in parts.items()]
        rows += [
            ("tasks", f"{tasks:,.0f}, {1000 * tasks / self.n / READS:.0f} for a thousand images and read"),
            ("client and scheduler, CPU of a task", f"{1000 * self.task_seconds:.2f} ms"),
            ("sent by workers, to each other and to the client", f"{sent / 1e9:,.0f} GB"),
            ("of that by each worker", f"{sent / self.workers / 1e9:,.1f} GB"),
        ]
        shared = parts.pop(SHARED)
        slowest = max(parts, key=parts.__getitem__)
        stack = f"{self.n:,} images of {self.image_bytes:,} bytes ({self.n * self.image_bytes / 1e12:.2f} TB)"
        verdict = (
            f"The bottleneck is {slowest}: {parts[slowest] / 60:,.0f} minutes in one process, however many workers. "
            f"{self.workers * shared / parts[slowest]:,.0f} workers do the work that they share in the same time."
        )
        title = f"{stack}, {READS} reads, {self.workers} workers of one thread"
        return f"{markdown_table((title, ''), rows)}\n\n{verdict}"


# Tables ----------------------------------------------------------------------------------------------


def growth_table(series: list[Series]) -> str:
    """Return a table of sizes, seconds and exponents."""
    rows = []
    for one in series:
        sizes, spent = (", ".join(f"{x:{form}}" for x in xs) for xs, form in ((one.sizes, ","), (one.seconds, ".3g")))
        rows.append((one.what, sizes, spent, f"{one.exponent:.2f}"))
    return markdown_table(("what grows", "sizes", "seconds", "exponent"), rows)


def cluster_table(runs: list[Run]) -> str:
    """Return a table of the runs, with the speed-up by a second worker."""
    rows = []
    for r in runs:
        gain = next(one.seconds for one in runs if one.images == r.images) / r.seconds
        figures = r.workers, r.images, r.seconds, gain, r.tasks, r.own_cpu, r.sent / 1e6
        forms = "", ",", ".2f", ".2f", "", ".2f", ".0f"
        rows.append([f"{figure:{form}}" for figure, form in zip(figures, forms, strict=True)])
    columns = "workers", "images", "seconds", "times as fast", "tasks", "CPU s of client and scheduler", "MB sent"
    return markdown_table(columns, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("benchmarks.comparisons.scaling", __doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each size; the best one counts (default: 3)")
    parser.add_argument("--folder", type=Path, help="for images, which are removed (default: the temporary folder)")
    parser.add_argument("--docs", action="store_true", help="write into docs/benchmarks.md")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    given = arguments(argv)
    exit_on_sigterm()

    def timer(prepare: Callable[[], object], run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(given.rounds):
            prepare()
            seconds.append(seconds_of(run))
        return min(seconds)

    with tempfile.TemporaryDirectory(prefix="scaling-", dir=given.folder) as scratch:
        folder = Path(scratch)
        series = list(growth(folder, given.scale, timer))
        n = max(MIN_COLOUR_IMAGES, round(COLOUR_IMAGES * given.scale))
        stack = _planted(folder, n, (256, 256, 3), COLOUR_BLOCK)
        stacks = stack[: n // 2], stack
        runs = [on_cluster(workers, part, given.rounds) for workers in (1, 2) for part in stacks]
        image_bytes = stack.data.nbytes // n
    opened = next(one for one in series if one.what == "files, opened")
    model = Model(*runs, image_bytes, opened.seconds[-1] / opened.sizes[-1])
    text = "\n\n".join([growth_table(series), cluster_table(runs), model.summary(), machine_and_versions()])
    print(text)
    if given.docs:
        replace_between_markers(PAGE, "scaling", text)


if __name__ == "__main__":
    main()
