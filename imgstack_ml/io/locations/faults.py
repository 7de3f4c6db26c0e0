"""One error that names the file, for all the errors that libraries raise for damaged files."""

import lzma
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import tifffile

from ...errors import BadImageError

__all__ = ["READ_ERRORS", "naming_the_file"]

# Pillow, tifffile, zipfile and zlib raise these for damaged files: their parsers trust what they read.
READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    EOFError,
    struct.error,
    tifffile.TiffFileError,  # a ValueError in its newer versions only
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tokenize.TokenError,  # from NumPy, for a damaged header of a .npy file
)


class naming_the_file:
    """Raise a BadImageError with the path in place of any error in `READ_ERRORS`, in a ``with`` block.

    A class takes a third of the time of a generator, and each file is opened in two such blocks.
    """

    def __init__(self, path: str):
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, READ_ERRORS) and not isinstance(error, BadImageError):
            raise BadImageError(self._path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, OSError | ValueError | SyntaxError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"
