"""The small pictures of the page: images of alerts, eigenimages, reconstructions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..inspection.channels import MAX_PICTURES, Panel, check_names, choose_panels, whole_pictures
from ..inspection.pictures import (
    Picture,
    colours_of,
    common_limits,
    component_title,
    number_text,
    plain_limits,
    plain_picture,
    range_text,
    shrink,
    signed_limit,
    signed_picture,
)
from ..inspection.pipelines import find_channel_names, find_eigenimages, split_at_pca
from .evidence import Alert
from .figures import picture_uri
from .survey import PICTURE_SIDE, Reconstruction, Survey

__all__ = ["MAX_EIGENIMAGES", "Tile", "alert_tiles", "eigenimage_tiles", "reconstruction_tiles"]

MAX_EIGENIMAGES = 24
_CMAP = "RdBu_r"


class Tile(NamedTuple):
    """A picture on the page: its data URI, a text for those who cannot see it, and the line below it."""

    uri: str
    alt: str
    caption: str


def alert_tiles(alert: Alert, survey: Survey | None, n_most: int, channel_names: tuple[str, ...] = ()) -> list[Tile]:
    """Show those of the first `n_most` images of an alert that have a thumbnail."""
    thumbnails = {} if survey is None else survey.thumbnails
    shown = [index for index in alert.images[:n_most].tolist() if index in thumbnails]
    if not shown:
        return []
    pictures = dict(zip(thumbnails, whole_pictures(list(thumbnails.values()), channel_names), strict=True))
    return [_tile(pictures[index], f"image {index}", str(index)) for index in shown]


def eigenimage_tiles(estimator: Any) -> list[Tile]:
    """Show the mean image and the first eigenimages, and of each its channels; empty if no shape is known."""
    try:
        eigenimages, mean_image = find_eigenimages(estimator, MAX_EIGENIMAGES)
    except ValueError:
        return []
    names = check_names(find_channel_names(estimator), mean_image.shape)
    panels = choose_panels(mean_image.shape, names)[: MAX_PICTURES // (1 + len(eigenimages))]
    (mean,) = shrink(mean_image[np.newaxis], PICTURE_SIDE)
    tiles = []
    for panel in panels:
        limits = plain_limits(panel.of(mean))
        caption = f"{_titled('mean', panel)} · {range_text(*limits)}"
        tiles.append(_tile(plain_picture(panel.of(mean), limits), f"{_titled('mean', panel)} of the images", caption))
    shares = split_at_pca(estimator)[1].explained_variance_ratio_
    for number, (image, share) in enumerate(zip(shrink(eigenimages, PICTURE_SIDE), shares, strict=False), start=1):
        shown = [panel.of(image * 0 if share == 0 else image) for panel in panels]
        limit = signed_limit(np.ma.stack(shown))
        scale = "" if share == 0 else f" · ±{limit:.2g}"
        for panel, pixels in zip(panels, shown, strict=True):
            caption = f"{_titled(component_title(number, share), panel)}{scale}"
            tiles.append(_tile(signed_picture(pixels, _CMAP, limit), _titled(f"eigenimage {number}", panel), caption))
    return tiles


def reconstruction_tiles(
    rows: list[tuple[Reconstruction, str]], channel_names: tuple[str, ...] = ()
) -> list[list[Tile]]:
    """Show images, each with its name, their reconstructions and what is missing: the differences, on one scale.

    There is a row for each image, or for each channel of each image.
    """
    shape = rows[0][0].image.shape
    names = check_names(channel_names if len(shape) == 3 and len(channel_names) == shape[2] else None, shape)
    panels = choose_panels(shape, names)
    differences = [found.image.astype(np.float64) - found.reconstruction for found, _ in rows]
    limits = [signed_limit(np.ma.stack([panel.of(one) for one in differences])) for panel in panels]
    return [
        _reconstruction_row(found, name, panel, limit, with_error=panel is panels[0])
        for found, name in rows
        for panel, limit in zip(panels, limits, strict=True)
    ]


def _reconstruction_row(
    found: Reconstruction, name: str, panel: Panel, limit: float, *, with_error: bool
) -> list[Tile]:
    """Show an image or a channel of it; the error is that of all channels, and is written once."""
    original, reconstruction = panel.of(found.image), panel.of(found.reconstruction)
    difference = original.astype(np.float64) - reconstruction
    limits, title = common_limits(original), _titled(name, panel)
    error = f" · rms {number_text(found.error)}" * with_error
    return [
        _tile(plain_picture(original, limits), f"{title}, original", f"{title} · {range_text(*limits)}"),
        _tile(plain_picture(reconstruction, limits), f"{title}, reconstructed", "reconstruction"),
        _tile(
            signed_picture(difference, _CMAP, limit),
            f"{title}, difference",
            f"missing{error} · ±{number_text(limit)}",
        ),
    ]


def _titled(title: str, panel: Panel) -> str:
    return f"{title} · {panel.name}" if panel.name else title


def _tile(picture: Picture, alt: str, caption: str) -> Tile:
    return Tile(picture_uri(colours_of(picture)), alt, caption)
