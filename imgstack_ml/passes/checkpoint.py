"""What passes have found so far, on disk: a fit that was killed goes on from there.

One file a pass holds the merged result of its first groups of batches, all of them in the end. It is written whole or
not at all, and told by a digest of what the pass was given: what a resumed fit takes from it is, bit for bit, what
it would compute.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import StoreError
from ..files.atomic import atomic_path
from ..files.locks import lock_output
from ..files.tensors import save_tensors
from ..linalg.gram import Scatter
from ..linalg.incremental import Summary
from ..linalg.krylov import Image

__all__ = ["Checkpoint", "PassRecord", "holds_checkpoint", "open_checkpoint", "remove_checkpoint"]

logger = logging.getLogger("imgstack_ml")

_SHARE = 0.02  # of the time of a fit that saving may take; what the disk does afterwards takes as much again
_WRITE_RATE = 2e8  # bytes a second, until one was measured
_ALWAYS = 4e6  # bytes that take as long as what a save takes however little it holds
_RECORDS = {cls.__name__: cls for cls in (Image, Scatter, Summary)}
_HEADER = "imgstack_ml"
_FIT = "fit.json"
_OWN = re.compile(r"fit\.json|pass-\d{4}\.safetensors|\.(fit|pass-\d{4})-[0-9a-f]{12}\.tmp\.(json|safetensors|lock)")


class Saved(NamedTuple):
    """What is there of a pass: groups of batches done, images they read, the next pass's number, the result so far."""

    n_done: int
    n_images: int
    following: int
    value: Any


_NOTHING = Saved(0, 0, 0, None)


class Checkpoint:
    """A folder with the results of the passes of one fit, in the order in which the fit makes them.

    Parameters
    ----------
    folder : str
        There already, and locked.
    fit : dict of str to str
        What the results depend on, by the name that a user knows it by.
    begun : dict of str to int
        What the fit chose when it began: a resumed one has to go the same way.

    Attributes
    ----------
    begun : dict
        That of the fit that is resumed, if one is.
    """

    def __init__(self, folder: str, fit: dict[str, str], begun: dict[str, int]):
        self.folder = folder
        self.begun = self._own = begun
        self._fit = fit
        self._next = 0
        self._rate, self._saved_at = _WRITE_RATE, perf_counter()
        self._fails = False
        self._is_ours = self._resume()

    def begin_pass(self, *given: Any) -> PassRecord:
        """Give the record of the next pass, `given` being what its result depends on beside the images."""
        record = PassRecord(self, self._next, _digest(given))
        self._next += 1
        return record

    def discard(self, reason: str) -> None:
        """Warn, and take nothing from what is there; it is replaced when there is something to save."""
        self._is_ours, self.begun = False, self._own
        _warn(f"The checkpoint {self.folder!r} is not used, and the fit begins anew: {reason}.")

    def _resume(self) -> bool:
        """Tell whether the files are of this fit, and take over what it began with."""
        try:
            there = json.loads(Path(self.folder, _FIT).read_text(encoding="utf-8"))
            changes = _changes(there["fit"], self._fit)
            begun = {key: int(there["begun"][key]) for key in self.begun}
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError, AttributeError):
            changes = ["its fit.json is damaged"]
        if changes:
            self.discard("; ".join(changes))
            return False
        self.begun = begun
        return True

    def _load(self, number: int, digest: str) -> Saved:
        if not self._is_ours:
            return _NOTHING
        path = self._path(number)
        try:
            with safe_open(path, framework="np") as file:
                header = json.loads(file.metadata()[_HEADER])
                if header["digest"] != digest:  # by another number of threads, or another NumPy: no bit is the same
                    return _NOTHING
                value = _joined(header["value"], file.get_tensor)
                saved = Saved(header["n_done"], header["n_images"], header["following"], value)
        except FileNotFoundError:
            return _NOTHING
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            _warn(f"{path!r} is damaged, and pass {number} is done again ({error})")
            return _NOTHING
        self._next = max(self._next, saved.following)
        return saved

    def _save(self, number: int, digest: str, saved: Saved, inner: range) -> bool:
        """Save what a pass has found, if that is worth its time; a failure costs the checkpoint, not the fit."""
        arrays: dict[str, np.ndarray] = {}
        value = _split(saved.value, arrays)
        n_bytes = sum(array.nbytes for array in arrays.values())
        now = perf_counter()
        if now - self._saved_at < (n_bytes + _ALWAYS) / self._rate / _SHARE:
            return False
        header = {"digest": digest, **saved._asdict(), "value": value}
        try:
            self._write(number, arrays, json.dumps(header))
        except OSError as error:
            self._warn_once(n_bytes, error)
            return False
        finally:
            self._saved_at = perf_counter()
            self._rate = (n_bytes + _ALWAYS) / max(self._saved_at - now, 1e-3)
        logger.info("saved %d bytes of pass %d in %.3f s", n_bytes, number, self._saved_at - now)
        for part in inner:
            Path(self._path(part)).unlink(missing_ok=True)
        return True

    def _write(self, number: int, arrays: dict[str, np.ndarray], header: str) -> None:
        if not self._is_ours:  # what another fit left goes when there is something to put in its place
            _remove_files(self.folder)
            with atomic_path(os.path.join(self.folder, _FIT)) as temporary:
                text = json.dumps({"fit": self._fit, "begun": self.begun}, indent=2)
                Path(temporary).write_text(text, encoding="utf-8")
            self._is_ours = True
        save_tensors(self._path(number), arrays, {_HEADER: header})

    def _warn_once(self, n_bytes: int, error: Exception) -> None:
        if not self._fails:
            self._fails = True
            _warn(
                f"The checkpoint {self.folder!r} could not be written, which takes {n_bytes:,} bytes ({error}). The "
                "fit goes on, and tries again later; what was saved before stays. Make room there."
            )

    def _path(self, number: int) -> str:
        return os.path.join(self.folder, f"pass-{number:04}.safetensors")


class PassRecord:
    """What is saved of one pass, or of a piece of work that holds others.

    Parameters
    ----------
    checkpoint : Checkpoint
    number : int
        Of the pass in the fit.
    digest : str
        Of what its result depends on.
    """

    def __init__(self, checkpoint: Checkpoint, number: int, digest: str):
        self._checkpoint = checkpoint
        self._number = number
        self._digest = digest

    def load(self) -> Saved:
        """Return what is there; passes that the work would have held are skipped."""
        return self._checkpoint._load(self._number, self._digest)

    def save(self, n_done: int, n_images: int, value: Any) -> bool:
        """Save the result of the first groups of batches, if the last save was long enough ago.

        Passes that were begun since this one are parts of it, and their records go.
        """
        following = self._checkpoint._next
        inner = range(self._number + 1, following)
        return self._checkpoint._save(self._number, self._digest, Saved(n_done, n_images, following, value), inner)


@contextmanager
def open_checkpoint(path: str | os.PathLike[str], fit: dict[str, str], begun: dict[str, int]) -> Iterator[Checkpoint]:
    """Give a checkpoint, whose files go when the block ends without an error, and stay where it fails.

    Parameters
    ----------
    path : str or PathLike
        A folder of its own, which is made where it is missing.
    fit, begun : dict
        See `Checkpoint`.

    Raises
    ------
    StoreError
        `path` is a file, holds something else, or another process uses it; its parent folder is missing.
    """
    with _locked(os.path.abspath(path)) as folder:
        yield Checkpoint(folder, fit, begun)
        _remove_files(folder)


def holds_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Tell whether `path` is a folder in which a fit left something to go on from."""
    return os.path.exists(os.path.join(path, _FIT))


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint, where there is one and no process uses it.

    Parameters
    ----------
    path : str or PathLike

    Raises
    ------
    StoreError
        As `open_checkpoint` does.
    """
    if os.path.isdir(path):
        with _locked(os.path.abspath(path)) as folder:
            _remove_files(folder)


@contextmanager
def _locked(folder: str) -> Iterator[str]:
    """Hold the lock of a folder; it goes when it is left empty."""
    _make_folder(folder)
    try:
        with lock_output(os.path.join(folder, "fit")):
            for name in os.listdir(folder):
                # A process was killed while it wrote this; the lock is the one that is held.
                if name.startswith(".") and not name.endswith(".lock"):
                    os.remove(os.path.join(folder, name))
            yield folder
    finally:
        with suppress(OSError):  # not empty after an error
            os.rmdir(folder)


def _remove_files(folder: str) -> None:
    """Remove what a fit saved; the description first, without which the rest is nothing."""
    for name in [_FIT, *(name for name in os.listdir(folder) if name.startswith("pass-"))]:
        Path(folder, name).unlink(missing_ok=True)


def _make_folder(folder: str) -> None:
    try:
        os.mkdir(folder)
    except FileExistsError:
        pass
    except FileNotFoundError:
        parent = os.path.dirname(folder)
        raise StoreError(f"there is no folder {parent!r} to make a checkpoint in; make it first") from None
    if not os.path.isdir(folder):
        raise StoreError(f"checkpoint={folder!r} is a file; give the name of a folder")
    others = [name for name in os.listdir(folder) if not _OWN.fullmatch(name)]
    if others:
        raise StoreError(f"checkpoint={folder!r} holds {others[0]!r}; a checkpoint needs a folder of its own")


def _changes(was: dict[str, str], now: dict[str, str]) -> list[str]:
    """Name what is no longer as it was."""
    return [
        f"{name} was {was.get(name)} and is {now.get(name)}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)


def _digest(given: Any) -> str:
    """Tell apart what passes were given; lists in it are raw images, which the fit is told by already."""
    state = hashlib.blake2b(digest_size=16)
    for item in given:
        if isinstance(item, np.ndarray):
            state.update(f"{item.dtype.str}{item.shape}".encode())
            state.update(np.ascontiguousarray(item).data)
        elif not isinstance(item, list):
            state.update(repr(item).encode())
    return state.hexdigest()


def _split(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Write a result in JSON's terms; its arrays go to `arrays`."""
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        arrays[name] = value
        return {"array": name}
    kind = type(value).__name__
    if kind in ("list", "tuple", *_RECORDS):
        return {kind: [_split(item, arrays) for item in value]}
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, int | float | None):
        raise TypeError(f"a {kind} is not saved in checkpoints")
    return value


def _joined(value: Any, read: Any) -> Any:
    """Make what `_split` wrote."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return read(content)
    items: Sequence[Any] = [_joined(item, read) for item in content]
    if kind in _RECORDS:
        return _RECORDS[kind](*items)
    return items if kind == "list" else tuple(items)
