"""Ten components by this package and by what else there is, on the same files: ``python -m benchmarks.peers``.

    pip install '.[peers]'
    python -m benchmarks.peers --scale 0.05                # a trial
    python -m benchmarks.peers --folder DIR --docs         # the tables and the picture of docs/benchmarks.md

Each run of each fit is a process of its own, and rounds go over all fits in turn, so that an hour in which the
machine is slow is slow for all. Times begin after imports, with the stack in the operating system's cache where it
fits; the run of median time is shown, with the peak of its process (Linux's VmHWM, imports included) and what it
read, counted: decoded pictures, or bytes in sizes of the stack. What fails, does not end within --time-limit or wants
more than --memory is shown as failed, and why; what is slow runs once. Threads are as each library chooses them.

Accuracy is against float64, worked out once a stack and kept beside it. Two bare loops of two threads are the floors:
one reads and decodes all images, the other makes the products that an answer takes as well (see `_floors.py`).

Results are kept in DIR/peers-SCALE.json, those of --docs in docs/peers.json; a stack that is measured anew takes the
place of what was there.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from PIL import Image

from ._common import exit_on_sigterm
from ._fits import FITS, READING, READING_AND_MULTIPLYING, K
from ._measure import Measurement, WorkflowError, measure, run_here
from ._pages import PAGE, fill, machine, table
from ._stacks import STACKS, Source, Stack
from ._truth import accuracy, truth_of

PICTURE, RESULTS = PAGE.parent / "images" / "peers.png", PAGE.parent / "peers.json"
OWN = f"ImagePCA({K})"
SLOW = 120.0  # seconds from which one run is enough
GOOD = 1e-4  # an error of the last variance that is as good as none: what ImagePCA's tol asks for
COLUMNS = ("", "seconds", "× floor", "CPU s", "peak MB", "reads", f"error of variance {K}", "angle", "variance lost")

Row = dict[str, Any]  # of a table: "name", and either "failed" or the figures


# Measuring --------------------------------------------------------------------------------------------


def compare(path: Path, fits: Iterable[str], rounds: int, seconds: float, memory: int) -> list[Row]:
    """Measure fits on a stack, in turns, and compare what they find with the truth."""
    truth, source = truth_of(path, K), Source(path)
    runs: dict[str, list[Measurement]] = {name: [] for name in fits}
    rows: dict[str, Row] = {name: {"name": name} for name in runs}
    for turn in range(rounds):
        for name, done in runs.items():
            if "failed" in rows[name] or (done and done[0].seconds > SLOW):
                continue
            try:
                run = measure("benchmarks.peers", name, path, seconds=seconds, memory=memory)
            except WorkflowError as error:
                rows[name]["failed"] = str(error)
            else:
                if turn == 0 and run.found:
                    rows[name] |= accuracy(path, run.found, truth)._asdict()
                done.append(run._replace(found={}))
            print(
                f"  {turn + 1}/{rounds} {name}: {rows[name].get('failed') or f'{done[-1].seconds:.2f} s'}", flush=True
            )
    for name, done in runs.items():
        if "failed" not in rows[name]:
            rows[name] |= _figures(done, source)
    return list(rows.values())


def _figures(runs: list[Measurement], source: Source) -> Row:
    """Figures of the run of median time, and how many there were."""
    seconds = median(run.seconds for run in runs)
    run = min(runs, key=lambda run: abs(run.seconds - seconds))
    reads = run.bytes_read / source.file_bytes if source.file_bytes else run.decoded / source.n
    return {
        "seconds": run.seconds,
        "cpu": run.cpu_seconds,
        "peak": run.peak,
        "reads": reads,
        "spread": [min(run.seconds for run in runs), max(run.seconds for run in runs)],
    }


# Showing ----------------------------------------------------------------------------------------------


def tell(result: dict[str, Any]) -> str:
    """Write the table of a stack, and who is better at what."""
    rows = {row["name"]: row for row in result["rows"]}
    floor = rows.get(READING_AND_MULTIPLYING, {}).get("seconds")
    lines = [
        f"**{result['title'][0].upper()}{result['title'][1:]}**",
        "",
        table(COLUMNS, (_cells(row, floor) for row in rows.values())),
        "",
    ]
    own = rows.get(OWN, {"failed": "not measured"})
    if "failed" not in own:
        lines += [f"As accurate as {OWN}, or within {GOOD:g}: {_rivals(rows, own)}."]
    return "\n".join([*lines, "", result["machine"]])


def _cells(row: Row, floor: float | None) -> list[str]:
    if "failed" in row:
        return [row["name"], f"failed: {row['failed'].replace('|', '/')}", *[""] * (len(COLUMNS) - 2)]
    ratio = f"{row['seconds'] / floor:.2f}" if floor else ""
    errors = [f"{row[key]:.0e}" if key in row else "" for key in ("variance", "angle", "lost")]
    name = f"**{row['name']}**" if row["name"] == OWN else row["name"]
    figures = [f"{row['seconds']:.3g}", ratio, f"{row['cpu']:.3g}", f"{row['peak']:.0f}", f"{row['reads']:.3g}"]
    return [name, *figures, *errors]


def _rivals(rows: dict[str, Row], own: Row) -> str:
    """Name those that are faster, and those that take less memory, among fits as good as ours."""
    good = [row for row in rows.values() if row.get("variance", 1) <= max(own["variance"], GOOD) and row is not own]
    faster = [f"{row['name']} ({row['seconds']:.3g} s)" for row in good if row["seconds"] < own["seconds"]]
    smaller = [f"{row['name']} ({row['peak']:.0f} MB)" for row in good if row["peak"] < own["peak"]]
    return f"faster, {', '.join(faster) or 'none'}; in less memory, {', '.join(smaller) or 'none'}"


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw time against error, a panel a stack, and memory against the size of the stack."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in FITS if name not in (READING, READING_AND_MULTIPLYING)]
    colours = plt.get_cmap("tab20").colors
    styles = {name: {"marker": "osDv^P*X"[i % 8], "color": colours[i % 20]} for i, name in enumerate(names)}
    styles[OWN] |= {"color": "crimson", "markersize": 13, "marker": "*", "zorder": 5}
    figure, axes = plt.subplots(2, 3, figsize=(16, 9.5), layout="constrained")
    memory = axes.flat[4]
    for ax in axes.flat:
        ax.axis("off")
    for ax, result in zip(axes.flat, (results[name] for name in STACKS if name in results), strict=False):
        ax.axis("on")
        for row in result["rows"]:
            if row["name"] in styles and "failed" not in row:
                ax.plot(row["seconds"], max(row["variance"], 1e-12), ls="", **styles[row["name"]])
        for row in result["rows"]:
            if row["name"] == READING_AND_MULTIPLYING and "failed" not in row:
                ax.axvline(row["seconds"], color="0.6", ls=":")
                ax.text(row["seconds"], 0.02, "floor", color="0.4", transform=ax.get_xaxis_transform())
        ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel=f"relative error of variance {K}")
        _label_in_full(ax.xaxis)
        ax.set_title(result["title"].split(", uint")[0])
    for name, style in styles.items():
        peaks = ((r["nbytes"], row["peak"]) for r in results.values() for row in r["rows"] if _has_peak(row, name))
        known = [(n_bytes / 1e9, peak) for n_bytes, peak in peaks]
        memory.plot(*zip(*sorted(known), strict=True), ls="-", lw=0.7, label=name, **style) if known else None
    memory.axis("on")
    memory.set(xscale="log", yscale="log", xlabel="pixels of the stack, GB", ylabel="peak memory, MB")
    _label_in_full(memory.xaxis)
    _label_in_full(memory.yaxis)
    axes.flat[5].legend(*memory.get_legend_handles_labels(), loc="center", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _label_in_full(axis: Any) -> None:
    """Label 1, 2, 5, 10 ... of a logarithmic axis, and nothing between."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _has_peak(row: Row, name: str) -> bool:
    return row["name"] == name and "failed" not in row


# Command line -----------------------------------------------------------------------------------------


def arguments() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--stacks", nargs="+", choices=STACKS, default=list(STACKS), help="default: all")
    parser.add_argument("--fits", nargs="+", choices=FITS, default=list(FITS), metavar="NAME", help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each fit (default: 3)")
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds of a run (default: 900)")
    most = int(0.8 * psutil.virtual_memory().available)
    parser.add_argument("--memory", type=float, default=most, help="bytes of a run (default: 0.8 of those available)")
    parser.add_argument("--folder", type=Path, help="where stacks are or go, 9 GB (default: a temporary folder)")
    parser.add_argument("--docs", action="store_true", help="write into docs/benchmarks.md and draw its picture")
    parser.add_argument("--only", choices=FITS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_stack(stack: Stack, folder: Path, given: Any) -> dict[str, Any]:
    """Make a stack and measure all fits on it."""
    print(stack.describe(), flush=True)
    path = stack.make(folder)
    rows = compare(path, given.fits, given.rounds, given.time_limit, int(given.memory))
    return {"title": stack.describe(), "nbytes": stack.nbytes, "machine": machine(), "rows": rows}


def main() -> None:
    """Measure all, or run one fit for the process that measures it."""
    given = arguments()
    if given.only:
        Image.init()  # Pillow imports its formats on first use
        run_here(FITS[given.only], given.folder, given.result)
        return
    exit_on_sigterm()
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        kept = RESULTS if given.docs else folder / f"peers-{given.scale:g}.json"
        results = json.loads(kept.read_text()) if kept.exists() else {}
        for name in given.stacks:
            results[name] = measure_stack(STACKS[name].scaled(given.scale), folder, given)
            kept.write_text(json.dumps(results, indent=1))
            print(f"\n{tell(results[name])}\n", flush=True)
            if given.docs:
                fill(PAGE, f"peers {name}", tell(results[name]))
                draw(results, PICTURE)


if __name__ == "__main__":
    main()
