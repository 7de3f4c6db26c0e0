"""``python -m imgstack_ml``: the same as the console script ``imgstack-ml``."""

import gc
import signal
import sys
from typing import Any

__all__ = ["main"]


class StoppedError(BaseException):
    """Ctrl-C, where no command has begun: click would make ``Aborted!`` of KeyboardInterrupt."""


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, also while modules are imported, or at the end."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is ignored in the background
            signal.signal(signal.SIGINT, _stop)
        from .cli import main as commands

        commands(prog_name="imgstack-ml")
    except (KeyboardInterrupt, StoppedError):
        sys.stderr.write("interrupted\n")
        _wake_idle_threads()
        sys.exit(130)
    except SystemExit as end:
        if end.code in (130, 143):  # stopped by a signal
            _wake_idle_threads()
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter ends, Python would print a traceback


def _wake_idle_threads() -> None:
    """Let the threads of pools end, for which Python waits: of one whose start Ctrl-C cut off, it does not know."""
    pools: Any = getattr(sys.modules.get("concurrent.futures.thread"), "ThreadPoolExecutor", ())
    for one in gc.get_objects():
        if issubclass(type(one), pools):
            one.shutdown(wait=False, cancel_futures=True)


def _stop(*_: Any) -> None:
    raise StoppedError


if __name__ == "__main__":
    main()
