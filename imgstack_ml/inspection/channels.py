"""Which channels of an image are drawn, in how many pictures, and in which colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..base.channels import are_colours, numbered_names
from .pictures import Picture, common_limits, plain_picture

__all__ = [
    "MAX_PICTURES",
    "Panel",
    "channel_positions",
    "check_names",
    "choose_panels",
    "composite_key",
    "whole_pictures",
]

# In which channels of a composite are added up, in ImageJ's order: the first three are those of a colour picture.
_COMPOSITE = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "grey": (1.0, 1.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "magenta": (1.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
}
MAX_PICTURES = 256  # of one Display; each takes 20 ms to draw


class Panel(NamedTuple):
    """One picture of an image.

    Attributes
    ----------
    name : str
        Of the channel; empty where the picture shows the whole image.
    positions : tuple of int or None
        Channels that it shows; None for images without an axis of channels.
    colours : ndarray of shape (len(positions), 3) or None
        Of the channels of a composite, red, green and blue from 0 to 1; None for grey and for colour pictures.
    """

    name: str
    positions: tuple[int, ...] | None = None
    colours: np.ndarray | None = None

    def of(self, images: np.ndarray) -> np.ndarray:
        """Return what it shows of images (..., height, width[, n_channels]): without an axis of channels where grey."""
        if self.positions is None:
            return images
        if len(self.positions) == 1 and self.colours is None:
            return images[..., self.positions[0]]
        return images[..., list(self.positions)]


def check_names(names: Sequence[str] | None, image_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return a name for each channel of images of a shape; numbers if `names` is None or empty.

    Raises
    ------
    ValueError
        There are not as many names as channels.
    """
    n_channels = image_shape[2] if len(image_shape) == 3 else 1
    if names is None or not len(names):
        return numbered_names(n_channels)
    if isinstance(names, str) or len(names) != n_channels:
        raise ValueError(f"channel_names={names!r} must be a name for each of the {n_channels} channels")
    return tuple(map(str, names))


def choose_panels(
    image_shape: tuple[int, ...],
    names: tuple[str, ...],
    channels: Sequence[int | str] | None = None,
    *,
    composite: bool = False,
) -> list[Panel]:
    """Choose the pictures of an image.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width[, n_channels]).
    names : tuple of str
        Of all channels. Those named red, green and blue (and alpha, which is not shown) make one picture in colour.
    channels : sequence of int or str, optional
        Names or positions of the channels to show, a picture each; all if None.
    composite : bool
        Show them in one picture, each in a colour of its own.

    Returns
    -------
    panels : list of Panel

    Raises
    ------
    ValueError
        For a channel that is not there.
    """
    if len(image_shape) == 2:
        if channels is not None:
            raise ValueError(f"channels={channels!r}: images of shape {image_shape} have no channels to choose from")
        return [Panel("")]
    if channels is None and are_colours(names):
        return [Panel("", (0, 1, 2))]
    positions = tuple(range(image_shape[2])) if channels is None else channel_positions(channels, names)
    if composite and len(positions) > 1:
        return [Panel("composite", positions, _colours(len(positions)))]
    return [Panel(names[i] if image_shape[2] > 1 else "", (i,)) for i in positions]


def whole_pictures(images: Sequence[np.ndarray], names: Sequence[str] | None = None) -> list[Picture]:
    """Draw images of one shape, a picture each, on one scale: grey, in colour, or a composite of their channels."""
    shape = images[0].shape
    known = check_names(names if len(shape) == 3 and names and len(names) == shape[2] else None, shape)
    panel = choose_panels(shape, known, composite=True)[0]
    shown = [panel.of(image) for image in images]
    limits = common_limits(np.ma.stack(shown), panel.colours)
    return [plain_picture(image, limits, panel.colours) for image in shown]


def composite_key(panel: Panel, names: tuple[str, ...]) -> list[tuple[str, tuple[float, ...]]]:
    """Return name and colour of each channel of a composite; empty for other pictures."""
    if panel.colours is None or panel.positions is None:
        return []
    return [(names[i], tuple(colour)) for i, colour in zip(panel.positions, panel.colours.tolist(), strict=True)]


def _colours(n_channels: int) -> np.ndarray:
    colours = list(_COMPOSITE.values())
    return np.array([colours[i % len(colours)] for i in range(n_channels)])


def channel_positions(channels: Sequence[int | str], names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the positions of channels, given by name or position; raise ValueError for one that is not there."""
    if isinstance(channels, str) or not len(channels):
        raise ValueError(f"channels={channels!r} must be a list of names or positions, e.g. channels={list(names[:2])}")
    found = []
    for channel in channels:
        position = names.index(channel) if channel in names else channel
        if isinstance(position, str) or not 0 <= position < len(names):
            raise ValueError(f"channels={channels!r}: there is no channel {channel!r}; there are {', '.join(names)}")
        found.append(int(position))
    return tuple(found)
