"""How many images of a stack have which shape, dtype, format and mode."""

from typing import NamedTuple

import numpy as np

from .formats.base import Header

__all__ = ["Kinds", "StackSummary"]


class StackSummary(NamedTuple):
    """Number of images of each kind in a stack, as `ImageStack.summary` counts them; printed as a table.

    Attributes
    ----------
    counts : tuple of (Header, int)
        A header, with the fields `shape`, `dtype`, `format` and `mode` that the files have before any conversion, and
        the number of images that have it. The most frequent one comes first.
    n_problems : int
        Number of files that were left out.
    unread : tuple of (str, int)
        Kinds of images that are not read here, such as ``".heic"``, and how many of each the source holds beside those
        that are read.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from imgstack_ml import open_stack, write_images
    >>> folder = os.path.join(tempfile.mkdtemp(), "photos")
    >>> paths = write_images(np.zeros((6, 4, 5), np.uint8), folder)
    >>> summary = open_stack(folder).summary()
    >>> summary
    6 images
              6  PNG      L        (4, 5), uint8
    >>> [(header.shape, count) for header, count in summary.counts]
    [((4, 5), 6)]
    """

    counts: tuple[tuple[Header, int], ...]
    n_problems: int
    unread: tuple[tuple[str, int], ...] = ()

    def __repr__(self) -> str:
        lines = [f"{sum(count for _, count in self.counts):,} images"]
        for header, count in self.counts:
            lines.append(f"  {count:>9,}  {header.format:<8} {header.mode:<8} {header.shape}, {header.dtype}")
        if self.n_problems:
            lines.append(f"  {self.n_problems:>9,}  left out, see .problems")
        lines += [f"  {count:>9,}  not read: {kind}" for kind, count in self.unread]
        return "\n".join(lines)


class Kinds(NamedTuple):
    """The different headers of a stack, and for each image the position of its header among them."""

    headers: tuple[Header, ...]
    numbers: np.ndarray

    def counts(self) -> tuple[tuple[Header, int], ...]:
        """Count the images of each kind, the most frequent kind first."""
        counts = np.bincount(self.numbers, minlength=len(self.headers)).tolist()
        found = [(header, count) for header, count in zip(self.headers, counts, strict=True) if count]
        return tuple(sorted(found, key=lambda pair: -pair[1]))

    def select(self, positions: np.ndarray) -> "Kinds":
        """Select images by their positions."""
        return Kinds(self.headers, self.numbers[positions])
