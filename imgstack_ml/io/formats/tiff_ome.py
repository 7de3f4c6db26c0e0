"""Checks of the XML description of an OME-TIFF, before tifffile makes lists of the lengths that it claims."""

from collections.abc import Iterator
from xml.etree import ElementTree

__all__ = ["check_ome"]

_MOST_MISSING = 1_000_000  # planes that a description may name and the file lacks
_COUNTS = ("SizeZ", "SizeC", "SizeT", "FirstZ", "FirstC", "FirstT", "IFD", "NumPlanes", "PlaneCount")


def check_ome(description: str, n_pages: int) -> None:
    """Refuse an OME description of several files, or of far more planes than the file has pages.

    Parameters
    ----------
    description : str
        The XML.
    n_pages : int

    Raises
    ------
    ValueError
        The description is one of these, or is no XML.
    """
    if "<!ENTITY" in description:  # entities within entities expand to any length
        raise ValueError("its OME description defines XML entities, which are not read")
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError as error:
        raise ValueError(f"its OME description cannot be read: {error}") from error
    files = {(element.get("FileName"), element.text) for element in root.iter() if element.tag.endswith("}UUID")}
    own = root.get("UUID")
    if len({name for name, _ in files}) > 1 or any(own and uuid != own for _, uuid in files):
        raise ValueError("it is one of several files of an OME-TIFF; merge them first")
    if max(_numbers(root), default=0) > n_pages + _MOST_MISSING:
        raise ValueError(f"its OME description names far more planes than its {n_pages:,} pages")


def _numbers(root: ElementTree.Element) -> Iterator[float]:
    """Yield the numbers of planes that a description names."""
    for element in root.iter():
        counts = [abs(int(element.get(name, 1))) for name in _COUNTS]
        yield max(counts)
        yield counts[0] * counts[1] * counts[2]
        if "Start" in element.attrib:  # an axis within another one, given by its first and last value
            values = [float(element.get(name, 1)) for name in ("Start", "End", "Step")]
            yield abs((values[1] - values[0]) / values[2])
