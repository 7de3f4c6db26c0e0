"""Signs of components, which the decomposition itself leaves open."""

from __future__ import annotations

import numpy as np

__all__ = ["component_signs", "settle_signs"]

_TIE = 1e-4  # entries this close to the largest count as equal, so that rounding cannot choose between them
_TILE = 2**16


def component_signs(components: np.ndarray) -> np.ndarray:
    """Signs that make the entry of largest magnitude positive in each component.

    If several entries are as large but for 1e-4 of it, the first of them is made positive. Apart from that,
    scikit-learn's PCA chooses the same signs (``svd_flip(u_based_decision=False)``).

    Parameters
    ----------
    components : ndarray of shape (k, p)

    Returns
    -------
    signs : ndarray of shape (k,), 1 or -1 in the dtype of the components
    """
    signs = np.ones(len(components), components.dtype)
    for j, row in enumerate(components):
        least = (1 - _TIE) * max(row.max(), -row.min())
        for a in range(0, len(row), _TILE):  # without an array as large as a component
            tile = row[a : a + _TILE]
            large = tile[np.abs(tile) >= least]
            if len(large):
                signs[j] = np.copysign(1, large[0])
                break
    return signs


def settle_signs(components: np.ndarray) -> np.ndarray:
    """Give components their signs, in place, and return the signs."""
    signs = component_signs(components)
    for j in np.flatnonzero(signs < 0):
        np.negative(components[j], out=components[j])
    return signs
