"""Alerts about a stack as a whole: its files, its channels, the camera, the light, the order of the images."""

from __future__ import annotations

import numpy as np

from ..base.channels import numbered_names
from ..inspection.pipelines import find_channel_names
from ..inspection.statistics import ImageStatistics
from .evidence import Alert, Evidence, count_of, make_alert, percent
from .remedies import rescales
from .sensor import empty_channels, uneven_light
from .trends import (
    MIN_IMAGES,
    background_follows,
    changes_slowly,
    correlation,
    fading_light,
    flickers,
    is_light,
    less_means,
    steady_change,
)

__all__ = ["brightness", "drift", "illumination", "skipped_files", "still_channels", "still_pixels"]

DRIFT_COMPONENTS = 3
# Correlation of the first scores with the mean intensities; a first component of less than a tenth does not matter.
BRIGHTNESS_CORRELATION = 0.95
BRIGHTNESS_SHARE = 0.1
LIGHT_SPREAD = 0.25  # standard deviation of the logarithm; cells of one slide differ by less


def skipped_files(evidence: Evidence) -> Alert | None:
    """Tell which files were left out."""
    if not evidence.problems:
        return None
    return make_alert(
        "skipped",
        f"{count_of(len(evidence.problems), 'file')} left out",
        "They could not be read as images. This report does not include them.",
        evidence,
        names=[f"{name}: {reason}" for name, reason in evidence.problems],
    )


def still_channels(evidence: Evidence) -> Alert | None:
    """Look for channels of next to no variance."""
    n_channels, empty = empty_channels(evidence.estimator, evidence.statistics)
    if not len(empty):
        return None
    names = find_channel_names(evidence.estimator)
    names = names if len(names) == n_channels else numbered_names(n_channels)
    return make_alert(
        "empty",
        f"{count_of(len(empty), 'channel')} of next to no variance",
        "Their pixels hardly change from image to image, compared with those of the other channels: no component says "
        "anything about them. They are empty, of another unit, or an alpha channel.",
        evidence,
        names=[names[channel] for channel in empty.tolist()],
        channels=np.setdiff1d(np.arange(n_channels), empty).tolist(),
    )


def still_pixels(places: np.ndarray, evidence: Evidence) -> Alert | None:
    """Tell the pixels that never change."""
    if not len(places) or evidence.n_fitted < MIN_IMAGES:
        return None
    return make_alert(
        "pixels",
        f"{count_of(len(places), 'pixel')} that never change{'s' * (len(places) == 1)}",
        "Their value is that of all images, and far from those beside. They are dead or hot pixels of the camera.",
        evidence,
        names=[f"row {row}, column {column}" for row, column in places.tolist()],
    )


def illumination(evidence: Evidence) -> Alert | None:
    """Look for light that falls off over all images."""
    factor = uneven_light(evidence.estimator)
    if factor == 1 or evidence.n_fitted < MIN_IMAGES:
        return None
    return make_alert(
        "illumination",
        f"Light falls off over the images, by a factor of {factor:.2g}",
        "Means and differences of intensities do so alike. The same object then has other intensities elsewhere in an "
        "image.",
        evidence,
    )


def drift(scores: np.ndarray, explained: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for a steady change, of all groups together and of each large one; in a movie only the light counts."""
    light, n = evidence.prepared, len(scores)
    series = {} if changes_slowly(scores) else {f"PC {j + 1}": one for j, one in enumerate(scores.T[:DRIFT_COMPONENTS])}
    by_light = light is not None and is_light(light, ~explained)
    names, groups = np.unique(evidence.groups, return_inverse=True)
    if light is not None and (series or (by_light and background_follows(light, groups))):
        series["the mean intensity"] = light.means.mean(axis=1)
    parts = [("", np.ones(n, dtype=bool))]
    if len(names) > 1:
        each = f" within each {'folder' if evidence.labels is None else 'label'}"
        parts = [
            (each, parts[0][1]),
            *((f" within {str(name)!r}", groups == number) for number, name in enumerate(names)),
        ]
    for where, inside in parts:
        changes = {name: steady_change(values[inside], groups[inside]) for name, values in series.items()}
        if light is not None:
            of_these = ImageStatistics(*(values[inside] for values in light))
            changes["the background"] = fading_light(of_these, groups[inside])
        name = max(changes, key=lambda name: abs(changes[name]), default="")
        if name and changes[name]:
            return make_alert(
                "drift",
                f"Images change steadily with the order of their files{where}",
                f"The rank correlation of {name} with the order is {changes[name]:.2f}. Usual causes are a lamp that "
                "fades, bleaching, or a plate read row by row. If treatments follow the same order, their effect "
                "cannot be told from this change.",
                evidence,
                remedy_for="rescale" if by_light and not rescales(evidence.estimator) else "drift",
            )
    return None


def brightness(scores: np.ndarray, light: ImageStatistics, explained: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for a first component that is the light; `explained` images differ for a known reason."""
    share, seen = float(evidence.explained_variance_ratio[0]), ~explained
    means = light.means.mean(axis=1)
    if seen.sum() < MIN_IMAGES or share < BRIGHTNESS_SHARE or not (means[seen] > 0).all():
        return None
    first, means, logarithms = (
        less_means(values, evidence.groups[seen]) for values in (scores[seen, 0], means[seen], np.log(means[seen]))
    )
    like_light = abs(correlation(first, means))
    flicker = flickers(scores[seen, 1:], logarithms)
    differs = logarithms.std() > LIGHT_SPREAD and is_light(light, seen, evidence.groups)
    if like_light < BRIGHTNESS_CORRELATION or not (flicker or differs):
        return None
    return make_alert(
        "brightness",
        f"The first component is the light of the images ({percent(share)} of the variance)",
        f"Its scores and the mean intensities have a correlation of {like_light:.3f}, and the light "
        f"{'flickers' if flicker else 'differs from image to image'}. Shapes begin with the second component.",
        evidence,
        remedy_for="brightness" if rescales(evidence.estimator) else "rescale",
    )
