"""What the command lines of all comparisons share."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["add_stack_options", "command_parser", "exit_on_sigterm", "given_or_temporary"]


def command_parser(module: str, docstring: str) -> argparse.ArgumentParser:
    """Return a parser for ``python -m module``. Its ``--help`` shows the docstring of the module."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_stack_options(parser: argparse.ArgumentParser, n: int) -> None:
    """Add the options of a stack that is made for a comparison, of `n` images by default."""
    parser.add_argument("--n", type=int, default=n, help=f"images (default: {n})")
    parser.add_argument("--size", type=int, default=256, help="height and width of an image (default: 256)")
    parser.add_argument("--folder", type=Path, help="where the images are or go (default: a temporary folder)")


@contextmanager
def given_or_temporary(folder: Path | None) -> Iterator[Path]:
    """Give the folder of ``--folder``, made if needed, or else a temporary one that is removed at the end."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def exit_on_sigterm() -> None:
    """End this process by an exception on SIGTERM, so that it removes its files and ends its child processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
