"""Plots as SVG in the colours of the page, and pictures as data URIs."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup

__all__ = ["picture_uri", "svg_of"]

# Text and axes are drawn in this colour, which nothing else has. The page replaces it by the reader's colour of text,
# which is light or dark.
_INK = "#010203"
_PAGE_COLOURS = {
    _INK: "currentColor",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--vermilion)",
    "#009e73": "var(--green)",
    "#888888": "var(--grey)",
    "#cc3311": "var(--red)",
}
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    "svg.fonttype": "none",  # text stays text, which can be searched and read aloud
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.dpi": 100,
}
_SMALL_PNG = 24_000  # bytes; a larger picture is stored as JPEG, whose losses are not visible at this size


def svg_of(draw: Callable[[Any], Any], size: tuple[float, float], *, title: str, salt: str) -> Markup:
    """Draw a plot as SVG, without pyplot.

    Parameters
    ----------
    draw : callable
        Draws into the axes that it is called with.
    size : (float, float)
        Width and height in inches.
    title : str
        What the plot shows, for those who cannot see it.
    salt : str
        Makes the identifiers in this SVG differ from those of other plots on the page.

    Returns
    -------
    Markup
        An ``<svg>`` element without a fixed size.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the fonts of the reader's browser draw the text
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), title)


def picture_uri(pixels: np.ndarray) -> str:
    """Encode a picture, (height, width, 3 or 4) uint8, as a data URI for an ``<img>``; JPEG has no alpha channel."""
    from PIL import Image

    image, data = Image.fromarray(pixels), io.BytesIO()
    kind = "png"
    image.save(data, format="PNG", optimize=True)
    if data.tell() > _SMALL_PNG and pixels.shape[2] == 3:
        kind, data = "jpeg", io.BytesIO()
        image.save(data, format="JPEG", quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"


def _inline(svg: str, title: str) -> Markup:
    """Make an SVG file part of a page: without prologue, fixed size, and identifiers that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub('style="[^"]*"', lambda found: _in_page_colours(found[0]), svg)
    head, body = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    escaped = Markup.escape(title)
    return Markup(f'{head} role="img" aria-label="{escaped}">{body}')


def _in_page_colours(style: str) -> str:
    """Replace colours by the variables of the page's style sheet, which has a light and a dark scheme."""
    for colour, replacement in _PAGE_COLOURS.items():
        style = style.replace(colour, replacement)
    return style
