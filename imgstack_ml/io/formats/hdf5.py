"""HDF5: the data set that a source such as ``file.h5::name`` means; needs h5py."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["open_data_set", "split_hdf5"]

_SUFFIXES = (".h5", ".hdf5", ".hdf")


def split_hdf5(source: str) -> tuple[str, str] | None:
    """Split ``file.h5::name``, the name being empty where none is given; None where a source is no HDF5 file."""
    path, _, name = source.partition("::")
    return (path, name) if path.lower().endswith(_SUFFIXES) and os.path.isfile(path) else None


@contextlib.contextmanager
def open_data_set(path: str, name: str) -> Iterator[Any]:
    """Open a data set while the block runs.

    Raises
    ------
    ImportError
        h5py is not installed.
    ValueError
        The file has no data set of this name.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need the package h5py: pip install 'imgstack_ml[hdf5]'") from error
    with h5py.File(path, "r") as file:
        found = file.get(name) if name else None
        if not isinstance(found, h5py.Dataset):
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            raise ValueError(_missing_message(path, name, names))
        yield found


def _missing_message(path: str, name: str, names: list[str]) -> str:
    said = f"it holds no data set {name!r}" if name else "it is not said which of its data sets is meant"
    example = f"open_stack({f'{path}::{names[0]}'!r})" if names else "there is none"
    return f"{said}; it has {', '.join(map(repr, names[:5])) or 'no data set'}. Give one: {example}"
