"""Warnings that point at the line in the user's code that caused them."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from importlib.util import find_spec
from itertools import count
from types import FrameType

__all__ = ["warn"]

# Code that can run between the user's call and the warning. scikit-learn's Pipeline calls through joblib.
_PACKAGES = ("imgstack_ml", "sklearn", "dask", "distributed", "joblib")
_MODULES = (contextlib.__file__, functools.__file__)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line of the call stack that is not in this package, scikit-learn or Dask.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    """
    warnings.warn(message, category, stacklevel=1 + _user_level(sys._getframe(1)))


def _user_level(frame: FrameType | None) -> int:
    """Count the frames from `frame`, which is number 1, to the first frame of the user's code."""
    for level in count(1):
        if frame is None or not frame.f_code.co_filename.startswith(_skipped_paths()):
            return level
        frame = frame.f_back
    raise AssertionError("unreachable")


@functools.cache
def _skipped_paths() -> tuple[str, ...]:
    """Beginnings of the file names whose code is not the user's."""
    specs = (find_spec(name) for name in _PACKAGES)
    folders = (os.path.dirname(spec.origin) + os.sep for spec in specs if spec is not None and spec.origin)
    return (*folders, *_MODULES)
