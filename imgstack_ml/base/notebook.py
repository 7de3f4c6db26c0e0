"""What a notebook shows: tables, and small pictures. The notebook's own style gives them their colours."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["picture", "reduce_image", "table"]

_COLOUR = "color:inherit"  # that of the text around it; themes make captions pale, in the dark unreadable
_CELL = "text-align:left;vertical-align:top"


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str] = (), caption: str = "") -> str:
    """Write rows of text as an HTML table; the first text of a row is its name."""
    head = "".join(f'<th scope="col" style="{_CELL}">{html.escape(text)}</th>' for text in header)
    lines = [f"<thead><tr>{head}</tr></thead>"] if head else []
    for name, *texts in rows:
        cells = "".join(f'<td style="{_CELL}">{html.escape(text)}</td>' for text in texts)
        lines.append(f'<tr><th scope="row" style="{_CELL}">{html.escape(name)}</th>{cells}</tr>')
    style = f"{_CELL};{_COLOUR};font-weight:bold"
    title = f'<caption style="{style}">{html.escape(caption)}</caption>' if caption else ""
    return f"<table>{title}{''.join(lines)}</table>"


def picture(pixels: np.ndarray, caption: str, side: int) -> str:
    """Write pixels, (height, width) or (height, width, 3) uint8, as an HTML figure of that longest side."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    scale = side / max(pixels.shape[:2])
    width = max(1, round(pixels.shape[1] * scale))
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    rendering = "pixelated" if scale >= 2 else "auto"
    style = f"width:{width}px;max-width:100%;height:auto;image-rendering:{rendering};display:block"
    text = html.escape(caption)
    outer = f"display:inline-block;vertical-align:top;margin:0 8px 8px 0;max-width:100%;width:{max(width, 96)}px"
    label = f'<figcaption style="{_COLOUR};font-size:smaller;overflow-wrap:anywhere">{text}</figcaption>'
    return f'<figure style="{outer}"><img src="{uri}" alt="{text}" style="{style}">{label}</figure>'


def reduce_image(image: np.ndarray, side: int) -> np.ndarray:
    """Reduce an image (height, width[, n_channels]) to at most `side` pixels a side, by means of squares."""
    step = -(-max(image.shape[:2]) // side)
    height, width = (max(1, size // step) for size in image.shape[:2])
    rows, columns = (min(step, size) for size in image.shape[:2])
    whole = image[: height * rows, : width * columns]
    means = np.nan_to_num(whole.reshape(height, rows, width, columns, -1).mean(axis=(1, 3), dtype=np.float64))
    reduced: np.ndarray = means.reshape(height, width, *image.shape[2:])
    return reduced
