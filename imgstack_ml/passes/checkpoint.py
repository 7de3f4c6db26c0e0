"""Checkpoints: results of passes on disk, so that a fit that was killed can be resumed.

Each pass has one file. It holds the merged result of the groups of batches done so far, and a digest of the arguments
of the pass. A file is written whole or not at all. A resumed fit uses a result only if the digest is the same, so
that its own result is the same to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ..base.warn import warn
from ..errors import StoreError
from ..files.atomic import atomic_path
from ..files.locks import lock_output
from ..files.names import refuse_url
from ..files.tensors import save_tensors
from ..linalg.gram import Scatter
from ..linalg.incremental import Summary
from ..linalg.krylov import Image

__all__ = ["Checkpoint", "PassRecord", "holds_checkpoint", "open_checkpoint", "remove_checkpoint"]

logger = logging.getLogger("imgstack_ml")

_SHARE = 0.02  # share of the time of a fit that saving may take; the disk takes as much again afterwards
_WRITE_RATE = 2e8  # bytes a second, until a rate was measured
_OVERHEAD_BYTES = 4e6  # a save of no bytes takes as long as writing this many
_RECORDS = {cls.__name__: cls for cls in (Image, Scatter, Summary)}
_HEADER = "imgstack_ml"
_FIT = "fit.json"
_OWN = re.compile(r"fit\.json|pass-\d{4}\.safetensors|\.(fit|pass-\d{4})-[0-9a-f]{12}\.tmp\.(json|safetensors|lock)")


class Saved(NamedTuple):
    """What is saved of a pass.

    Attributes
    ----------
    n_done : int
        Groups of batches that are done.
    n_images : int
        Images that they read.
    following : int
        Number of the pass that comes next.
    value : object
        Merged result of the groups.
    """

    n_done: int
    n_images: int
    following: int
    value: Any


_NOTHING_SAVED = Saved(0, 0, 0, None)


class Checkpoint:
    """A folder with the results of the passes of one fit, numbered in the order of the passes.

    Parameters
    ----------
    folder : str
        An existing folder, locked by the caller.
    fit : dict of str to str
        What the results depend on: values by names for the user. A resumed fit must have the same.
    begun : dict of str to int
        What the fit chose at its start, such as a memory limit. A resumed fit takes over the values of the first one.

    Attributes
    ----------
    begun : dict
        Values of the fit that is resumed, or those given.
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
        """Return the record of the next pass, whose result depends on the images and on the arguments `given`."""
        record = PassRecord(self, self._next, _digest(given))
        self._next += 1
        return record

    def discard(self, reason: str) -> None:
        """Warn that the saved results are not used. The next save replaces them."""
        self._is_ours, self.begun = False, self._own
        warn(f"The checkpoint {self.folder!r} is not used, and the fit starts again: {reason}.")

    def _resume(self) -> bool:
        """Return whether the files are of this fit; if so, take over the values that it began with."""
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
            return _NOTHING_SAVED
        path = self._path(number)
        try:
            with safe_open(path, framework="np") as file:
                header = json.loads(file.metadata()[_HEADER])
                if header["digest"] != digest:  # e.g. another number of threads: last bits would differ
                    return _NOTHING_SAVED
                value = _joined(header["value"], file.get_tensor)
                saved = Saved(header["n_done"], header["n_images"], header["following"], value)
        except FileNotFoundError:
            return _NOTHING_SAVED
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            warn(f"{path!r} is damaged; pass {number} is run again ({error})")
            return _NOTHING_SAVED
        self._next = max(self._next, saved.following)
        return saved

    def _save(self, number: int, digest: str, saved: Saved, inner: range) -> bool:
        """Save the partial result of a pass, and return whether that was done.

        It is not done if the last save was too recent, or if writing fails, which warns. `inner` are the numbers of
        passes that are parts of this one: their files are no longer needed.
        """
        arrays: dict[str, np.ndarray] = {}
        value = _split(saved.value, arrays)
        n_bytes = sum(array.nbytes for array in arrays.values())
        now = perf_counter()
        if now - self._saved_at < (n_bytes + _OVERHEAD_BYTES) / self._rate / _SHARE:
            return False
        header = {"digest": digest, **saved._asdict(), "value": value}
        try:
            self._write(number, arrays, json.dumps(header))
        except OSError as error:
            self._warn_once(n_bytes, error)
            return False
        finally:
            self._saved_at = perf_counter()
            self._rate = (n_bytes + _OVERHEAD_BYTES) / max(self._saved_at - now, 1e-3)
        logger.info("saved %d bytes of pass %d in %.3f s", n_bytes, number, self._saved_at - now)
        for part in inner:
            Path(self._path(part)).unlink(missing_ok=True)
        return True

    def _write(self, number: int, arrays: dict[str, np.ndarray], header: str) -> None:
        if not self._is_ours:  # files of another fit are removed only now, when there is something to replace them
            _remove_files(self.folder)
            with atomic_path(os.path.join(self.folder, _FIT)) as temporary:
                text = json.dumps({"fit": self._fit, "begun": self.begun}, indent=2)
                Path(temporary).write_text(text, encoding="utf-8")
            self._is_ours = True
        save_tensors(self._path(number), arrays, {_HEADER: header})

    def _warn_once(self, n_bytes: int, error: Exception) -> None:
        if not self._fails:
            self._fails = True
            warn(
                f"The checkpoint {self.folder!r} could not be written: it needs {n_bytes:,} bytes ({error}). The fit "
                "continues and tries again later. Results saved before are kept. Free some space on that disk."
            )

    def _path(self, number: int) -> str:
        return os.path.join(self.folder, f"pass-{number:04}.safetensors")


class PassRecord:
    """The saved result of one pass, or of a piece of work that runs several passes.

    Parameters
    ----------
    checkpoint : Checkpoint
    number : int
        Number of the pass in the fit.
    digest : str
        Digest of the arguments on which its result depends.
    """

    def __init__(self, checkpoint: Checkpoint, number: int, digest: str):
        self._checkpoint = checkpoint
        self._number = number
        self._digest = digest

    def load(self) -> Saved:
        """Return what is saved. If it is the result of several passes, the numbers of these are skipped."""
        return self._checkpoint._load(self._number, self._digest)

    def save(self, n_done: int, n_images: int, value: Any) -> bool:
        """Save the result of the first groups of batches, if the last save was long enough ago.

        Passes that began after this one are parts of it. Their files are removed: this result replaces them.
        """
        following = self._checkpoint._next
        inner = range(self._number + 1, following)
        return self._checkpoint._save(self._number, self._digest, Saved(n_done, n_images, following, value), inner)


@contextmanager
def open_checkpoint(path: str | os.PathLike[str], fit: dict[str, str], begun: dict[str, int]) -> Iterator[Checkpoint]:
    """Open a checkpoint. Its files are removed when the block ends, and kept if it ends with an error.

    Parameters
    ----------
    path : str or PathLike
        Folder for nothing else. It is made if it is missing.
    fit, begun : dict
        See `Checkpoint`.

    Raises
    ------
    StoreError
        `path` is a URL or a file, holds other files, or is used by another process; or its parent folder is missing.
    """
    refuse_url(path)
    with _locked(os.path.abspath(path)) as folder:
        yield Checkpoint(folder, fit, begun)
        _remove_files(folder)


def holds_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a folder with a checkpoint from which a fit can be resumed."""
    return os.path.exists(os.path.join(path, _FIT))


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint, if there is one and no process uses it.

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
    """Hold the lock of a folder. The folder is removed at the end if it is empty."""
    _make_folder(folder)
    try:
        with lock_output(os.path.join(folder, "fit")):
            for name in os.listdir(folder):
                # Left by a process that was killed while writing. The lock file is the one held here.
                if name.startswith(".") and not name.endswith(".lock"):
                    os.remove(os.path.join(folder, name))
            yield folder
    finally:
        with suppress(OSError):  # not empty after an error
            os.rmdir(folder)


def _remove_files(folder: str) -> None:
    """Remove the files of a fit. The description goes first: without it, the other files are not used."""
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
    """Name the entries that differ; those that only one of both has, where no other differs."""
    different = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    in_both = [name for name in different if name in was and name in now]
    return [f"{name} was {was.get(name)} and is {now.get(name)}" for name in in_both or different]


def _digest(given: Any) -> str:
    """Digest of arguments. Lists are raw images and left out: the description of the fit tells stacks apart."""
    state = hashlib.blake2b(digest_size=16)
    for item in given:
        if isinstance(item, np.ndarray):
            state.update(f"{item.dtype.str}{item.shape}".encode())
            state.update(np.ascontiguousarray(item).data)
        elif not isinstance(item, list):
            state.update(repr(item).encode())
    return state.hexdigest()


def _split(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a result into JSON values. Its arrays are put into `arrays`."""
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
    """Inverse of `_split`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return read(content)
    items: Sequence[Any] = [_joined(item, read) for item in content]
    if kind in _RECORDS:
        return _RECORDS[kind](*items)
    return items if kind == "list" else tuple(items)
