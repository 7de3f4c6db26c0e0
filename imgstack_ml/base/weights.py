"""Weights of images: how often each one counts. An image of weight 0 is absent."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.layers import ArrayBlockwiseDep

from ..errors import NonFiniteError
from .gate import Place, Places, checked_block, first_nonfinite
from .images import Images
from .lazy import note_stored, stored_parts
from .mask import pixels_at

__all__ = ["check_total_weight", "check_weights", "present"]

_MOST = 2.0**53  # up to which float64 counts


def check_weights(sample_weight: Any, n_images: int) -> np.ndarray | None:
    """Return the weights (n,), float64; None if all are 1, which is what no weights mean.

    Raises
    ------
    ValueError
        For a wrong number of weights, and weights that are negative, not finite, all 0, or add up to more than 2^53.
        The message names the image.
    """
    if sample_weight is None:
        return None
    given = sample_weight.compute() if dask.is_dask_collection(sample_weight) else sample_weight
    try:
        masked = isinstance(given, np.ma.MaskedArray)
        raw = np.asarray(np.ma.filled(given.astype(np.float64), np.nan) if masked else given)
        if raw.dtype.kind not in "biufO":
            raise TypeError(f"it has dtype {raw.dtype}")
        weights = raw.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"sample_weight must hold numbers of at least 0, and {error}.") from None
    if raw.shape != (n_images,):
        raise ValueError(
            f"sample_weight has shape {raw.shape}, and {n_images} images need one weight each: sample_weight.shape == "
            f"({n_images},)."
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"sample_weight[{i}] is {weights[i]:g}, and weights are finite numbers of at least 0. The weight 0 leaves "
            "an image out."
        )
    if not weights.any():
        raise ValueError("All weights in sample_weight are zero, so that no image is left. Give some a weight above 0.")
    if weights.sum() > _MOST:
        raise ValueError(
            f"The weights in sample_weight add up to {weights.sum():.3g}, and float64 counts up to 2**53. Scale them, "
            f"e.g. sample_weight / {weights.max():.0e}."
        )
    return None if (weights == 1).all() else weights


def check_total_weight(total: float) -> None:
    """Refuse weights that add up to no more than one image; 0 stands for no weights.

    Raises
    ------
    ValueError
        Variances are divided by their sum less 1.
    """
    if 0 < total <= 1:
        raise ValueError(
            f"The weights in sample_weight add up to {total:.3g}. They say how often an image counts, and "
            "variances are divided by their sum less 1. Scale them to a mean of 1: sample_weight * len(sample_weight) "
            "/ sample_weight.sum()."
        )


def present(images: Images, weights: np.ndarray | None, *, finite: bool) -> Images:
    """Give images their weights, and leave out those of weight 0, which nobody looks at.

    Parameters
    ----------
    images : Images
    weights : ndarray of shape (n,), or None
        As `check_weights` returns them.
    finite : bool
        Whether NaN and infinity are errors, inside the mask if there is one; images in memory are searched now.

    Raises
    ------
    NonFiniteError
        Naming the image by its position in the stack given.
    """
    if weights is None:
        return images
    weighted = images._replace(weights=weights)
    if weights.all() and isinstance(images.data, da.Array):
        return weighted  # passes check the blocks
    positions = np.flatnonzero(weights)
    data: np.ndarray | da.Array
    if isinstance(images.data, da.Array):
        data = _select_lazily(images.data, images, positions, finite)
        stored = stored_parts(images.data)
        if stored is not None and stored is not images.data:
            note_stored(data, _select_lazily(stored, images, positions, finite))
    else:
        data = images.data if weights.all() else images.data[positions]
        if finite:
            _check(data, positions, images)
    files = None if images.files is None else [images.files[int(i)] for i in positions]
    own = weights[positions]  # None if all are 1, as if the others had not been given
    return weighted._replace(
        data=data, files=files, weights=None if (own == 1).all() else own, absent=len(own) < len(weights)
    )


def _select_lazily(data: da.Array, images: Images, positions: np.ndarray, finite: bool) -> da.Array:
    """Select images in the tasks that read them. Blocks are checked before: a longer one would shift the others."""
    axes = tuple(range(data.ndim))
    given = images._replace(data=np.empty(0), files=None, weights=None)
    kept = _Kept(Places(data.chunks, images.files), positions)
    selected: da.Array = da.blockwise(
        partial(_selected, data.dtype, given if finite else None),
        axes,
        data,
        axes,
        kept,
        axes,
        adjust_chunks={0: kept.sizes},
        name=f"present-{dask.base.tokenize(data.name, positions, finite, images.mask, images.missing)}",
        dtype=data.dtype,
        meta=np.empty((0,) * data.ndim, data.dtype),
        align_arrays=False,
    )
    return selected


class _Kept(ArrayBlockwiseDep):
    """The `Place` of each block, the positions in it of the images that are kept, and its part of an image."""

    def __init__(self, places: Places, positions: np.ndarray):
        super().__init__(places.chunks)
        self._places, edges = places, np.cumsum((0, *places.chunks[0]))
        cuts = np.searchsorted(positions, edges)
        parts = zip(edges[:-1], cuts[:-1], cuts[1:], strict=True)
        self._kept = [positions[first:stop] - start for start, first, stop in parts]
        self._axes = [tuple(map(slice, np.cumsum((0, *sizes[:-1])), np.cumsum(sizes))) for sizes in places.chunks[1:]]
        self.sizes = tuple(map(len, self._kept))

    def __getitem__(self, idx: tuple[int, ...]) -> tuple[Place, np.ndarray, tuple[slice, ...]]:
        return (
            self._places[idx],
            self._kept[idx[0]],
            tuple(axis[i] for axis, i in zip(self._axes, idx[1:], strict=True)),
        )


def _selected(
    dtype: np.dtype, given: Images | None, block: Any, kept: tuple[Place, np.ndarray, tuple[slice, ...]]
) -> np.ndarray:
    place, positions, region = kept
    images: np.ndarray = checked_block(dtype, False, block, place)[positions]
    if given is not None and len(images):
        try:
            _check(images, positions, given._replace(mask=None if given.mask is None else given.mask[region]))
        except NonFiniteError as error:
            raise error.at(place.start, place.files) from None
    return images


def _check(data: np.ndarray, positions: np.ndarray, images: Images) -> None:
    """Raise for NaN or infinity, naming the position of the image."""
    used = data if images.positions is None else pixels_at(data, images.positions)
    bad = first_nonfinite(used, images.missing)
    if bad is not None:
        raise NonFiniteError(int(positions[bad]))
