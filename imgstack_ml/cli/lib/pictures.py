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

__all__ = ["write_pictures"]

_MAX_ON_SHEET = 64  # eigenimages drawn in one figure
_MIN_SIDE = 256  # small images are enlarged to about this many pixels a side
_MAX_SIDE = 2048  # large ones are reduced
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


def _mean_pictures(mean: np.ndarray, panels: list[Panel]) -> Iterator[np.ndarray]:
    from ...inspection.pictures import colours_of, plain_picture, shrink

    (small,) = shrink(mean[None], _MAX_SIDE // len(panels))
    return (colours_of(plain_picture(panel.of(small))) for panel in panels)


def _component_pictures(image: np.ndarray, share: float, panels: list[Panel]) -> Iterator[np.ndarray]:
    """Draw the channels of a component on one scale; flat if it explains nothing."""
    import numpy as np

    from ...inspection.pictures import colours_of, shrink, signed_limit, signed_picture

    (small,) = shrink(image[None], _MAX_SIDE)
    shown = [panel.of(small * 0 if share == 0 else small) for panel in panels]
    limit = signed_limit(np.ma.stack(shown))
    return (colours_of(signed_picture(one, _CMAP, limit)) for one in shown)


def _suffixes(panels: list[Panel]) -> list[str]:
    """Return what the name of a file says of its channel, in letters, digits, dots and hyphens."""
    if len(panels) == 1:
        return [""]
    names = [re.sub(r"[^A-Za-z0-9.-]+", "-", panel.name)[:40] for panel in panels]
    is_clear = len({name.lower() for name in names}) == len(names) and all(names)
    return [f"_{name}" for name in names] if is_clear else [f"_c{i}" for i in range(len(panels))]


def _write_pixels(folder: OutputFolder, name: str, parts: list[np.ndarray]) -> None:
    """Write pixels, parts side by side; small pictures are enlarged by a whole factor."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.concatenate(parts, axis=1))
    factor = max(1, _MIN_SIDE // max(picture.size))
    size = (factor * picture.width, factor * picture.height)
    with folder.writing(name) as temporary:
        # Of large pictures, level 6 takes four times as long, and saves a tenth.
        level = 1 if picture.width * picture.height > 10**6 else 6
        picture.resize(size, Image.Resampling.NEAREST).save(temporary, format="PNG", compress_level=level)


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
