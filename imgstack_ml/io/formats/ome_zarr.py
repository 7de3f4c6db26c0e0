"""OME-Zarr: which array of a zarr group is the image, and what its axes are.

The libraries for it need web servers and clients of object stores, which reading these few attributes does not.
"""

import os
from typing import Any

import zarr

__all__ = ["full_resolution"]


def full_resolution(group: zarr.Group, path: str) -> tuple[str, list[str]]:
    """Return the name of the full-resolution array of a group, and the names of its axes.

    Versions 0.1 to 0.5 of OME-Zarr have them in four different places.

    Raises
    ------
    ValueError
        The group is no OME-Zarr image.
    """
    attributes: dict[str, Any] = dict(group.attrs)
    described: Any = attributes.get("ome", attributes)
    images = described.get("multiscales") if isinstance(described, dict) else None
    if not images:
        names = sorted(name for name, _ in group.members())
        example = f"open_stack({os.path.join(path, names[0])!r})" if names else "none"
        raise ValueError(f"it is a zarr group without an OME-Zarr image; it holds {names[:5]}. Give one: {example}")
    axes = images[0].get("axes") or ["t", "c", "z", "y", "x"]
    return images[0]["datasets"][0]["path"], [axis if isinstance(axis, str) else axis["name"] for axis in axes]
