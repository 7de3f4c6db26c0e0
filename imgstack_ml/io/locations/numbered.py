"""Names of the images of an array, made when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

__all__ = ["NumberedNames"]


class NumberedNames(Sequence[str]):
    """``"label[i]"`` for each image of an array: equal to the tuple of these, which would take 100 bytes an image.

    Parameters
    ----------
    label : str
        Names the array.
    numbers : int or ndarray of int
        How many images there are, or which of them.
    """

    def __init__(self, label: str, numbers: int | np.ndarray):
        self._label = label
        self._numbers = range(numbers) if isinstance(numbers, int) else numbers

    def select(self, positions: np.ndarray) -> NumberedNames:
        """Names at these positions, in their order."""
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
