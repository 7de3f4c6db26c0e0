"""Members of zip and tar archives: lists of them, their state and their bytes, without unpacking.

An archive may be local or remote. A process reads its list of members once, and again when the archive changes. To read
a member, each caller opens the archive itself, so that threads share no position and no file stays open.
"""

import fnmatch
import functools
import itertools
import os
import struct
import tarfile
import zipfile
from typing import Any, BinaryIO, NamedTuple, cast

from ...files.names import is_url
from .base import State, Window, buffered
from .faults import naming_the_file
from .files import open_file, state_of_file
from .names import ARCHIVE_SUFFIXES, WILDCARD, is_hidden, split_member
from .unread import Listing, Reads, list_names, unread_text

__all__ = ["Archive", "find_archive", "list_archive", "read_archive", "split_archive"]

_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
# A member of more than 64 MB that grows more than a hundredfold is taken for a decompression bomb.
_LARGE, _MOST_INFLATED = 64_000_000, 100
_MOST_DICTIONARY = 1 << 26  # bytes, as LZMA's strongest preset has them
_NOT_THERE = "it is not where its archive says: the archive was cut or changed"


class Member(NamedTuple):
    """Size of a member, and where it lies in its archive: its first byte in a tar, its entry in a zip."""

    n_bytes: int
    start: int
    info: zipfile.ZipInfo | None


class Archive(NamedTuple):
    """An archive: its members by their names, and its state when they were listed."""

    name: str
    members: dict[str, Member]
    n_bytes: int
    modified: int

    def state(self, member: str) -> State:
        """Return the state of a member; its time of change is that of the archive."""
        return self._state(self._find(member))

    def open(self, member: str, file: BinaryIO) -> tuple[BinaryIO, State]:
        """Open a member, given the archive as an open file; return it with its state."""
        found = self._find(member)
        return self._open(found, file), self._state(found)

    def _open(self, found: Member, file: BinaryIO) -> BinaryIO:
        if found.info is None:
            return self._window(file, found.start, found.n_bytes)
        if found.info.flag_bits & _ENCRYPTED:
            raise ValueError("it is encrypted in its archive; unpack it first")
        window = self._window(file, _start_of_data(file, found.info), found.info.compress_size)
        if found.info.compress_type == zipfile.ZIP_STORED:
            if found.info.compress_size != found.n_bytes:
                raise ValueError(_NOT_THERE)
            return window
        if found.info.compress_type == zipfile.ZIP_LZMA:
            _check_dictionary(window)
        # Decompressed as it is read, so that reading a header decompresses little more than the header.
        content: Any = zipfile.ZipExtFile(cast(Any, window), "r", found.info)
        return content

    def _state(self, found: Member) -> State:
        n_bytes, _, info = found
        if n_bytes == 0:
            raise ValueError("the file is empty (0 bytes)")
        n_packed = n_bytes if info is None else min(info.compress_size, self.n_bytes)
        if n_bytes > _LARGE and n_bytes > _MOST_INFLATED * n_packed:
            raise ValueError(
                f"its {n_packed:,} bytes would inflate to {n_bytes:,}, as in archives that are made to do harm; "
                "if it is right, unpack it first"
            )
        return State(n_bytes, self.modified)

    def _window(self, file: BinaryIO, start: int, n_bytes: int) -> BinaryIO:
        if start + n_bytes > self.n_bytes:
            raise ValueError(_NOT_THERE)
        return buffered(Window(file, start, n_bytes))

    def _find(self, member: str) -> Member:
        try:
            return self.members[member]
        except KeyError:
            raise FileNotFoundError(f"the archive {self.name!r} holds no file of this name") from None


def split_archive(name: str) -> tuple[str, str] | None:
    """Split a name into an archive and what of it is meant, empty for all of it; None for any other name."""
    parts = split_member(name)
    if parts is None and name.lower().endswith(ARCHIVE_SUFFIXES) and (is_url(name) or os.path.isfile(name)):
        return name, ""
    return parts


def list_archive(name: str, wanted: str, reads: Reads) -> Listing:
    """List the images of an archive, in no particular order.

    Parameters
    ----------
    name : str
        Of the archive.
    wanted : str
        A member, a folder of the archive, or a pattern; empty for the whole archive.
    reads : Reads

    Raises
    ------
    FileNotFoundError
        There are none.
    BadImageError
        The archive cannot be read.
    """
    with naming_the_file(name):
        archive = find_archive(name)
        members = archive.members
    if wanted in members:
        found = Listing([wanted])
    elif WILDCARD.search(wanted):
        found = Listing([name for name in members if fnmatch.fnmatchcase(name, wanted) and not is_hidden(name)])
    else:
        folder = f"{wanted.rstrip('/')}/" if wanted.rstrip("/") else ""
        inside = (member for member in members if member.startswith(folder))
        found = list_names(inside, reads, folder, None if is_url(name) else functools.partial(_read_head, archive))
    if not found.files:
        asked = f"{wanted!r}" if wanted else "files of known kinds"
        examples = ", ".join(map(repr, itertools.islice(members, 3)))
        raise FileNotFoundError(
            f"no images found: searched the archive {name!r} for {asked}. It holds {len(members):,} files, "
            f"{f'e.g. {examples}' if examples else 'none'}"
            + (f", with images that are not read: {unread_text(found.unread)}" if found.unread else "")
        )
    return Listing([f"{name}::{member}" for member in found.files], found.unread)


def _read_head(archive: Archive, member: str, n_bytes: int) -> bytes:
    with open_file(archive.name) as (file, _):
        return archive.open(member, file)[0].read(n_bytes)


def find_archive(name: str) -> Archive:
    """Return the members of an archive; they are listed again only if the archive has changed.

    Parameters
    ----------
    name : str
        Of a zip file, or of a tar file that is not compressed.

    Raises
    ------
    OSError, ValueError
        It is missing, damaged, or compressed as a whole.
    """
    return read_archive(name, state_of_file(name))


@functools.lru_cache(maxsize=16)
def read_archive(name: str, state: State) -> Archive:
    """Read the list of members of an archive, whose `state` is known."""
    with open_file(name) as (file, _):
        try:
            members = _zip_members(file) if name.lower().endswith(".zip") else _tar_members(file)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise ValueError(f"the archive {name!r} cannot be read: {error}") from error
    return Archive(name, members, *state)


def _zip_members(file: BinaryIO) -> dict[str, Member]:
    with zipfile.ZipFile(file) as archive:
        return {info.filename: Member(info.file_size, 0, info) for info in archive.infolist() if not info.is_dir()}


def _tar_members(file: BinaryIO) -> dict[str, Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        files = [info for info in archive if info.isreg() and not info.issparse()]
        # tarfile stops at a damaged header, or where the archive was cut, and raises nothing. An end is a block of
        # zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it has no end after its {len(files):,} files: it was cut or is damaged")
    return {info.name: Member(info.size, info.offset_data, None) for info in files}


def _start_of_data(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return where the data of a member begin: behind its local header, whose length only that header has."""
    file.seek(info.header_offset)
    head = file.read(_LOCAL_HEADER)
    if len(head) < _LOCAL_HEADER or not head.startswith(b"PK\x03\x04"):
        raise ValueError(_NOT_THERE)
    n_name, n_extra = struct.unpack("<HH", head[26:30])
    return info.header_offset + _LOCAL_HEADER + n_name + n_extra


def _check_dictionary(window: BinaryIO) -> None:
    """Raise if LZMA asks for more memory than any program lets it use."""
    # 2 bytes of version, 2 of the size of the properties, 1 of properties, and then 4 of the size of the dictionary.
    n_bytes = int.from_bytes(window.read(9)[5:], "little")
    if n_bytes > _MOST_DICTIONARY:
        raise ValueError(f"its LZMA asks for {n_bytes:,} bytes of memory: it is damaged")
    window.seek(0)
