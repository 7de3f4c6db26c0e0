"""The pixels that are finite in all images, found in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base.validation import Images
from .checkpoint import Checkpoint
from .regions import assembled
from .runner import PassRunner
from .steps import Pass

__all__ = ["finite_pixels"]


def finite_pixels(
    images: Images, *, read_bytes: int | None = None, progress: bool = False, checkpoint: Checkpoint | None = None
) -> tuple[np.ndarray, float]:
    """Return the mask of the pixels that are finite in all images, and the reads that this takes.

    Parameters
    ----------
    images : Images
    read_bytes, progress, checkpoint
        For the `PassRunner`.

    Returns
    -------
    mask : ndarray of bool of shape `image_shape`
    n_passes : float
        1 for lazy images, and 0 for images in memory. Integers are finite, and not read.

    Raises
    ------
    ValueError
        There is no such pixel.
    """
    shape = images.image_shape
    if images.data.dtype.kind != "f":
        return np.ones(shape, bool), 0.0
    nothing_searched = images._replace(mask=np.zeros(shape, bool))
    runner = PassRunner(nothing_searched, read_bytes=read_bytes, progress=progress, checkpoint=checkpoint, whole=True)
    found = Pass(_finite_in_all, np.logical_and, images.n_pixels, "finite pixels", _also_finite, assembled)
    if runner.regions:
        mask = runner.once(lambda: runner.fold(found), found.label)
    else:
        mask = runner.run(found.step, found.merge, partial_bytes=found.partial_bytes, label=found.label)
    if not mask.any():
        axes = tuple(range(1, images.data.ndim))
        raise ValueError(
            "mask='finite': no pixel is finite in all images. Leave out images without a finite pixel, e.g. "
            f"X[numpy.isfinite(X).any(axis={axes})]; or give a mask of the pixels to use."
        )
    return mask.reshape(shape), runner.n_passes if runner.reads else 0.0


def _also_finite(total: np.ndarray | None, parts: Sequence[np.ndarray]) -> np.ndarray:
    found = _finite_in_all(parts, 0).ravel()
    return found if total is None else total & found


def _finite_in_all(blocks: Sequence[np.ndarray], start: int) -> np.ndarray:
    finite = np.ones(blocks[0].shape[1:], bool)
    for block in blocks:
        for image in block:
            finite &= np.isfinite(image)
    return finite
