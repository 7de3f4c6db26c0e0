"""What damaged files make the libraries raise becomes one error that names the file."""

import contextlib
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator

import tifffile

from ...errors import BadImageError

__all__ = ["READ_ERRORS", "naming_the_file"]

# What damaged files make Pillow, tifffile, zipfile and zlib raise: their parsers trust what they read.
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
    tokenize.TokenError,  # NumPy, of the header of a .npy
)


@contextlib.contextmanager
def naming_the_file(path: str) -> Iterator[None]:
    """Turn what damaged files make the libraries raise into a BadImageError with the path."""
    try:
        yield
    except BadImageError:
        raise
    except READ_ERRORS as error:
        raise BadImageError(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, OSError | ValueError | SyntaxError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"
