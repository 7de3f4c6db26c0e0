"""Lists of files that are not in folders of this machine: members of archives, and what fsspec reaches."""

import fnmatch
import os
import re
from collections.abc import Iterable

from .archives import find_archive
from .faults import naming_the_file
from .open import ARCHIVE_SUFFIXES, filesystem, is_url, split_member

__all__ = ["IMAGE_SUFFIXES", "absolute_name", "is_archive", "list_archive", "list_url", "root_elsewhere"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")

_MAGIC = re.compile(r"[*?\[]")
_IN_ARCHIVE = re.compile(r"(?:zip|tar)://(.*?)::(.+)", re.DOTALL)


def absolute_name(source: str) -> str:
    """Bring a source to the form that names have: absolute paths, ``archive::member``, URLs.

    ``file:///a`` is the local path, and ``zip://member::archive`` a member like any other.
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


def is_archive(name: str) -> bool:
    """Tell whether a name is that of an archive as a whole."""
    return name.lower().endswith(ARCHIVE_SUFFIXES) and (is_url(name) or os.path.isfile(name))


def list_archive(name: str) -> list[str]:
    """List the images of an archive, or of its member, folder or pattern behind ``::``, in no particular order.

    Raises
    ------
    FileNotFoundError
        There are none.
    BadImageError
        The archive cannot be read.
    """
    archive, wanted = split_member(name) or (name, "")
    with naming_the_file(archive):
        members = find_archive(archive).members
    images = [member for member in members if _is_image(member)]
    if wanted in members:
        found = [wanted]
    elif _MAGIC.search(wanted):
        found = [member for member in members if fnmatch.fnmatchcase(member, wanted) and not _is_hidden(member)]
    else:
        folder = wanted.rstrip("/")
        found = [member for member in images if not folder or member.startswith(f"{folder}/")]
    if not found:
        asked = f"{wanted!r}" if wanted else f"files that end in {' '.join(IMAGE_SUFFIXES)}"
        raise FileNotFoundError(
            f"no images found: searched the archive {archive!r} for {asked}. It holds {len(members):,} files, "
            f"{_examples(members)}"
        )
    return [f"{archive}::{member}" for member in found]


def list_url(url: str, recursive: bool) -> list[str]:
    """List the images of a URL of fsspec's: of a folder, a pattern or a file, in no particular order.

    Raises
    ------
    FileNotFoundError
        There are none.
    """
    system, path = filesystem(url)
    if _MAGIC.search(path):
        found = [name for name in system.glob(path) if not _is_hidden(name) and not system.isdir(name)]
    elif system.isdir(path):
        found = [name for name in system.find(path, maxdepth=None if recursive else 1) if _is_image(name)]
    else:
        return [url]
    if not found:
        raise FileNotFoundError(
            f"no images found: searched {url!r} for files that end in {' '.join(IMAGE_SUFFIXES)}"
            + ("" if recursive else f". To search sub-folders too: open_stack({url!r}, recursive=True)")
        )
    return [_url_of(url, name) for name in found]


def root_elsewhere(name: str) -> str:
    """Return the archive, or the folder of a URL, that a source is searched from."""
    archive, _ = split_member(name) or (name, "")
    if archive.lower().endswith(ARCHIVE_SUFFIXES):
        return f"{archive}::"
    system, path = filesystem(name)
    if not _MAGIC.search(path):
        return _url_of(name, path if system.isdir(path) else os.path.dirname(path))
    return _url_of(name, path[: _MAGIC.search(path).start()].rpartition("/")[0])  # type: ignore[union-attr]


def _url_of(url: str, path: str) -> str:
    """Name a file that was found from a URL: its path in place of the URL's own, what else is chained kept."""
    own = filesystem(url)[1]
    first, chain, rest = url.partition("::")
    for head, tail in ((url, ""), (first, chain + rest)):
        if own and head.rstrip("/").endswith(own):
            return head.rstrip("/").removesuffix(own) + path + tail
    return f"{first.partition('://')[0]}://{path}"


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "Thumbs.db" for part in name.split("/"))


def _examples(names: Iterable[str]) -> str:
    shown = [repr(name) for name, _ in zip(names, range(3), strict=False)]
    return f"e.g. {', '.join(shown)}" if shown else "none"
