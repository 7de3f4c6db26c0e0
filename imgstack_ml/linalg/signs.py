"""One sign for each component, from the components alone."""

from __future__ import annotations

import numpy as np

__all__ = ["component_signs"]

_TIE = 1e-4  # entries this close to the largest count as equal, so that rounding cannot choose between them


def component_signs(components: np.ndarray) -> np.ndarray:
    """Signs (k,) of +-1 that make each row's entry of largest magnitude positive, the first one of near ties.

    scikit-learn's PCA makes the same choice (``svd_flip(u_based_decision=False)``) but for near ties.
    """
    signs = np.ones(len(components), components.dtype)
    for j, row in enumerate(components):
        size = np.abs(row)
        signs[j] = np.copysign(1, row[np.argmax(size >= (1 - _TIE) * size.max())])
    return signs
