"""Pictures of a fitted PCA, written into the folder of results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .output import OutputFolder, pyplot_without_windows

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from ...inspection.channels import Panel
    from ...inspection.pictures import Picture

__all__ = ["write_pictures"]

_MAX_ON_SHEET = 64  # eigenimages drawn in one figure
_MIN_SIDE = 256  # small images are enlarged to about this many pixels a side
_MAX_SIDE = 2048  # large ones are reduced
_LARGE = 10**6  # pixels of a picture that is written in fewer colours, and faster
_CMAP = "RdBu_r"


def write_pictures(folder: OutputFolder, pipeline: Pipeline, full_size: bool = False) -> None:
    """Draw the mean image, the eigenimages on a sheet and one by one, and the explained variance.

    The last step of the fitted `pipeline` is an ImagePCA. With `full_size`, the eigenimages are also written as they
    are, as one TIFF.
    """
    pyplot_without_windows()
    from ... import EigenimageDisplay, ScreeDisplay
    from ...inspection.channels import MAX_PICTURES, check_names, choose_panels
    from ...inspection.pipelines import find_channel_names, find_eigenimages

    eigenimages, mean = find_eigenimages(pipeline)
    names = check_names(find_channel_names(pipeline), mean.shape)
    panels = choose_panels(mean.shape, names)
    n_channels = min(len(panels), MAX_PICTURES // 2)
    n_components = min(_MAX_ON_SHEET, MAX_PICTURES // n_channels - 1)
    sheet = EigenimageDisplay.from_estimator(
        pipeline,
        n_components=n_components,
        include_mean=True,
        channels=None if len(panels) == 1 else range(n_channels),
    )
    folder.write_figure("eigenimages.png", sheet.figure_)
    folder.write_figure("scree.png", ScreeDisplay.from_estimator(pipeline).figure_)
    _write_pixels(folder, "mean.png", list(_mean_pictures(mean, panels)))
    shares = pipeline[-1].explained_variance_ratio_
    suffixes = _suffixes(panels)
    for number, (image, share) in enumerate(zip(eigenimages, shares, strict=True), start=1):
        for suffix, pixels in zip(suffixes, _component_pictures(image, share, panels), strict=True):
            _write_pixels(folder, f"eigenimages/pc_{number:03d}{suffix}.png", [pixels])
    if full_size:
        _write_tiff(folder, eigenimages, names)


def _mean_pictures(mean: np.ndarray, panels: list[Panel]) -> Iterator[Picture]:
    from ...inspection.pictures import plain_picture, shrink

    (small,) = shrink(mean[None], _MAX_SIDE // len(panels))
    return (plain_picture(panel.of(small)) for panel in panels)


def _component_pictures(image: np.ndarray, share: float, panels: list[Panel]) -> Iterator[Picture]:
    """Draw the channels of a component on one scale; flat if it explains nothing."""
    import numpy as np

    from ...inspection.pictures import shrink, signed_limit, signed_picture

    (small,) = shrink(image[None], _MAX_SIDE)
    shown = [panel.of(small * 0 if share == 0 else small) for panel in panels]
    limit = signed_limit(np.ma.stack(shown))
    return (signed_picture(one, _CMAP, limit) for one in shown)


def _suffixes(panels: list[Panel]) -> list[str]:
    """Return what the name of a file says of its channel, in letters, digits, dots and hyphens."""
    if len(panels) == 1:
        return [""]
    names = [re.sub(r"[^A-Za-z0-9.-]+", "-", panel.name)[:40] for panel in panels]
    is_clear = len({name.lower() for name in names}) == len(names) and all(names)
    return [f"_{name}" for name in names] if is_clear else [f"_c{i}" for i in range(len(panels))]


def _write_pixels(folder: OutputFolder, name: str, pictures: list[Picture]) -> None:
    """Write pictures without axes, side by side; small ones are enlarged by a whole factor."""
    import numpy as np
    from PIL import Image

    from ...inspection.pictures import colours_of

    first = pictures[0].pixels
    if len(pictures) == 1 and first.ndim == 2 and first.size > _LARGE and not isinstance(first, np.ma.MaskedArray):
        picture = _with_palette(pictures[0])
    else:
        picture = Image.fromarray(np.concatenate([colours_of(one) for one in pictures], axis=1))
    factor = max(1, _MIN_SIDE // max(first.shape[:2]))
    size = (factor * picture.width, factor * picture.height)
    with folder.writing(name) as temporary:
        level = 1 if first.size > _LARGE else 6
        picture.resize(size, Image.Resampling.NEAREST).save(temporary, format="PNG", compress_level=level)


def _with_palette(picture: Picture) -> Any:
    """Make an image of the 256 colours of a colour map: it is written in a fifth of the time of one of all colours."""
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    low, high = picture.options["vmin"], picture.options["vmax"]
    scaled = (picture.pixels - low) * (256 / (high - low))
    image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8), "P")
    image.putpalette(colormaps[picture.options["cmap"]](range(256), bytes=True)[:, :3].tobytes())
    return image


def _write_tiff(folder: OutputFolder, eigenimages: np.ndarray, names: tuple[str, ...]) -> None:
    """Write eigenimages (k, height, width[, n_channels]) as an OME-TIFF, whose channels have their names."""
    import numpy as np
    import tifffile

    pixels = np.ma.getdata(eigenimages)
    planes = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1)
    metadata: dict[str, Any] = {"axes": "TCYX"}
    if pixels.ndim == 4:
        metadata["Channel"] = {"Name": list(names)}
    with folder.writing("eigenimages.tif") as temporary, tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as file:
        each = (np.ascontiguousarray(plane) for image in planes for plane in image)
        file.write(each, shape=planes.shape, dtype=planes.dtype, photometric="minisblack", metadata=metadata)
