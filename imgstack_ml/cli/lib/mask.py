"""The option ``--mask``: an image file whose pixels that are not 0 are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...errors import ImgstackError

if TYPE_CHECKING:
    import numpy as np

    from ... import ImageStack

__all__ = ["mask_option", "read_mask"]

mask_option = click.option(
    "--mask",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Use the pixels only that are not 0 in this PNG or TIFF of the height and width of the images.",
)


class MaskError(ImgstackError, ValueError):
    """The file is no mask of the images."""


def read_mask(path: str, stack: ImageStack) -> np.ndarray:
    """Read a mask (height, width) for the images of `stack`: True where a channel other than alpha is not 0.

    Raises
    ------
    MaskError
        The file is neither PNG nor TIFF, holds several images, or has another height and width than the images; or all
        of its pixels are 0.
    """
    import tifffile

    from ... import open_stack

    found = open_stack([path])
    kinds = {header.format for header, _ in found.summary().counts}
    if not kinds <= {"PNG", "TIFF"}:
        raise MaskError(f"the mask {path!r} is {' and '.join(kinds)}; give a PNG or TIFF, which keeps 0 exactly 0")
    if len(found) > 1:
        raise MaskError(f"the mask {path!r} holds {len(found)} images; give a file of one")
    (height, width), needed = found.shape[1:3], stack.shape[1:3]
    if (height, width) != needed:
        raise MaskError(
            f"the mask {path!r} is {height} × {width}, and the images are {needed[0]} × {needed[1]}; give a mask of "
            "their height and width"
        )
    pixels = found.data[0].compute() != 0
    if kinds == {"TIFF"} and pixels.ndim == 2:
        # As stored: masks of ImageJ, and Booleans of tifffile, are 0 outside, and say that 0 is shown white.
        pixels = tifffile.imread(path, key=0) != 0
    if pixels.ndim == 3:
        n_colours = {2: 1, 4: 3}.get(pixels.shape[2], pixels.shape[2])
        # What is transparent shows no colour, whatever its values are.
        pixels = pixels[..., :n_colours].any(axis=2) & pixels[..., n_colours:].all(axis=2)
    if not pixels.any():
        raise MaskError(f"all pixels of the mask {path!r} are 0; those that are not 0 are used")
    mask: np.ndarray = pixels
    return mask
