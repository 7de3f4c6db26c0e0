"""Hidden names beside a file or folder that is being written."""

from __future__ import annotations

import hashlib
import os

__all__ = ["hidden_sibling", "name_digest"]


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
