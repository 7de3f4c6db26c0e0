"""What the headers of many files say together: one shape and dtype, or which files differ."""

import hashlib
import itertools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from timeit import default_timer
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..errors import BadImageError, MixedStackError
from .convert import Policy
from .formats.base import Header
from .formats.registry import Key, find_images
from .locations.faults import naming_the_file
from .locations.open import State, read_state

__all__ = ["Kinds", "Scan", "Summary", "fingerprint", "scan"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Headers on a warm local disk are read faster by one thread than by several, which wait for each other; threads pay
# where a file is waited for: a cold disk, a network, an object store. Which it is, the first few files tell.
_N_PROBES = 32
_SLOW = 1e-3  # seconds a file
_N_THREADS = 32


class Summary(NamedTuple):
    """Images of a stack, counted.

    Attributes
    ----------
    counts : tuple of (Header, int)
        Shape, dtype, format and mode, and the number of images like that, the most frequent first.
    n_problems : int
        Number of files left out.
    """

    counts: tuple[tuple[Header, int], ...]
    n_problems: int

    def __repr__(self) -> str:
        lines = [f"{sum(count for _, count in self.counts):,} images"]
        for header, count in self.counts:
            lines.append(f"  {count:>9,}  {header.format:<8} {header.mode:<8} {header.shape}, {header.dtype}")
        if self.n_problems:
            lines.append(f"  {self.n_problems:>9,}  left out, see .problems")
        return "\n".join(lines)


class Kinds(NamedTuple):
    """The different headers of a stack, and for each image the number of its own."""

    headers: tuple[Header, ...]
    numbers: np.ndarray

    def summary(self, n_problems: int) -> Summary:
        """Count the images of each kind."""
        counts = np.bincount(self.numbers, minlength=len(self.headers)).tolist()
        found = [(header, count) for header, count in zip(self.headers, counts, strict=True) if count]
        return Summary(tuple(sorted(found, key=lambda pair: -pair[1])), n_problems)

    def select(self, positions: np.ndarray) -> "Kinds":
        """Select images."""
        return Kinds(self.headers, self.numbers[positions])


class Scan(NamedTuple):
    """What the headers of many files say together.

    Attributes
    ----------
    names : tuple of str
        A name for each image: its file, and ``file[i]`` where the file has several.
    keys : tuple or None
        What tells a reader where each image is; None where that is its name.
    files : tuple of str
        The file of each image.
    shape : tuple of int
        Shape of every image once the policy is applied.
    dtype : numpy.dtype
    kinds : Kinds
    problems : tuple of (str, str)
        Path and reason of each file left out.
    fingerprint : str
        Changes when a file's size or time of modification does.
    """

    names: tuple[str, ...]
    keys: tuple[Key, ...] | None
    files: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    kinds: Kinds
    problems: tuple[tuple[str, str], ...]
    fingerprint: str


class _File(NamedTuple):
    """A file that was scanned: its images, or what is wrong with it."""

    name: str
    state: State
    images: tuple[tuple[Key, Header], ...]
    problem: BadImageError | None


def scan(files: Sequence[str], policy: Policy | None = None, *, on_error: str = "raise") -> Scan:
    """Read the headers of all files and check that the images are of one shape and dtype.

    Parameters
    ----------
    files : sequence of str
    policy : Policy, optional
        What will be done to the images.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file whose header cannot be read raises, or is left out with a warning.

    Returns
    -------
    Scan

    Raises
    ------
    BadImageError
        A header cannot be read (with ``on_error="skip"``: none of them can).
    MixedStackError
        The images differ in shape or dtype.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} is not known; it is 'raise' or 'skip'")
    policy = policy or Policy()
    layout_of = _Layouts(policy)

    def look(name: str) -> _File:
        try:
            with naming_the_file(name):
                state = read_state(name)
                images = find_images(name, state, policy.max_pixels)
                for _, header in images:
                    layout_of(header)
        except BadImageError as error:
            if on_error == "raise":
                raise
            return _File(name, State(0, 0), (), error)
        return _File(name, state, images, None)

    unique = dict.fromkeys(files)
    found = dict(zip(unique, _map(look, unique), strict=True))
    bad = {name: file.problem.reason for name, file in found.items() if file.problem is not None}
    kept = [found[name] for name in files if name not in bad]
    _report_unreadable(bad, len(kept))
    return _combined(kept, layout_of, tuple(bad.items()))


def fingerprint(files: Sequence[str]) -> str:
    """Return a short text that changes when a file's size or time of modification does."""
    states = []
    for path in files:
        with naming_the_file(path):
            states.append(read_state(path))
    return _digest(states)


class _Layouts:
    """Shape and dtype after a policy, worked out once for each kind of header."""

    def __init__(self, policy: Policy):
        self.policy = policy
        self._known: dict[Header, tuple[tuple[int, ...], np.dtype]] = {}

    def __call__(self, header: Header) -> tuple[tuple[int, ...], np.dtype]:
        found = self._known.get(header)
        if found is None:
            found = self._known[header] = self.policy.layout(header.shape, header.dtype)
        return found


def _map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in order, by threads if the first items are waited for."""
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


def _combined(files: list[_File], layout_of: _Layouts, problems: tuple[tuple[str, str], ...]) -> Scan:
    names: list[str] = []
    keys: list[Key] = []
    sources: list[str] = []
    numbers: list[int] = []
    kinds: dict[Header, int] = {}
    for file in files:
        several = len(file.images) > 1
        for i, (key, header) in enumerate(file.images):
            names.append(f"{file.name}[{i}]" if several else file.name)
            keys.append(key)
            sources.append(file.name)
            numbers.append(kinds.setdefault(header, len(kinds)))
    found = Kinds(tuple(kinds), np.array(numbers, dtype=np.uint32))
    shape, dtype = _one_layout(names, found, layout_of)
    same = all(map(str.__eq__, names, keys)) if all(type(key) is str for key in keys) else False
    states = _digest([file.state for file in files])
    return Scan(tuple(names), None if same else tuple(keys), tuple(sources), shape, dtype, found, problems, states)


def _digest(states: Any) -> str:
    return hashlib.sha256(repr([tuple(state) for state in states]).encode()).hexdigest()[:16]


def _report_unreadable(problems: dict[str, str], n_kept: int) -> None:
    if problems and not n_kept:
        path, reason = next(iter(problems.items()))
        raise BadImageError(path, f"{reason} (nor can any of the {len(problems)} files given)")
    if problems:
        warnings.warn(
            f"{len(problems)} of {len(problems) + n_kept} files cannot be read as images and are left out; "
            "they are listed in .problems",
            UserWarning,
            stacklevel=6,
        )


def _one_layout(names: list[str], kinds: Kinds, layout_of: _Layouts) -> tuple[tuple[int, ...], np.dtype]:
    """Check that all images come out alike."""
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


def _remedy(layouts: list[tuple[tuple[int, ...], np.dtype]]) -> str:
    """Name the options that would accept the images; the most frequent kind comes first."""
    (shape, dtype), *_ = layouts
    options = []
    if len({shape[2:] for shape, _ in layouts}) > 1 or len({dtype for _, dtype in layouts}) > 1:
        options.append(_remedy_for_modes(layouts))
    if len({shape[:2] for shape, _ in layouts}) > 1:
        options.append(f"shape={shape[:2]}")
    if None in options:
        (other_shape, _) = layouts[1]
        test = f"shape == {shape}" if shape != other_shape else f"dtype == {str(dtype)!r}"
        return f"Give the files of one kind as a list: open_stack([f for f in files if skimage.io.imread(f).{test}])"
    return f"To bring them to one kind: open_stack(..., {', '.join(map(str, options))})"


def _remedy_for_modes(layouts: list[tuple[tuple[int, ...], np.dtype]]) -> str | None:
    """Find an option that holds all of the values: the mode of most images if it does."""
    candidates = [Policy(mode=mode) for mode in ("RGB", "L", "F")]
    (shape, _), *_ = layouts
    if len(shape) == 2:
        candidates = candidates[1:]
    if len({shape[2:] for shape, _ in layouts}) == 1:
        candidates = [*(Policy(dtype=dtype) for dtype in ("uint16", "float32", "float64"))]
    for policy in candidates:
        try:
            for layout in layouts:
                policy.layout(*layout)
        except ValueError:
            continue
        return f"mode={policy.mode!r}" if policy.mode else f"dtype={policy.dtype!r}"
    return None
