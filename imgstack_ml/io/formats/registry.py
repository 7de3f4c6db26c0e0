"""The formats that are read, and the opening of a file in the format that it has."""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from ...errors import BadImageError
from ..locations.base import State, check_unchanged
from ..locations.faults import naming_the_file
from ..locations.open import open_bytes
from ..locations.unread import is_no_image
from .advice import advice_for
from .array_files import Hdf5, Npy
from .base import MAX_PIXELS, Header, ImageFormat, ImageSeries, OpenFile, check_level
from .blp import Blp
from .czi import Czi
from .dicom import Dicom
from .fits import Fits
from .jpeg_png import Jpeg, Png
from .lif import Lif
from .nd2 import Nd2
from .pillow import PILLOW_FORMATS
from .tiff import Tiff
from .video import Video
from .xpm import Xpm

__all__ = [
    "Found",
    "Key",
    "Page",
    "find_images",
    "how_read",
    "open_images",
    "read_header",
    "register_format",
    "registered_names",
]

_GROUP = "imgstack_ml.formats"
_HEAD = 1024  # bytes

#: In the order in which they are asked.
#: DICOM goes before TIFF: some files begin like both.
_BUILT_IN: list[type[ImageFormat]] = [Jpeg, Png, Dicom, Tiff]
_BUILT_IN += [*PILLOW_FORMATS, Xpm, Blp, Video, Npy, Hdf5, Fits, Nd2, Czi, Lif]
_registered: list[type[ImageFormat]] = []
_overriding: list[type[ImageFormat]] = []


class Page(NamedTuple):
    """Key of an image in a file of several: the name of the file, and the image's key in it."""

    file: str
    key: Any


#: By which a task finds an image: the name of its file, or a page of it.
Key = str | Page


class Found(NamedTuple):
    """A series of images in a file, and the header that all of them have."""

    header: Header
    keys: tuple[Any, ...]
    axes: str
    sizes: tuple[int, ...]
    channel_names: tuple[str, ...]
    starts: tuple[int, ...] = ()


def register_format(kind: type[ImageFormat], *, override: bool = False) -> None:
    """Make one more format of files known to `open_stack`, in this process.

    The workers of a cluster do not know it: for them, and for all processes, name the class in an entry point of the
    group ``imgstack_ml.formats`` in a package of your own.

    Parameters
    ----------
    kind : type
        A subclass of `ImageFormat`.
    override : bool, default=False
        Whether it goes before the formats that the package has. Otherwise a file is given to it only if none of these
        recognises it.

    Raises
    ------
    TypeError
        It is no subclass of `ImageFormat`, or one that lacks a part.
    ValueError
        It has the name or a suffix of another format, and does not override.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml.io import ImageFormat, ImageSeries, register_format
    >>> class Camera(ImageFormat):
    ...     name, suffixes = "camera", (".camera",)
    ...
    ...     def list_images(self):
    ...         return [ImageSeries((480, 640), np.dtype("<u2"))]
    ...
    ...     def read(self, key, out):
    ...         out[...] = np.frombuffer(self.source.file.read(), out.dtype).reshape(out.shape)
    >>> register_format(Camera)
    """
    _check_kind(kind)
    for other in [*_BUILT_IN, *_registered]:
        same = [suffix for suffix in kind.suffixes if suffix in other.suffixes]
        if not override and (same or kind.name == other.name):
            what = f"suffix {same[0]!r}" if same else f"name {kind.name!r}"
            raise ValueError(
                f"the {what} is that of {other.__module__}.{other.__qualname__}; to go before it: "
                f"register_format({kind.__qualname__}, override=True)"
            )
    (_overriding if override else _registered).insert(0, kind)  # the newest is asked first
    _forget()


def registered_names() -> set[str]:
    """Return the names of the formats that were registered in this process."""
    return {kind.name for kind in [*_overriding, *_registered]}


def _check_kind(kind: Any) -> None:
    if not (isinstance(kind, type) and issubclass(kind, ImageFormat)):
        raise TypeError(f"{kind!r} is no subclass of imgstack_ml.io.ImageFormat")
    missing = sorted(getattr(kind, "__abstractmethods__", ())) + ["name"] * (not hasattr(kind, "name"))
    if missing:
        raise TypeError(f"{kind.__qualname__} lacks {', '.join(missing)}")
    bad = [s for s in kind.suffixes if not (isinstance(s, str) and s.startswith(".") and s == s.lower())]
    if bad or isinstance(kind.suffixes, str):
        raise TypeError(f"{kind.__qualname__}.suffixes is {kind.suffixes!r}; give a tuple such as ('.abc',)")


@functools.cache
def _installed() -> tuple[tuple[type[ImageFormat], ...], dict[str, str]]:
    """Load the formats of other packages: those that work, and for the others what is wrong."""
    kinds, broken = [], {}
    for entry in entry_points(group=_GROUP):
        try:
            kind = entry.load()
            _check_kind(kind)
        except Exception as error:  # a broken package must not stop the reading of other files
            broken[entry.name] = f"{type(error).__name__}: {error}"
        else:
            kinds.append(kind)
    return tuple(kinds), broken


def _forget() -> None:
    for cached in (_installed, _suffixes, find_images):
        cached.cache_clear()


@functools.cache
def _suffixes(beside_pictures: bool) -> tuple[str, ...]:
    kinds = [*_overriding, *_BUILT_IN, *_registered]
    return tuple(s for kind in kinds if kind.beside_pictures == beside_pictures for s in kind.suffixes)


def how_read(name: str) -> bool | None:
    """Tell by its suffix whether a file of a folder is read.

    Returns
    -------
    bool or None
        See `Reads`. The formats of other packages are looked up for the first suffix that is not known.
    """
    ending = name.lower()
    for beside_pictures in (True, False):
        if ending.endswith(_suffixes(beside_pictures)):
            return beside_pictures
    if is_no_image(ending):
        return None
    for kind in _installed()[0]:
        if ending.endswith(kind.suffixes):
            return kind.beside_pictures
    return None


def format_of(name: str, head: bytes) -> type[ImageFormat]:
    """Return the format of a file, by its first bytes or else by its suffix.

    Raises
    ------
    ValueError
        No format is that of the file; the message says what would read it.
    """
    found = _choose(itertools.chain(_overriding, _BUILT_IN, _registered), name, head)
    if found is None:
        kinds, broken = _installed()
        found = _choose(kinds, name, head)
    if found is None:
        raise ValueError(advice_for(name, head, broken))
    return found


def _choose(kinds: Iterable[type[ImageFormat]], name: str, head: bytes) -> type[ImageFormat] | None:
    by_suffix = None
    for kind in kinds:
        recognised = kind.recognise(head)
        if recognised:
            return kind
        if recognised is None and by_suffix is None and name.lower().endswith(kind.suffixes):
            by_suffix = kind
    return by_suffix


@contextlib.contextmanager
def open_images(
    name: str,
    max_pixels: int = MAX_PIXELS,
    state: State | None = None,
    with_alpha: bool = False,
    level: int = 0,
) -> Iterator[ImageFormat]:
    """Open a file of images, in the format that its content has; an error inside the block names the file.

    Parameters
    ----------
    name : str
        See `imgstack_ml.io.locations.names`.
    max_pixels : int
        Most pixels that an image may claim to have.
    state : State, optional
        That of the file when the stack was opened.
    with_alpha : bool
    level : int
        See `OpenFile`.

    Raises
    ------
    BadImageError
        The file is missing, not a regular file, damaged, too large or of a kind that is not read; or its state is
        another one.
    """
    with naming_the_file(name), open_bytes(name) as (file, found):
        if state is not None:
            check_unchanged(state, found)
        head = file.read(_HEAD)
        file.seek(0)
        kind = format_of(name, head)
        if level and not kind.has_levels:
            check_level(level, [()])
        with naming_the_format(name, kind):
            images = kind(OpenFile(name, file, found.n_bytes, head, max_pixels, with_alpha, found.modified, level))
            try:
                yield images
            finally:
                images.close()


class naming_the_format:
    """Raise a BadImageError that names file and format for whatever a format of others raises, in a ``with`` block.

    A class takes a third of the time of a generator; see `naming_the_file`.
    """

    def __init__(self, name: str, kind: type[ImageFormat]):
        self._name, self._kind = name, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, BadImageError):
            return
        if self._kind not in _BUILT_IN:
            where, what = f"{self._kind.__module__}.{self._kind.__qualname__}", f"{type(error).__name__}: {error}"
            raise BadImageError(self._name, f"{where} cannot read it: {what}") from error
        if isinstance(error, LookupError | TypeError | AttributeError):
            raise BadImageError(self._name, f"it is damaged ({type(error).__name__}: {error})") from error


# An entry takes about 600 bytes for a file of one image.
@functools.lru_cache(maxsize=100_000)
def find_images(
    name: str, state: State, max_pixels: int, with_alpha: bool = False, level: int = 0
) -> tuple[Found, ...]:
    """Find the images of a file by its headers; a process reads a file again only when its state changes.

    Parameters
    ----------
    name : str
    state : State
        See `imgstack_ml.io.locations.open.read_state`.
    max_pixels : int
    with_alpha : bool
    level : int
        See `OpenFile`.

    Returns
    -------
    tuple of Found

    Raises
    ------
    BadImageError
        See `open_images`.
    """
    with open_images(name, max_pixels, state, with_alpha, level) as images:
        found = [_found(images, series) for series in images.series]
    if not any(series.keys for series in found):
        raise BadImageError(name, "it holds no image")
    return tuple(found)


def _found(images: ImageFormat, series: ImageSeries) -> Found:
    header, keys = images.header_of(series), tuple(series.keys)
    if series.axes and (len(series.axes) != len(series.sizes) or math.prod(series.sizes) != len(keys)):
        raise ValueError(f"its {len(keys):,} images are not those of axes {series.axes!r} of sizes {series.sizes}")
    n_channels = header.shape[2] if len(header.shape) == 3 else 0
    if "c" in series.axes:
        n_channels = series.sizes[series.axes.index("c")]
    # With fewer names than channels, it is not known which is whose.
    names = tuple(series.channel_names) if len(series.channel_names) == n_channels else ()
    return Found(header, keys, series.axes, series.sizes, names, tuple(series.starts))


def read_header(path: str, max_pixels: int = MAX_PIXELS) -> Header:
    """Read shape, dtype, format and mode of a file of one image without decoding it.

    Parameters
    ----------
    path : str
    max_pixels : int

    Returns
    -------
    Header

    Raises
    ------
    BadImageError
        See `open_images`.
    """
    with open_images(path, max_pixels) as images:
        return images.header(None)
