"""Selection of images and channels by the names of axes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Select", "Selection", "described", "select_channels", "select_images"]

#: Which images and channels to take: a name, a position, a slice, or a list of names or positions, for each axis.
Select = Mapping[str, Any]


class Selection(NamedTuple):
    """Images by their positions in a file or array, and where each of them is along the axes that are left."""

    positions: np.ndarray
    coords: dict[str, np.ndarray]


def select_images(axes: Sequence[str], sizes: Sequence[int], names: Sequence[str], select: Select) -> Selection:
    """Select images by the axes that count them.

    Parameters
    ----------
    axes : sequence of str
        Names of the axes that count images, the last one fastest.
    sizes : sequence of int
    names : sequence of str
        Names of the channels, where ``"c"`` is one of these axes.
    select : Select
        Its other axes are left to `select_channels`.

    Raises
    ------
    ValueError
        A position or a name that there is not.
    """
    if twice := [axis for axis in select if list(axes).count(axis) > 1]:
        raise ValueError(
            f"it has {list(axes).count(twice[0])} axes {described(twice[0])}, and it is not clear which is meant. Name "
            "all of its axes, e.g. axes='tzyx', or select from the stack: open_stack(path)[positions]"
        )
    chosen = [
        _positions(axis, size, names if axis == "c" else (), select.get(axis, slice(None)))
        for axis, size in zip(axes, sizes, strict=True)
    ]
    grid = np.arange(math.prod(sizes)).reshape(tuple(sizes))
    positions = grid[np.ix_(*map(np.atleast_1d, chosen))].ravel() if chosen else grid.ravel()
    places = np.unravel_index(positions, tuple(sizes)) if chosen else ()
    kept = {axis: place for axis, place, numbers in zip(axes, places, chosen, strict=True) if np.ndim(numbers)}
    return Selection(positions, kept)


def select_channels(
    axes: Sequence[str], n_channels: int, names: Sequence[str], select: Select
) -> tuple[int, ...] | None:
    """Return the positions of the channels that are selected within an image; None for all of them.

    Raises
    ------
    ValueError
        `select` names an axis, a channel or a position that there is not.
    """
    known = [*axes, *(["c"] if n_channels and "c" not in axes else [])]
    if unknown := [axis for axis in select if axis not in known]:
        has = ", ".join(dict.fromkeys(map(described, known))) or "none that have names but y and x"
        raise ValueError(f"it has no axis {unknown[0]!r} to select from; there are {has}. To name them: axes='tyx'")
    if "c" in axes or "c" not in select:
        return None
    return tuple(np.atleast_1d(_positions("c", n_channels, names, select["c"])).tolist())


def described(axis: str) -> str:
    """Name an axis, and say what the letters mean that tifffile gives to axes of which a file does not say it."""
    meaning = {"q": "an axis that the file does not name", "i": "planes in the order of the file"}.get(axis)
    return f"{axis!r} ({meaning})" if meaning else repr(axis)


def _positions(axis: str, size: int, names: Sequence[str], choice: Any) -> Any:
    """Return an array of positions; a single one, for a name or an int, is of no axis."""
    if isinstance(choice, slice):
        found = np.arange(size)[choice]
    elif isinstance(choice, Sequence | np.ndarray) and not isinstance(choice, str):
        found = np.array([_position(axis, size, names, one) for one in choice], dtype=int)
    else:
        return np.array(_position(axis, size, names, choice))
    if not found.size:
        raise ValueError(f"select={{{axis!r}: {choice!r}}} selects nothing of {size}")
    return found


def _position(axis: str, size: int, names: Sequence[str], choice: Any) -> int:
    if isinstance(choice, str):
        if list(names).count(choice) == 1:
            return list(names).index(choice)
        what = "more than once" if choice in names else "not"
        known = f"they are {', '.join(map(repr, names))}" if names else f"none has one; give positions up to {size - 1}"
        raise ValueError(f"{choice!r} is {what} among the names along its axis {described(axis)}: {known}")
    if isinstance(choice, bool) or not isinstance(choice, int | np.integer):
        raise TypeError(f"select={{{axis!r}: {choice!r}}} is no name, position, slice or list of these")
    if not -size <= choice < size:
        raise ValueError(
            f"there is no position {choice} along its axis {described(axis)} of {size}, from 0 to {size - 1}"
        )
    return int(choice) % size
