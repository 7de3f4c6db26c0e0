"""From a source, as a user names it, to a list of files in a fixed order."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...files.names import is_url
from .archives import list_archive, split_archive
from .folders import list_path, root_of_path
from .names import absolute_name, natural_key
from .open import forget_listings_of
from .unread import Listing, Reads
from .urls import list_url, root_of_url

__all__ = ["Source", "find_files", "root_folder"]

_PathLike = str | os.PathLike[str]
Source = _PathLike | Sequence[_PathLike]

_SORT_KEYS: dict[str, Callable[[str], Any]] = {"natural": natural_key, "name": str}


def find_files(source: Source, reads: Reads, *, recursive: bool = False, sort: str = "natural") -> Listing:
    """List the files of a source as absolute paths, and count the images beside them that are not read.

    What fsspec remembers of URLs is dropped: files that were added or replaced since are found. The order does not
    depend on the order in which the system lists a folder.

    Parameters
    ----------
    source : str, PathLike or sequence of these
        - a folder: its regular files that `reads` knows by their suffix;
        - a glob pattern such as ``"plate*/*.tif"``: the regular files that match, whatever their suffix
          (``**`` stands for any depth of sub-folders);
        - a file;
        - a zip or tar archive: the images among its members, in whatever folder of it; ``archive.zip::name`` for
          one member, one folder of it, or the members that match a pattern (whose ``*`` crosses folders);
        - a URL that fsspec knows: a file, a folder or a pattern, such as ``"s3://bucket/run/*.png"``, or
          ``"zip://*.png::archive.zip"``;
        - a list or tuple of files, whose order is kept.

        A path that exists is taken literally, so that a folder may be called ``run[1]``. So is the beginning of a
        pattern, as far as it exists. Hidden files (``.name``) are left out.
    reads : Reads
        Which files of a folder, an archive or a URL are read.
    recursive : bool, default=False
        Whether a folder's sub-folders are searched too. Symbolic links to folders are not followed.
    sort : {"natural", "name"}, default="natural"
        ``"natural"`` puts ``img2`` before ``img10``, and compares upper and lower case only where all else is equal;
        ``"name"`` compares the plain strings.

    Returns
    -------
    Listing

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
    >>> [os.path.basename(file) for file in find_files(folder, lambda name: name.endswith(".png") or None).files]
    ['1.png', '2.png', '10.png']
    """
    if sort not in _SORT_KEYS:
        raise ValueError(f"sort={sort!r} is not known; it is one of {', '.join(map(repr, _SORT_KEYS))}")
    if not isinstance(source, str | os.PathLike):
        names = _names_of_list(source)
        forget_listings_of(names)
        return Listing(names)
    name = absolute_name(os.fspath(source))
    forget_listings_of([name])
    in_archive = split_archive(name)
    if in_archive:
        found = list_archive(*in_archive, reads)
    elif is_url(name):
        found = list_url(name, recursive, reads)
    else:
        found = list_path(name, recursive, reads)
    return found._replace(files=sorted(found.files, key=_SORT_KEYS[sort]))


def root_folder(source: _PathLike) -> str:
    """Return the folder, archive or URL that a source is searched from."""
    name = absolute_name(os.fspath(source))
    in_archive = split_archive(name)
    if in_archive:
        return f"{in_archive[0]}::"
    return root_of_url(name) if is_url(name) else root_of_path(name)


def _names_of_list(paths: Iterable[_PathLike]) -> list[str]:
    if not isinstance(paths, Iterable):
        raise TypeError(f"the source is {paths!r}; give a folder, a pattern such as 'folder/*.png', or a list of files")
    names = [absolute_name(os.fspath(path)) for path in paths]
    if not names:
        raise FileNotFoundError("no images found: the list of files given is empty")
    return names
