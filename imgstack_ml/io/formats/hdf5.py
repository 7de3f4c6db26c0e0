"""HDF5: the data set that a source such as ``file.h5::name`` means; needs h5py."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

__all__ = ["open_data_set", "split_hdf5"]

_MOST_LINKS = 100
_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".mat", ".ims")


def split_hdf5(source: str) -> tuple[str, str] | None:
    """Split ``file.h5::name``, the name being empty where none is given; None where a source is no HDF5 file."""
    path, _, name = source.partition("::")
    if not (path.lower().endswith(_SUFFIXES) and os.path.isfile(path)):
        return None
    return (path, name) if name or _is_hdf5(path) else None


def _is_hdf5(path: str) -> bool:
    """Tell whether a file begins like HDF5: others share its suffixes."""
    with open(path, "rb") as file:
        head = file.read(520)
    return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:])


@contextlib.contextmanager
def open_data_set(path: str, name: str, file: BinaryIO | None = None) -> Iterator[Any]:
    """Open a data set while the block runs: the one of this name, or the only one of images where none is given.

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
    with h5py.File(path if file is None else file, "r") as opened:
        name = name or _only_name(opened, path)
        found = opened.get(_within_file(opened, name))
        if not isinstance(found, h5py.Dataset):
            raise ValueError(_missing_message(path, name, list(_data_sets(opened))))
        if found.external or found.is_virtual:
            kind = "in other files" if found.external else "in other data sets (it is virtual)"
            raise ValueError(
                f"the pixels of its data set {name!r} lie {kind}, where they are not read. {_copy(path, name)}"
            )
        if found.id.get_storage_size() == 0 and found.size:
            raise ValueError(f"its data set {name!r} has no pixel: none was written")
        yield found


def _copy(path: str, name: str) -> str:
    return f"Copy it into a file of its own: h5py.File(new_path, 'w')['images'] = h5py.File({path!r})[{name!r}][...]"


def _data_sets(file: Any) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(note)
    return found


def _only_name(file: Any, path: str) -> str:
    """Return the name of the only data set that may hold images: of 2 axes or more, and no scale of an axis."""
    found = _data_sets(file)
    images = [name for name, item in found.items() if len(item.shape or ()) > 1 and item.dtype.kind in "uif"]
    if len(images) != 1:
        raise ValueError(_missing_message(path, "", images or list(found)))
    return images[0]


def _within_file(file: Any, name: str) -> str:
    """Return the path of a data set once its soft links are followed; external links are not."""
    import h5py

    parts, done, n_links = name.strip("/").split("/"), "", 0
    while parts:
        part = parts.pop(0)
        link = file.get(f"{done}/{part}", getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(
                f"its {name!r} is a link into another file, {link.filename!r}, which is not read. "
                f"{_copy(file.filename, name)}"
            )
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
