"""Pixel maps of X11 (XPM): the strings of a program in C. Pillow reads them line by line, older versions wrongly."""

import re

import numpy as np

from .base import ImageFormat, ImageSeries

__all__ = ["Xpm"]

_COLOUR = re.compile(rb"\sc\s+(?:#([0-9a-f]{6}|[0-9a-f]{12})|none)(?:\s|$)", re.IGNORECASE)


class Xpm(ImageFormat):
    """XPM 3 whose colours are given by numbers, of 8 or 16 bits a channel, or none, which is transparent."""

    name, suffixes, beside_pictures = "XPM", (".xpm",), False

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like an XPM."""
        return head.startswith(b"/* XPM */")

    def list_images(self) -> list[ImageSeries]:
        """List the image, after checking that all of its strings are there."""
        self.source.file.seek(0)
        sizes, *strings = re.findall(rb'^[^"\n]*"([^"\n]*)"', self.source.file.read(), re.MULTILINE) or [b""]
        found = re.match(rb"\s*([1-9]\d*)\s+([1-9]\d*)\s+([1-9]\d*)\s+([1-9]\d*)", sizes)
        width, height, n_colours, n_bytes = map(int, found.groups()) if found else (0, 0, 0, 0)
        colours, rows = strings[:n_colours], strings[n_colours : n_colours + height]
        is_whole = len(rows) == height and all(len(row) == width * n_bytes for row in rows)
        if not found or not is_whole or any(len(colour) < n_bytes for colour in colours):
            raise ValueError(f"it lacks parts of its {n_colours} colours or {height} rows: it was cut, or is damaged")
        self._names = np.array([colour[:n_bytes] for colour in colours], f"S{n_bytes}")
        self._colours = np.array([_colour(colour[n_bytes:]) for colour in colours], np.uint8)
        self._pixels = np.frombuffer(b"".join(rows), f"S{n_bytes}").reshape(height, width)
        n_channels = 4 if (self._colours[:, 3] == 0).any() else 3
        return [ImageSeries((height, width, n_channels), self._colours.dtype)]

    def read(self, key: None, out: np.ndarray) -> None:
        """Look up the colours of the pixels."""
        order = np.argsort(self._names)
        found = order[np.searchsorted(self._names, self._pixels, sorter=order) % len(order)]
        if (self._names[found] != self._pixels).any():
            raise ValueError("a pixel has a colour that is not in its table: it is damaged")
        out[...] = self._colours[found, : out.shape[2]]


def _colour(text: bytes) -> tuple[int, ...]:
    match = _COLOUR.search(text)
    if match is None:
        raise ValueError(f"its colour {text!r} is none of numbers such as 'c #ff8000', which are read; save it as PNG")
    if match[1] is None:
        return 0, 0, 0, 0
    step = len(match[1]) // 3  # of each channel, the upper 8 bits
    return *(int(match[1][i : i + 2], 16) for i in range(0, 3 * step, step)), 255
