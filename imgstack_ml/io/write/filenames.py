"""Names of the files to write: unique, and without any folder in them."""

import os
import re
import unicodedata
from collections.abc import Sequence

from ...errors import StoreError
from ..formats.registry import how_read
from ..locations.known import known_by_name
from ..locations.names import natural_key

__all__ = ["file_names", "names_in_folders", "refuse_file_suffix"]

# Control characters, what Windows refuses, separators of paths, and bytes that are not UTF-8.
_UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
_SEPARATORS = re.compile(r"[/\\]|::")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_INDEX = re.compile(r"\[([0-9]+)\]$")
_MAX_BYTES = 200  # most systems take 255; the rest is for a number and the suffix


def refuse_file_suffix(folder: str, written: str, example: str) -> None:
    """Raise if a folder to be made has the name of a file, as ``out.tif``; one that exists is what the user has.

    Parameters
    ----------
    folder : str
    written : str
        What is written.
    example : str
        What to type, with ``{}`` for the name without its suffix.

    Raises
    ------
    StoreError
        Naming the folder, and what to type.
    """
    known = known_by_name(folder)
    if known and not os.path.exists(folder):
        name = os.path.basename(folder)
        stem = name[: -len(known[0])].removesuffix(".ome") or "out"
        raise StoreError(f"{name!r} has the suffix of a file, and {written} is written: {example.format(stem)}")


def file_names(names: Sequence[str] | None, sources: Sequence[str] | None, n_images: int, suffix: str) -> list[str]:
    """Return a name of a file for each image.

    Parameters
    ----------
    names : sequence of str or None
        Names that the user gives; they are checked, and get the suffix if they have another one.
    sources : sequence of str or None
        Files that the images came from; None if they came from an array, and are numbered.
    n_images : int
    suffix : str
        Of the format, with the dot.

    Returns
    -------
    list of str
        No two are equal, even if upper and lower case are the same. Names made from `sources` are in natural order.

    Raises
    ------
    ValueError
        A name in `names` cannot name a file in a folder, or occurs twice.
    """
    if names is not None:
        return _checked(names, n_images, suffix)
    digits = len(str(max(0, n_images - 1)))
    numbers = [f"{i:0{digits}}" for i in range(n_images)]
    if sources is None:
        return [number + suffix for number in numbers]
    plain = _padded([_stem(source) for source in sources])
    found = [stem + suffix for stem in plain]
    if len(set(map(_folded, found))) == n_images and found == sorted(found, key=natural_key):
        return found
    return [f"{number}_{stem}{suffix}" for number, stem in zip(numbers, plain, strict=True)]


def names_in_folders(folders: Sequence[str], sources: Sequence[str], suffix: str) -> list[str]:
    """Return the name of a file for each image, with ``/`` after the folder that it lies in.

    Parameters
    ----------
    folders : sequence of str
        Of each image, with ``/`` between folders; empty, or ``"."``, for none.
    sources : sequence of str
        Files that the images came from.
    suffix : str
        Of the format, with the dot.
    """
    members: dict[str, list[int]] = {}
    for i, folder in enumerate(folders):
        members.setdefault(folder, []).append(i)
    plain = ["/".join(_stem(part) for part in folder.split("/") if part not in ("", ".")) for folder in members]
    unique = len(set(map(_folded, plain))) == len(plain)
    found = [""] * len(sources)
    for number, (name, places) in enumerate(zip(plain, members.values(), strict=True)):
        parent = name if unique else f"{number}_{name.replace('/', '_')}"
        for i, file in zip(places, file_names(None, [sources[i] for i in places], len(places), suffix), strict=True):
            found[i] = f"{parent}/{file}" if parent else file
    return found


def _padded(stems: list[str]) -> list[str]:
    """Write the numbers of pages and frames, as in ``film[7]``, with as many digits: most programs sort by text."""
    parts = [_INDEX.search(stem) for stem in stems]
    digits = max((len(part[1]) for part in parts if part), default=0)
    return [
        f"{stem[: part.start()]}[{part[1].zfill(digits)}]" if part else stem
        for stem, part in zip(stems, parts, strict=True)
    ]


def _stem(source: str) -> str:
    """Make a name from that of a source, without suffix, that every system takes."""
    name = _SEPARATORS.split(source)[-1]
    stem, suffix = os.path.splitext(name)
    stem = stem if suffix and how_read(suffix) is not None else name
    stem = _UNFIT.sub("_", stem).rstrip(". ")
    stem = stem.encode()[:_MAX_BYTES].decode(errors="ignore")
    # A file whose name begins with a dot is hidden, and one with a dash is taken for an option by commands.
    return f"_{stem}" if not stem or stem[0] in ".-~ " or _DEVICES.match(stem) else stem


def _checked(names: Sequence[str], n_images: int, suffix: str) -> list[str]:
    if isinstance(names, str) or len(names) != n_images:
        raise ValueError(f"names has {len(names)} entries and the stack {n_images} images; give one name for each")
    found = []
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name or name[0] == "." or _UNFIT.search(name):
            raise ValueError(
                f"names[{i}]={name!r} cannot name a file in the folder: a str is needed that is not empty, does not "
                'begin with a dot, and holds no separator or control character and none of < > : " | ? *'
            )
        own = os.path.splitext(name)[1]
        same = own.lower() == suffix or (suffix == ".tif" and own.lower() == ".tiff")
        found.append(name if same else name + suffix)
        if len(os.fsencode(found[-1])) > 255:
            raise ValueError(f"names[{i}]={name!r} is too long for the name of a file")
        first = seen.setdefault(_folded(found[-1]), i)
        if first != i:
            raise ValueError(f"names[{first}] and names[{i}] are both {name!r}, or differ in capitals only")
    return found


def _folded(name: str) -> str:
    """Return what is equal for names that some file systems do not distinguish: in case, or in the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()
