"""From what a user names as a source to a list of files in a fixed, natural order."""

import errno
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .elsewhere import IMAGE_SUFFIXES, absolute_name, is_archive, list_archive, list_url, root_elsewhere
from .open import is_url, split_member

__all__ = ["IMAGE_SUFFIXES", "list_files", "natural_key", "root_folder"]

_PathLike = str | os.PathLike[str]
Source = _PathLike | Sequence[_PathLike]

_LONGEST_NAME = 4000  # of a file, 255; Python reads no longer numbers, which a member of an archive may hold
_DIGITS = re.compile("([0-9]+)")
_MAGIC = re.compile(r"[*?\[]")


def list_files(source: Source, *, recursive: bool = False, sort: str = "natural") -> list[str]:
    """List the files of a source as absolute paths.

    The order does not depend on the order in which the system lists a folder.

    Parameters
    ----------
    source : str, PathLike or sequence of these
        - a folder: its regular files whose suffix is one of `IMAGE_SUFFIXES`, in any case;
        - a glob pattern such as ``"plate*/*.tif"``: the regular files that match, whatever their suffix
          (``**`` stands for any depth of sub-folders);
        - a file;
        - a zip or tar archive: the images among its members, in whatever folder of it; ``archive.zip::name`` for
          one member, one folder of it, or the members that match a pattern (whose ``*`` crosses folders);
        - a URL that fsspec knows: a file, a folder or a pattern, such as ``"s3://bucket/run/*.png"``, or
          ``"zip://*.png::archive.zip"``;
        - a list or tuple of these: in its own order.

        A path that exists is taken literally, so that a folder may be called ``run[1]``; so is the part of a
        pattern in front of its first name that does not exist. Hidden files (``.name``) are left out.
    recursive : bool, default=False
        Whether a folder's sub-folders are searched too. Symbolic links to folders are not followed.
    sort : {"natural", "name"}, default="natural"
        ``"natural"`` puts ``img2`` before ``img10`` and looks at upper and lower case last; ``"name"`` compares
        the plain strings.

    Returns
    -------
    list of str

    Raises
    ------
    FileNotFoundError
        Nothing was found; the message says what was searched.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for name in ["10.png", "2.png", "1.png", "notes.txt"]:
    ...     open(os.path.join(folder, name), "w").close()
    >>> [os.path.basename(file) for file in list_files(folder)]
    ['1.png', '2.png', '10.png']
    """
    if sort not in _SORT_KEYS:
        raise ValueError(f"sort={sort!r} is not known; it is one of {', '.join(map(repr, _SORT_KEYS))}")
    if not isinstance(source, str | os.PathLike):
        return _listed(source)
    path = absolute_name(os.fspath(source))
    if split_member(path) or is_archive(path):
        found = list_archive(path)
    elif is_url(path):
        found = list_url(path, recursive)
    elif os.path.isdir(path):
        found = list(_files_in_folder(path, recursive))
        if not found:
            raise FileNotFoundError(_empty_folder_message(path, recursive))
    elif os.path.exists(path) or not _MAGIC.search(path):
        found = [_existing(path)]
    else:
        found = list(_files_of_pattern(*_split_pattern(path)))
        if not found:
            raise FileNotFoundError(_empty_pattern_message(*_split_pattern(path)))
    return sorted(found, key=_SORT_KEYS[sort])


def _listed(paths: Iterable[_PathLike]) -> list[str]:
    if not isinstance(paths, Iterable):
        raise TypeError(f"the source is {paths!r}; give a folder, a pattern such as 'folder/*.png', or a list of files")
    names = [absolute_name(os.fspath(path)) for path in paths]
    if not names:
        raise FileNotFoundError("no images found: the list of files given is empty")
    return names


def root_folder(source: _PathLike) -> str:
    """Return the folder, archive or URL that a source is searched from."""
    path = absolute_name(os.fspath(source))
    if split_member(path) or is_archive(path) or is_url(path):
        return root_elsewhere(path)
    return path if os.path.isdir(path) else _split_pattern(path)[0]


def natural_key(path: str) -> tuple:
    """Compare folder by folder, runs of digits as numbers; the path itself breaks ties."""
    folder, _, name = path.rpartition(os.sep)
    return (*_folder_key(folder), _part_key(name)), path


@functools.lru_cache(maxsize=10_000)
def _folder_key(folder: str) -> tuple:
    return tuple(map(_part_key, folder.split(os.sep)))


def _part_key(part: str) -> list[str | int]:
    if len(part) > _LONGEST_NAME:
        return [part]
    # re.split with a group alternates text, digits, text, ...: like meets like in every comparison.
    return [int(s) if i % 2 else s for i, s in enumerate(_DIGITS.split(part.casefold()))]


_SORT_KEYS: dict[str, Callable[[str], Any]] = {"natural": natural_key, "name": str}


def _existing(path: str) -> str:
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"no images found: there is no file or folder {path!r}; "
            f"{_nearest(path)} Give a folder, a list of files or a pattern such as 'folder/*.png'."
        )
    return path


def _nearest(path: str) -> str:
    """Say how much of a path exists, which is where a misspelling shows."""
    folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return f"its folder {folder!r} exists." if folder == os.path.dirname(path) else f"only {folder!r} exists."


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "Thumbs.db"


def _files_in_folder(folder: str, recursive: bool) -> Iterator[str]:
    """Yield the regular files with an image's suffix; a link counts as what it leads to."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and _is_file(entry):
                yield entry.path
            elif recursive and entry.is_dir(follow_symlinks=False):
                yield from _files_in_folder(entry.path, recursive)


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself leads nowhere, as one to a file that is gone
            return False
        raise


def _split_pattern(path: str) -> tuple[str, str]:
    """Split an absolute pattern into the folder in front that exists literally, and the rest."""
    folder, pattern = os.path.split(path)
    while not os.path.isdir(folder):
        folder, name = os.path.split(folder)
        pattern = os.path.join(name, pattern)
    return folder, pattern


def _files_of_pattern(folder: str, pattern: str) -> Iterator[str]:
    # pathlib's "**" does not follow links to folders, as glob's does, and so ends in spite of loops.
    # Unlike glob's, its "*" matches hidden names.
    wants_hidden = any(map(_is_hidden, Path(pattern).parts))
    for match in set(Path(folder).glob(pattern)):
        hidden = any(map(_is_hidden, match.relative_to(folder).parts))
        if match.is_file() and (wants_hidden or not hidden):
            yield str(match)


def _empty_folder_message(folder: str, recursive: bool) -> str:
    with os.scandir(folder) as entries:
        names = sorted((entry.is_dir(), entry.name) for entry in entries)
    others = [name for is_dir, name in names if not is_dir]
    folders = [name for is_dir, name in names if is_dir]
    where = "and its sub-folders" if recursive else "but not its sub-folders"
    message = (
        f"no images found: searched the folder {folder!r} {where} for files that end in "
        f"{' '.join(IMAGE_SUFFIXES)}. It holds {_count(others, 'other file')} and "
        f"{_count(folders, 'sub-folder')}."
    )
    if folders and not recursive:
        return f"{message} To search the sub-folders too: open_stack({folder!r}, recursive=True)"
    return f"{message} To read files of another name: open_stack({os.path.join(folder, '*.ext')!r})"


def _empty_pattern_message(folder: str, pattern: str) -> str:
    names = sorted(os.listdir(folder))
    return (
        f"no images found: no file matches {pattern!r} in the folder {folder!r}, which holds "
        f"{_count(names, 'name')}. To read all images of the folder: open_stack({folder!r})"
    )


def _count(names: list[str], noun: str) -> str:
    plural = "" if len(names) == 1 else "s"
    examples = f" ({', '.join(map(repr, names[:3]))}{', …' if len(names) > 3 else ''})" if names else ""
    return f"{len(names) or 'no'} {noun}{plural}{examples}"
