"""Alerts: findings about a stack that are worth a look before its results are believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..decomposition.residuals import OutlierStatistics
from ..inspection.statistics import ImageStatistics, log_deviations, odd_ranges
from .duplicates import near_duplicates

__all__ = ["Alert", "Evidence", "find_alerts"]

# A reflection or a dead pixel has the largest value too; one pixel in a hundred means lost highlights.
CLIPPED_SHARE = 0.01
# Largest values of cameras with 8, 10, 12, 14 and 16 bits.
CLIPPED_ENDS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
# An outlier is this many robust standard deviations (of the logarithm of Q or of T squared) above the median, and this
# many times the median. The largest deviation in clean collections is 4.1; the factor is for values almost equal.
OUTLIER_DEVIATIONS = 5.0
OUTLIER_FACTOR = 2.25
# A component should be about all images. It is about one image if that makes up half of its variance.
LEVERAGE_SHARE = 0.5
# At this rank correlation (Spearman), half of the variance of the ranks follows the order of the files.
DRIFT_CORRELATION = 0.7
DRIFT_DEVIATIONS = 4.5  # standard deviations, 1 / sqrt(n - 1), of a rank correlation by chance: 1 in 100,000
DRIFT_COMPONENTS = 3
MIN_IMAGES = 20  # fewer are too few for statistics
# Correlation of the first scores with the mean intensities; a first component of less than a tenth does not matter.
BRIGHTNESS_CORRELATION = 0.95
BRIGHTNESS_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Alert:
    """A finding about a stack that is worth a look before its results are believed.

    `generate_report` looks for alerts; they are the values of ``report.alerts``.

    Attributes
    ----------
    kind : {"skipped", "constant", "clipped", "range", "duplicates", "outliers", "leverage", "drift", "brightness"}
        What was found: files that could not be read; images of one value; overexposed images; images with a very
        different range of intensities; copies of other images; images with large residuals, or far from most along the
        components; images that
        make up most of a component; a steady change along the order of the images; a first component that is the
        brightness of the images.
    title : str
        What was found, with the number of images.
    meaning : str
        What that means for the results.
    action : str
        A line of Python to type, where ``stack``, ``model`` and ``report`` are the stack, the fitted estimator and the
        report.
    images : ndarray of int
        Positions of the images in the stack; empty if the alert is about the stack as a whole.
    names : list of str
        Names of the images; one entry for each group of duplicates, or for each skipped file with the reason.

    See Also
    --------
    generate_report : Makes the report, and looks for alerts in it.

    Examples
    --------
    >>> from imgstack_ml import ImagePCA, generate_report
    >>> from imgstack_ml.datasets import load_faces
    >>> stack = load_faces()[0][:100].copy()
    >>> stack[[7, 30]] = 0  # a shutter that stayed closed
    >>> report = generate_report(ImagePCA(8).fit(stack), stack)
    >>> alert = report.alerts["constant"]
    >>> alert.title, alert.names
    ('2 images of one value throughout', ['image 7', 'image 30'])
    >>> alert.images
    array([ 7, 30])
    """

    kind: str
    title: str
    meaning: str
    action: str
    images: np.ndarray
    names: list[str]


class Evidence(NamedTuple):
    """The numbers in which alerts are looked for.

    Attributes
    ----------
    statistics : ImageStatistics or None
        None if the images were not read.
    scores : ndarray of shape (n, k), or None
    outliers : OutlierStatistics, or None
        As from `ImagePCA.outlier_statistics`.
    explained_variance_ratio : ndarray of shape (k,)
    names : sequence of str
        A name for each image.
    labels : ndarray of shape (n,), or None
        A label for each image; with labels, drift is looked for within each label only.
    problems : sequence of (str, str)
        Name and reason of each file that was skipped.
    """

    statistics: ImageStatistics | None
    scores: np.ndarray | None
    outliers: OutlierStatistics | None
    explained_variance_ratio: np.ndarray
    names: Sequence[str]
    labels: np.ndarray | None = None
    problems: Sequence[tuple[str, str]] = ()


def find_alerts(evidence: Evidence) -> dict[str, Alert]:
    """Look for every kind of alert that the evidence allows.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    alerts : dict of str to Alert
        By kind, the worst first.
    """
    statistics, scores, names = evidence.statistics, evidence.scores, evidence.names
    found = [_skipped(evidence.problems)]
    if statistics is not None:
        found += [_constant(statistics, names), _clipped(statistics, names)]
        found += [_odd_range(statistics, names), _duplicates(statistics, names)]
    if evidence.outliers is not None:
        found.append(_outliers(evidence.outliers, names))
    if scores is not None:
        found += [_leverage(scores, names), _drift(scores, statistics, evidence.labels)]
    if scores is not None and statistics is not None:
        found.append(_brightness(scores, statistics, float(evidence.explained_variance_ratio[0])))
    return {alert.kind: alert for alert in found if alert is not None}


def _skipped(problems: Sequence[tuple[str, str]]) -> Alert | None:
    if not problems:
        return None
    return Alert(
        "skipped",
        f"{_count(len(problems), 'file')} left out",
        "They could not be read as images. This report does not include them.",
        "stack.problems  # the files, and what is wrong with each",
        np.empty(0, dtype=int),
        [f"{name}: {reason}" for name, reason in problems],
    )


def _constant(statistics: ImageStatistics, names: Sequence[str]) -> Alert | None:
    constant = (statistics.minima == statistics.maxima).all(axis=1)
    return _about_images(
        "constant",
        constant,
        names,
        "{} of one value throughout",
        "They show nothing. Usual causes are a closed shutter, a missing file filled with zeros, or a failed export.",
    )


def _clipped(statistics: ImageStatistics, names: Sequence[str]) -> Alert | None:
    at_end = np.isin(statistics.maxima, CLIPPED_ENDS) & (statistics.minima < statistics.maxima)
    share = np.where(at_end, statistics.at_top, 0).max(axis=1)
    return _about_images(
        "clipped",
        share > CLIPPED_SHARE,
        names,
        "{} overexposed",
        f"More than {_percent(CLIPPED_SHARE)} of their pixels have the largest value of the camera (up to "
        f"{_percent(share.max())}). Intensities and shapes there are lost, and no rescaling restores them.",
    )


def _odd_range(statistics: ImageStatistics, names: Sequence[str]) -> Alert | None:
    return _about_images(
        "range",
        odd_ranges(statistics),
        names,
        "{} with a very different range of intensities",
        "Their range is less than half or more than twice that of most images. A PCA takes this for the main "
        "difference between the images.",
        "model = make_pipeline(im.IntensityRescaler(), im.ImagePCA(16))  # one range for all",
    )


def _duplicates(statistics: ImageStatistics, names: Sequence[str]) -> Alert | None:
    groups = near_duplicates(statistics)
    if not groups:
        return None
    copies = np.concatenate([group[1:] for group in groups])
    return Alert(
        "duplicates",
        f"{_count(len(copies), 'image')} nearly the same as another",
        "Copies count twice in the mean and in the components. The score of a classifier is too good if one copy is in "
        "the training set and another in the test set.",
        _line_to_leave_out("duplicates"),
        copies,
        [" ≈ ".join(names[index] for index in group) for group in groups],
    )


def _outliers(statistics: OutlierStatistics, names: Sequence[str]) -> Alert | None:
    beside, along = (_far_above_most(np.asarray(values)) for values in statistics)
    meanings = [
        f"{_count(beside.sum(), 'image')} with residuals (Q) far above those of most, so that the components do not "
        "describe them. ",
        f"{_count(along.sum(), 'image')} with scores far from those of most (Hotelling's T squared). ",
    ]
    meaning = "".join(text for text, found in zip(meanings, (beside, along), strict=True) if found.any())
    return _about_images(
        "outliers",
        beside | along,
        names,
        "{} unlike the others",
        f"{meaning}They may show something else, be out of focus, or be damaged.",
    )


def _far_above_most(values: np.ndarray) -> np.ndarray:
    """Find values far above the median of those that are not 0."""
    far, positive = np.zeros(len(values), dtype=bool), values > 0
    if positive.sum() >= MIN_IMAGES:
        above, spread = log_deviations(values[positive])
        far[positive] = (above > OUTLIER_DEVIATIONS * spread) & (above > np.log(OUTLIER_FACTOR))
    return far


def _leverage(scores: np.ndarray, names: Sequence[str]) -> Alert | None:
    squares = np.asarray(scores, dtype=np.float64) ** 2
    total = squares.sum(axis=0)
    strong = total > 1e-9 * total.max(initial=0)  # a component of almost no variance is arbitrary
    if len(squares) < MIN_IMAGES or not strong.any():
        return None
    share = squares[:, strong] / total[strong]
    return _about_images(
        "leverage",
        share.max(axis=1) > LEVERAGE_SHARE,
        names,
        "{} with a component of their own",
        f"A single image makes up more than {_percent(LEVERAGE_SHARE)} of the variance of a component. That component "
        "says nothing about the other images.",
    )


def _drift(scores: np.ndarray, statistics: ImageStatistics | None, labels: np.ndarray | None) -> Alert | None:
    n = len(scores)
    if n < MIN_IMAGES:
        return None
    series = {f"PC {j + 1}": column for j, column in enumerate(scores.T[:DRIFT_COMPONENTS])}
    if statistics is not None:
        series["the mean intensity"] = statistics.means.mean(axis=1)
    groups = np.zeros(n) if labels is None else np.unique(labels, return_inverse=True)[1]  # compared fast
    order = _ranks_within(np.arange(n), groups)
    correlations = {name: _correlation(order, _ranks_within(values, groups)) for name, values in series.items()}
    strongest = max(correlations, key=lambda name: abs(correlations[name]))
    if abs(correlations[strongest]) < max(DRIFT_CORRELATION, DRIFT_DEVIATIONS / np.sqrt(n - 1)):
        return None
    within = "" if labels is None else " within each label"
    return Alert(
        "drift",
        f"Images change steadily with the order of their files{within}",
        f"The rank correlation of {strongest} with the order is {correlations[strongest]:.2f}. Usual causes are a lamp "
        "that fades, bleaching, or a plate read row by row. If treatments follow the same order, their effect cannot "
        "be told from this change.",
        "plt.plot(model.transform(stack)[:, :3], '.')",
        np.empty(0, dtype=int),
        [],
    )


def _brightness(scores: np.ndarray, statistics: ImageStatistics, share: float) -> Alert | None:
    if len(scores) < MIN_IMAGES or share < BRIGHTNESS_SHARE:
        return None
    correlation = abs(_correlation(scores[:, 0], statistics.means.mean(axis=1)))
    if correlation < BRIGHTNESS_CORRELATION:
        return None
    return Alert(
        "brightness",
        f"The first component is the brightness of the images ({_percent(share)} of the variance)",
        f"Its scores and the mean intensities have a correlation of {correlation:.3f}. It describes light or stain; "
        "shapes begin with the second component.",
        "scores = model.transform(stack)[:, 1:]  # or correct the light before the fit",
        np.empty(0, dtype=int),
        [],
    )


def _about_images(
    kind: str, found: np.ndarray, names: Sequence[str], title: str, meaning: str, action: str | None = None
) -> Alert | None:
    """Make an alert about the images of the mask `found`; None if there are none."""
    images = np.flatnonzero(found)
    if not len(images):
        return None
    title = title.format(_count(len(images), "image"))
    return Alert(
        kind, title, meaning, action or _line_to_leave_out(kind), images, [names[index] for index in images.tolist()]
    )


def _ranks_within(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank values among the images of the same label, from -1/2 to 1/2."""
    from scipy.stats import rankdata

    ranks = np.zeros(len(values))
    for label in np.unique(labels):
        inside = labels == label
        ranks[inside] = (rankdata(values[inside]) - 0.5) / inside.sum() - 0.5
    return ranks


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 if one of the two is constant."""
    # Near 1, in whatever units: squares of sums of squares are within float64.
    a, b = (np.ldexp(values, -int(np.frexp(np.abs(values).max())[1])) for values in (a, b))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _line_to_leave_out(kind: str) -> str:
    """Line of Python that removes the images of an alert from the stack."""
    return f'stack = stack[np.setdiff1d(np.arange(len(stack)), report.alerts["{kind}"].images)]'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
