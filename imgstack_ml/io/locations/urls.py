"""Files that fsspec reaches: lists of them, their state and their bytes.

fsspec remembers listings for as long as a process lives. `forget_listings` makes it ask again.
"""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, BinaryIO

from .base import State
from .names import WILDCARD, is_hidden
from .unread import Listing, Reads, list_names, unread_text

__all__ = ["forget_listings", "list_url", "open_url", "root_of_url", "state_of_url", "storage_options_of"]

# What file systems tell of the version of a file: a digest of its content, or else a time. A listing and a question
# about one file tell different things, so that nothing else of them is compared.
_VERSIONS = ("etag", "contentmd5", "md5hash", "digest", "sha", "generation")
_TIMES = ("mtime", "modified", "lastmodified", "updated", "modify", "modificationtime", "lastwritetime", "created")

_MOST_HEADS = 20  # of files without a known suffix, whose first bytes are looked at

_options: ContextVar[Mapping[str, Any]] = ContextVar("storage_options", default={})  # noqa: B039 (never written to)

#: Of files of which fsspec keeps copies ("simplecache::"): the state that each had when it was copied.
_copied: dict[str, State] = {}


@contextlib.contextmanager
def storage_options_of(options: Mapping[str, Any] | None) -> Iterator[None]:
    """Give fsspec these options, credentials for one, while the block runs in this thread."""
    token = _options.set(options or {})
    try:
        yield
    finally:
        _options.reset(token)


def list_url(url: str, recursive: bool, reads: Reads) -> Listing:
    """List the images of a URL: of a folder, a pattern or a file, in no particular order.

    Raises
    ------
    FileNotFoundError
        There are none.
    """
    system, path = _system_and_path(url)
    # Over HTTP, every file is a folder of the links that its bytes seem to hold: files are told by their names.
    if reads(path) is not None and system.isfile(path):
        return Listing([url])
    if _is_pattern(system, path):
        root = _root_of_pattern(path)
        matches = [name for name in system.glob(path) if not is_hidden(name[len(root) :])]
        found = Listing([name for name in matches if not name.endswith("/") and not system.isdir(name)])
    elif system.isdir(path):
        names = system.find(path, maxdepth=None if recursive else 1)
        found = list_names(names, reads, path, _reader_of_heads(system))
    else:
        return Listing([url])
    if not found.files:
        others = f". It holds images that are not read: {unread_text(found.unread)}" if found.unread else ""
        raise FileNotFoundError(
            f"no images found: searched {url!r} for files of known kinds{others}"
            + ("" if recursive else f". To search sub-folders too: open_stack({url!r}, recursive=True)")
        )
    return Listing([_url_of(url, name) for name in found.files], found.unread)


def _reader_of_heads(system: Any) -> Callable[[str, int], bytes]:
    """Make a function that reads the first bytes of files, each by a request of its own: of a few files only."""
    number = itertools.count(1)

    def read_head(path: str, n_bytes: int) -> bytes:
        if next(number) > _MOST_HEADS:
            return b""
        with system.open(path, "rb", cache_type="none") as file:
            head: bytes = file.read(n_bytes)
            return head

    return read_head


def root_of_url(url: str) -> str:
    """Return the folder that a URL is searched from."""
    system, path = _system_and_path(url)
    if _is_pattern(system, path):
        return _url_of(url, _root_of_pattern(path))
    return _url_of(url, path if system.isdir(path) else os.path.dirname(path))


def forget_listings(urls: Iterable[str]) -> None:
    """Drop what fsspec remembers of the file systems of some URLs: it would hide files that are new or changed."""
    systems = {id(system): system for system, _ in map(_system_and_path, urls)}
    for system in systems.values():
        system.invalidate_cache()
        system.dircache.clear()  # of HTTP, `invalidate_cache` does nothing


def state_of_url(url: str) -> State:
    """Read size and state of the file at a URL.

    Raises
    ------
    OSError, ValueError
        It is missing, empty, or a folder.
    """
    return _state(_info(*_system_and_path(url)))


@contextlib.contextmanager
def open_url(url: str) -> Iterator[tuple[BinaryIO, State]]:
    """Open the file at a URL for reading, with the state that it has now."""
    system, path = _system_and_path(url)
    _drop_old_copy(url, system, path)
    with system.open(path, "rb") as file:
        details = getattr(file, "details", None) or {}  # of some file systems, what the opening has asked for
        yield file, _state(details if _version(details) else _info(system, path))


def _info(system: Any, path: str) -> dict[str, Any]:
    """Ask for what a file system tells of a file."""
    found: dict[str, Any] = (system.fs if _keeps_copies(system) else system).info(path)
    return found


def _keeps_copies(system: Any) -> bool:
    from fsspec.implementations.cached import CachingFileSystem

    return isinstance(system, CachingFileSystem)


def _drop_old_copy(url: str, system: Any, path: str) -> None:
    """Remove the copy that fsspec has of a file, if the file was replaced since: fsspec itself does not look."""
    if not _keeps_copies(system):
        return
    state = _state(_info(system, path))
    if _copied.setdefault(url, state) != state:
        copy = system._check_file(path)
        if isinstance(copy, str):
            os.remove(copy)
        else:
            system.pop_from_cache(path)
        _copied[url] = state


def _state(info: dict[str, Any]) -> State:
    if info.get("type") == "directory":
        raise ValueError("it is a folder, not a file")
    if not info.get("size"):
        raise ValueError("the file is empty (0 bytes)" if info.get("size") == 0 else "its size is not known")
    return State(int(info["size"]), _number(_version(info)))


def _number(version: str) -> int:
    return int.from_bytes(hashlib.blake2b(version.encode(), digest_size=7).digest())


def _version(info: dict[str, Any]) -> str:
    """Return what tells a file from others that were at its place; empty where the file system has no such thing."""
    known = {name.lower().replace("_", "").replace("-", ""): value for name, value in info.items()}
    for name in (*_VERSIONS, *_TIMES):
        value = known.get(name)
        if value not in (None, ""):
            return str(value.timestamp() if hasattr(value, "timestamp") else value)
    return ""


def _system_and_path(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path of the URL in it."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url, **_options.get())
    except ImportError as error:
        raise ValueError(f"{url!r} needs a package that is not installed: {error}") from error


def _is_pattern(system: Any, path: str) -> bool:
    """Tell whether a path is a pattern; one that exists is taken literally."""
    return WILDCARD.search(path) is not None and not system.exists(path)


def _root_of_pattern(path: str) -> str:
    return WILDCARD.split(path, maxsplit=1)[0].rpartition("/")[0]


def _url_of(url: str, path: str) -> str:
    """Make the URL of a file that was found from `url`: its path replaces that of `url`, chained parts stay."""
    own = _system_and_path(url)[1].rstrip("/")
    first, chain, rest = url.partition("::")
    for head, tail in ((url, ""), (first, chain + rest)):
        if own and head.rstrip("/").endswith(own):
            return head.rstrip("/").removesuffix(own) + path + tail
    return f"{first.partition('://')[0]}://{path}"
