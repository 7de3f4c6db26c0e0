"""How much longer than a bare loop takes each pass over images of 28 x 28 pixels to 8000 x 8000, of bytes and floats?

Takes half an hour, 2.5 GB of disk, 5 GB of memory. Trial: --sizes 28 256 --megabytes 16 --rounds 1

Passes and loops are those of `benchmarks/suites/sizes.py`. Each stack is about as large as --megabytes (at least eight
images, at most 4,000), and is written and removed in turn. Pairs of a fit and its loop follow each other --rounds times
in one process; the medians of the ratios of processor time and of seconds are shown.
"""

import argparse
import json
from collections.abc import Sequence
from statistics import median
from typing import Any

import dask
import dask.array as da
from threadpoolctl import threadpool_limits

from ..lib.command import command_parser, given_or_temporary
from ..lib.pages import PAGE, machine_and_versions, markdown_table, replace_between_markers
from ..lib.threads import THREADS
from ..suites.sizes import DTYPES, FITS, LOOPS, seconds, write_stack

MODULE = "benchmarks.comparisons.image_sizes"
RESULTS = PAGE.parent / "image_sizes.json"
SIZES = [28, 64, 256, 1024, 2048, 4096, 8000]


def ratios(stack: da.Array, rounds: int) -> dict[str, tuple[float, float]]:
    """Return processor time and seconds of each pass over those of its loop."""
    found = {}
    for name, fit in FITS.items():
        fit(stack[:8])  # what is compiled at first use
        pairs = [(seconds(fit, stack), seconds(LOOPS[name], stack)) for _ in range(rounds)]
        wall, cpu = (median(one[i] / loop[i] for one, loop in pairs) for i in (0, 1))
        found[name] = cpu, wall
    return found


def table(results: dict[str, Any]) -> str:
    """Return the table, and the machine."""
    lines = [
        [
            f"{row['n']:,} of {row['size']} × {row['size']}, {row['dtype']}",
            *(f"{cpu:.2f} · {wall:.2f}" for cpu, wall in (row[name] for name in FITS)),
        ]
        for row in results["rows"]
    ]
    header = ("images", "mean", "mean, deviation", "range", "PCA")
    return f"{markdown_table(header, lines)}\n\n{results['machine']}"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(MODULE, __doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sides of images (default: all)")
    parser.add_argument("--megabytes", type=int, default=1024, help="of a stack (default: 1024)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of each pass (default: 3)")
    parser.add_argument("--docs", action="store_true", help="write into docs/benchmarks.md")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all passes over all stacks."""
    given, rows = arguments(argv), []
    for size in given.sizes:
        for dtype in DTYPES:
            with given_or_temporary(None) as folder, threadpool_limits(THREADS), dask.config.set(num_workers=THREADS):
                write_stack(str(folder), size, dtype, given.megabytes * 2**20)
                stack = da.from_npy_stack(str(folder), mmap_mode=None)
                rows.append({"n": len(stack), "size": size, "dtype": dtype, **ratios(stack, given.rounds)})
            print(rows[-1], flush=True)
    results = {"rows": rows, "machine": machine_and_versions()}
    text = table(results)
    print(f"\n{text}")
    if given.docs:
        RESULTS.write_text(json.dumps(results, indent=1))
        replace_between_markers(PAGE, "image sizes", text)


if __name__ == "__main__":
    main()
