"""``python -m imgstack_ml``: the same as the console script ``imgstack-ml``."""

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, also while modules are imported, or at the end."""
    try:
        from .cli import main as commands

        commands(prog_name="imgstack-ml")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter ends, Python would print a traceback


if __name__ == "__main__":
    main()
