"""The axes of a stored array: which count images, and which are y, x and channels of an image."""

import os
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["axis_names_of", "letter_of", "order_of_axes"]

_ROLES = {
    **dict.fromkeys(("y", "lat", "latitude", "row", "rows", "height"), "y"),
    **dict.fromkeys(("x", "lon", "longitude", "column", "columns", "col", "cols", "width"), "x"),
    **dict.fromkeys(("c", "ch", "channel", "channels", "band", "bands", "rgb", "rgba", "color", "colour"), "c"),
}
_LETTERS = {
    **dict.fromkeys(("time", "frame", "frames", "timepoint"), "t"),
    **dict.fromkeys(("depth", "slice", "slices", "plane", "planes"), "z"),
    **dict.fromkeys(("scene", "series"), "s"),
    **dict.fromkeys(("pos", "position", "positions"), "p"),
}
_NO_NAME = re.compile(r"|(phony_)?(dim|axis)_?\d+")  # those that xarray and netCDF give to axes without a name


def order_of_axes(shape: tuple[int, ...], names: Sequence[str | None] | None) -> tuple[int, tuple[int, ...]]:
    """Order axes as images, y, x and channels: by their names, or by position where they have none.

    Parameters
    ----------
    shape : tuple of int
    names : sequence of (str or None), or None

    Returns
    -------
    n_counting : int
        How many axes count images.
    axes : tuple of int
        These first, then those of an image.

    Raises
    ------
    ValueError
        The names do not say which axes are y and x, or the shape is not that of a stack.
    """
    names = [None if not name or _NO_NAME.fullmatch(name.lower()) else name for name in names or [None] * len(shape)]
    if len(names) != len(shape):
        raise ValueError(f"it names {len(names)} axes, {names}, and its shape {shape} has {len(shape)}")
    roles = [name and _ROLES.get(name.lower(), "image") for name in names]
    if None not in roles and roles.count("y") == roles.count("x") == 1 and roles.count("c") <= 1:
        counting = [axis for axis, role in enumerate(roles) if role == "image"]
        return len(counting), (*counting, *(roles.index(role) for role in "yxc" if role in roles))
    by_position = ("image", "y", "x", "c")[: len(shape)]
    if len(shape) not in (3, 4):
        raise ValueError(
            f"it is of shape {shape}; a stack is of shape (n_images, height, width) or (n_images, height, width, "
            "n_channels). Reshape it first"
        )
    if any(role not in (None, expected) for role, expected in zip(roles, by_position, strict=True)):
        raise ValueError(
            f"its axes are named {tuple(names)}, and it is not clear which are y, x and channels. Rename them, e.g. to "
            f"{('time', 'y', 'x', 'channel')[: len(shape)]}. To go by position, give the array itself to an estimator: "
            "dask.array.from_zarr(path), dask.array.from_array(data_set)"
        )
    return 1, tuple(range(len(shape)))


def letter_of(name: str | None) -> str:
    """Return the letter of an axis that counts images: t, z, s (scene) or p (position); of others, their name."""
    name = name or ""
    return "" if _NO_NAME.fullmatch(name.lower()) else _LETTERS.get(name.lower(), name.lower())


def axis_names_of(array: Any) -> Sequence[str | None] | None:
    """Return the names that a zarr array has for its axes, or the labels or scales of an HDF5 data set; or None."""
    metadata = getattr(array, "metadata", None)
    attributes = getattr(array, "attrs", {})
    if "MATLAB_class" in attributes and len(array.shape) in (2, 3, 4):  # its axes come in reversed order
        return {2: ("x", "y"), 3: ("image", "x", "y"), 4: ("image", "c", "x", "y")}[len(array.shape)]
    if metadata is not None:
        names = getattr(metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    else:
        scales = getattr(array, "dims", None) or ()
        names = [axis.label or (os.path.basename(axis[0].name or "") if len(axis) else "") for axis in scales]
    return names or None
