"""Work on ranges of pixels: by one thread, or by the threads that `passes` gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Run", "at_once"]

#: Calls ``step(blocks, lo, hi)`` on ranges of the pixels of images, or of columns, and merges the results in order.
Run: TypeAlias = Callable[[Callable[..., Any], Callable[[Any, Any], Any], Sequence[np.ndarray]], Any]


def at_once(step: Callable[..., Any], merge: Callable[[Any, Any], Any], blocks: Sequence[np.ndarray]) -> Any:
    """Call a step once, on all pixels."""
    return step(blocks, 0, blocks[0][0].size)
