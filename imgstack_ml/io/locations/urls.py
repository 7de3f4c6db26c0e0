"""Files that fsspec reaches: lists of them, their state and their bytes."""

import contextlib
import os
from typing import Any, BinaryIO

from .base import State
from .names import IMAGE_SUFFIXES, WILDCARD, is_hidden, is_image

__all__ = ["list_url", "open_url", "root_of_url", "state_of_url"]


def list_url(url: str, recursive: bool) -> list[str]:
    """List the images of a URL: of a folder, a pattern or a file, in no particular order.

    Raises
    ------
    FileNotFoundError
        There are none.
    """
    system, path = _system_and_path(url)
    if WILDCARD.search(path):
        found = [name for name in system.glob(path) if not is_hidden(name) and not system.isdir(name)]
    elif system.isdir(path):
        found = [name for name in system.find(path, maxdepth=None if recursive else 1) if is_image(name)]
    else:
        return [url]
    if not found:
        raise FileNotFoundError(
            f"no images found: searched {url!r} for files that end in {' '.join(IMAGE_SUFFIXES)}"
            + ("" if recursive else f". To search sub-folders too: open_stack({url!r}, recursive=True)")
        )
    return [_url_of(url, name) for name in found]


def root_of_url(url: str) -> str:
    """Return the folder that a URL is searched from."""
    system, path = _system_and_path(url)
    wildcard = WILDCARD.search(path)
    if wildcard:
        return _url_of(url, path[: wildcard.start()].rpartition("/")[0])
    return _url_of(url, path if system.isdir(path) else os.path.dirname(path))


def state_of_url(url: str) -> State:
    """Read size and state of the file at a URL.

    Raises
    ------
    OSError, ValueError
        It is missing, empty, or a folder.
    """
    from dask.base import tokenize

    system, path = _system_and_path(url)
    info = system.info(path)
    if info.get("type") == "directory":
        raise ValueError("it is a folder, not a file")
    if not info.get("size"):
        raise ValueError("the file is empty (0 bytes)" if info.get("size") == 0 else "its size is not known")
    # File systems tell different things: a time, an ETag, a generation. All of it together changes when the file does.
    return State(int(info["size"]), int(tokenize(sorted(info.items(), key=lambda item: str(item[0]))), 16) % 2**63)


def open_url(url: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open the file at a URL for reading."""
    system, path = _system_and_path(url)
    return system.open(path, "rb")


def _system_and_path(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path of the URL in it."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"{url!r} needs a package that is not installed: {error}") from error


def _url_of(url: str, path: str) -> str:
    """Make the URL of a file that was found from `url`: its path replaces that of `url`, chained parts stay."""
    own = _system_and_path(url)[1]
    first, chain, rest = url.partition("::")
    for head, tail in ((url, ""), (first, chain + rest)):
        if own and head.rstrip("/").endswith(own):
            return head.rstrip("/").removesuffix(own) + path + tail
    return f"{first.partition('://')[0]}://{path}"
