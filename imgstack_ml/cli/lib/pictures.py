"""Pictures of a fitted PCA, written into the folder of results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .output import OutputFolder, pyplot_without_windows

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

__all__ = ["write_pictures"]

_MAX_ON_SHEET = 64  # eigenimages drawn in one figure
_MIN_SIDE = 256  # small images are enlarged to about this many pixels a side


def write_pictures(folder: OutputFolder, pipeline: Pipeline) -> None:
    """Draw the mean image, the eigenimages on a sheet and one by one, and the explained variance.

    The last step of the fitted `pipeline` is an ImagePCA.
    """
    pyplot = pyplot_without_windows()
    from ... import EigenimageDisplay, ScreeDisplay
    from ...inspection.pipelines import find_eigenimages

    sheet = EigenimageDisplay.from_estimator(pipeline, n_components=_MAX_ON_SHEET, include_mean=True)
    _write_pixels(folder, "mean.png", sheet.images_[0])
    _write_eigenimages(folder, sheet.images_[1:], first=1)
    folder.write_figure("eigenimages.png", sheet.figure_)
    folder.write_figure("scree.png", ScreeDisplay.from_estimator(pipeline).figure_)
    eigenimages, _ = find_eigenimages(pipeline)
    for start in range(_MAX_ON_SHEET, len(eigenimages), _MAX_ON_SHEET):  # those that are not on the sheet
        display = EigenimageDisplay(eigenimages[start : start + _MAX_ON_SHEET]).plot()
        _write_eigenimages(folder, display.images_, first=start + 1)
        pyplot.close(display.figure_)


def _write_eigenimages(folder: OutputFolder, artists: Iterable[Any], *, first: int) -> None:
    for number, artist in enumerate(artists, start=first):
        _write_pixels(folder, f"eigenimages/pc_{number:03d}.png", artist)


def _write_pixels(folder: OutputFolder, name: str, artist: Any) -> None:
    """Write the pixels that an AxesImage shows, without axes; small pictures are enlarged by a whole factor."""
    from PIL import Image

    pixels = artist.to_rgba(artist.get_array(), bytes=True)
    opaque = pixels[..., 3].min() == 255  # those outside a mask are transparent
    picture = Image.fromarray((pixels[..., :3] if opaque else pixels).copy())
    factor = max(1, _MIN_SIDE // max(picture.size))
    size = (factor * picture.width, factor * picture.height)
    with folder.writing(name) as temporary:
        picture.resize(size, Image.Resampling.NEAREST).save(temporary, format="PNG")
