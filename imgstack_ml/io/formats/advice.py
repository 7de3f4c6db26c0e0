"""What would read a file that is of no format known here."""

from collections.abc import Mapping

__all__ = ["advice_for"]


def advice_for(name: str, head: bytes, broken: Mapping[str, str]) -> str:
    """Say what a file is, as far as it can be told, and what would read it.

    Parameters
    ----------
    name : str
    head : bytes
        Its first bytes.
    broken : mapping of str to str
        Formats of other packages that could not be loaded, and why.
    """
    text = f"it is neither JPEG, PNG nor TIFF (it begins with {head[:8]!r})"
    return text + "".join(f"; the format {kind!r} of another package is broken: {why}" for kind, why in broken.items())
