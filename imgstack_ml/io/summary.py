"""Counts of the kinds of images that a stack is made of."""

from typing import NamedTuple

import numpy as np

from .formats.base import Header

__all__ = ["Kinds", "StackSummary"]


class StackSummary(NamedTuple):
    """Images of a stack, counted.

    Attributes
    ----------
    counts : tuple of (Header, int)
        Shape, dtype, format and mode, and the number of images like that, the most frequent first.
    n_problems : int
        Number of files left out.
    """

    counts: tuple[tuple[Header, int], ...]
    n_problems: int

    def __repr__(self) -> str:
        lines = [f"{sum(count for _, count in self.counts):,} images"]
        for header, count in self.counts:
            lines.append(f"  {count:>9,}  {header.format:<8} {header.mode:<8} {header.shape}, {header.dtype}")
        if self.n_problems:
            lines.append(f"  {self.n_problems:>9,}  left out, see .problems")
        return "\n".join(lines)


class Kinds(NamedTuple):
    """The different headers of a stack, and for each image the number of its own."""

    headers: tuple[Header, ...]
    numbers: np.ndarray

    def summary(self, n_problems: int) -> StackSummary:
        """Count the images of each kind."""
        counts = np.bincount(self.numbers, minlength=len(self.headers)).tolist()
        found = [(header, count) for header, count in zip(self.headers, counts, strict=True) if count]
        return StackSummary(tuple(sorted(found, key=lambda pair: -pair[1])), n_problems)

    def select(self, positions: np.ndarray) -> "Kinds":
        """Select images."""
        return Kinds(self.headers, self.numbers[positions])
