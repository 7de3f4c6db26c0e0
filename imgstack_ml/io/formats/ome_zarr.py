"""OME-Zarr: which array of a zarr group is the image, and what its axes are.

The libraries for it need web servers and clients of object stores, which reading these few attributes does not.
"""

import os
from typing import Any

import zarr

__all__ = ["axis_names_within", "channel_names_of", "full_resolution"]


def full_resolution(group: zarr.Group, path: str) -> tuple[str, list[str]]:
    """Return the name of the full-resolution array of a group, and the names of its axes.

    Versions 0.1 to 0.5 of OME-Zarr have them in four different places.

    Raises
    ------
    ValueError
        The group is no OME-Zarr image, or its array lies outside of it.
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
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f"its image lies outside of it, at {name!r}, where it is not read")
    return name, _axis_names(images[0])


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
    attributes: dict[str, Any] = dict(group.attrs)
    described: Any = attributes.get("ome", attributes)
    return (described.get("multiscales") if isinstance(described, dict) else None) or []


def _axis_names(image: dict[str, Any]) -> list[str]:
    axes = image.get("axes") or ["t", "c", "z", "y", "x"]
    # A channel may have any name.
    return [axis if isinstance(axis, str) else "c" if axis.get("type") == "channel" else axis["name"] for axis in axes]
