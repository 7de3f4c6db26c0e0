"""Everything that a report needs of a stack, from one read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..base.mask import pixels_at
from ..base.validation import StackLike
from ..decomposition.projection import score_scale
from ..decomposition.residuals import OutlierStatistics, hotelling
from ..inspection.pictures import shrink, visible_channels
from ..inspection.pipelines import Route, find_mask, find_route, hide_outside, refuse_marks
from ..inspection.reduced import SmallBasis, is_plain, n_values, scores_and_squares, small_basis
from ..inspection.stacks import check_stack
from ..inspection.statistics import ImageStatistics, concatenate_lists, concatenate_statistics, image_statistics
from ..passes.runner import PassRunner
from .samples import N_SPREAD, Extreme, Extremes, extreme_rows, extreme_values, keep_extreme, spread_positions
from .sharpness import Sharpness, concatenate_sharpness, sharpness_of

__all__ = ["Reconstruction", "Survey", "outlier_statistics", "read_survey"]

THUMBNAIL_SIDE = 48  # of 1000 images: 25 MB at most
PICTURE_SIDE = 160
N_SHOWN = 4  # best and worst reconstructions
_TILE = 2**21  # bytes of raw images handled at once; the work takes about ten times this memory


class Reconstruction(NamedTuple):
    """An image and its reconstruction from all components, both small enough to show.

    Attributes
    ----------
    error : float
        Root mean square difference, in the intensity units of the images.
    position : int
        Of the image in the stack.
    image, reconstruction : ndarray of shape (height, width[, n_channels])
    """

    error: float
    position: int
    image: np.ndarray
    reconstruction: np.ndarray


class Survey(NamedTuple):
    """What one read of n images finds.

    Attributes
    ----------
    statistics : ImageStatistics
    scores : ndarray of shape (n, k), float64
    errors : ndarray of shape (n,), float64
        Root mean square difference of image and reconstruction. The image is compared as the last step that cannot be
        inverted returns it.
    thumbnails : dict of int to ndarray
        Small copies of up to 1000 images, by position: some of each label, evenly spaced, and those of extreme scores
        or errors. None of 2-D input.
    worst, best : list of Reconstruction
        Those of largest and of smallest error, the extreme one first; empty if the PCA gets rows.
    prepared : ImageStatistics or None
        Statistics of the images as the last step that cannot be inverted returns them, so that what the Pipeline
        corrects is corrected here; `statistics` without such a step, and None if it returns rows of features.
    sharpness : Sharpness
        Of the images.
    """

    statistics: ImageStatistics
    scores: np.ndarray
    errors: np.ndarray
    thumbnails: dict[int, np.ndarray]
    worst: list[Reconstruction]
    best: list[Reconstruction]
    prepared: ImageStatistics | None
    sharpness: Sharpness


def read_survey(estimator: Any, X: StackLike, *, progress: bool = False) -> Survey:
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
    ValueError
        A number marks missing pixels for the PCA.
    """
    inside = find_mask(estimator)
    images = check_stack("generate_report", X, inside)
    route = find_route(estimator)
    refuse_marks("generate_report", route.pca)
    has_thumbnail = np.zeros(len(images.data), dtype=bool)
    has_thumbnail[spread_positions(len(has_thumbnail), N_SPREAD, getattr(X, "labels", None))] = True
    runner = PassRunner(images, progress=progress, whole=True)
    shared = (route, has_thumbnail, inside, small_basis(route, PICTURE_SIDE, inside))
    found = runner.run(_survey_of_batch, _merge, shared=shared, label="report")
    parts, scores, errors = zip(*found.rows, strict=True)
    statistics = concatenate_statistics([part.images for part in parts])
    changed = [part.prepared for part in parts if part.prepared is not None]
    return Survey(
        statistics,
        np.concatenate(scores),
        np.concatenate(errors),
        dict(sorted((found.thumbnails | {at: extreme.thumbnail for at, extreme in found.extremes.items()}).items())),
        found.worst,
        found.best,
        concatenate_statistics(changed) if changed else None,
        concatenate_sharpness([part.sharpness for part in parts]),
    )


def outlier_statistics(pca: Any, survey: Survey) -> OutlierStatistics:
    """Return what `ImagePCA.outlier_statistics` tells, from the errors and scores of the survey, for any PCA."""
    variance = pca.explained_variance_
    variance = (variance > 0).astype(np.float64) if getattr(pca, "whiten", False) else variance
    return OutlierStatistics(survey.errors**2 * pca.components_.shape[1], hotelling(survey.scores, variance))


class _Statistics(NamedTuple):
    """Of images, and of what the last step that cannot be inverted makes of them; None if these are rows."""

    images: ImageStatistics
    prepared: ImageStatistics | None
    sharpness: Sharpness


class _Partial(NamedTuple):
    """The survey of consecutive images; `rows` are arrays, concatenated when the pass ends."""

    rows: list[tuple[_Statistics, np.ndarray, np.ndarray]]
    thumbnails: dict[int, np.ndarray]
    worst: list[Reconstruction]
    best: list[Reconstruction]
    extremes: Extremes  # of images that are not among `thumbnails`


def _survey_of_batch(
    blocks: list[np.ndarray],
    start: int,
    route: Route,
    has_thumbnail: np.ndarray,
    inside: np.ndarray | None = None,
    basis: SmallBasis | None = None,
) -> _Partial:
    """Step of the pass."""
    found = _Partial([], {}, [], [], {})
    for block in blocks:
        step = max(1, _TILE // max(1, block[:1].nbytes))
        for i in range(0, len(block), step):
            tile = block[i : i + step]
            found = _merge(found, _survey_of_tile(tile, start + i, route, has_thumbnail, inside, basis, found))
        start += len(block)
    return found


def _survey_of_tile(
    images: np.ndarray,
    start: int,
    route: Route,
    has_thumbnail: np.ndarray,
    inside: np.ndarray | None,
    basis: SmallBasis | None,
    before: _Partial,
) -> _Partial:
    """Survey a few images; only those whose error is more extreme than the errors in `before` get pictures."""
    prepared = route.prepare(images)
    scores, errors, reconstruct = _reconstructed(route, prepared, inside, basis)
    images, prepared = hide_outside(images, inside), hide_outside(prepared, inside)
    statistics = image_statistics(images)
    changed: ImageStatistics | None = statistics
    if route.before:
        changed = image_statistics(prepared) if prepared.ndim > 2 else None
    rows = (_Statistics(statistics, changed, sharpness_of(images)), scores, errors)
    if images.ndim < 3:
        return _Partial([rows], {}, [], [], {})
    spread = has_thumbnail[start : start + len(images)]
    thumbnails = _thumbnails(images, start, np.flatnonzero(spread))
    extremes = _extremes(images, start, np.flatnonzero(~spread), extreme_values(*rows[1:]), before)
    if prepared.ndim < 3:
        return _Partial([rows], thumbnails, [], [], extremes)
    order = np.argsort(errors, kind="stable")
    largest, smallest = order[::-1][:N_SHOWN], order[:N_SHOWN]
    if len(before.worst) == N_SHOWN:
        largest = largest[errors[largest] > before.worst[-1].error]
        smallest = smallest[errors[smallest] < before.best[-1].error]
    worst, best = (
        [
            Reconstruction(float(errors[i]), start + int(i), image, reconstruction)
            for i, image, reconstruction in zip(chosen, _small(prepared[chosen]), reconstruct(chosen), strict=True)
        ]
        for chosen in (largest, smallest)
    )
    return _Partial([rows], thumbnails, worst, best, extremes)


def _reconstructed(
    route: Route, prepared: np.ndarray, inside: np.ndarray | None, basis: SmallBasis | None
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return scores (b, k), float64, errors (b,), and a function that makes small reconstructions of chosen images.

    Where those are sums of components, no reconstruction of an image is made for its error.
    """
    if is_plain(route, prepared):
        hidden = hide_outside(prepared, inside)
        plain, squares = scores_and_squares(route.pca, [hidden])
        scores = plain / score_scale(route.pca.explained_variance_, getattr(route.pca, "whiten", False))
        errors = np.sqrt(squares / n_values(hidden))
    else:
        scores = route.scores(prepared)
        whole = hide_outside(route.reconstruct(scores), inside)
        errors = _root_mean_squares(hide_outside(prepared, inside), whole)

    def reconstruct(chosen: np.ndarray) -> np.ndarray:
        if not is_plain(route, prepared):
            return _small(whole[chosen])
        if basis is not None:
            return visible_channels(basis.reconstruct(plain[chosen]))
        return _small(hide_outside(route.reconstruct(scores[chosen]), inside))

    return scores.astype(np.float64), errors, reconstruct


def _thumbnails(images: np.ndarray, start: int, chosen: np.ndarray) -> dict[int, np.ndarray]:
    """Make thumbnails, by position in the stack, of those chosen among consecutive images from `start` on."""
    if not len(chosen):
        return {}
    small = shrink(visible_channels(images[chosen]), THUMBNAIL_SIDE)
    return dict(zip((start + chosen).tolist(), small, strict=True))


def _extremes(images: np.ndarray, start: int, candidates: np.ndarray, values: np.ndarray, before: _Partial) -> Extremes:
    """Make thumbnails of those candidates whose values are more extreme than those in `before`."""
    known = [extreme.values for extreme in before.extremes.values()]
    rows = extreme_rows(np.array([*known, *values[candidates]])) - len(known)
    pictures = _thumbnails(images, start, candidates[rows[rows >= 0]])
    return {at: Extreme(values[at - start], picture) for at, picture in pictures.items()}


def _small(images: np.ndarray) -> np.ndarray:
    return shrink(visible_channels(images), PICTURE_SIDE)


def _root_mean_squares(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean square difference (n,) of images, in the precision of `others`, summed in float64."""
    if isinstance(images, np.ma.MaskedArray):
        positions = np.flatnonzero(~np.ma.getmaskarray(images)[0])
        images, others = (pixels_at(np.ma.getdata(one), positions) for one in (images, others))
    difference = np.subtract(images, others, dtype=others.dtype).reshape(len(images), -1)
    return np.sqrt(np.square(difference, out=difference).mean(axis=1, dtype=np.float64))


def _merge(earlier: _Partial, later: _Partial) -> _Partial:
    return _Partial(
        concatenate_lists(earlier.rows, later.rows),
        earlier.thumbnails | later.thumbnails,
        _most_extreme(earlier.worst + later.worst, lambda found: (-found.error, found.position)),
        _most_extreme(earlier.best + later.best, lambda found: (found.error, found.position)),
        keep_extreme(earlier.extremes | later.extremes),
    )


def _most_extreme(
    found: list[Reconstruction], key: Callable[[Reconstruction], tuple[float, int]]
) -> list[Reconstruction]:
    return sorted(found, key=key)[:N_SHOWN]
