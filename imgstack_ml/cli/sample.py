"""``imgstack-ml sample``: a folder of sample images."""

import shlex

import click

from .lib.options import OutputPath, run_options, seed_option
from .lib.task import Task
from .lib.terminal import Terminal

__all__ = ["sample"]

# The keys of datasets.SAMPLES, which would be slow to import.
_NAMES = ("faces", "digits", "textures", "tissue", "cells")
_LABELLED = ("faces", "digits", "textures")


@click.command(cls=Task, short_help="Write a folder of sample images.")
@click.argument("name", type=click.Choice(_NAMES))
@click.argument("folder", metavar="DIR", type=OutputPath(file_okay=False))
@click.option(
    "-n", "n_images", metavar="N", type=click.IntRange(min=1), help="Number of images.  [default: all; 844 cells]"
)
@seed_option("Each seed gives other cells.  [default: 0]", default=None)
@run_options(scheduler=False, json=False)
def sample(name: str, folder: str, terminal: Terminal, n_images: int | None, seed: int | None) -> None:
    """Write sample images into DIR, a new or empty folder. Nothing is downloaded.

    \b
    faces      200 grey faces and non-faces, 25 x 25, in two sub-folders
    digits     1797 handwritten digits, 8 x 8, in ten sub-folders
    textures   192 patches of brick, grass, gravel, 64 x 64, in three sub-folders
    tissue     64 patches of stained tissue, 64 x 64 RGB
    cells      generated images of cells, as many as -n asks for, 256 x 256 RGB

    \b
    Example:
      imgstack-ml sample cells cells -n 100
    """  # noqa: D301 (click looks for the real character)
    if seed is not None and name != "cells":
        raise click.UsageError(f"--seed is for generated images; the {name} are always the same")
    from ..datasets import write_sample

    terminal.status(f"writing {name} to {folder}")
    files = write_sample(name, folder, n=n_images, seed=seed or 0, progress=terminal.progress)
    recursive = " --recursive" if name in _LABELLED else ""
    place = shlex.quote(folder)
    told_apart = f"\n  or: imgstack-ml classify {place} -o told-apart" if name in _LABELLED else ""
    terminal.result(
        f"{len(files):,} images in {folder}\n\nNext: imgstack-ml pca {place}{recursive} -o results{told_apart}"
    )
