"""What `ImagePCA(checkpoint=...)` costs: fits of one stack with and without it, in turn.

``python -m benchmarks.checkpoint [--n 4544] [--size 256] [--memory-limit 512MB] [--rounds 5] [--folder DIR]``

Fits ten components of the planted stack of `benchmarks.streaming` by the streaming solver, whose results are the
largest that are saved, in one process: a fit that warms up, then `rounds` pairs, each the other way round than the one
before. Shown are the median seconds of each, the median of the ratios within the pairs, and how often and how much was
saved in a fit. By default a fit takes a few seconds; longer ones save more often.
"""

import argparse
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from timeit import default_timer
from typing import NamedTuple

from ._fits import K
from ._stacks import write_planted
from .streaming import CHUNK

__all__ = ["Cost", "compare"]


class Cost(NamedTuple):
    """Median seconds without and with a checkpoint, median ratio of pairs, saves and bytes saved in a fit."""

    without: float
    with_it: float
    ratio: float
    n_saves: float
    n_bytes: float


class _Saves(logging.Handler):
    """Adds up what the package says about its saves."""

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
        Where the checkpoint goes, on the disk in question.
    rounds : int
        Number of pairs.
    memory_limit : str
        Too little to keep the images: a fit that reads once has little to save.
    """
    saves, logger = _Saves(), logging.getLogger("imgstack_ml")
    logger.addHandler(saves)
    logger.setLevel(logging.INFO)
    _fit(store, None, memory_limit)
    pairs = []
    for i in range(rounds):
        order = [None, folder / "unfinished"][:: 1 if i % 2 else -1]
        seconds = {checkpoint: _fit(store, checkpoint, memory_limit) for checkpoint in order}
        pairs.append((seconds[None], seconds[folder / "unfinished"]))
    logger.removeHandler(saves)
    without, with_it = (median(times) for times in zip(*pairs, strict=True))
    return Cost(without, with_it, median(b / a for a, b in pairs), saves.n_saves / rounds, saves.n_bytes / rounds)


def _fit(store: Path, checkpoint: Path | None, memory_limit: str) -> float:
    import dask.array as da

    from imgstack_ml import ImagePCA

    stack = da.from_zarr(store)
    start = default_timer()
    pca = ImagePCA(K, svd_solver="randomized", random_state=0, memory_limit=memory_limit, checkpoint=checkpoint)
    pca.fit(stack)
    return default_timer() - start


def main() -> None:
    """Make the stack, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=4_544, help="images, a multiple of 64 (default: 4544)")
    parser.add_argument("--size", type=int, default=256, help="their height and width (default: 256)")
    parser.add_argument("--memory-limit", default="512MB", help="of the fits (default: 512MB)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of fits (default: 5)")
    parser.add_argument("--folder", type=Path, help="where stack and checkpoint go (default: a temporary folder)")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = folder / f"planted-{given.n}-{given.size}.zarr"
        write_planted(store, given.n, (given.size, given.size, 3), "uint8", CHUNK)
        cost = compare(store, folder, given.rounds, given.memory_limit)
    print(f"{given.n} images of {given.size} x {given.size} x 3 uint8, ten components, {given.rounds} pairs of fits")
    print(f"without a checkpoint {cost.without:.2f} s, with one {cost.with_it:.2f} s: {cost.ratio - 1:+.1%}")
    print(f"saved {cost.n_saves:.1f} times a fit, {cost.n_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
