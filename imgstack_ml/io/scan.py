"""From a list of files to a stack: their headers are read, and have to agree in shape and dtype."""

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from timeit import default_timer
from typing import NamedTuple, TypeVar

import numpy as np

from ..base.warn import warn
from ..errors import BadImageError, MixedStackError
from .convert import Conversion
from .formats.base import Header
from .formats.registry import Found, Key, Page, find_images, registered_names
from .keys import FileKeys
from .locations.base import State
from .locations.faults import naming_the_file
from .locations.open import read_state
from .readers import FileReader
from .stack import ImageStack
from .summary import Kinds

__all__ = ["keys_of_files", "scan_files"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Layout = tuple[tuple[int, ...], np.dtype]

# One thread reads headers on a warm local disk faster than several, which wait for each other. Several are faster where
# files are waited for: a cold disk, a network, an object store. The time of the first few files decides.
_N_PROBES = 32
_SLOW = 1e-3  # seconds a file
_N_THREADS = 32


class _File(NamedTuple):
    """A file that was scanned: its series of images, or what is wrong with it."""

    name: str
    state: State
    found: tuple[Found, ...]
    problem: BadImageError | None


def scan_files(files: Sequence[str], conversion: Conversion, *, on_error: str = "raise") -> ImageStack:
    """Make a stack of the images in files. Their headers are read, and no pixel is decoded.

    Parameters
    ----------
    files : sequence of str
    conversion : Conversion
        What is done to each image.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file whose header cannot be read raises, or is left out with a warning.

    Returns
    -------
    ImageStack

    Raises
    ------
    BadImageError
        A header cannot be read; with ``on_error="skip"``, no header can be read.
    MixedStackError
        The images differ in shape or dtype.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} is not known; it is 'raise' or 'skip'")

    @functools.cache
    def layout_of(header: Header) -> Layout:
        return conversion.layout(header.shape, header.dtype)

    def read_headers(name: str) -> _File:
        try:
            with naming_the_file(name):
                state = read_state(name)
                found = find_images(name, state, conversion.max_pixels)
                for series in found:
                    layout_of(series.header)
        except BadImageError as error:
            if on_error == "raise":
                raise
            return _File(name, State(0, 0), (), error)
        return _File(name, state, found, None)

    unique = dict.fromkeys(files)
    scanned = dict(zip(unique, _map(read_headers, unique), strict=True))
    bad = {name: file.problem.reason for name, file in scanned.items() if file.problem is not None}
    good = [scanned[name] for name in files if name not in bad]
    _report_unreadable(bad, len(good))
    names, keys, kinds = _images_of(good)
    shape, dtype = _one_layout(names, kinds, layout_of)
    registered = registered_names() & {header.format for header in kinds.headers}
    reader = FileReader(shape, dtype, conversion, tuple(sorted(registered)))
    return ImageStack(reader, names, keys, problems=tuple(bad.items()), kinds=kinds)


def keys_of_files(files: Sequence[str]) -> FileKeys:
    """Read the states of files of one image each, and return their keys."""
    states = []
    for path in files:
        with naming_the_file(path):
            states.append(read_state(path))
    return FileKeys.of_files(tuple(files), states)


def _map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in order, by several threads if the first items take long."""
    rest = iter(items)
    start, n_done = default_timer(), 0
    for item in itertools.islice(rest, _N_PROBES):
        yield function(item)
        n_done += 1
    if default_timer() - start < n_done * _SLOW:
        yield from map(function, rest)
        return
    with ThreadPoolExecutor(_N_THREADS) as pool:
        yield from pool.map(function, rest)


def _images_of(files: list[_File]) -> tuple[tuple[str, ...], FileKeys, Kinds]:
    """List names, keys and kinds of the images of all files."""
    names: list[str] = []
    keys: list[Key] = []
    states: list[State] = []
    numbers: list[int] = []
    headers: dict[Header, int] = {}
    for file in files:
        n_images = sum(len(series.keys) for series in file.found)
        names += [f"{file.name}[{i}]" for i in range(n_images)] if n_images > 1 else [file.name]
        states += [file.state] * n_images
        for series in file.found:
            keys += [file.name if key is None else Page(file.name, key) for key in series.keys]
            numbers += [headers.setdefault(series.header, len(headers))] * len(series.keys)
    kinds = Kinds(tuple(headers), np.array(numbers, dtype=np.uint32))
    plain = tuple(names)  # shared, where the keys are the names
    return plain, FileKeys.of_files(plain if keys == names else tuple(keys), states), kinds


def _report_unreadable(problems: dict[str, str], n_good: int) -> None:
    if problems and not n_good:
        path, reason = next(iter(problems.items()))
        raise BadImageError(path, f"{reason} (none of the {len(problems)} files can be read)")
    if problems:
        warn(
            f"{len(problems)} of {len(problems) + n_good} files cannot be read as images and are left out; "
            "they are listed in .problems"
        )


def _one_layout(names: Sequence[str], kinds: Kinds, layout_of: Callable[[Header], Layout]) -> Layout:
    """Return the shape and dtype that all images have once they are converted."""
    groups = defaultdict(list)
    for number, header in enumerate(kinds.headers):
        groups[layout_of(header)].append(number)
    if len(groups) == 1:
        return next(iter(groups))
    ranked = []
    for layout, members in groups.items():
        places = np.flatnonzero(np.isin(kinds.numbers, members))
        ranked.append((layout, len(places), [names[i] for i in places[:2]]))
    ranked.sort(key=lambda group: -group[1])
    described = "".join(
        f"\n  {count} of shape {shape}, {dtype}, e.g. {', '.join(map(repr, examples))}"
        for (shape, dtype), count, examples in ranked
    )
    raise MixedStackError(
        f"the {len(names)} images are not of one shape and dtype:{described}\n"
        f"{_remedy([layout for layout, _, _ in ranked])}"
    )


def _remedy(layouts: list[Layout]) -> str:
    """Name the options that would accept the images; the most frequent kind comes first."""
    (shape, dtype), *_ = layouts
    options = []
    if len({shape[2:] for shape, _ in layouts}) > 1 or len({dtype for _, dtype in layouts}) > 1:
        options.append(_option_for_all_values(layouts))
    if len({shape[:2] for shape, _ in layouts}) > 1:
        options.append(f"shape={shape[:2]}")
    if None in options:
        (other_shape, _) = layouts[1]
        test = f"shape == {shape}" if shape != other_shape else f"dtype == {str(dtype)!r}"
        return f"Give the files of one kind as a list: open_stack([f for f in files if skimage.io.imread(f).{test}])"
    return f"To bring them to one kind: open_stack(..., {', '.join(map(str, options))})"


def _option_for_all_values(layouts: list[Layout]) -> str | None:
    """Find an option that keeps all values: the mode of most images if it does, or else another mode or a dtype."""
    candidates = [Conversion(mode=mode) for mode in ("RGB", "L", "F")]
    (shape, _), *_ = layouts
    if len(shape) == 2:
        candidates = candidates[1:]
    if len({shape[2:] for shape, _ in layouts}) == 1:
        candidates = [Conversion(dtype=dtype) for dtype in ("uint16", "float32", "float64")]
    for conversion in candidates:
        try:
            for layout in layouts:
                conversion.layout(*layout)
        except ValueError:
            continue
        return f"mode={conversion.mode!r}" if conversion.mode else f"dtype={conversion.dtype!r}"
    return None
