"""OME-Zarr: which array of a zarr group is the image, and what its axes are.

The libraries for it need web servers and clients of object stores, which reading these few attributes does not.
"""

import os
from collections.abc import Iterator
from typing import Any

import zarr

from .base import check_level
from .store import check_within, is_zarr

__all__ = ["axis_names_within", "channel_names_of", "image_of", "images_of_well", "wells_of"]


def image_of(group: zarr.Group, path: str, level: int = 0) -> tuple[str, list[str]]:
    """Return the name of the array of a group that is a level of its pyramid, and the names of its axes.

    Versions 0.1 to 0.5 of OME-Zarr have them in four different places.

    Raises
    ------
    ValueError
        The group is no OME-Zarr image, it has no such level, or its array lies outside of it.
    """
    images = _images(group)
    if not images:
        members = sorted(group.members(), key=lambda member: (getattr(member[1], "ndim", 0) < 3, member[0]))
        names = [name for name, _ in members]  # coordinates of a stack, as xarray writes them, stand behind it
        example = f"open_stack({os.path.join(path, names[0])!r})" if names else "none"
        raise ValueError(f"it is a zarr group without an OME-Zarr image; it holds {names[:5]}. Give one: {example}")
    name, *others = dict.fromkeys(image["datasets"][0]["path"] for image in images)
    if others:
        raise ValueError(
            f"it holds {1 + len(others)} OME-Zarr images, {[name, *others]}. Give one: "
            f"open_stack({os.path.join(path, name)!r})"
        )
    levels = [data_set["path"] for data_set in images[0]["datasets"]]
    if level >= len(levels):
        check_level(level, [getattr(group.get(one), "shape", ()) for one in levels])
    name = levels[level]
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f"its image lies outside of it, at {name!r}, where it is not read")
    return name, _axis_names(images[0])


def wells_of(path: str) -> tuple[str, list[str]] | None:
    """Return the wells of a plate, or one of no name for a well, or for the images of a file that Bio-Formats wrote.

    Returns
    -------
    axis : {"p", "s"}
        Counts the images of a well, or else scenes.
    wells : list of str
        Their paths within the folder; None where it is no such group.
    """
    described = _attributes(path)
    if "plate" in described:
        return "p", [str(well["path"]) for well in described["plate"].get("wells") or ()]
    if "well" in described:
        return "p", [""]
    return ("s", [""]) if "bioformats2raw.layout" in described else None


def images_of_well(path: str, well: str) -> list[str]:
    """Return the paths, within the folder, of the images of a well that `wells_of` gives.

    Raises
    ------
    ValueError, OSError
        It is no well, or it lies outside of the folder.
    """
    place = os.path.join(path, well)
    check_within(place, os.path.realpath(path))
    described = _attributes(place)
    if "well" in described:
        names = [str(image["path"]) for image in described["well"].get("images") or ()]
    elif well:
        raise ValueError("it is a well of a plate, and has no description of one")
    else:
        names = list(_scenes(path))
    for name in names:
        check_within(os.path.join(place, name), os.path.realpath(path))
    return [os.path.join(well, name) for name in names]


def _scenes(path: str) -> Iterator[str]:
    """Yield the names of the images that Bio-Formats wrote: those that it lists, or else groups 0, 1 and so on."""
    about = os.path.join(path, "OME")
    if is_zarr(about) and (listed := _attributes(about).get("series")):
        yield from map(str, listed)
        return
    number = 0
    while os.path.isdir(os.path.join(path, str(number))):
        yield str(number)
        number += 1


def channel_names_of(group: zarr.Group) -> tuple[str, ...]:
    """Return the names of the channels of an image; empty where it does not name all of them."""
    attributes: dict[str, Any] = dict(group.attrs)
    shown = attributes.get("ome", attributes).get("omero") or {}
    names = [channel.get("label") for channel in shown.get("channels") or []]
    return tuple(map(str, names)) if all(names) else ()


def axis_names_within(path: str) -> list[str] | None:
    """Return the axes that an OME-Zarr group gives to the array at `path` within it; None where there is none."""
    parent, name = os.path.split(path)
    while name and any(os.path.exists(os.path.join(parent, file)) for file in (".zgroup", "zarr.json")):
        for image in _images(zarr.open_group(parent, mode="r")):
            if os.path.relpath(path, parent) in [data_set["path"] for data_set in image["datasets"]]:
                return _axis_names(image)
        parent, name = os.path.split(parent)
    return None


def _images(group: zarr.Group) -> list[dict[str, Any]]:
    return _described(group).get("multiscales") or []


def _attributes(path: str) -> dict[str, Any]:
    node = zarr.open(path, mode="r")
    return _described(node) if isinstance(node, zarr.Group) else {}


def _described(group: zarr.Group) -> dict[str, Any]:
    """Return what OME-Zarr says of a group; version 0.5 has it under a name of its own."""
    attributes: dict[str, Any] = dict(group.attrs)
    described: Any = attributes.get("ome", attributes)
    return described if isinstance(described, dict) else {}


def _axis_names(image: dict[str, Any]) -> list[str]:
    axes = image.get("axes") or ["t", "c", "z", "y", "x"]
    # A channel may have any name.
    return [axis if isinstance(axis, str) else "c" if axis.get("type") == "channel" else axis["name"] for axis in axes]
