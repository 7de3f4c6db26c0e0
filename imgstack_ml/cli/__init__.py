"""The command line: a module for each command, and in ``lib`` what they share.

Libraries that are slow to import (NumPy, Dask, scikit-learn, matplotlib) are imported inside the functions that use
them, so that ``--help`` answers at once.
"""

from typing import Any

import click

from .. import __version__
from .classify import classify
from .cluster import cluster
from .demo import demo
from .features import features
from .lib.signals import INTERRUPTED
from .lib.terminal import echo
from .pca import pca
from .reconstruct import reconstruct
from .report import report
from .sample import sample
from .scan import scan
from .transform import transform

__all__ = ["main"]


class Commands(click.Group):
    """The program. Ctrl-C ends it with a line before a command begins, too."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that is named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="imgstack-ml")
def main() -> None:
    """Principal components, features and classes of image collections that do not fit in memory.

    \b
    Start here:
      imgstack-ml demo                              faces, no data needed
      imgstack-ml scan photos                       what is in a folder
      imgstack-ml pca photos -o results             your own images
      imgstack-ml transform results new -o new.csv  other images, same model
      imgstack-ml classify plates -o told-apart     sub-folders told apart
      imgstack-ml cluster photos -k 6 -o groups     images that are alike
      imgstack-ml features photos -o all.csv        features, for other programs

    \b
    Completion by the Tab key in bash (or zsh_source, fish_source):
    eval "$(_IMGSTACK_ML_COMPLETE=bash_source imgstack-ml)"

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but files were skipped, 130
    interrupted, 143 terminated.
    """  # noqa: D301 (click looks for the real character)


for command in (classify, cluster, demo, features, pca, reconstruct, report, sample, scan, transform):
    main.add_command(command)
