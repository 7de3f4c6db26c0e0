"""Keys of images in files: where each image is, and the state that its file had when the stack was opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .formats.registry import Key
from .locations.base import State

__all__ = ["FileKeys"]


class FileKeys(Sequence[Key]):
    """A key for each image, and the state of its file: 16 bytes an image.

    Parameters
    ----------
    keys : sequence of Key
    states : ndarray of int64, of shape (n_images, 2)
        Fields of `State`; see `of_files`.
    runs : ndarray of int64, of shape (n_images,), or None
        Images of one number are decoded from the same place of a file on, such as a keyframe of a film; None where each
        image is decoded by itself.
    """

    def __init__(self, keys: Sequence[Key], states: np.ndarray, runs: np.ndarray | None = None):
        self._keys, self._states, self.runs = keys, states, runs

    @classmethod
    def of_files(cls, keys: Sequence[Key], states: Sequence[State], runs: np.ndarray | None = None) -> FileKeys:
        """Make the keys of images with the states of their files."""
        # A flat list: NumPy takes 50 times as long for one of named tuples.
        return cls(keys, np.array([number for state in states for number in state], np.int64).reshape(-1, 2), runs)

    def states(self) -> Iterator[State]:
        """Yield the state of the file of each image."""
        return (State(*row) for row in self._states.tolist())

    def tobytes(self) -> bytes:
        """Return what tells these keys from others, to be hashed."""
        return repr(tuple(self._keys)).encode("utf-8", "surrogateescape") + self._states.tobytes()

    def __dask_tokenize__(self) -> bytes:
        return self.tobytes()

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, np.ndarray | slice):
            return self._keys[index]
        found = self._keys[index] if isinstance(index, slice) else tuple(self._keys[i] for i in index.tolist())
        return FileKeys(found, self._states[index], None if self.runs is None else self.runs[index])

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)
