"""Alerts about single images: of one value, overexposed, of another range, unsharp, copies, unlike the others."""

from __future__ import annotations

import numpy as np

from ..decomposition.residuals import OutlierStatistics
from ..inspection.pipelines import split_at_pca
from ..inspection.statistics import ImageStatistics, log_deviations, odd_ranges, spread_of_tails
from .duplicates import near_duplicates
from .evidence import Alert, Evidence, about_images, count_of, first_of, make_alert, percent
from .sensor import channels_of_one_value, exchanged_channels, turned_images
from .sharpness import Sharpness, images_on_a_grid, images_without_detail
from .trends import MIN_IMAGES, changes_slowly, is_light

__all__ = [
    "CLIPPED_SHARE",
    "constant_images",
    "duplicate_images",
    "half_written",
    "images_of_other_channels",
    "images_that_are_turned",
    "leverage",
    "odd_exposures",
    "outliers",
    "overexposed_images",
    "share_at_the_end",
    "unsharp_images",
]

# A reflection or a dead pixel has the largest value too; one pixel in a hundred means lost highlights.
CLIPPED_SHARE = 0.01
# Largest values of cameras with 8, 10, 12, 14 and 16 bits.
CLIPPED_ENDS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
MOST = 0.75  # of the images; where more have many pixels of the largest value, these are a bright ground
# Files that were cut off are few.
BLANK_SHARE, BLANK_IMAGES = 0.2, 0.1
# An outlier is this many robust standard deviations (of the logarithm of Q or of T squared) above the median, and this
# many times the median. The largest deviation in clean collections is 4.1; the factor is for values almost equal.
OUTLIER_DEVIATIONS = 5.0
OUTLIER_FACTOR = 2.25
# A component should be about all images. It is about one image if that makes up half of its variance, and about a few
# of the same fault if these, one in thirty at most, make up nearly all.
LEVERAGE_SHARE = 0.5
LEVERAGE_FEW, LEVERAGE_OF_FEW = 1 / 30, 0.9


def constant_images(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    """Look for images of one value."""
    return about_images(
        "constant",
        (statistics.minima == statistics.maxima).all(axis=1),
        evidence,
        "{} of one value throughout",
        "They show nothing. Usual causes are a closed shutter, a missing file filled with zeros, or a failed export.",
    )


def half_written(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    """Look for images that end before their last row. Where scenes are blank, other images have a blank row, too."""
    written = statistics.blank.max(axis=1) < 1
    found = written & (statistics.blank[:, 1] > BLANK_SHARE)
    if found.mean() > BLANK_IMAGES or statistics.blank[written & ~found].any() or statistics.blank[found, 0].any():
        return None
    return about_images(
        "blank",
        found,
        evidence,
        "{} with nothing below some row",
        f"All rows there, more than {percent(BLANK_SHARE)} of the image, have one value; no other image ends or begins "
        "like that. Usual causes are a file that was cut off, or a readout that was stopped.",
    )


def share_at_the_end(statistics: ImageStatistics, evidence: Evidence, stuck: np.ndarray) -> np.ndarray:
    """Share of the pixels of each image that have the largest value of a camera, beside pixels that are stuck.

    What several images have in many pixels, most have in next to none, and none exceeds, is such a value, too.
    """
    varied = statistics.minima < statistics.maxima
    at_end = np.isin(statistics.maxima, CLIPPED_ENDS) & varied
    flat = varied & (statistics.at_top > CLIPPED_SHARE) & (statistics.maxima == statistics.maxima.max())
    if flat.any(axis=1).sum() > 1 and np.quantile(statistics.at_top.max(axis=1), MOST) < CLIPPED_SHARE / 4:
        at_end |= flat
    share: np.ndarray = np.where(at_end, statistics.at_top, 0).max(axis=1)
    if not len(stuck):
        return share
    n_values = split_at_pca(evidence.estimator)[1].n_features_in_
    return share - len(stuck) * statistics.means.shape[1] / n_values


def overexposed_images(share: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for overexposed images; `share` of their pixels is at the end of the range."""
    return about_images(
        "clipped",
        share > CLIPPED_SHARE,
        evidence,
        "{} overexposed",
        f"More than {percent(CLIPPED_SHARE)} of their pixels have the largest value of the camera (up to "
        f"{percent(share.max())}): too much light, or a label that was burnt in. Intensities and shapes there are "
        "lost, and no rescaling restores them.",
    )


def odd_exposures(clipped: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for odd ranges; those of overexposed images are explained.

    Photographs have dark parts, and a spot makes a range large. Where light does not explain how images differ, another
    exposure is one whose mean stands out, too.
    """
    light, seen = evidence.prepared, clipped <= CLIPPED_SHARE
    if light is None:
        return None
    odd = odd_ranges(light) & seen
    if not is_light(light, seen):
        odd &= _levels_stand_out(light)
    return about_images(
        "range",
        odd,
        evidence,
        "{} with a very different range of intensities",
        "Their range is less than half or more than twice that of most images, as of another exposure or another unit. "
        "A PCA takes this for the main difference between the images.",
        "rescale",
    )


def _levels_stand_out(light: ImageStatistics) -> np.ndarray:
    """Find images whose mean above black is far from those of most, in the tails of the others, too."""
    lowest = light.minima.min(axis=1).astype(np.float64)
    above_black = light.means.mean(axis=1) - np.sort(lowest)[len(lowest) // 20]  # a few odd ones do not move it
    step = float((light.maxima == np.rint(light.maxima)).all())  # whole numbers are no more exact than that
    deviations, _ = log_deviations(np.maximum(above_black, np.finfo(np.float64).tiny) + step)
    found: np.ndarray = np.abs(deviations) > OUTLIER_DEVIATIONS * spread_of_tails(deviations)
    return found


def images_of_other_channels(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    """Look for images whose channels are in another order, or of which one is missing."""
    return about_images(
        "channels",
        exchanged_channels(statistics) | channels_of_one_value(statistics),
        evidence,
        "{} with channels in another order, or missing",
        "Their channels are unlike those of the other images, and like them in another order, or one of them has one "
        "value. Usual causes are BGR for RGB, a changed order of filters, or a file that was not written.",
    )


def images_that_are_turned(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    """Look for images that are upside down, mirrored or turned."""
    return about_images(
        "turned",
        turned_images(statistics),
        evidence,
        "{} upside down, mirrored or turned",
        "They are unlike the other images, and like them after a turn. Usual causes are an orientation that was "
        "lost, another camera, or a plate that was put in the wrong way round.",
    )


def unsharp_images(sharpness: Sharpness, explained: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for images that are less sharp than the others; `explained` ones are unlike these for a known reason."""
    slow = evidence.scores is not None and changes_slowly(evidence.scores)
    soft = images_without_detail(sharpness, explained, evidence.groups, in_movie=slow)
    squares = images_on_a_grid(sharpness) & ~explained
    meanings = [
        f"{count_of(soft.sum(), 'image')} with next to no fine detail. ",
        f"{count_of(squares.sum(), 'image')} made of small squares. ",
    ]
    meaning = "".join(text for text, found in zip(meanings, (soft, squares), strict=True) if found.any())
    return about_images(
        "sharpness",
        soft | squares,
        evidence,
        "{} less sharp than the others",
        f"{meaning}Usual causes are a lost focus, motion, a copy of low resolution that was enlarged, or strong "
        "compression. Fine detail is lost there, and no filter restores it.",
    )


def duplicate_images(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    """Look for images that are nearly the same."""
    groups = near_duplicates(statistics)
    if not groups:
        return None
    copies = np.concatenate([group[1:] for group in groups])
    return make_alert(
        "duplicates",
        f"{count_of(len(copies), 'image')} nearly the same as another",
        "Copies count twice in the mean and in the components. The score of a classifier is too good if one copy is in "
        "the training set and another in the test set.",
        evidence,
        images=copies,
        names=[first_of([evidence.names[index] for index in group], " ≈ ") for group in groups],
    )


def outliers(statistics: OutlierStatistics, explained: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for images with large residuals or scores; `explained` ones are unlike the others for a known reason."""
    slow = evidence.scores is not None and changes_slowly(evidence.scores)
    beside, along = (_far_from_most(np.where(explained, 0, values), in_movie=slow) for values in statistics)
    meanings = [
        f"{count_of(beside.sum(), 'image')} with residuals (Q) far above those of most, so that the components do not "
        "describe them. ",
        f"{count_of(along.sum(), 'image')} with scores far from those of most (Hotelling's T squared). ",
    ]
    meaning = "".join(text for text, found in zip(meanings, (beside, along), strict=True) if found.any())
    return about_images(
        "outliers",
        beside | along,
        evidence,
        "{} unlike the others",
        f"{meaning}They may show something else, or be damaged.",
    )


def _far_from_most(values: np.ndarray, *, in_movie: bool) -> np.ndarray:
    """Find values far above the median of those that are not 0; in a movie, also far above those before and after."""
    far, positive = np.zeros(len(values), dtype=bool), values > 0
    if positive.sum() >= MIN_IMAGES:
        above, _ = log_deviations(values[positive])
        far[positive] = above > np.maximum(OUTLIER_DEVIATIONS * spread_of_tails(above), np.log(OUTLIER_FACTOR))
    while in_movie and far.any():  # the end of a slow change is like frames that are like frames that are not far
        calm = np.flatnonzero(~far & positive)
        after = np.searchsorted(calm, np.flatnonzero(far))
        last = len(calm) - 1
        nearest, beyond = (
            values[calm[np.clip([after - 1 - step, after + step], 0, last)]] for step in (0, 1)
        )  # before and after
        expected = nearest * np.maximum(1, nearest / beyond)  # a change that gets faster goes on by the same factor
        alike = values[far] <= OUTLIER_FACTOR * expected.max(axis=0)
        if not alike.any():
            break
        far[far] = ~alike
    return far


def leverage(scores: np.ndarray, explained: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for images that make up most of a component, beside `explained` ones: overexposed images do, too."""
    squares = np.asarray(scores, dtype=np.float64) ** 2
    total = squares.sum(axis=0)
    strong = total > 1e-9 * total.max(initial=0)  # a component of almost no variance is arbitrary
    if len(squares) < MIN_IMAGES or not strong.any():
        return None
    shares = squares[:, strong] / total[strong]
    # Of images that have little in common, as diffraction patterns, each makes a component, and is like the others. The
    # square of a score, compared with the mean squared distance of the images from their mean, tells the difference.
    sizes = shares * evidence.explained_variance_ratio[strong] * len(squares)
    alone = shares > LEVERAGE_SHARE
    ordered = -np.sort(-shares, axis=0)[: max(1, int(LEVERAGE_FEW * len(shares)))]
    together = (ordered.sum(axis=0) > LEVERAGE_OF_FEW) & (shares >= np.maximum(ordered[-1], ordered[0] / 4))
    found = ((alone | together) & (sizes > OUTLIER_FACTOR)).any(axis=1) & ~explained
    return about_images(
        "leverage",
        found,
        evidence,
        f"{{}} with a component of {'its' if found.sum() == 1 else 'their'} own",
        f"A single image makes up more than {percent(LEVERAGE_SHARE)} of the variance of a component, or a few images "
        f"more than {percent(LEVERAGE_OF_FEW)}. That component says nothing about the other images.",
    )
