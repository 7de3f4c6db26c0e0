"""How a command speaks: results on stdout, progress and messages on stderr."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import click

__all__ = ["SKIPPED", "Terminal", "echo"]

SKIPPED = 3  # exit code of a run that left files out


@dataclass(frozen=True)
class Terminal:
    """Where a command speaks: results on stdout, everything else on stderr.

    Parameters
    ----------
    quiet : bool
        Print only warnings, errors, and JSON where asked for.
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
        """Print what is being done."""
        if not self.quiet:
            echo(text, err=True)

    def warn(self, text: str) -> None:
        """Print a warning, even when quiet."""
        echo(f"warning: {text}", err=True)

    def result(self, summary: str, record: dict[str, Any] | None = None, n_skipped: int = 0) -> None:
        """Print the result, as text or as JSON; exit with `SKIPPED` where files were left out."""
        if self.as_json:
            echo(json.dumps(record, indent=2))
        elif not self.quiet:
            echo(summary)
        if n_skipped:
            click.get_current_context().exit(SKIPPED)


def echo(text: str, *, err: bool = False) -> None:
    """Print text; characters that the terminal cannot show, as in file names that are not UTF-8, become escapes."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)
