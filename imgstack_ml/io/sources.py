"""Kinds of sources: each becomes a reader, a key for each image, and a name for each image.

What comes after this, blocks, selection and graph, is common to all of them.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .convert import Policy
from .formats.arrays import ArrayReader, n_images, open_hdf5, open_npy, open_zarr, split_hdf5
from .formats.base import Header, mode_of
from .formats.store import is_own_store, is_store, open_store
from .locations.faults import naming_the_file
from .locations.listing import Source, list_files, root_folder
from .locations.numbered import NumberedNames
from .readers import FileReader
from .scan import Kinds, scan

__all__ = ["Opened", "PolicyReader", "open_source"]


class Opened(NamedTuple):
    """A source once it is opened: the fields of an ImageStack."""

    reader: Any
    names: Sequence[str]
    keys: Sequence[Any] | np.ndarray | None
    labels: np.ndarray | None
    problems: tuple[tuple[str, str], ...]
    kinds: Kinds


class PolicyReader:
    """Bring the images of another reader to a mode, dtype and size.

    Parameters
    ----------
    reader : object
        Its images are all alike.
    policy : Policy
    """

    def __init__(self, reader: Any, policy: Policy):
        self.reader, self.policy = reader, policy
        self.shape, self.dtype = policy.layout(reader.shape, reader.dtype)
        self.images_per_chunk = reader.images_per_chunk

    def __dask_tokenize__(self) -> tuple[Any, Policy]:
        return self.reader, self.policy

    def read(self, keys: Any) -> np.ndarray:
        """Read a block."""
        images = self.reader.read(keys)
        out = np.empty((len(images), *self.shape), self.dtype)
        for place, image in zip(out, images, strict=True):
            place[...] = self.policy.apply(image)
        return out


def open_source(source: Source, policy: Policy, *, recursive: bool, sort: str, on_error: str) -> Opened:
    """Open a source of any kind; see `imgstack_ml.open_stack`.

    Parameters
    ----------
    source : str, PathLike or sequence of these
    policy : Policy
    recursive : bool
    sort : str
    on_error : str

    Returns
    -------
    Opened
    """
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        for is_kind, open_kind in _ARRAYS:
            if is_kind(text):
                return _adapted(open_kind(text), policy, text)
    return _open_files(source, policy, recursive, sort, on_error)


def _open_files(source: Source, policy: Policy, recursive: bool, sort: str, on_error: str) -> Opened:
    found = scan(list_files(source, recursive=recursive, sort=sort), policy, on_error=on_error)
    labels = None
    if recursive and isinstance(source, str | os.PathLike):
        labels = _folder_labels(found.files, root_folder(source))
    reader = FileReader(found.shape, found.dtype, found.fingerprint, policy)
    return Opened(reader, found.names, found.keys, labels, found.problems, found.kinds)


def _open_own_store(path: str) -> Opened:
    store = open_store(os.path.abspath(path))
    return _of_array(store.reader, store.files, "zarr", store.labels)


def _open_array(open_kind: Callable[..., ArrayReader], *name: str) -> Opened:
    reader = open_kind(*name)
    return _of_array(reader, NumberedNames(reader.label, n_images(reader)), reader.kind)


def _of_array(reader: Any, names: Sequence[str], kind: str, labels: np.ndarray | None = None) -> Opened:
    header = Header(reader.shape, reader.dtype, kind, mode_of(reader.shape, reader.dtype))
    kinds = Kinds((header,), np.zeros(len(names), np.uint32))
    return Opened(reader, names, np.arange(len(names)), labels, (), kinds)


def _adapted(opened: Opened, policy: Policy, source: str) -> Opened:
    if policy.is_identity:
        return opened
    with naming_the_file(source):
        return opened._replace(reader=PolicyReader(opened.reader, policy))


def _is_hdf5(source: str) -> bool:
    return split_hdf5(source) is not None


def _open_hdf5(source: str) -> Opened:
    path, name = split_hdf5(source) or (source, "")
    return _open_array(open_hdf5, os.path.abspath(path), name)


# Asked in this order; what is none of these is files.
_ARRAYS: tuple[tuple[Callable[[str], bool], Callable[[str], Opened]], ...] = (
    (is_own_store, _open_own_store),
    (is_store, lambda path: _open_array(open_zarr, os.path.abspath(path))),
    (_is_hdf5, _open_hdf5),
    (
        lambda path: path.lower().endswith(".npy") and os.path.isfile(path),
        lambda path: _open_array(open_npy, os.path.abspath(path)),
    ),
)


def _folder_labels(files: Sequence[str], root: str) -> np.ndarray | None:
    """Name the folder of each file relative to the root, with ``/`` between folders; None where all lie in the root."""
    folders = (os.path.dirname(file).replace(os.sep, "/") for file in files)
    root = root.replace(os.sep, "/").rstrip("/")
    labels = np.array([folder[len(root) :].strip("/") or "." for folder in folders])
    return labels if (labels != ".").any() else None
