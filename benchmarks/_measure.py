"""Run a workflow in a fresh process: its time after imports, its peak memory, what it read, and what it found."""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time
from timeit import default_timer
from typing import NamedTuple

import numpy as np

__all__ = ["Found", "Measurement", "Workflow", "WorkflowError", "measure", "median", "run_here"]

ROOT = Path(__file__).parents[1]
MOST_WORDS = 160  # letters of a reason

Found = dict[str, np.ndarray]
Workflow = Callable[[Path], Found]


class WorkflowError(Exception):
    """A workflow gave no result; the message says why in a line, and `output` holds what it wrote to stderr."""

    def __init__(self, reason: str, output: str = ""):
        super().__init__(reason)
        self.output = output


class Measurement(NamedTuple):
    """What one run of a workflow took, and what it found.

    Wall and CPU seconds after imports; peak and baseline (after imports) in MB of the process; bytes that it read by
    system calls, and pictures that Pillow decoded, after imports.
    """

    seconds: float
    cpu_seconds: float
    peak: float
    baseline: float
    bytes_read: int
    decoded: int
    found: Found


def measure(
    module: str, name: str, source: Path, *, seconds: float | None = None, memory: int | None = None
) -> Measurement:
    """Run ``python -m module --only name`` on a source, in a process of its own.

    Parameters
    ----------
    seconds : float, optional
        After which it is ended.
    memory : int, optional
        Bytes of data that the process may have: beyond, its allocations fail, before the machine has to end it.

    Raises
    ------
    WorkflowError
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "found.npz"
        command = [sys.executable, "-m", module, "--only", name]
        command += ["--folder", str(source.resolve()), "--result", str(result)]
        limit = None if memory is None else partial(resource.setrlimit, resource.RLIMIT_DATA, (memory, memory))
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, preexec_fn=limit)
        except subprocess.TimeoutExpired:
            raise WorkflowError(f"no result in {seconds:,g} s") from None
        if done.returncode:
            raise WorkflowError(_reason(done), done.stderr)
        with np.load(result) as arrays:
            found = dict(arrays)
    return Measurement(**json.loads(done.stdout.splitlines()[-1]), found=found)


def _reason(done: subprocess.CompletedProcess) -> str:
    """Give the line of a traceback that names the error, or the signal that ended the process."""
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line and not line[0].isspace()]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "Exit"))]
    line = (named or lines or [f"exit status {done.returncode}"])[-1]
    return line if len(line) <= MOST_WORDS else line[:MOST_WORDS].rsplit(" ", 1)[0] + " …"


def median(runs: list[Measurement]) -> Measurement:
    """Return the run of median time."""
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def run_here(prepare: Callable[[], Workflow], source: Path, result: Path) -> None:
    """Run a workflow in this process, print what it took as JSON, and write what it found.

    `prepare` imports what the workflow needs, and returns what is timed.
    """
    run = prepare()
    decoded = _count_decoded()
    baseline, bytes_before = peak_memory(), _bytes_read()
    start, cpu_start = default_timer(), process_time()
    found = run(source)
    spent = {"seconds": default_timer() - start, "cpu_seconds": process_time() - cpu_start}
    spent |= {"bytes_read": _bytes_read() - bytes_before, "decoded": len(decoded)}
    print(json.dumps({**spent, "peak": peak_memory(), "baseline": baseline}))
    np.savez(result, **found)


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB; Linux resets it when a program starts."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6


def _bytes_read() -> int:
    """Bytes that this process has read by system calls so far, from the disk or from the system's cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


def _count_decoded() -> list[None]:
    """Have Pillow add an item to a list for each picture that it decodes; it returns at once from further calls."""
    from PIL import ImageFile

    decoded: list[None] = []
    load = ImageFile.ImageFile.load

    def counted(self: ImageFile.ImageFile) -> object:
        if self.tile:
            decoded.append(None)
        return load(self)

    ImageFile.ImageFile.load = counted  # type: ignore[method-assign, assignment]
    return decoded
