"""Members of zip and tar archives as files, without unpacking.

An archive is a named file like any other, so that it may be remote. Its list of members is read once per process
(and again when the archive changes); its bytes are reached through a file that each caller opens, so that threads
share no position and no handle stays open.
"""

import fnmatch
import functools
import itertools
import os
import struct
import tarfile
import zipfile
from typing import Any, BinaryIO, NamedTuple, cast

from .base import State, Window, buffered
from .faults import naming_the_file
from .files import open_file, state_of_file
from .names import ARCHIVE_SUFFIXES, IMAGE_SUFFIXES, WILDCARD, is_hidden, is_image, is_url, split_member

__all__ = ["Archive", "find_archive", "list_archive", "split_archive"]

_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
# Images hardly inflate a hundredfold unless they are small, or made of nothing.
_LARGE, _MOST_INFLATED = 64_000_000, 100
_MOST_DICTIONARY = 1 << 26  # that of LZMA's strongest preset
_NOT_THERE = "it is not where its archive says: the archive was cut or changed"


class Member(NamedTuple):
    """Where a member lies in its archive: its size once read, and its place, or the zip's record of it."""

    n_bytes: int
    start: int
    info: zipfile.ZipInfo | None


class Archive(NamedTuple):
    """The members of an archive by their names, and the state of the archive when they were listed."""

    name: str
    members: dict[str, Member]
    n_bytes: int
    modified: int

    def state(self, member: str) -> State:
        """Return the state of a member; the time is that of the archive."""
        n_bytes, _, info = self._find(member)
        if n_bytes == 0:
            raise ValueError("the file is empty (0 bytes)")
        n_packed = n_bytes if info is None else min(info.compress_size, self.n_bytes)
        if n_bytes > _LARGE and n_bytes > _MOST_INFLATED * n_packed:
            raise ValueError(
                f"its {n_packed:,} bytes would inflate to {n_bytes:,}, as those of archives made to do harm; "
                "if it is right, unpack it first"
            )
        return State(n_bytes, self.modified)

    def open(self, member: str, file: BinaryIO) -> BinaryIO:
        """Open a member, given the archive as an open file."""
        found = self._find(member)
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
        # Inflates as it is read, so that a header costs its own bytes, and a bomb only what is asked of it.
        content: Any = zipfile.ZipExtFile(cast(Any, window), "r", found.info)
        return content

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
    """Split a name into an archive and what is asked of it, empty for all; None where it leads into no archive."""
    parts = split_member(name)
    if parts is None and name.lower().endswith(ARCHIVE_SUFFIXES) and (is_url(name) or os.path.isfile(name)):
        return name, ""
    return parts


def list_archive(name: str, wanted: str) -> list[str]:
    """List the images of an archive, in no particular order.

    Parameters
    ----------
    name : str
        Of the archive.
    wanted : str
        A member, a folder of the archive, or a pattern; empty for the whole archive.

    Raises
    ------
    FileNotFoundError
        There are none.
    BadImageError
        The archive cannot be read.
    """
    with naming_the_file(name):
        members = find_archive(name).members
    if wanted in members:
        found = [wanted]
    elif WILDCARD.search(wanted):
        found = [member for member in members if fnmatch.fnmatchcase(member, wanted) and not is_hidden(member)]
    else:
        folder = f"{wanted.rstrip('/')}/" if wanted.rstrip("/") else ""
        found = [member for member in members if is_image(member) and member.startswith(folder)]
    if not found:
        asked = f"{wanted!r}" if wanted else f"files that end in {' '.join(IMAGE_SUFFIXES)}"
        examples = ", ".join(map(repr, itertools.islice(members, 3)))
        raise FileNotFoundError(
            f"no images found: searched the archive {name!r} for {asked}. It holds {len(members):,} files, "
            f"{f'e.g. {examples}' if examples else 'none'}"
        )
    return [f"{name}::{member}" for member in found]


def find_archive(name: str) -> Archive:
    """List the members of an archive, or take the list from an earlier call if the archive is still the same.

    Parameters
    ----------
    name : str
        Name of a zip file or a tar file that is not compressed.

    Raises
    ------
    OSError, ValueError
        It is missing, damaged, or compressed as a whole.
    """
    return _read_archive(name, state_of_file(name))


@functools.lru_cache(maxsize=16)
def _read_archive(name: str, state: State) -> Archive:
    with open_file(name) as file:
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
        # tarfile takes a damaged header, and an archive that was cut in front of one, for the end.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it has no end behind its {len(files):,} files: it was cut or is damaged")
    return {info.name: Member(info.size, info.offset_data, None) for info in files}


def _start_of_data(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Step over the header that a zip repeats in front of each member, and whose length the list does not tell."""
    file.seek(info.header_offset)
    head = file.read(_LOCAL_HEADER)
    if len(head) < _LOCAL_HEADER or not head.startswith(b"PK\x03\x04"):
        raise ValueError(_NOT_THERE)
    n_name, n_extra = struct.unpack("<HH", head[26:30])
    return info.header_offset + _LOCAL_HEADER + n_name + n_extra


def _check_dictionary(window: BinaryIO) -> None:
    """Refuse LZMA that asks for more memory than any program has it ask for."""
    # Version and size of the properties, of 2 bytes each; their first byte, and the size of the dictionary.
    n_bytes = int.from_bytes(window.read(9)[5:], "little")
    if n_bytes > _MOST_DICTIONARY:
        raise ValueError(f"its LZMA asks for {n_bytes:,} bytes of memory: it is damaged")
    window.seek(0)
