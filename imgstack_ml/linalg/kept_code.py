"""Machine code that is kept for the next process: beside the bytecode that Python keeps, and by the same settings."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from importlib.util import cache_from_source
from pathlib import Path
from tempfile import NamedTemporaryFile

__all__ = ["kept_code"]

_DIGEST = sha256().digest_size


def kept_code(compiled: Callable[[], bytes], source: str, depends_on: Iterable[str]) -> bytes:
    """Return what `compiled` returns, or what it returned in an earlier process.

    Parameters
    ----------
    compiled : callable
    source : str
        File of the Python module that compiles.
    depends_on : iterable of str
        What the code depends on beside that file: the processor, its features, the versions of libraries.
    """
    path = _path(source, depends_on)
    code = None if path is None else _read(path)
    if code is None:
        code = compiled()
        if path is not None and not sys.dont_write_bytecode:
            with suppress(OSError):  # a folder that is read-only, or a full disk: it is compiled again next time
                _write(path, code, source)
    return code


def _path(source: str, depends_on: Iterable[str]) -> Path | None:
    """Return the file of the code; None where the source is no file that can be read, or Python keeps no bytecode."""
    try:
        content, bytecode = Path(source).read_bytes(), Path(cache_from_source(source))
    except (OSError, NotImplementedError):
        return None
    key = sha256(content + "\n".join(depends_on).encode()).hexdigest()
    return bytecode.with_name(f"{bytecode.stem}.{key[:16]}.o")


def _read(path: Path) -> bytes | None:
    """Return the code in a file, or None if there is none, or not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if digest == sha256(code).digest() else None


def _write(path: Path, code: bytes, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, suffix=".o", delete=False) as file:
        try:
            file.write(sha256(code).digest() + code)
            file.close()
            shutil.copymode(source, file.name)  # who may read the source may read this
            Path(file.name).replace(path)  # whole, although several processes write it
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
