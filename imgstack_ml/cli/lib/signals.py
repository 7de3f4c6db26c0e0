"""Ctrl-C and SIGTERM as exceptions that are not lost, and the text about what a stopped command leaves."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from .line import command_line
from .terminal import echo

__all__ = ["INTERRUPTED", "SAVED", "TERMINATED", "TerminatedError", "print_stop", "signals_as_exceptions"]

INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT and SIGTERM, as shells have it
SAVED = "imgstack_ml.saved"  # key in the context's meta: a function that says what is saved, and the options to resume
_AGAIN_SECONDS = 0.02


class TerminatedError(BaseException):
    """SIGTERM was received. It unwinds the program as Ctrl-C does, so that files and locks are closed."""


class Stops:
    """The signals that were received: `kind` is the exception of the last one, or None."""

    kind: type[BaseException] | None = None

    def on(self, kind: type[BaseException]) -> Callable[..., None]:
        """Make a handler of a signal that raises `kind`."""

        def handle(*_: Any) -> None:
            self.kind = kind
            # An exception within `queue.get` can leave its lock open (CPython issue 29988): threads that still put
            # results there fail, and this logger would print it. What they compute is not wanted any more.
            logging.getLogger("concurrent.futures").disabled = True
            raise kind

        return handle


@contextmanager
def signals_as_exceptions() -> Iterator[Stops]:
    """Raise KeyboardInterrupt on SIGINT and `TerminatedError` on SIGTERM, and again where Python drops them.

    An exception in a destructor or a callback is printed and dropped: there the signal is repeated a moment later. Only
    the main thread receives signals; elsewhere nothing changes, and so it does where SIGINT is ignored.
    """
    stops = Stops()
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    hook = sys.unraisablehook

    def repeat(dropped: Any) -> None:
        if dropped.exc_type not in (KeyboardInterrupt, TerminatedError):
            hook(dropped)
            return
        number = signal.SIGINT if dropped.exc_type is KeyboardInterrupt else signal.SIGTERM
        again = threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main, [number])
        again.daemon = True
        again.start()

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stops.on(TerminatedError))}
    if callable(signal.getsignal(signal.SIGINT)):  # in the background it is ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stops.on(KeyboardInterrupt))
    sys.unraisablehook = repeat
    try:
        yield stops
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def print_stop(ctx: click.Context, kind: type[BaseException]) -> int:
    """Print that a command was stopped, what it has saved, and the line that resumes it; return the exit code."""
    if threading.current_thread() is threading.main_thread() and kind is KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key that is pressed twice; the handler comes back later
    echo("interrupted" if kind is KeyboardInterrupt else "terminated", err=True)
    says = ctx.meta.get(SAVED, lambda: _files_left(ctx.params.get("folder") or ctx.params.get("out")))
    saved, options = says()
    options = [option for option in options if option != "--overwrite" or ctx.params.get("overwrite") is False]
    again = "to resume" if "--resume" in options else "to start again"
    echo(f"hint: {saved}", err=True)
    echo(f"hint: {again}: {command_line(ctx.command, ctx.params, *options)}", err=True)
    return INTERRUPTED if kind is KeyboardInterrupt else TERMINATED


def _files_left(out: str | None) -> tuple[str, list[str]]:
    """Say what is left of a command that writes files one by one, or one file as a whole."""
    if out is not None and os.path.isfile(out):  # it is written whole, and is the earlier one only under --overwrite
        return f"{out!r} is complete", ["--overwrite"]
    if out is None or not os.path.isdir(out) or not os.listdir(out):
        return "nothing was saved", []
    return f"the files in {out!r} are complete; others are missing", ["--overwrite"]
