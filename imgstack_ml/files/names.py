"""Names of outputs: URLs are told from paths, and a file that is being written gets a hidden name beside it."""

from __future__ import annotations

import hashlib
import os
import re

from ..errors import StoreError

__all__ = ["hidden_sibling", "is_url", "name_digest", "refuse_url"]

# A Path made of a URL has one slash less: Path("s3://bucket/out") is "s3:/bucket/out". Drives have one letter.
_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_url(name: str) -> bool:
    """Tell whether a name leads to a file system of fsspec; absolute paths never hold ``://``."""
    return "://" in name


def refuse_url(path: str | os.PathLike[str]) -> None:
    """Raise if an output is a URL: a folder named ``s3:`` would be made, and nothing would reach the bucket.

    All writers call it before they begin. A Path made of a URL counts as one.

    Raises
    ------
    StoreError
        Naming the URL.
    """
    name = os.fsdecode(path)
    if is_url(name) or _URL_AS_PATH.match(name):
        path = re.sub("^file:/+", "/", name)
        last = os.path.basename(name.rstrip("/")).rstrip(":")
        advice = f"{last!r}, and copy from there" if path == name else repr(path)
        raise StoreError(f"{name!r} is a URL, and outputs are written to paths only. Give a path, such as {advice}")


def hidden_sibling(target: str, token: str, suffix: str | None = None) -> str:
    """Name in the folder of `target` that listings do not show.

    Parameters
    ----------
    target : str
        Path of the file or folder.
    token : str
        Tells this name from others made for targets whose names begin alike.
    suffix : str, optional
        Ends the name. By default that of `target`, because writers choose a format by it.
    """
    folder, name = os.path.split(target)
    stem, own_suffix = os.path.splitext(name)
    # File systems take 255 bytes in a name. 32 characters take up to 128, the suffix up to 64, the rest less than 30.
    return os.path.join(folder, f".{stem[:32]}-{token}.tmp{own_suffix[:16] if suffix is None else suffix}")


def name_digest(target: str) -> str:
    """Twelve hexadecimal digits that follow from the name of `target`, the same in every process."""
    return hashlib.blake2b(os.fsencode(os.path.basename(target)), digest_size=6).hexdigest()
