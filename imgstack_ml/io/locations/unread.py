"""Which of the files that lie somewhere are read; images among the others are counted, so that none goes unnoticed."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .names import is_hidden

__all__ = [
    "LINKED_FOLDER",
    "Listing",
    "Reads",
    "Sorter",
    "is_no_image",
    "kind_of_file",
    "kind_of_name",
    "list_names",
    "unread_text",
]

_PICTURES = (
    "webp gif bmp jp2 j2k jpx jxl jfif jpe avif heic heif ico ppm pgm pbm pnm pfm psd exr hdr dds tga pcx qoi xcf"
)
_CAMERAS = "raw dng cr2 cr3 nef nrw arw sr2 orf rw2 raf pef srw x3f"
_MICROSCOPES = (
    "czi nd2 lif lsm oib oif oir vsi ims svs ndpi scn mrxs zvi stk flex dv r3d dm3 dm4 ser mrc mrcs btf qptiff"
)
_MEDICINE_AND_SKY = r"dcm dicom nii nii\.gz mha mhd nrrd nhdr img fits fit fts"
_FILMS = "mp4 avi mov mkv webm m4v mpg mpeg wmv flv mj2 ogv mxf"
_ALL = " ".join((_PICTURES, _CAMERAS, _MICROSCOPES, _MEDICINE_AND_SKY, _FILMS)).replace(" ", "|")
_SUFFIX = re.compile(rf"\.(?:{_ALL})\Z", re.IGNORECASE)

# Files of these names are not opened to see whether they are images: they are many, and never are.
_NO_IMAGE = re.compile(
    r"\.(txt|[ct]sv|jsonl?|xml|ya?ml|toml|ini|cfg|md|rst|log|html|py|ipynb|zip|tar|gz|np[yz]|h5|hdf5|parquet|safetensors"
    r"|xmp|pdf|xlsx?|docx?)\Z",
    re.IGNORECASE,
)

_CONTENTS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{4}\0{4}.{4}[\x0c\x28\x6c\x7c]\0{3}",
    "WebP": rb"RIFF.{4}WEBP",
    "AVI": rb"RIFF.{4}AVI ",
    "HEIF or MP4": rb".{4}ftyp",
    "Matroska": rb"\x1aE\xdf\xa3",
    "JPEG 2000": rb"\0{3}\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\0{3}\x0cJXL ",
    "PNM": rb"P[1-6]\s+(#[^\n]*\n)?\d+\s+\d+\s",
    "PSD": rb"8BPS\0",
    "OpenEXR": rb"v/1\x01",
    "DICOM": rb".{128}DICM",
    "FITS": rb"SIMPLE  =",
    "NRRD": rb"NRRD000",
    "MRC": rb".{208}MAP ",
    "CZI": rb"ZISRAWFILE",
    "ND2": rb"\xda\xce\xbe\x0a",
    "LIF": rb"p\0{3}.{4}\*",
}
_CONTENT = re.compile(b"|".join(b"(%b)" % pattern.replace(b"(", b"(?:") for pattern in _CONTENTS.values()), re.DOTALL)
_HEAD = 256  # bytes


#: Of links to folders, which are not followed, and are counted among what is not read.
LINKED_FOLDER = "link to a folder"


#: Tells by its name whether a file is read: True, False where it is read only if there are no others (films, arrays),
#: and None where it is not read.
Reads = Callable[[str], bool | None]


class Listing(NamedTuple):
    """Files that were found, in no particular order, and how many images of which kinds are not read beside them."""

    files: list[str]
    unread: Counter[str] = Counter()  # noqa: RUF012 (never written to)


class Sorter:
    """Sorts files into those that are read and others.

    Parameters
    ----------
    reads : Reads
    """

    def __init__(self, reads: Reads):
        self.reads, self.unread = reads, Counter[str]()
        self._found: dict[bool, list[str]] = {True: [], False: []}

    def add(self, name: str, *, beside_others: bool = True) -> None:
        """Add a file that is read."""
        self._found[beside_others].append(name)

    def listing(self) -> Listing:
        """Return the files that are read, and count those that are not."""
        pictures, others = self._found[True], self._found[False]
        if pictures:
            self.unread.update(f"{os.path.splitext(name)[1].lower()} (beside images)" for name in others)
        return Listing(pictures or others, self.unread)


def is_no_image(name: str) -> bool:
    """Tell whether a file of this name is never an image."""
    return _NO_IMAGE.search(name) is not None


def kind_of_name(name: str) -> str | None:
    """Return the suffix of a file that is an image by its name and is not read; None for any other file."""
    found = _SUFFIX.search(name)
    return found[0].lower() if found else None


def kind_of_file(path: str) -> str | None:
    """Return what a file that ends like no image is, if its name or its first bytes are those of an image."""

    def read_head(path: str, n_bytes: int) -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.read(n_bytes)

    return _kind_of(path, read_head)


def list_names(
    names: Iterable[str], reads: Reads, root: str = "", read_head: Callable[[str, int], bytes] | None = None
) -> Listing:
    """Choose the images among names with ``/`` between folders; below `root`, no part of a name may be hidden.

    The first bytes of other files, as `read_head` reads them, tell whether they are images.
    """
    found = Sorter(reads)
    for name in names:
        if is_hidden(name[len(root) :]):
            continue
        if (beside_others := reads(name)) is not None:
            found.add(name, beside_others=beside_others)
        elif kind := _kind_of(name, read_head):
            found.unread[kind] += 1
    return found.listing()


def _kind_of(name: str, read_head: Callable[[str, int], bytes] | None) -> str | None:
    kind = kind_of_name(name)
    if kind is not None or read_head is None or _NO_IMAGE.search(name):
        return kind
    try:
        found = _CONTENT.match(read_head(name, _HEAD))
    except (OSError, ValueError):
        return None
    return f"{os.path.splitext(name)[1] or 'no suffix'} ({list(_CONTENTS)[found.lastindex - 1]})" if found else None  # type: ignore[operator]


def unread_text(unread: Counter[str]) -> str:
    """Say how many images there are of which kinds, the most frequent first; empty where there are none."""
    return ", ".join(f"{kind} ({count:,})" for kind, count in unread.most_common())
