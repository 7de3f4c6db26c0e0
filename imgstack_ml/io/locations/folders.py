"""Files of this machine: those of a folder, those that match a pattern, or a single one."""

import os
import stat
from collections import Counter
from pathlib import Path

from .names import WILDCARD, is_hidden
from .unread import LINKED_FOLDER, Listing, Reads, Sorter, kind_of_file, unread_text

__all__ = ["list_path", "root_of_path"]


def list_path(path: str, recursive: bool, reads: Reads) -> Listing:
    """List the files of an absolute path: of a folder, a file or a pattern, in no particular order.

    Links that lead to nothing are listed as well: whoever reads them finds that out, and says so.

    Raises
    ------
    FileNotFoundError
        There are none.
    """
    if os.path.isdir(path):
        sorter = Sorter(reads)
        _add_folder(path, os.path.realpath(path) if recursive else None, sorter)
        found = sorter.listing()
        if not found.files:
            raise FileNotFoundError(_empty_folder_message(path, recursive, found.unread))
        return found
    if os.path.exists(path):
        return Listing([path])
    if not WILDCARD.search(path):
        raise FileNotFoundError(_missing_path_message(path))
    folder, pattern = _split_pattern(path)
    found = _match(folder, pattern)
    if not found.files:
        raise FileNotFoundError(_empty_pattern_message(folder, pattern))
    return found


def root_of_path(path: str) -> str:
    """Return the folder that a path or pattern is searched from."""
    return path if os.path.isdir(path) else _split_pattern(path)[0]


def _add_folder(folder: str, root: str | None, found: Sorter) -> None:
    """Add the regular files that end like images, and count other images; a link counts as what it leads to.

    Sub-folders are searched too if `root`, the real path that the search begins at, is given. Links to folders are not
    followed, as they may lead in a circle; those that lead out of the root are counted.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                if root is not None:
                    _add_folder(entry.path, root, found)
            elif root is not None and entry.is_symlink() and os.path.isdir(entry.path):
                found.unread[LINKED_FOLDER] += _leads_out(entry.path, root)
            elif (beside_others := found.reads(entry.name)) is not None:
                if entry.is_file(follow_symlinks=False) or _is_file(entry.path, found.unread):
                    found.add(entry.path, beside_others=beside_others)
            elif entry.is_file(follow_symlinks=False) or _kind_of(entry.path) in (stat.S_IFREG, None):
                found.unread.update(filter(None, [kind_of_file(entry.path)]))


def _leads_out(link: str, root: str) -> bool:
    """Tell whether a link leads out of a folder, which is given by its real path."""
    return not os.path.join(os.path.realpath(link), "").startswith(os.path.join(root, ""))


def _is_file(path: str, unread: Counter[str]) -> bool:
    """Tell whether a path leads to a file, or to nothing; what is neither that nor a folder is counted."""
    kind = _kind_of(path)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, None):
        unread[f"{os.path.splitext(path)[1].lower()} (no regular file)"] += 1
    return kind in (stat.S_IFREG, None)


def _kind_of(path: str) -> int | None:
    """Return what a path is, links followed; None for a link that leads to nothing."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        return None


def _split_pattern(path: str) -> tuple[str, str]:
    """Split an absolute pattern into the folder in front that exists literally, and the rest."""
    folder, pattern = os.path.split(path)
    while not os.path.isdir(folder):
        folder, name = os.path.split(folder)
        pattern = os.path.join(name, pattern)
    return folder, pattern


def _match(folder: str, pattern: str) -> Listing:
    # Unlike glob, pathlib does not follow links to folders for "**", so that loops of links end.
    # Unlike glob, it also matches hidden names by "*": they are left out here unless the pattern itself has one.
    wants_hidden, unread = is_hidden(Path(pattern).as_posix()), Counter[str]()
    matches = [
        str(match)
        for match in set(Path(folder).glob(pattern))
        if wants_hidden or not is_hidden(match.relative_to(folder).as_posix())
    ]
    unread[LINKED_FOLDER] = _n_links(folder, Path(pattern).parts)
    return Listing([match for match in matches if _is_file(match, unread)], +unread)


def _n_links(folder: str, parts: tuple[str, ...]) -> int:
    """Count the links out of the folders that "**" searches, as `_add_folder` does."""
    if "**" not in parts:
        return 0
    before = parts[: parts.index("**")]
    n_links = 0
    for root in Path(folder).glob(os.path.join(*before)) if before else [folder]:
        real_root = os.path.realpath(root)
        for parent, names, _ in os.walk(root):
            names[:] = [name for name in names if not is_hidden(name)]
            paths = (os.path.join(parent, name) for name in names)
            n_links += sum(os.path.islink(path) and _leads_out(path, real_root) for path in paths)
    return n_links


def _missing_path_message(path: str) -> str:
    """Say how much of a path exists, which is where a misspelling shows."""
    parent = folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    exists = f"its folder {folder!r} exists." if folder == parent else f"only {folder!r} exists."
    return (
        f"no images found: there is no file or folder {path!r}; {exists} "
        "Give a folder, a list of files or a pattern such as 'folder/*.png'."
    )


def _empty_folder_message(folder: str, recursive: bool, unread: Counter[str]) -> str:
    with os.scandir(folder) as entries:
        names = sorted((entry.is_dir(), entry.name) for entry in entries)
    others = [name for is_dir, name in names if not is_dir]
    folders = [name for is_dir, name in names if is_dir]
    where = "and its sub-folders" if recursive else "but not its sub-folders"
    message = (
        f"no images found: searched the folder {folder!r} {where} for files of known kinds. It holds "
        f"{_count(others, 'other file')} and {_count(folders, 'sub-folder')}."
    )
    if unread:
        message += f" Images that are not read: {unread_text(unread)}; convert them to PNG, JPEG or TIFF."
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
