"""Names of files: plain strings, so that they can stand in a task and in ``stack.files``.

- ``/data/photos/1.png``: a file of this machine;
- ``/data/photos.zip::a/1.png``: a member of an archive, which is itself a named file;
- ``s3://bucket/photos/1.png``: whatever fsspec opens, chained URLs included.
"""

import functools
import os
import re

from ...files.names import is_url

__all__ = [
    "ARCHIVE_SUFFIXES",
    "WILDCARD",
    "absolute_name",
    "is_hidden",
    "natural_key",
    "split_member",
]

ARCHIVE_SUFFIXES = (".zip", ".tar")

#: The first character that makes a name a pattern.
WILDCARD = re.compile(r"[*?\[]")

# Of Windows, macOS and network disks. The folders hold thumbnails, remains of archives, and files that were deleted.
_HIDDEN = re.compile(
    r"(?:\A|/)(?:\.|(?:thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|__macosx|@eadir|#recycle|\$recycle\.bin"
    r"|system volume information|lost\+found)(?:/|\Z))",
    re.IGNORECASE,
)

_IN_ARCHIVE = re.compile(r"(?:zip|tar)://(.*?)::(.+)", re.DOTALL)
_DIGITS = re.compile("([0-9]+)")
# int() refuses more digits than this. A name of a file has 255 bytes at most, that of a member of an archive 65,535.
_LONGEST_NAME = 4000


def is_hidden(path: str) -> bool:
    """Tell whether a path with ``/`` between its parts has a part that folders do not show, or that a system made."""
    return _HIDDEN.search(path) is not None


def split_member(name: str) -> tuple[str, str] | None:
    """Split the name of a member into archive and member; None for any other name.

    A file of this machine may have ``::`` in its own name.
    """
    end = name.find("::")
    if end >= 0 and os.path.lexists(name):
        return None
    while end >= 0:
        if name[:end].lower().endswith(ARCHIVE_SUFFIXES):
            return name[:end], name[end + 2 :]
        end = name.find("::", end + 2)
    return None


def absolute_name(source: str) -> str:
    """Bring a source to the form that names have: absolute paths, ``archive::member``, URLs.

    ``file:///a`` becomes the local path ``/a``, and ``zip://member::archive`` becomes ``archive::member``.
    """
    chained = _IN_ARCHIVE.fullmatch(source)
    if chained and chained[2].lower().endswith(ARCHIVE_SUFFIXES):
        return f"{absolute_name(chained[2])}::{chained[1]}".removesuffix("::")
    parts = split_member(source)
    if parts is not None:
        return f"{absolute_name(parts[0])}::{parts[1]}"
    for scheme in ("file://", "local://"):
        source = source.removeprefix(scheme)
    return source if is_url(source) else os.path.abspath(source)


def natural_key(path: str) -> tuple:
    """Sort folder by folder, runs of digits as numbers; the path itself breaks ties."""
    folder, _, name = path.rpartition(os.sep)
    return (*_folder_key(folder), _part_key(name)), path


@functools.lru_cache(maxsize=10_000)
def _folder_key(folder: str) -> tuple:
    return tuple(map(_part_key, folder.split(os.sep)))


def _part_key(part: str) -> list[str | int]:
    if len(part) > _LONGEST_NAME:
        return [part]
    # re.split with a group alternates text, digits, text, ...: two keys never compare a text with a number.
    return [int(s) if i % 2 else s for i, s in enumerate(_DIGITS.split(part.casefold()))]
