"""Alerts: findings about a stack that are worth a look before its results are believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..decomposition.residuals import OutlierStatistics
from ..inspection.pipelines import split_at_pca
from ..inspection.statistics import ImageStatistics, log_deviations, odd_ranges
from .duplicates import near_duplicates
from .remedies import MAX_MOVED, Run, remedy, rescales
from .sensor import exchanged_channels, stuck_pixels, uneven_light
from .trends import MIN_IMAGES, changes_slowly, correlation, flickers, is_light, less_means, steady_change

__all__ = ["Alert", "Evidence", "find_alerts"]

MAX_NAMED = 5  # images of an alert or of a group that are named; the others are counted
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
DRIFT_COMPONENTS = 3
IMAGES_PER_FOLDER = 5  # on average; of fewer, folders are no groups
# Correlation of the first scores with the mean intensities; a first component of less than a tenth does not matter.
BRIGHTNESS_CORRELATION = 0.95
BRIGHTNESS_SHARE = 0.1
LIGHT_SPREAD = 0.25  # standard deviation of the logarithm; cells of one slide differ by less


@dataclass(frozen=True, eq=False)
class Alert:
    """A finding about a stack that is worth a look before its results are believed.

    `generate_report` looks for alerts; they are the values of ``report.alerts``.

    Attributes
    ----------
    kind : str
        What was found:

        - ``"skipped"``: files that could not be read;
        - ``"constant"``: images of one value;
        - ``"clipped"``: overexposed images;
        - ``"range"``: images with a very different range of intensities, which the Pipeline does not rescale;
        - ``"channels"``: images whose channels are in another order;
        - ``"duplicates"``: copies of other images; of a movie, frames of equal pixels only;
        - ``"outliers"``: images with large residuals, or far from most along the components;
        - ``"leverage"``: images that make up most of a component;
        - ``"pixels"``: single pixels or lines that never change;
        - ``"illumination"``: light that falls off over all images;
        - ``"drift"``: a steady change along the order of the images, within a folder where there are folders; of a
          movie, a steady change of the light only;
        - ``"brightness"``: a first component that is the light, which flickers or differs much.
    title : str
        What was found, with the number of images.
    meaning : str
        What that means for the results.
    action : str
        What to type: a command, if ``imgstack-ml pca`` made the model and has an option that helps; otherwise lines of
        Python, where ``stack``, ``model`` and ``report`` are the stack, the fitted estimator and the report.
    images : ndarray of int
        Positions of the images in the stack; empty if the alert is about the stack as a whole.
    names : list of str
        Names of the images; one entry for each group of duplicates (five are named, the others counted), for each
        skipped file with the reason, or for each pixel.

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

    def __repr__(self) -> str:
        named = [f"  {_first_of(self.names)}"] if self.names else []
        lines = [f"Alert {self.kind!r}: {self.title}", f"  {self.meaning}", *named, *self.action.splitlines()]
        return "\n".join(lines)


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
        A label for each image. Without labels, the folders in the names are.
    problems : sequence of (str, str)
        Name and reason of each file that was skipped.
    prepared : ImageStatistics or None
        Statistics of the images as the PCA gets them; None if it gets no images.
    estimator : ImagePCA or Pipeline or None
        The fitted estimator.
    run : Run or None
        The run of the command line that made it.
    """

    statistics: ImageStatistics | None
    scores: np.ndarray | None
    outliers: OutlierStatistics | None
    explained_variance_ratio: np.ndarray
    names: Sequence[str]
    labels: np.ndarray | None = None
    problems: Sequence[tuple[str, str]] = ()
    prepared: ImageStatistics | None = None
    estimator: Any = None
    run: Run | None = None

    @property
    def groups(self) -> np.ndarray:
        """Label of each image, or the folder in its name; the same for all where there are neither."""
        found = [name.rpartition("/")[0] for name in self.names] if self.labels is None else self.labels
        few = IMAGES_PER_FOLDER * len(np.unique(found)) <= len(found)
        return np.asarray(found) if few else np.full(len(found), "")


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
    statistics, scores, n = evidence.statistics, evidence.scores, len(evidence.names)
    places = stuck_pixels(evidence.estimator)
    found = [_skipped(evidence)]
    if statistics is not None:
        clipped = _share_at_the_end(statistics, evidence, places)
        found += [_constant(statistics, evidence), _clipped(clipped, evidence), _odd_range(clipped, evidence)]
    # What these say of an image also explains that its light differs; two of them, that it is unlike the others.
    dark, unlike = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for alert in filter(None, found):
        dark[alert.images] = True
        unlike[alert.images] |= alert.kind != "clipped"
    if statistics is not None:
        found += [_channels(statistics, evidence), _duplicates(statistics, evidence)]
    if evidence.outliers is not None:
        found.append(_outliers(evidence.outliers, unlike, evidence))
    found += [_pixels(places, evidence), _illumination(evidence)]
    drift = None if scores is None else _drift(scores, dark, evidence)
    found += [None if scores is None else _leverage(scores, evidence), drift]
    if scores is not None and evidence.prepared is not None and drift is None:
        found.append(_brightness(scores, evidence.prepared, dark, evidence))
    return {alert.kind: alert for alert in found if alert is not None}


def _skipped(evidence: Evidence) -> Alert | None:
    if not evidence.problems:
        return None
    return _alert(
        "skipped",
        f"{_count(len(evidence.problems), 'file')} left out",
        "They could not be read as images. This report does not include them.",
        evidence,
        names=[f"{name}: {reason}" for name, reason in evidence.problems],
    )


def _constant(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    return _about_images(
        "constant",
        (statistics.minima == statistics.maxima).all(axis=1),
        evidence,
        "{} of one value throughout",
        "They show nothing. Usual causes are a closed shutter, a missing file filled with zeros, or a failed export.",
    )


def _share_at_the_end(statistics: ImageStatistics, evidence: Evidence, stuck: np.ndarray) -> np.ndarray:
    """Share of the pixels of each image that have the largest value of a camera, beside pixels that are stuck."""
    at_end = np.isin(statistics.maxima, CLIPPED_ENDS) & (statistics.minima < statistics.maxima)
    share: np.ndarray = np.where(at_end, statistics.at_top, 0).max(axis=1)
    if not len(stuck):
        return share
    n_values = split_at_pca(evidence.estimator)[1].n_features_in_
    return share - len(stuck) * statistics.means.shape[1] / n_values


def _clipped(share: np.ndarray, evidence: Evidence) -> Alert | None:
    return _about_images(
        "clipped",
        share > CLIPPED_SHARE,
        evidence,
        "{} overexposed",
        f"More than {_percent(CLIPPED_SHARE)} of their pixels have the largest value of the camera (up to "
        f"{_percent(share.max())}). Intensities and shapes there are lost, and no rescaling restores them.",
    )


def _odd_range(clipped: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for odd ranges; those of overexposed images are explained."""
    if evidence.prepared is None:
        return None
    return _about_images(
        "range",
        odd_ranges(evidence.prepared) & (clipped <= CLIPPED_SHARE),
        evidence,
        "{} with a very different range of intensities",
        "Their range is less than half or more than twice that of most images, as of another exposure or another unit. "
        "A PCA takes this for the main difference between the images.",
        "rescale",
    )


def _channels(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    return _about_images(
        "channels",
        exchanged_channels(statistics),
        evidence,
        "{} with channels in another order",
        "Their channels are unlike those of the other images, and like them in another order. Usual causes are BGR for "
        "RGB, or a changed order of filters.",
    )


def _duplicates(statistics: ImageStatistics, evidence: Evidence) -> Alert | None:
    groups = near_duplicates(statistics)
    if not groups:
        return None
    copies = np.concatenate([group[1:] for group in groups])
    return _alert(
        "duplicates",
        f"{_count(len(copies), 'image')} nearly the same as another",
        "Copies count twice in the mean and in the components. The score of a classifier is too good if one copy is in "
        "the training set and another in the test set.",
        evidence,
        images=copies,
        names=[_first_of([evidence.names[index] for index in group], " ≈ ") for group in groups],
    )


def _outliers(statistics: OutlierStatistics, explained: np.ndarray, evidence: Evidence) -> Alert | None:
    slow = evidence.scores is not None and changes_slowly(evidence.scores)
    beside, along = (_far_from_most(np.where(explained, 0, values), in_movie=slow) for values in statistics)
    meanings = [
        f"{_count(beside.sum(), 'image')} with residuals (Q) far above those of most, so that the components do not "
        "describe them. ",
        f"{_count(along.sum(), 'image')} with scores far from those of most (Hotelling's T squared). ",
    ]
    meaning = "".join(text for text, found in zip(meanings, (beside, along), strict=True) if found.any())
    return _about_images(
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
        above, spread = log_deviations(values[positive])
        far[positive] = (above > OUTLIER_DEVIATIONS * spread) & (above > np.log(OUTLIER_FACTOR))
    while in_movie and far.any():  # the end of a slow change is like frames that are like frames that are not far
        calm = np.flatnonzero(~far)
        after = np.searchsorted(calm, np.flatnonzero(far))
        beside = np.maximum(values[calm[(after - 1).clip(0)]], values[calm[after.clip(max=len(calm) - 1)]])
        alike = values[far] <= OUTLIER_FACTOR * beside
        if not alike.any():
            break
        far[far] = ~alike
    return far


def _leverage(scores: np.ndarray, evidence: Evidence) -> Alert | None:
    squares = np.asarray(scores, dtype=np.float64) ** 2
    total = squares.sum(axis=0)
    strong = total > 1e-9 * total.max(initial=0)  # a component of almost no variance is arbitrary
    if len(squares) < MIN_IMAGES or not strong.any():
        return None
    found = (squares[:, strong] / total[strong]).max(axis=1) > LEVERAGE_SHARE
    return _about_images(
        "leverage",
        found,
        evidence,
        f"{{}} with a component of {'its' if found.sum() == 1 else 'their'} own",
        f"A single image makes up more than {_percent(LEVERAGE_SHARE)} of the variance of a component. That component "
        "says nothing about the other images.",
    )


def _pixels(places: np.ndarray, evidence: Evidence) -> Alert | None:
    if not len(places) or _n_fitted(evidence) < MIN_IMAGES:
        return None
    return _alert(
        "pixels",
        f"{_count(len(places), 'pixel')} that never change{'s' * (len(places) == 1)}",
        "Their value is that of all images, and far from those beside. They are dead or hot pixels of the camera.",
        evidence,
        names=[f"row {row}, column {column}" for row, column in places.tolist()],
    )


def _illumination(evidence: Evidence) -> Alert | None:
    factor = uneven_light(evidence.estimator)
    if factor == 1 or _n_fitted(evidence) < MIN_IMAGES:
        return None
    return _alert(
        "illumination",
        f"Light falls off over the images, by a factor of {factor:.2g}",
        "Means and differences of intensities do so alike. The same object then has other intensities elsewhere in an "
        "image.",
        evidence,
    )


def _drift(scores: np.ndarray, explained: np.ndarray, evidence: Evidence) -> Alert | None:
    """Look for a steady change, of all groups together and of each large one; in a movie only the light counts."""
    light, n = evidence.prepared, len(scores)
    series = {} if changes_slowly(scores) else {f"PC {j + 1}": one for j, one in enumerate(scores.T[:DRIFT_COMPONENTS])}
    by_light = light is not None and is_light(light, ~explained)
    if light is not None and (series or by_light):
        series["the mean intensity"] = light.means.mean(axis=1)
    names, groups = np.unique(evidence.groups, return_inverse=True)
    parts = [("", np.ones(n, dtype=bool))]
    if len(names) > 1:
        each = f" within each {'folder' if evidence.labels is None else 'label'}"
        parts = [
            (each, parts[0][1]),
            *((f" within {str(name)!r}", groups == number) for number, name in enumerate(names)),
        ]
    for where, inside in parts:
        changes = {name: steady_change(values[inside], groups[inside]) for name, values in series.items()}
        name = max(changes, key=lambda name: abs(changes[name]), default="")
        if name and changes[name]:
            return _alert(
                "drift",
                f"Images change steadily with the order of their files{where}",
                f"The rank correlation of {name} with the order is {changes[name]:.2f}. Usual causes are a lamp that "
                "fades, bleaching, or a plate read row by row. If treatments follow the same order, their effect "
                "cannot be told from this change.",
                evidence,
                remedy_for="rescale" if by_light and not rescales(evidence.estimator) else "drift",
            )
    return None


def _brightness(scores: np.ndarray, light: ImageStatistics, explained: np.ndarray, evidence: Evidence) -> Alert | None:
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
    return _alert(
        "brightness",
        f"The first component is the light of the images ({_percent(share)} of the variance)",
        f"Its scores and the mean intensities have a correlation of {like_light:.3f}, and the light "
        f"{'flickers' if flicker else 'differs from image to image'}. Shapes begin with the second component.",
        evidence,
        remedy_for="brightness" if rescales(evidence.estimator) else "rescale",
    )


def _n_fitted(evidence: Evidence) -> int:
    return int(split_at_pca(evidence.estimator)[1].n_samples_)


def _about_images(
    kind: str, found: np.ndarray, evidence: Evidence, title: str, meaning: str, remedy_for: str = ""
) -> Alert | None:
    """Make an alert about the images of the mask `found`; None if there are none."""
    images = np.flatnonzero(found)
    if not len(images):
        return None
    title = title.format(_count(len(images), "image"))
    names = [evidence.names[index] for index in images.tolist()]
    return _alert(kind, title, meaning, evidence, images=images, names=names, remedy_for=remedy_for)


def _alert(
    kind: str,
    title: str,
    meaning: str,
    evidence: Evidence,
    *,
    images: np.ndarray | None = None,
    names: list[str] | None = None,
    remedy_for: str = "",
) -> Alert:
    images = np.empty(0, dtype=int) if images is None else images
    left_out = [evidence.names[index] for index in images[: MAX_MOVED + 1].tolist()]
    action = remedy(remedy_for or kind, evidence.estimator, left_out, evidence.run)
    return Alert(kind, title, meaning, action, images, names or [])


def _first_of(names: Sequence[str], separator: str = ", ") -> str:
    """Join the first names, and count the others."""
    more = [f"{len(names) - MAX_NAMED:,} more"] if len(names) > MAX_NAMED else []
    return separator.join([*(name if name.isprintable() else repr(name) for name in names[:MAX_NAMED]), *more])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
