"""Names of the images of an array, each made when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

__all__ = ["NumberedNames"]


class NumberedNames(Sequence[str]):
    """Names ``"label[i]"`` for the images of an array, equal to the tuple of them.

    The tuple would take about 100 bytes an image.

    Parameters
    ----------
    label : str
        Names the array.
    numbers : int or ndarray of int
        The number of images, or the positions of some images.
    """

    def __init__(self, label: str, numbers: int | np.ndarray):
        self._label = label
        self._numbers = range(numbers) if isinstance(numbers, int) else numbers

    def select(self, positions: np.ndarray) -> NumberedNames:
        """Select names by their positions in this sequence."""
        return NumberedNames(self._label, np.asarray(self._numbers)[positions])

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[str, ...]: ...
    def __getitem__(self, key: Any) -> str | tuple[str, ...]:
        if isinstance(key, slice):
            return tuple(f"{self._label}[{i}]" for i in self._numbers[key])
        return f"{self._label}[{self._numbers[key]}]"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NumberedNames):
            return self._label == other._label and np.array_equal(self._numbers, other._numbers)
        return isinstance(other, tuple) and self[:] == other

    def __hash__(self) -> int:
        return hash(self[:])

    def __repr__(self) -> str:
        return repr(self[:])
