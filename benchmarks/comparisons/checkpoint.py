"""How much longer does a fit with ImagePCA(checkpoint=...) take than one without?

Takes a minute, 1 GB of disk, 1 GB of memory. To save small results often: --n 72000 --size 64 --memory-limit 210MB

Fits ten components of a planted stack by the streaming solver, whose saved results are the largest. The stack and the
checkpoint lie in --folder. All fits run in one process: one that warms up, then --rounds pairs of a fit with and a fit
without a checkpoint, each pair in the opposite order of the one before. Shown are the median seconds of both, the
median of the ratios within the pairs, and how often and how much a fit saves. By default a fit takes a few seconds;
longer ones save more often.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ..lib.command import add_stack_options, command_parser, given_or_temporary
from ..lib.fits import K
from ..lib.measure import seconds_of
from ..lib.stacks import write_colour_stack

__all__ = ["Cost", "compare"]


class Cost(NamedTuple):
    """Median seconds without and with a checkpoint, median ratio of the pairs, saves and bytes saved in a fit."""

    without: float
    with_it: float
    ratio: float
    n_saves: float
    n_bytes: float


class _SaveCounter(logging.Handler):
    """Counts the saves, and their bytes, that the package logs."""

    def __init__(self) -> None:
        super().__init__()
        self.n_saves = self.n_bytes = 0

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("saved") and isinstance(record.args, tuple):
            self.n_saves += 1
            self.n_bytes += int(str(record.args[0]))


def compare(store: Path, folder: Path, rounds: int, memory_limit: str) -> Cost:
    """Time pairs of fits.

    Parameters
    ----------
    store : Path
        The stack.
    folder : Path
        Where the checkpoint goes, on the disk that is to be measured.
    rounds : int
        Number of pairs.
    memory_limit : str
        Too little to keep the images: a fit that reads them once has little to save.
    """
    saves, logger = _SaveCounter(), logging.getLogger("imgstack_ml")
    logger.addHandler(saves)
    logger.setLevel(logging.INFO)
    _fit_seconds(store, None, memory_limit)
    pairs = []
    for i in range(rounds):
        order = [None, folder / "unfinished"][:: 1 if i % 2 else -1]
        seconds = {checkpoint: _fit_seconds(store, checkpoint, memory_limit) for checkpoint in order}
        pairs.append((seconds[None], seconds[folder / "unfinished"]))
    logger.removeHandler(saves)
    without, with_it = (median(times) for times in zip(*pairs, strict=True))
    return Cost(without, with_it, median(b / a for a, b in pairs), saves.n_saves / rounds, saves.n_bytes / rounds)


def _fit_seconds(store: Path, checkpoint: Path | None, memory_limit: str) -> float:
    import dask.array as da

    from imgstack_ml import ImagePCA

    stack = da.from_zarr(store)
    pca = ImagePCA(K, svd_solver="randomized", random_state=0, memory_limit=memory_limit, checkpoint=checkpoint)
    return seconds_of(lambda: pca.fit(stack))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("benchmarks.comparisons.checkpoint", __doc__)
    add_stack_options(parser, 4_544)
    parser.add_argument("--memory-limit", default="512MB", help="of the fits (default: 512MB)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of fits (default: 5)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the stack, compare, print."""
    given = arguments(argv)
    with given_or_temporary(given.folder) as folder:
        store = write_colour_stack(folder, given.n, given.size)
        cost = compare(store, folder, given.rounds, given.memory_limit)
    print(f"{given.n} images of {given.size} x {given.size} x 3 uint8, ten components, {given.rounds} pairs of fits")
    print(f"without a checkpoint {cost.without:.2f} s, with one {cost.with_it:.2f} s: {cost.ratio - 1:+.1%}")
    print(f"saved {cost.n_saves:.1f} times a fit, {cost.n_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
