"""All that a report wants to know of a stack, in one read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..inspection._drawing import as_shown, shrink
from ..inspection._steps import Route, check_stack, evenly_spaced, find_route
from ..inspection.statistics import ImageStatistics, image_statistics, in_order, join_statistics
from ..passes.runner import PassRunner

__all__ = ["Reconstruction", "Survey", "survey"]

MAX_THUMBNAILS = 1000  # images of which a small picture is kept: 25 MB at most
THUMBNAIL_SIDE = 48
PICTURE_SIDE = 160
N_SHOWN = 4  # best and worst reconstructions
_TILE = 2**21  # bytes of raw images handled at once, in some ten times the memory


class Reconstruction(NamedTuple):
    """An image and what the components make of it, both small enough to be shown."""

    error: float
    position: int
    image: np.ndarray
    reconstruction: np.ndarray


class Survey(NamedTuple):
    """What one read of n images has found.

    Attributes
    ----------
    statistics : ImageStatistics
    scores : ndarray of shape (n, k), float64
    errors : ndarray of shape (n,), float64
        Root mean square of image less reconstruction over the values of an image, as it leaves the last step before
        the PCA that cannot be undone.
    thumbnails : dict of int to ndarray
        Small pictures of up to 1000 images, evenly spaced; none of images without shape.
    worst, best : list of Reconstruction
        Those of largest and smallest error, the extreme one first; none where the PCA sees no images.
    """

    statistics: ImageStatistics
    scores: np.ndarray
    errors: np.ndarray
    thumbnails: dict[int, np.ndarray]
    worst: list[Reconstruction]
    best: list[Reconstruction]


def survey(estimator: Any, X: Any, *, progress: bool = False) -> Survey:
    """Read a stack once, for statistics, scores, reconstruction errors and pictures.

    Parameters
    ----------
    estimator : ImagePCA or Pipeline
        Fitted.
    X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
        The images, as for the estimator's `transform`.
    progress : bool, default=False
        Show a bar, on stderr.

    Returns
    -------
    Survey

    Raises
    ------
    NotFittedError
        If there is no fitted PCA.
    NonFiniteError
        Naming the image (and file) with a NaN or infinite pixel.
    """
    images = check_stack("generate_report", X)
    route = find_route(estimator)
    chosen = np.zeros(len(images.data), dtype=bool)
    chosen[evenly_spaced(len(chosen), MAX_THUMBNAILS)] = True
    runner = PassRunner(images, progress=progress)
    found = runner.run(_survey_batch, _merge, shared=(route, chosen), label="report")
    statistics, scores, errors = zip(*found.rows, strict=True)
    return Survey(join_statistics(list(statistics)), np.concatenate(scores), np.concatenate(errors), *found[1:])


class _Found(NamedTuple):
    """A partial result: rows of consecutive images, joined at the end only, and pictures."""

    rows: list[tuple[ImageStatistics, np.ndarray, np.ndarray]]
    thumbnails: dict[int, np.ndarray]
    worst: list[Reconstruction]
    best: list[Reconstruction]


def _survey_batch(blocks: list[np.ndarray], start: int, route: Route, chosen: np.ndarray) -> _Found:
    found = _Found([], {}, [], [])
    for block in blocks:
        step = max(1, _TILE // max(1, block[:1].nbytes))
        for i in range(0, len(block), step):
            found = _merge(found, _survey_tile(block[i : i + step], start + i, route, chosen, found))
        start += len(block)
    return found


def _survey_tile(images: np.ndarray, start: int, route: Route, chosen: np.ndarray, before: _Found) -> _Found:
    """Survey some images; pictures are made of those only that would displace one from `before`."""
    prepared = route.prepare(images)
    scores = route.scores(prepared)
    reconstructed = route.reconstruct(scores)
    errors = _root_mean_squares(prepared, reconstructed)
    rows = (image_statistics(images), scores.astype(np.float64), errors)
    wanted = np.flatnonzero(chosen[start : start + len(images)]) if images.ndim > 2 else np.empty(0, dtype=int)
    small = shrink(as_shown(images[wanted]), THUMBNAIL_SIDE) if len(wanted) else ()
    thumbnails = dict(zip((start + wanted).tolist(), small, strict=True))
    if prepared.ndim < 3:
        return _Found([rows], thumbnails, [], [])

    def pictures(order: np.ndarray) -> list[Reconstruction]:
        pair = (shrink(as_shown(stack[order]), PICTURE_SIDE) for stack in (prepared, reconstructed))
        return [
            Reconstruction(float(errors[i]), start + int(i), *both)
            for i, both in zip(order, zip(*pair, strict=True), strict=True)
        ]

    order = np.argsort(errors, kind="stable")
    largest, smallest = order[::-1][:N_SHOWN], order[:N_SHOWN]
    if len(before.worst) == N_SHOWN:
        largest = largest[errors[largest] > before.worst[-1].error]
        smallest = smallest[errors[smallest] < before.best[-1].error]
    return _Found([rows], thumbnails, pictures(largest), pictures(smallest))


def _root_mean_squares(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean square difference (n,) of images, in the precision of `others`, summed in float64."""
    off = np.subtract(images, others, dtype=others.dtype).reshape(len(images), -1)
    return np.sqrt(np.square(off, out=off).mean(axis=1, dtype=np.float64))


def _merge(earlier: _Found, later: _Found) -> _Found:
    return _Found(
        in_order(earlier.rows, later.rows),
        earlier.thumbnails | later.thumbnails,
        _first(earlier.worst + later.worst, lambda found: (-found.error, found.position)),
        _first(earlier.best + later.best, lambda found: (found.error, found.position)),
    )


def _first(found: list[Reconstruction], key: Callable[[Reconstruction], tuple[float, int]]) -> list[Reconstruction]:
    return sorted(found, key=key)[:N_SHOWN]
