"""One error that names the file, for all the errors that libraries raise for damaged files."""

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


@contextlib.contextmanager
def naming_the_file(path: str) -> Iterator[None]:
    """Raise a BadImageError with the path in place of any error in `READ_ERRORS`."""
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
