"""Run a workflow in a fresh process: its time after imports, its peak memory, and what it found."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from timeit import default_timer
from typing import NamedTuple

import numpy as np

__all__ = ["Found", "Measurement", "Workflow", "measure", "median", "run_here"]

ROOT = Path(__file__).parents[1]

Found = dict[str, np.ndarray]
Workflow = Callable[[Path], Found]


class Measurement(NamedTuple):
    """Wall and CPU seconds after imports, peak and baseline (after imports) in MB of a process, and what it found."""

    seconds: float
    cpu_seconds: float
    peak: float
    baseline: float
    found: Found


def measure(module: str, name: str, source: Path) -> Measurement:
    """Run ``python -m module --only name`` on a source, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "found.npz"
        command = [sys.executable, "-m", module, "--only", name]
        command += ["--folder", str(source.resolve()), "--result", str(result)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        with np.load(result) as arrays:
            found = dict(arrays)
    return Measurement(**json.loads(done.stdout), found=found)


def median(runs: list[Measurement]) -> Measurement:
    """Return the run of median time."""
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def run_here(prepare: Callable[[], Workflow], source: Path, result: Path) -> None:
    """Run a workflow in this process, print seconds and memory as JSON, and write what it found.

    `prepare` imports what the workflow needs, and returns what is timed.
    """
    run = prepare()
    baseline = peak_memory()
    start, cpu_start = default_timer(), process_time()
    found = run(source)
    spent = {"seconds": default_timer() - start, "cpu_seconds": process_time() - cpu_start}
    print(json.dumps({**spent, "peak": peak_memory(), "baseline": baseline}))
    np.savez(result, **found)


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB; Linux resets it when a program starts."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6
