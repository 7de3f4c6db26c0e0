"""How fast, how small and how exact is ImagePCA beside PCA fits of other libraries, on the same files?

Takes hours, 9 GB of disk, all memory. Install the other libraries first: pip install '.[peers]'
Trial: --scale 0.01 --rounds 1. The tables and the picture of docs/benchmarks.md: --docs --folder DIR

Fits ten components of four stacks. Each run is a process of its own. A round runs each fit once, so that a slow hour of
the machine is slow for all. Times begin after imports, with the stack in the operating system's cache if it fits. The
run of median time is shown, with the peak memory of its process (Linux's VmHWM, imports included) and its reads:
decoded pictures, or bytes read, divided by the size of the stack. A fit that fails, exceeds --time-limit or needs more
than --memory is shown as failed, with the reason. A fit that takes longer than two minutes runs once. Each library uses
its default number of threads.

Errors are against float64, computed once for each stack and stored beside it. The floors are two bare loops of two
threads: one reads and decodes all images by the fastest strict decoder, the other also computes the products that a fit
needs, of bytes where the processor multiplies them (lib/floors.py).

Results are stored in DIR/peers-SCALE.json, those of --docs in docs/peers.json. A stack that is measured again replaces
its results there.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from ..lib.command import command_parser, exit_on_sigterm, given_or_temporary
from ..lib.fits import FITS, READING, READING_AND_MULTIPLYING, K
from ..lib.measure import Measurement, WorkflowError, add_workflow_options, measure, ran_workflow
from ..lib.pages import PAGE, machine_and_versions, markdown_table, replace_between_markers
from ..lib.stacks import STACKS, Source, Stack
from ..lib.truth import accuracy, truth_of

MODULE = "benchmarks.comparisons.peers"

PICTURE, RESULTS = PAGE.parent / "images" / "peers.png", PAGE.parent / "peers.json"
OWN = f"ImagePCA({K})"
SLOW = 120.0  # seconds; a fit that takes longer runs once
GOOD = 1e-4  # error of the last variance that counts as none: the default of ImagePCA's tol
COLUMNS = ("", "seconds", "× floor", "CPU s", "peak MB", "reads", f"error of variance {K}", "angle", "variance lost")

Row = dict[str, Any]  # a line of a table: "name", and either "failed" or the figures


# Measuring --------------------------------------------------------------------------------------------


def compare(path: Path, fits: Iterable[str], rounds: int, seconds: float, memory: int) -> list[Row]:
    """Measure fits on a stack, round by round, and compute the errors of their answers."""
    truth, source = truth_of(path, K), Source(path)
    runs: dict[str, list[Measurement]] = {name: [] for name in fits}
    rows: dict[str, Row] = {name: {"name": name} for name in runs}
    for number in range(rounds):
        for name, done in runs.items():
            if "failed" in rows[name] or (done and done[0].seconds > SLOW):
                continue
            try:
                run = measure(MODULE, name, path, seconds=seconds, memory=memory)
            except WorkflowError as error:
                rows[name]["failed"] = str(error)
            else:
                if number == 0 and run.answer:
                    rows[name] |= accuracy(path, run.answer, truth)._asdict()
                done.append(run._replace(answer={}))
            print(
                f"  {number + 1}/{rounds} {name}: {rows[name].get('failed') or f'{done[-1].seconds:.2f} s'}", flush=True
            )
    for name, done in runs.items():
        if "failed" not in rows[name]:
            rows[name] |= _figures(done, source)
    return list(rows.values())


def _figures(runs: list[Measurement], source: Source) -> Row:
    """Return the figures of the run of median time, and the shortest and longest time."""
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


# Tables -----------------------------------------------------------------------------------------------


def table_of_stack(result: dict[str, Any]) -> str:
    """Return the table of a stack, and the fits that are as exact as ImagePCA and faster or smaller."""
    rows = {row["name"]: row for row in result["rows"]}
    floor = rows.get(READING_AND_MULTIPLYING, {}).get("seconds")
    lines = [
        f"**{result['title'][0].upper()}{result['title'][1:]}**",
        "",
        markdown_table(COLUMNS, (_cells(row, floor) for row in rows.values())),
        "",
    ]
    own = rows.get(OWN, {"failed": "not measured"})
    if "failed" not in own:
        lines += [f"As accurate as {OWN}, or within {GOOD:g}: {_rivals(rows, own)}."]
    return "\n".join([*lines, "", result["machine"]])


def _cells(row: Row, floor: float | None) -> list[str]:
    if "failed" in row:
        return [row["name"], f"failed: {_in_short(row['failed'])}", *[""] * (len(COLUMNS) - 2)]
    ratio = f"{row['seconds'] / floor:.2f}" if floor else ""
    errors = [f"{row[key]:.0e}" if key in row else "" for key in ("variance", "angle", "lost")]
    name = f"**{row['name']}**" if row["name"] == OWN else row["name"]
    figures = [f"{row['seconds']:.3g}", ratio, f"{row['cpu']:.3g}", f"{row['peak']:.0f}", f"{row['reads']:.3g}"]
    return [name, *figures, *errors]


def _in_short(reason: str) -> str:
    """Say in few words why a fit failed."""
    asked = re.search(r"Unable to allocate ([\d.]+ .iB)", reason)
    if asked or reason.startswith("MemoryError"):
        return "memory" + (f", {asked[1].replace('. ', ' ')} at once" if asked else "")
    return reason.replace("|", "/").replace("no result in", "over")


def _rivals(rows: dict[str, Row], own: Row) -> str:
    """Name the fits that are as exact as ImagePCA, and faster or smaller."""
    good = [row for row in rows.values() if row.get("variance", 1) <= max(own["variance"], GOOD) and row is not own]
    faster = [f"{row['name']} ({row['seconds']:.3g} s)" for row in good if row["seconds"] < own["seconds"]]
    smaller = [f"{row['name']} ({row['peak']:.0f} MB)" for row in good if row["peak"] < own["peak"]]
    return f"faster, {', '.join(faster) or 'none'}; in less memory, {', '.join(smaller) or 'none'}"


# Picture ----------------------------------------------------------------------------------------------


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw time against error in a panel for each stack, and memory against the size of the stack."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in FITS if name not in (READING, READING_AND_MULTIPLYING)]
    colours = plt.get_cmap("tab20").colors
    styles = {name: {"marker": "osDv^P*X"[i % 8], "color": colours[i % 20]} for i, name in enumerate(names)}
    styles[OWN] |= {"color": "crimson", "markersize": 13, "marker": "*", "zorder": 5}
    figure, axes = plt.subplots(2, 3, figsize=(14, 8.3), layout="constrained")
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
                ax.text(row["seconds"], 0.3, " floor", color="0.4", transform=ax.get_xaxis_transform())
        ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel=f"relative error of variance {K}")
        _label_1_2_5(ax.xaxis)
        ax.set_title(result["title"].split(", uint")[0])
    for name, style in styles.items():
        peaks = ((r["nbytes"], row["peak"]) for r in results.values() for row in r["rows"] if _has_peak(row, name))
        known = [(n_bytes / 1e9, peak) for n_bytes, peak in peaks]
        memory.plot(*zip(*sorted(known), strict=True), ls="-", lw=0.7, label=name, **style) if known else None
    memory.axis("on")
    memory.set(xscale="log", yscale="log", xlabel="pixels of the stack, GB", ylabel="peak memory, MB")
    _label_1_2_5(memory.xaxis)
    _label_1_2_5(memory.yaxis)
    axes.flat[5].legend(*memory.get_legend_handles_labels(), loc="center", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _label_1_2_5(axis: Any) -> None:
    """Label only 1, 2, 5, 10 ... on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _has_peak(row: Row, name: str) -> bool:
    return row["name"] == name and "failed" not in row


# Command line -----------------------------------------------------------------------------------------


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(MODULE, __doc__)
    parser.add_argument("--stacks", nargs="+", choices=STACKS, default=list(STACKS), help="default: all")
    parser.add_argument("--fits", nargs="+", choices=FITS, default=list(FITS), metavar="NAME", help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each fit (default: 3)")
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds of a run (default: 900)")
    most = int(0.8 * psutil.virtual_memory().available)
    parser.add_argument("--memory", type=float, default=most, help="bytes of a run (default: 80%% of those available)")
    parser.add_argument("--folder", type=Path, help="where stacks are or go (default: a temporary folder)")
    parser.add_argument("--docs", action="store_true", help="write into docs/benchmarks.md and draw its picture")
    add_workflow_options(parser, FITS)
    return parser.parse_args(argv)


def measure_stack(stack: Stack, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Make a stack and measure all fits on it."""
    print(stack.describe(), flush=True)
    path = stack.make(folder)
    rows = compare(path, given.fits, given.rounds, given.time_limit, int(given.memory))
    return {"title": stack.describe(), "nbytes": stack.nbytes, "machine": machine_and_versions(), "rows": rows}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all fits on all stacks."""
    given = arguments(argv)
    if ran_workflow(given, FITS):
        return
    exit_on_sigterm()
    with given_or_temporary(given.folder) as folder:
        stored = RESULTS if given.docs else folder / f"peers-{given.scale:g}.json"
        results = json.loads(stored.read_text()) if stored.exists() else {}
        for name in given.stacks:
            results[name] = measure_stack(STACKS[name].scaled(given.scale), folder, given)
            stored.write_text(json.dumps(results, indent=1))
            table = table_of_stack(results[name])
            print(f"\n{table}\n", flush=True)
            if given.docs:
                replace_between_markers(PAGE, f"peers {name}", table)
                draw(results, PICTURE)


if __name__ == "__main__":
    main()
