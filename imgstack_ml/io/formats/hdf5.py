"""HDF5: the data set that a source such as ``file.h5::name`` means; needs h5py."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["open_data_set", "split_hdf5"]

_MOST_LINKS = 100
_COPY = "Copy it into a file of its own: h5py.File(new_path, 'w')['images'] = pixels"
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
        found = file.get(_within_file(file, name)) if name else None
        if not isinstance(found, h5py.Dataset):
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            raise ValueError(_missing_message(path, name, names))
        if found.external or found.is_virtual:
            kind = "in other files" if found.external else "in other data sets (it is virtual)"
            raise ValueError(f"the pixels of its data set {name!r} lie {kind}, where they are not read. {_COPY}")
        if found.id.get_storage_size() == 0 and found.size:
            raise ValueError(f"its data set {name!r} has no pixel: none was written")
        yield found


def _within_file(file: Any, name: str) -> str:
    """Return the path of a data set once its soft links are followed; external links are not."""
    import h5py

    parts, done, n_links = name.strip("/").split("/"), "", 0
    while parts:
        part = parts.pop(0)
        link = file.get(f"{done}/{part}", getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"its {name!r} is a link into another file, {link.filename!r}, which is not read. {_COPY}")
        if isinstance(link, h5py.SoftLink):
            n_links += 1
            if n_links > _MOST_LINKS:
                raise ValueError(f"its {name!r} is a link that leads in a circle")
            parts = [*link.path.strip("/").split("/"), *parts]
            done = "" if link.path.startswith("/") else done
        else:
            done = f"{done}/{part}"
    return done


def _missing_message(path: str, name: str, names: list[str]) -> str:
    said = f"it holds no data set {name!r}" if name else "it is not said which of its data sets is meant"
    example = f"open_stack({f'{path}::{names[0]}'!r})" if names else "there is none"
    return f"{said}; it has {', '.join(map(repr, names[:5])) or 'no data set'}. Give one: {example}"
