"""From a list of files to a stack: their headers are read, and have to agree in shape and dtype."""

import contextvars
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from timeit import default_timer
from typing import NamedTuple, TypeVar

import numpy as np

from ..base.warn import warn
from ..errors import BadImageError, MixedStackError
from .convert import Conversion
from .formats.base import Header
from .formats.registry import Found, Key, Page, find_images, registered_names
from .keys import FileKeys
from .lazy import Reader
from .locations.base import State
from .locations.faults import naming_the_file
from .locations.open import read_state
from .readers import FileReader
from .select import Select, Selection, select_channels, select_images
from .stack import ImageStack
from .summary import Kinds

__all__ = ["Layout", "keys_of_files", "scan_files", "scan_sources"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Layout = tuple[tuple[int, ...], np.dtype]

# One thread reads headers on a warm local disk faster than several, which wait for each other. Several are faster where
# files are waited for: a cold disk, a network, an object store. The time of the first few files decides.
_N_PROBES = 32
_SLOW = 1e-3  # seconds a file
_N_THREADS = 32


class _File(NamedTuple):
    """A file that was scanned: its series and the images selected of each, or what is wrong with it."""

    name: str
    state: State
    found: tuple[Found, ...]
    selected: tuple[Selection, ...]
    problem: BadImageError | None


def scan_files(
    files: Sequence[str],
    conversion: Conversion,
    *,
    on_error: str = "raise",
    select: Select | None = None,
    axes: Sequence[str] | None = None,
    level: int = 0,
) -> ImageStack:
    """Make a stack of the images in files. Their headers are read, and no pixel is decoded.

    Parameters
    ----------
    files : sequence of str
    conversion : Conversion
        What is done to each image.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file whose header cannot be read raises, or is left out with a warning.
    select : Select, optional
        Images and channels to take.
    axes : sequence of str, optional
        Names of the axes of a file, where it has none.
    level : int, default=0
        Level of the pyramids.

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

    def find(name: str) -> tuple[State, tuple[Found, ...]]:
        state = read_state(name)
        found = find_images(name, state, conversion.max_pixels, conversion.with_alpha, level)
        return state, found if axes is None else tuple(_with_axes(series, axes) for series in found)

    def make_reader(layout: Layout, conversion: Conversion, headers: Sequence[Header]) -> Reader:
        registered = registered_names() & {header.format for header in headers}
        return FileReader(*layout, conversion, tuple(sorted(registered)))

    return scan_sources(files, find, make_reader, conversion, on_error=on_error, select=select)


def scan_sources(
    sources: Iterable[str],
    find: Callable[[str], tuple[State, tuple[Found, ...]]],
    make_reader: Callable[[Layout, Conversion, Sequence[Header]], Reader],
    conversion: Conversion,
    *,
    on_error: str,
    select: Select | None,
) -> ImageStack:
    """Make a stack of the images in files or arrays, as `scan_files` does.

    Parameters
    ----------
    sources : iterable of str
        Their names.
    find : callable
        From a name to the state of the source and its images.
    make_reader : callable
        From the shape and dtype of all images, what is done to them, and the headers that they have.
    conversion, on_error, select
        See `scan_files`.

    Returns
    -------
    ImageStack
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} is not known; it is 'raise' or 'skip'")

    channels: dict[tuple[int, ...] | None, str] = {}  # that are selected, and a source for each

    @functools.cache
    def layout_of(header: Header) -> Layout:
        return replace(conversion, channels=next(iter(channels), None)).layout(header.shape, header.dtype)

    sources = list(sources)
    unique = dict.fromkeys(sources)

    def read_headers(name: str) -> _File:
        try:
            with naming_the_file(name):
                state, found = find(name)
                if select is not None:
                    for series in found:
                        channels.setdefault(_channels_of(series, select), name)
                for series in found:
                    layout_of(series.header)
                selected = tuple(_selection(series, select or {}) for series in found)
        except BadImageError as error:
            if on_error == "raise":
                if len(unique) > 1:
                    error.add_note("to leave out files that cannot be read: open_stack(..., on_error='skip')")
                raise
            return _File(name, State(0, 0), (), (), error)
        return _File(name, state, found, selected, None)

    scanned = dict(zip(unique, _map(read_headers, unique), strict=True))
    bad = {name: file.problem.reason for name, file in scanned.items() if file.problem is not None}
    good = [scanned[name] for name in sources if name not in bad]
    _report_unreadable(bad, len(good))
    _check_channels(channels)
    names, keys, kinds, coords = _images_of(good)
    layout = _one_layout(names, kinds, layout_of)
    conversion = replace(conversion, channels=next(iter(channels), None))
    channel_names = _channel_names(good, conversion.channels) if conversion.mode is None else ()
    reader, problems = make_reader(layout, conversion, kinds.headers), tuple(bad.items())
    return ImageStack(reader, names, keys, problems=problems, kinds=kinds, coords=coords, channel_names=channel_names)


def _with_axes(series: Found, axes: Sequence[str]) -> Found:
    """Name the axes of a series that has none."""
    of_image = "yxc"[: len(series.header.shape)]
    if not "".join(axes).endswith(of_image) or "c" in axes[: len(axes) - len(of_image)]:
        raise ValueError(f"its images have axes {of_image!r}, which must come last, and not axes={''.join(axes)!r}")
    counting = tuple(axes[: len(axes) - len(of_image)])
    if tuple(series.axes) == counting:
        return series
    if set(series.axes) == {"q"} and len(counting) == len(series.axes):  # which a file leaves open
        return series._replace(axes="".join(counting))
    if series.axes or len(counting) > 1:
        has = f"named {series.axes!r}" if series.axes else f"a row of {len(series.keys):,}"
        raise ValueError(f"its images are {has}, and axes={''.join(axes)!r} says otherwise")
    return series._replace(axes="".join(counting), sizes=(len(series.keys),) if counting else ())


def _channels_of(series: Found, select: Select) -> tuple[int, ...] | None:
    n_channels = math.prod(series.header.shape[2:]) if len(series.header.shape) == 3 else 0
    return select_channels(series.axes, n_channels, series.channel_names, select)


_ALL = Selection(np.zeros(0, int), {})  # of a series without axes, in place of a list of all its images


def _selection(series: Found, select: Select) -> Selection:
    return select_images(series.axes, series.sizes, series.channel_names, select) if series.axes else _ALL


def _check_channels(channels: dict[tuple[int, ...] | None, str]) -> None:
    if len(channels) > 1:
        (first, name), (second, other), *_ = channels.items()
        raise ValueError(
            f"the channels that are selected are at {first} in {name!r} and at {second} in {other!r}; open these files "
            "each with those of its kind"
        )


def _channel_names(files: list[_File], channels: tuple[int, ...] | None) -> tuple[str, ...]:
    """Return the names of the channels of the images, where all files give the same ones."""
    names = {series.channel_names for file in files for series in file.found if "c" not in series.axes}
    if len(names) != 1 or not (found := names.pop()):
        return ()
    return found if channels is None else tuple(found[i] for i in channels)


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
        context = contextvars.copy_context()  # threads begin without the options of URLs
        yield from pool.map(lambda item: context.copy().run(function, item), rest)


def _images_of(files: list[_File]) -> tuple[tuple[str, ...], FileKeys, Kinds, dict[str, np.ndarray]]:
    """List names, keys, kinds and coordinates of the images of all files."""
    names: list[str] = []
    coords: list[dict[str, np.ndarray]] = []
    keys: list[Key] = []
    states: list[State] = []
    numbers: list[int] = []
    runs: list[np.ndarray] = []
    headers: dict[Header, int] = {}
    are_films = any(series.starts for file in files for series in file.found)
    for file in files:
        n_images, n_before = sum(len(series.keys) for series in file.found), 0
        first = len(names)
        for series, selection in zip(file.found, file.selected, strict=True):
            places = range(len(series.keys)) if selection is _ALL else selection.positions.tolist()
            if are_films:
                runs.append(_runs(series, places, len(names)))
            found = [series.keys[place] for place in places]
            names += [f"{file.name}[{n_before + place}]" for place in places] if n_images > 1 else [file.name]
            keys += [file.name if key is None else Page(file.name, key) for key in found]
            numbers += [headers.setdefault(series.header, len(headers))] * len(found)
            coords.append(selection.coords)
            n_before += len(series.keys)
        states += [file.state] * (len(names) - first)
    kinds = Kinds(tuple(headers), np.array(numbers, dtype=np.uint32))
    plain = tuple(names)  # shared, where the keys are the names
    keys_of_files = FileKeys.of_files(
        plain if keys == names else tuple(keys), states, np.concatenate(runs) if are_films else None
    )
    return plain, keys_of_files, kinds, _joined(coords)


def _runs(series: Found, places: Sequence[int], number: int) -> np.ndarray:
    """Return numbers of images from `number` on; those that are decoded from one place on have the same."""
    if not series.starts:
        return np.arange(number, number + len(places))
    return number + np.maximum(0, np.searchsorted(series.starts, places, side="right") - 1)


def _joined(coords: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join the coordinates of all series, along the axes that all of them have."""
    axes = [axis for axis in (coords[0] if coords else ()) if all(axis in found for found in coords)]
    return {axis: np.concatenate([found[axis] for found in coords]) for axis in axes}


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
    error = MixedStackError(
        f"the {len(names)} images are not of one shape and dtype:{described}\n"
        f"{_remedy([layout for layout, _, _ in ranked], ranked[0][2][0], kinds.headers[0].format)}"
    )
    error.counts = kinds.counts()
    raise error


def _remedy(layouts: list[Layout], name: str, format: str) -> str:
    """Name the options that would accept the images; the most frequent kind comes first."""
    (shape, dtype), *_ = layouts
    options = []
    if len({shape[2:] for shape, _ in layouts}) > 1 or len({dtype for _, dtype in layouts}) > 1:
        options.append(_option_for_all_values(layouts))
    if len({shape[:2] for shape, _ in layouts}) > 1:
        options.append(f"shape={shape[:2]}")
    if None in options:
        if format == "zarr":
            return f"Open the images of one well or field: open_stack({name.partition('[')[0]!r})"
        (other_shape, _) = layouts[1]
        test = f"shape[1:] == {shape}" if shape != other_shape else f"dtype == {str(dtype)!r}"
        return f"Give the files of one kind as a list: open_stack([f for f in files if open_stack(f).{test}])"
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
