"""Run a workflow in a fresh process, and measure its time after imports, its peak memory and what it reads."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import process_time
from timeit import default_timer
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Answer",
    "Measurement",
    "Workflow",
    "WorkflowError",
    "add_workflow_options",
    "measure",
    "median_run",
    "ran_workflow",
    "seconds_of",
]

ROOT = Path(__file__).parents[2]
MAX_REASON_LENGTH = 160  # characters

Answer = dict[str, np.ndarray]
Workflow = Callable[[Path], Answer]
Workflows = Mapping[str, Callable[[], Workflow]]  # each function imports what its workflow needs, and returns it


class WorkflowError(Exception):
    """A workflow failed. The message is the reason, in one line; `output` is what it wrote to stderr."""

    def __init__(self, reason: str, output: str = ""):
        super().__init__(reason)
        self.output = output


class Measurement(NamedTuple):
    """What one run of a workflow took, and its answer.

    Attributes
    ----------
    seconds, cpu_seconds : float
        Wall and CPU time after imports.
    peak, baseline : float
        Peak memory of the process, in MB: at the end, and after imports.
    bytes_read : int
        Bytes read by system calls after imports.
    decoded : int
        Pictures that Pillow decoded after imports.
    answer : dict of ndarray
        What the workflow returned.
    """

    seconds: float
    cpu_seconds: float
    peak: float
    baseline: float
    bytes_read: int
    decoded: int
    answer: Answer


# In the process that measures -------------------------------------------------------------------------


def measure(
    module: str, name: str, source: Path, *, seconds: float | None = None, memory: int | None = None
) -> Measurement:
    """Run ``python -m module --only name`` on a source, in a process of its own.

    Parameters
    ----------
    module : str
        A comparison whose parser has the options of `add_workflow_options`.
    name : str
        One of its workflows.
    source : Path
        The stack.
    seconds : float, optional
        Time limit.
    memory : int, optional
        Limit of the data of the process, in bytes. Allocations beyond it fail, before the system ends the process.

    Raises
    ------
    WorkflowError
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "answer.npz"
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
            answer = dict(arrays)
    return Measurement(**json.loads(done.stdout.splitlines()[-1]), answer=answer)


def _reason(done: subprocess.CompletedProcess) -> str:
    """Return the line of the traceback that names the error, or the signal that ended the process."""
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line and not line[0].isspace()]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "Exit"))]
    line = (named or lines or [f"exit status {done.returncode}"])[-1]
    return line if len(line) <= MAX_REASON_LENGTH else line[:MAX_REASON_LENGTH].rsplit(" ", 1)[0] + " …"


def median_run(runs: list[Measurement]) -> Measurement:
    """Return the run of median time."""
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def seconds_of(run: Callable[[], object]) -> float:
    """Call a function once, and return the seconds it takes."""
    start = default_timer()
    run()
    return default_timer() - start


# In the process that is measured ----------------------------------------------------------------------


def add_workflow_options(parser: argparse.ArgumentParser, workflows: Workflows) -> None:
    """Add the hidden options by which `measure` asks a comparison to run one workflow."""
    parser.add_argument("--only", choices=workflows, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)


def ran_workflow(given: argparse.Namespace, workflows: Workflows) -> bool:
    """Run the workflow of ``--only`` and write its answer, if the option is given; return whether it is.

    The figures of `Measurement` are printed as JSON.
    """
    if not given.only:
        return False
    run = workflows[given.only]()
    decoded = _count_decoded()
    baseline, bytes_before = _peak_memory(), _bytes_read()
    start, cpu_start = default_timer(), process_time()
    answer = run(given.folder)
    figures = {"seconds": default_timer() - start, "cpu_seconds": process_time() - cpu_start}
    figures |= {"bytes_read": _bytes_read() - bytes_before, "decoded": len(decoded)}
    print(json.dumps({**figures, "peak": _peak_memory(), "baseline": baseline}))
    np.savez(given.result, **answer)
    return True


def _peak_memory() -> float:
    """Return the largest resident size of this process so far, in MB. Linux resets it when a program starts."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6


def _bytes_read() -> int:
    """Return the bytes that this process has read by system calls, from the disk or from the system's cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


def _count_decoded() -> list[None]:
    """Return a list that grows by one item for each picture that Pillow or simplejpeg decodes from now on."""
    import simplejpeg
    from PIL import Image, ImageFile

    Image.init()  # Pillow imports its formats on first use
    decoded: list[None] = []
    load = ImageFile.ImageFile.load

    def counted(self: ImageFile.ImageFile) -> object:
        if self.tile:  # empty once the picture is decoded
            decoded.append(None)
        return load(self)

    def counted_jpeg(*given: Any, **options: Any) -> object:
        decoded.append(None)
        return decode_jpeg(*given, **options)

    decode_jpeg, simplejpeg.decode_jpeg = simplejpeg.decode_jpeg, counted_jpeg
    ImageFile.ImageFile.load = counted  # type: ignore[method-assign, assignment]
    return decoded
