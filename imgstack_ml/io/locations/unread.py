"""Which of the files that lie somewhere are read; images among the others are counted, so that none goes unnoticed."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .faults import READ_ERRORS
from .known import known_by_content, known_by_name
from .names import is_hidden

__all__ = [
    "LINKED_FOLDER",
    "Listing",
    "Reads",
    "Sorter",
    "is_no_image",
    "kind_of_file",
    "kind_of_name",
    "list_names",
    "unread_text",
]

# Arrays need not be images: they are not counted.
_ARRAYS = ("HDF5", "MATLAB", "netCDF 3", "NumPy")

# Files of these names are not opened to see whether they are images: they are many, and never are.
_NO_IMAGE = re.compile(
    r"\.(txt|[ct]sv|jsonl?|xml|ya?ml|toml|ini|cfg|md|rst|log|html|py|ipynb|zip|tar|gz|np[yz]|h5|hdf5|parquet|safetensors"
    r"|xmp|pdf|xlsx?|docx?)\Z",
    re.IGNORECASE,
)

_HEAD = 1024  # bytes


#: Of links to folders, which are not followed, and are counted among what is not read.
LINKED_FOLDER = "link to a folder"


#: Tells by its name whether a file is read: True, False where it is read only if there are no others (films, arrays),
#: and None where it is not read.
Reads = Callable[[str], bool | None]


class Listing(NamedTuple):
    """Files that were found, in no particular order, and how many images of which kinds are not read beside them."""

    files: list[str]
    unread: Counter[str] = Counter()  # noqa: RUF012 (never written to)


class Sorter:
    """Sorts files into those that are read and others.

    Parameters
    ----------
    reads : Reads
    """

    def __init__(self, reads: Reads):
        self.reads, self.unread = reads, Counter[str]()
        self._found: dict[bool, list[str]] = {True: [], False: []}

    def add(self, name: str, *, beside_others: bool = True) -> None:
        """Add a file that is read."""
        self._found[beside_others].append(name)

    def listing(self) -> Listing:
        """Return the files that are read, and count those that are not."""
        pictures, others = self._found[True], self._found[False]
        if pictures:
            self.unread.update(f"{os.path.splitext(name)[1].lower()} (beside images)" for name in others)
        return Listing(pictures or others, self.unread)


def is_no_image(name: str) -> bool:
    """Tell whether a file of this name is never an image."""
    return _NO_IMAGE.search(name) is not None


def kind_of_name(name: str) -> str | None:
    """Return the suffix of a file that is an image by its name and is not read; None for any other file."""
    found = known_by_name(name)
    return found[0] if found and found[1].name not in _ARRAYS else None


def kind_of_file(path: str) -> str | None:
    """Return what a file that ends like no image is, if its name or its first bytes are those of an image."""

    def read_head(path: str, n_bytes: int) -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.read(n_bytes)

    return _kind_of(path, read_head)


def list_names(
    names: Iterable[str], reads: Reads, root: str = "", read_head: Callable[[str, int], bytes] | None = None
) -> Listing:
    """Choose the images among names with ``/`` between folders; below `root`, no part of a name may be hidden.

    The first bytes of other files, as `read_head` reads them, tell whether they are images.
    """
    found = Sorter(reads)
    for name in names:
        if is_hidden(name[len(root) :]):
            continue
        if (beside_others := reads(name)) is not None:
            found.add(name, beside_others=beside_others)
        elif kind := _kind_of(name, read_head):
            found.unread[kind] += 1
    return found.listing()


def _kind_of(name: str, read_head: Callable[[str, int], bytes] | None) -> str | None:
    kind = kind_of_name(name)
    if kind is not None or read_head is None or _NO_IMAGE.search(name):
        return kind
    try:
        found = known_by_content(read_head(name, _HEAD))
    except READ_ERRORS:  # a damaged member of an archive
        return None
    if found is None or found.name in _ARRAYS:
        return None
    return f"{os.path.splitext(name)[1] or 'no suffix'} ({found.name})"


def unread_text(unread: Counter[str]) -> str:
    """Say how many images there are of which kinds, the most frequent first; empty where there are none."""
    return ", ".join(f"{kind} ({count:,})" for kind, count in unread.most_common())
