"""The small pictures of the page: images of alerts, eigenimages, reconstructions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..inspection.pictures import (
    Picture,
    common_limits,
    component_picture,
    component_title,
    mean_title,
    plain_picture,
    shrink,
    signed_picture,
    visible_channels,
)
from ..inspection.pipelines import find_eigenimages, split_at_pca
from .alerts import Alert
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


def alert_tiles(alert: Alert, survey: Survey | None, n_most: int) -> list[Tile]:
    """Show those of the first `n_most` images of an alert that have a thumbnail."""
    thumbnails = {} if survey is None else survey.thumbnails
    shown = [index for index in alert.images[:n_most].tolist() if index in thumbnails]
    if not shown:
        return []
    limits = common_limits(np.ma.stack(list(thumbnails.values())))
    return [_tile(plain_picture(thumbnails[index], limits), f"image {index}", str(index)) for index in shown]


def eigenimage_tiles(estimator: Any) -> list[Tile]:
    """Show the mean image and the first eigenimages; empty if the shape of an image is not known."""
    try:
        eigenimages, mean_image = find_eigenimages(estimator, MAX_EIGENIMAGES)
    except ValueError:
        return []
    mean = shrink(visible_channels(mean_image[np.newaxis]), PICTURE_SIDE)[0]
    tiles = [_tile(plain_picture(mean), "mean of the images", mean_title(mean))]
    small = shrink(visible_channels(eigenimages), PICTURE_SIDE)
    shares = split_at_pca(estimator)[1].explained_variance_ratio_
    for number, (image, share) in enumerate(zip(small, shares, strict=False), start=1):
        picture = component_picture(image, share, _CMAP)
        tiles.append(_tile(picture, f"eigenimage {number}", component_title(number, share)))
    return tiles


def reconstruction_tiles(found: Reconstruction, name: str) -> list[Tile]:
    """Show an image, its reconstruction, and the difference of the two."""
    limits = common_limits(found.image[np.newaxis])
    difference = found.image.astype(np.float64) - found.reconstruction
    return [
        _tile(plain_picture(found.image, limits), f"{name}, original", name),
        _tile(plain_picture(found.reconstruction, limits), f"{name}, reconstructed", "reconstruction"),
        _tile(signed_picture(difference, _CMAP), f"{name}, difference", f"missing · rms {found.error:.3g}"),
    ]


def _tile(picture: Picture, alt: str, caption: str) -> Tile:
    return Tile(picture_uri(_colours(picture)), alt, caption)


def _colours(picture: Picture) -> np.ndarray:
    """Colours (height, width, 3), uint8, as Matplotlib's `imshow` would draw them; with alpha if pixels are hidden."""
    pixels, options = picture
    if pixels.ndim == 3:
        return np.rint(255 * pixels).astype(np.uint8)
    from matplotlib import colormaps

    low, high = options["vmin"], options["vmax"]
    scaled = ((pixels.astype(np.float64) - low) / (high - low)).clip(0, 1)
    colours: np.ndarray = colormaps[options["cmap"]](scaled, bytes=True)
    return colours if np.ma.is_masked(scaled) else colours[..., :3].copy()
