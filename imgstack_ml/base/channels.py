"""Names of the channels of images, and which of them are colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from .lazy import has_new_channels, samples_of

__all__ = ["RGB", "are_colours", "are_known", "channel_names_of", "colour_names", "numbered_names"]

RGB = ("red", "green", "blue")


def numbered_names(n_channels: int) -> tuple[str, ...]:
    """Names of channels of which nothing is known, ``c0``, ``c1`` and so on."""
    return tuple(f"c{number}" for number in range(n_channels))


def colour_names(n_channels: int) -> tuple[str, ...]:
    """Names of the channels of a picture in colour, or of a grey one with transparency."""
    return {2: ("grey", "alpha"), 3: RGB, 4: (*RGB, "alpha")}.get(n_channels, ())


def are_colours(names: tuple[str, ...]) -> bool:
    """Whether channels of these names are the colours of a picture, the fourth its transparency."""
    return names in (RGB, (*RGB, "alpha"))


def are_known(names: tuple[str, ...]) -> bool:
    """Whether channels have names, and no mere numbers."""
    return bool(names) and names != numbered_names(len(names))


def channel_names_of(X: Any, image_shape: tuple[int, ...], dtype: np.dtype) -> tuple[str, ...]:
    """Return the names of the channels of images, without reading any.

    They are those of the files, or of xarray's coordinate ``channel``, also for lazy arrays that are computed from
    these. Else three channels of uint8 are a picture in colour, as Pillow's modes have it, and others are numbered.

    Parameters
    ----------
    X : object
        An ImageStack, or an array.
    image_shape : tuple of int
        (height, width[, n_channels]), or (n_features,), whose values are no channels.
    dtype : numpy.dtype

    Returns
    -------
    names : tuple of str
        One for each channel. Of grey images, the name of the channel where it is known; else none.
    """
    if len(image_shape) < 2:
        return ()
    n_channels = image_shape[2] if len(image_shape) == 3 else 1
    samples: Any = X
    if not hasattr(X, "known_channels") and not hasattr(X, "coords"):
        samples = None if has_new_channels(X) else samples_of(X)
    names = getattr(samples, "known_channels", ())
    if "channel" in getattr(samples, "coords", {}):  # of xarray
        names = tuple(map(str, np.atleast_1d(samples.coords["channel"].values)))
    if len(names) == n_channels:
        return tuple(names)
    if len(image_shape) == 2:
        return ()
    return RGB if n_channels == 3 and dtype == np.uint8 else numbered_names(n_channels)
