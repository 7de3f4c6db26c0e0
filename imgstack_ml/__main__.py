"""``python -m imgstack_ml``: the same as the console script ``imgstack-ml``."""

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
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter ends, Python would print a traceback


def _stop(*_: Any) -> None:
    raise StoppedError


if __name__ == "__main__":
    main()
