"""The class of all commands: errors and signals become messages and exit codes."""

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import click

from ...errors import ImgstackError, NonFiniteError
from .line import typed
from .signals import TerminatedError, print_stop, signals_as_exceptions
from .terminal import echo
from .words import in_options

__all__ = ["FAILED", "Task", "hint"]

FAILED = 1
_CONNECT_SECONDS = 10

# What an input can cause. Anything else is taken for an error of this package, and its class is printed too.
_EXPECTED = (ImgstackError, OSError, ValueError, ImportError, MemoryError)


class Task(click.Command):
    """A command that prints an expected failure, or a signal to end, as one line on stderr and sets the exit code.

    Notes attached to an exception (`BaseException.add_note`) are printed as hints. A parameter named ``debug`` asks
    for the traceback. A parameter named ``scheduler`` is the address of a cluster on which the command computes.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; ``--shape H W``, as version 0.1 had it, is refused with the line to type."""
        for i in range(len(args) - 2):
            if args[i] == "--shape" and args[i + 1].isdecimal() and args[i + 2].isdecimal():
                words = [*args[: i + 1], f"{args[i + 1]}x{args[i + 2]}", *args[i + 3 :]]
                line = typed("imgstack-ml", str(self.name), *words)
                raise click.UsageError(f"--shape takes height and width as one word; type: {line}", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with warnings.catch_warnings(), signals_as_exceptions() as stops:
            warnings.showwarning = _print_warning
            try:
                with _on_cluster(ctx.params.get("scheduler"), quiet=ctx.params.get("quiet", False)):
                    return super().invoke(ctx)
            except (KeyboardInterrupt, TerminatedError) as stop:
                ctx.exit(print_stop(ctx, type(stop)))
            except BrokenPipeError:
                raise  # the reader of our output has gone: click ends quietly
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except Exception as error:
                if stops.kind is not None:  # a library has made another error of it
                    ctx.exit(print_stop(ctx, stops.kind))
                if isinstance(error, NonFiniteError) and ctx.params.get("on_error") == "raise":
                    error.add_note("to leave out images with NaN or infinity: --on-error skip")
                _print_error(error, debug=ctx.params.get("debug", False))
                ctx.exit(FAILED)


@contextlib.contextmanager
def hint(kind: type[BaseException] | tuple[type[BaseException], ...], text: str) -> Iterator[None]:
    """Add a hint to errors of a kind: `Task` prints it below the message."""
    try:
        yield
    except kind as error:
        error.add_note(text)
        raise


def _print_error(error: Exception, *, debug: bool) -> None:
    if debug:
        echo("".join(traceback.format_exception(error)).rstrip(), err=True)
        return
    message = str(error) if not isinstance(error, OSError) or error.strerror is None else _system_message(error)
    message = in_options(message)
    if not isinstance(error, _EXPECTED):
        message = f"{type(error).__name__}: {message}"
        error.add_note("the option --debug shows where this happened")
    echo(f"error: {message or type(error).__name__}", err=True)
    _print_hints(error)


def _print_hints(error: BaseException) -> None:
    for note in getattr(error, "__notes__", []):
        echo(f"hint: {note}", err=True)


def _system_message(error: OSError) -> str:
    """Put the file first, and leave the error number of the system out."""
    return f"{error.filename!r}: {error.strerror}" if error.filename else str(error.strerror)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    echo(f"warning: {in_options(str(message))}", err=True)


@contextlib.contextmanager
def _on_cluster(address: str | None, *, quiet: bool) -> Iterator[None]:
    """Compute on the Dask cluster at `address`; without an address, on threads as usual."""
    if address is None:
        yield
        return
    from distributed import Client

    with Client(address, timeout=_CONNECT_SECONDS) as client:
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if not n_workers:
            raise ImgstackError(f"the cluster at {address} has no workers; start one with: dask worker {address}")
        if not quiet:
            workers = f"{n_workers:,} worker{'s' if n_workers > 1 else ''}"
            echo(f"computing on {address}, {workers}; dashboard: {client.dashboard_link}", err=True)
        yield
