"""Warnings that name the user's line, not one of this package or of scikit-learn."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import sys
import threading
import warnings
from importlib.util import find_spec
from types import FrameType

__all__ = ["warn"]

# Code that runs between a user's call and our warning: Pipelines call through joblib, Dask in threads, and
# ``from imgstack_ml import name`` through the import system.
_PACKAGES = ("imgstack_ml", "sklearn", "dask", "dask_ml", "distributed", "joblib", "concurrent.futures")
_FILES = (*(str(module.__file__) for module in (contextlib, functools, queue, threading)), "<frozen importlib.")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the nearest line outside of this package, scikit-learn and Dask.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    """
    caller = sys._getframe(1)
    frame = _nearest_user_frame(caller)
    if frame is None:  # in a thread that Dask started: the main thread waits for it at the user's line
        frame = _nearest_user_frame(sys._current_frames().get(threading.main_thread().ident or 0)) or caller
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _nearest_user_frame(frame: FrameType | None) -> FrameType | None:
    """Return `frame`, or the nearest of its callers, that runs code of the user; None if there is none."""
    while frame is not None and frame.f_code.co_filename.startswith(_skipped_paths()):
        frame = frame.f_back
    return frame


@functools.cache
def _skipped_paths() -> tuple[str, ...]:
    specs = (find_spec(name) for name in _PACKAGES)
    folders = (os.path.dirname(spec.origin) + os.sep for spec in specs if spec is not None and spec.origin)
    return (*folders, *_FILES)
