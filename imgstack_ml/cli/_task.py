"""What the commands share: their options, how they speak, and how errors become exit codes."""

import contextlib
import functools
import json
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from ..errors import ImgstackError

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "TERMINATED",
    "Task",
    "Terminal",
    "TerminatedError",
    "memory_limit_option",
    "run_options",
]

FAILED = 1
SKIPPED = 3
INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT and SIGTERM, as shells have it
_CONNECT_SECONDS = 10

_quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the record of the run as JSON.")
_debug_option = click.option("--debug", is_flag=True, help="Show where in the program an error came from.")
_scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Compute on the Dask cluster whose scheduler is there, e.g. tcp://10.0.0.1:8786; its workers must see the "
    "files under the same names.  [default: threads of this machine]",
)


def _memory_size(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse a size that is none at once, not after the headers of a million files."""
    if value == "auto":
        return value
    from dask.utils import parse_bytes

    try:
        if parse_bytes(value) > 0:
            return value
    except ValueError:
        pass
    raise click.BadParameter(f"{value!r} is no size; give auto, a number of bytes, or a size such as 500MB or 2GB")


memory_limit_option = click.option(
    "--memory-limit",
    default="auto",
    show_default=True,
    metavar="SIZE",
    callback=_memory_size,
    help="Memory that the fit of a PCA may take, e.g. 1GB; auto stays below half of what is free.",
)


class TerminatedError(BaseException):
    """SIGTERM came; what is open is closed, as it is when Ctrl-C comes."""


class Task(click.Command):
    """A command whose expected failures, and signals to end, end in one line on stderr and an exit code.

    Notes attached to an exception (`BaseException.add_note`) follow as hints. A parameter named ``debug`` asks for
    the traceback; one named ``scheduler`` has all that the command computes computed on that cluster.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with warnings.catch_warnings(), _raising_sigterm():
            warnings.showwarning = _show_warning
            try:
                with _computing_on(ctx.params.get("scheduler"), quiet=ctx.params.get("quiet", False)):
                    return super().invoke(ctx)
            except KeyboardInterrupt as stop:
                _say_stopped("interrupted", stop)
                ctx.exit(INTERRUPTED)
            except TerminatedError as stop:
                _say_stopped("terminated", stop)
                ctx.exit(TERMINATED)
            except BrokenPipeError:
                raise  # whoever read our output has gone: click ends quietly
            except (ImgstackError, OSError, ValueError) as error:
                _report(error, debug=ctx.params.get("debug", False))
                ctx.exit(FAILED)


@dataclass(frozen=True)
class Terminal:
    """Where a command speaks: results on stdout, all else on stderr.

    Parameters
    ----------
    quiet : bool
        Say nothing but warnings, errors, and JSON if asked for.
    as_json : bool
        Print the record of the run instead of the summary.
    """

    quiet: bool = False
    as_json: bool = False

    @property
    def progress(self) -> bool:
        """Whether to show progress bars: for people, not for log files."""
        return not self.quiet and sys.stderr.isatty()

    def status(self, text: str) -> None:
        """Say what is being done."""
        if not self.quiet:
            echo(text, err=True)

    def warn(self, text: str) -> None:
        """Say what went other than hoped for, even when quiet."""
        echo(f"warning: {text}", err=True)

    def result(self, summary: str, record: dict[str, Any] | None = None, n_skipped: int = 0) -> None:
        """Print the result, for a person or as JSON for a program; end with `SKIPPED` where files were left out."""
        if self.as_json:
            echo(json.dumps(record, indent=2))
        elif not self.quiet:
            echo(summary)
        if n_skipped:
            click.get_current_context().exit(SKIPPED)


def run_options(*, scheduler: bool = True, json: bool = True) -> Callable[[Callable], Callable]:
    """Make the decorator that adds the options of every run, and hands the command its `terminal` for them.

    Parameters
    ----------
    scheduler, json : bool
        Whether the command computes on a cluster, and has a record to print.
    """
    options = [_scheduler_option] * scheduler + [_json_option] * json + [_quiet_option, _debug_option]

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def collected(*, quiet: bool, as_json: bool = False, **others: Any) -> Any:
            for heeded_by_task in ("debug", "scheduler"):
                others.pop(heeded_by_task, None)
            return command(terminal=Terminal(quiet, as_json), **others)

        return functools.reduce(lambda done, option: option(done), reversed(options), collected)

    return decorate


def echo(text: str, *, err: bool = False) -> None:
    """Print text that may hold what the terminal cannot show, such as file names that are not UTF-8."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def _report(error: Exception, *, debug: bool) -> None:
    if debug:
        echo("".join(traceback.format_exception(error)).rstrip(), err=True)
        return
    message = str(error) if not isinstance(error, OSError) or error.strerror is None else _system_message(error)
    echo(f"error: {message or type(error).__name__}", err=True)
    _give_hints(error)


def _say_stopped(how: str, stop: BaseException) -> None:
    echo(how, err=True)
    _give_hints(stop)


def _give_hints(error: BaseException) -> None:
    for note in getattr(error, "__notes__", []):
        echo(f"hint: {note}", err=True)


def _system_message(error: OSError) -> str:
    """Name the file first, and leave the system's error number out."""
    return f"{error.filename!r}: {error.strerror}" if error.filename else str(error.strerror)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    echo(f"warning: {message}", err=True)


@contextlib.contextmanager
def _computing_on(address: str | None, *, quiet: bool) -> Iterator[None]:
    """Make a cluster the place where Dask computes, if one is named."""
    if address is None:
        yield
        return
    from distributed import Client

    with Client(address, timeout=_CONNECT_SECONDS) as client:
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if not n_workers:
            raise ImgstackError(f"the cluster at {address} has no workers; start one with: dask worker {address}")
        if not quiet:
            some = f"{n_workers:,} worker{'s' if n_workers > 1 else ''}"
            echo(f"computing on {address}, {some}; dashboard: {client.dashboard_link}", err=True)
        yield


@contextlib.contextmanager
def _raising_sigterm() -> Iterator[None]:
    """Let SIGTERM raise in the main thread, the only one that signals reach."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_terminated(*_: Any) -> None:
    raise TerminatedError
