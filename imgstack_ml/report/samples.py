"""Which images get a picture in a report: some of each label, spread over the stack, and those of extreme scores."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from ..inspection.stacks import evenly_spaced

__all__ = [
    "MAX_PICTURES",
    "N_SPREAD",
    "Extreme",
    "Extremes",
    "extreme_rows",
    "extreme_values",
    "keep_extreme",
    "spread_positions",
]

MAX_PICTURES = 1000
_N_COMPONENTS = 8
_N_ENDS = 4  # images at each end
N_SPREAD = MAX_PICTURES - 2 * _N_ENDS * (_N_COMPONENTS + 1)


class Extreme(NamedTuple):
    """An image that is extreme so far: its `extreme_values`, and a small copy of it."""

    values: np.ndarray
    thumbnail: np.ndarray


Extremes: TypeAlias = dict[int, Extreme]  # by position in the stack, in ascending order


def spread_positions(n_images: int, n_chosen: int, labels: np.ndarray | None = None) -> list[int]:
    """Choose positions of at most `n_chosen` images at equal distances; with labels, as many of each as there are."""
    if labels is None or n_images <= n_chosen:
        return evenly_spaced(n_images, n_chosen)
    counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    members = np.split(np.argsort(counts[0], kind="stable"), np.cumsum(counts[1])[:-1])
    chosen: list[int] = []
    for n_done, group in enumerate(sorted(members, key=len)):  # what rare labels leave is for the frequent ones
        share = -(-(n_chosen - len(chosen)) // (len(members) - n_done))
        chosen += group[evenly_spaced(len(group), share)].tolist()
    return sorted(chosen)


def extreme_values(scores: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return the columns in which images are extreme: scores on the first 8 components, and the error."""
    return np.column_stack([scores[:, :_N_COMPONENTS], errors])


def extreme_rows(values: np.ndarray) -> np.ndarray:
    """Find the rows of (n, m) that are among the 4 smallest or 4 largest of a column, in ascending order."""
    if not len(values):
        return np.empty(0, dtype=int)
    order = np.argsort(values, axis=0, kind="stable")
    return np.unique(np.concatenate([order[:_N_ENDS], order[-_N_ENDS:]]))


def keep_extreme(found: Extremes) -> Extremes:
    """Keep those of some images that are extreme among them."""
    if not found:
        return found
    positions = list(found)
    kept = extreme_rows(np.array([extreme.values for extreme in found.values()]))
    return {positions[row]: found[positions[row]] for row in kept.tolist()}
