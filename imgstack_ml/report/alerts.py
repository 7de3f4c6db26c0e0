"""Findings that save a week: images that are not what they seem, by small numbers about each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..inspection.statistics import ImageStatistics, odd_ranges

__all__ = ["Alert", "Evidence", "find_alerts"]

# A glint or a dead pixel reaches the end of the range too; one pixel in a hundred is a lost highlight.
CLIPPED_SHARE = 0.01
# Ends of the ranges of cameras with 8, 10, 12, 14 and 16 bits, and of images scaled to 1.
CLIPPED_ENDS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
# Root mean square difference of standardised signatures: a correlation of 0.9976. Copies compressed anew,
# brightened or with noise lie below 0.06; the nearest different images of five collections, at 0.1 and above.
NEAR_DISTANCE = 0.07
MIN_CELLS = 16  # pictures of a handful of pixels are often alike
# Robust standard deviations of the logarithm of an error. The largest in clean collections is 3.
ERROR_DEVIATIONS = 5.0
ERROR_FACTOR = 1.5  # and so many times the median, lest all but equal errors count
# A component is about all images; where one image makes up half of its variance, it is about that image.
LEVERAGE_SHARE = 0.5
# Spearman's rank correlation at which half of the variance of the ranks follows the order of the files.
DRIFT_CORRELATION = 0.7
DRIFT_DEVIATIONS = 4.5  # of a rank correlation by chance, 1 / sqrt(n - 1): 1 in 100,000
DRIFT_COMPONENTS = 3
MIN_IMAGES = 20  # fewer make no statistics
# Correlation of the first scores with mean intensities; a first component of less than a tenth is no great matter.
BRIGHTNESS_CORRELATION = 0.95
BRIGHTNESS_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Alert:
    """Something about a stack that is worth a look before its results are believed.

    Attributes
    ----------
    kind : str
        What it is, in one word.
    title : str
        What was found.
    meaning : str
        What that means, in one sentence.
    action : str
        A line to type.
    images : ndarray of int
        Positions of the images in the stack; empty where it is about the stack as a whole.
    names : list of str
        The images by name, or groups of them.
    """

    kind: str
    title: str
    meaning: str
    action: str
    images: np.ndarray
    names: list[str]


class Evidence(NamedTuple):
    """What alerts are found by.

    Attributes
    ----------
    statistics : ImageStatistics or None
        None where the images were not read.
    scores : ndarray of shape (n, k), or None
    errors : ndarray of shape (n,), or None
        Reconstruction errors.
    explained_variance_ratio : ndarray of shape (k,)
    names : sequence of str
        A name for each image.
    labels : ndarray of shape (n,), or None
        A label for each image: drift within labels only is looked for.
    problems : sequence of (str, str)
        Name and reason of each file that was left out.
    """

    statistics: ImageStatistics | None
    scores: np.ndarray | None
    errors: np.ndarray | None
    explained_variance_ratio: np.ndarray
    names: Sequence[str]
    labels: np.ndarray | None = None
    problems: Sequence[tuple[str, str]] = ()


def find_alerts(evidence: Evidence) -> dict[str, Alert]:
    """Look for everything that can be looked for, the worst first.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    alerts : dict of str to Alert
        By kind.
    """
    finders: list[Callable[[Evidence], Alert | None]] = [_skipped]
    if evidence.statistics is not None:
        finders += [_constant, _clipped, _odd_range, _duplicates]
    if evidence.errors is not None:
        finders.append(_unlike)
    if evidence.scores is not None:
        finders += [_leverage, _drift]
    if evidence.scores is not None and evidence.statistics is not None:
        finders.append(_brightness)
    found = (finder(evidence) for finder in finders)
    return {alert.kind: alert for alert in found if alert is not None}


def _skipped(evidence: Evidence) -> Alert | None:
    if not evidence.problems:
        return None
    n = len(evidence.problems)
    return Alert(
        "skipped",
        f"{_count(n, 'file')} left out",
        "They could not be read as images, so nothing here is about them.",
        "stack.problems  # the files, and what is wrong with each",
        np.empty(0, dtype=int),
        [f"{name}: {reason}" for name, reason in evidence.problems],
    )


def _constant(evidence: Evidence) -> Alert | None:
    statistics = _of(evidence)
    constant = (statistics.minima == statistics.maxima).all(axis=1)
    return _about(
        evidence,
        "constant",
        constant,
        "{} of one value throughout",
        "A shutter that stayed closed, a missing file filled with zeros or a failed export look like this; "
        "there is no picture in them.",
    )


def _clipped(evidence: Evidence) -> Alert | None:
    statistics = _of(evidence)
    ends = np.isin(statistics.maxima, CLIPPED_ENDS) & (statistics.minima < statistics.maxima)
    share = np.where(ends, statistics.at_top, 0).max(axis=1)
    return _about(
        evidence,
        "clipped",
        share > CLIPPED_SHARE,
        "{} overexposed",
        f"More than {_percent(CLIPPED_SHARE)} of their pixels have the largest value that the camera can give (up to "
        f"{_percent(share.max())}), so that intensities and shapes there are lost; no rescaling brings them back.",
    )


def _odd_range(evidence: Evidence) -> Alert | None:
    odd = odd_ranges(_of(evidence))
    return _about(
        evidence,
        "range",
        odd,
        "{} with a very different range of intensities",
        "Their range is less than half or more than twice that of most images, which a PCA takes for the main "
        "difference between them.",
        "model = make_pipeline(im.IntensityRescaler(), im.ImagePCA(16))  # one range for all",
    )


def _duplicates(evidence: Evidence) -> Alert | None:
    groups = near_duplicates(_of(evidence))
    if not groups:
        return None
    copies = np.concatenate([group[1:] for group in groups])
    title = f"{_count(len(copies), 'image')} nearly the same as another"
    return Alert(
        "duplicates",
        title,
        "Copies count twice in a mean and in components, and flatter any score of a classifier when one is in the "
        "training half and one in the test half.",
        _leave_out("duplicates"),
        copies,
        [" ≈ ".join(evidence.names[index] for index in group) for group in groups],
    )


def _unlike(evidence: Evidence) -> Alert | None:
    assert evidence.errors is not None
    return _about(
        evidence,
        "outliers",
        _large_errors(evidence.errors),
        "{} unlike the others",
        "The components cannot draw them: their reconstruction error is far above that of the rest, as of images of "
        "something else, out of focus, or damaged.",
    )


def _leverage(evidence: Evidence) -> Alert | None:
    assert evidence.scores is not None
    squares = np.asarray(evidence.scores, dtype=np.float64) ** 2
    total = squares.sum(axis=0)
    # Components of next to no variance are arbitrary.
    strong = total > 1e-9 * total.max(initial=0)
    if len(squares) < MIN_IMAGES or not strong.any():
        return None
    share = squares[:, strong] / total[strong]
    return _about(
        evidence,
        "leverage",
        share.max(axis=1) > LEVERAGE_SHARE,
        "{} with a component of their own",
        f"A single image makes up more than {_percent(LEVERAGE_SHARE)} of the variance of a component, which then says "
        "nothing about the others.",
    )


def _drift(evidence: Evidence) -> Alert | None:
    assert evidence.scores is not None
    n = len(evidence.scores)
    if n < MIN_IMAGES:
        return None
    series = {f"PC {j + 1}": column for j, column in enumerate(evidence.scores.T[:DRIFT_COMPONENTS])}
    if evidence.statistics is not None:
        series["the mean intensity"] = evidence.statistics.means.mean(axis=1)
    labels = np.zeros(n) if evidence.labels is None else np.asarray(evidence.labels)
    order = _ranks_within(np.arange(n), labels)
    least = max(DRIFT_CORRELATION, DRIFT_DEVIATIONS / np.sqrt(n - 1))
    found = {name: _correlation(order, _ranks_within(values, labels)) for name, values in series.items()}
    strongest = max(found, key=lambda name: abs(found[name]))
    if abs(found[strongest]) < least:
        return None
    within = "" if evidence.labels is None else " within each label"
    return Alert(
        "drift",
        f"Images change steadily with the order of their files{within}",
        f"The rank correlation of {strongest} with the order is {found[strongest]:.2f}: a lamp that fades, bleaching, "
        "or a plate read row by row; where treatments follow the same order, the two cannot be told apart.",
        "plt.plot(model.transform(stack)[:, :3], '.')",
        np.empty(0, dtype=int),
        [],
    )


def _brightness(evidence: Evidence) -> Alert | None:
    assert evidence.scores is not None
    ratio = float(evidence.explained_variance_ratio[0])
    if len(evidence.scores) < MIN_IMAGES or ratio < BRIGHTNESS_SHARE:
        return None
    correlation = _correlation(evidence.scores[:, 0], _of(evidence).means.mean(axis=1))
    if abs(correlation) < BRIGHTNESS_CORRELATION:
        return None
    return Alert(
        "brightness",
        f"The first component is the brightness of the images ({_percent(ratio)} of the variance)",
        f"Its scores and the mean intensities correlate by {abs(correlation):.3f}, so it tells about light or stain, "
        "and shapes begin with the second one.",
        "scores = model.transform(stack)[:, 1:]  # or even out the light before",
        np.empty(0, dtype=int),
        [],
    )


def near_duplicates(statistics: ImageStatistics) -> list[list[int]]:
    """Group images that are nearly the same picture, each one with its nearest neighbour: groups by first image."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    pairs = [_equal_neighbours(statistics.digests)]
    # Each picture once: a thousand copies of one would have each other for neighbours.
    _, first = np.unique(statistics.digests, return_index=True)
    some = first[np.isfinite(statistics.signatures[first]).all(axis=1)]
    if len(some) > 1:
        signatures = statistics.signatures[some].astype(np.float32)
        reach = NEAR_DISTANCE * np.sqrt(signatures.shape[1])
        if signatures.shape[1] >= MIN_CELLS:
            _, nearest = cKDTree(signatures).query(signatures, k=2, distance_upper_bound=reach)
            row, column = np.nonzero((nearest < len(some)) & (nearest != np.arange(len(some))[:, None]))
            pairs.append(np.column_stack([some[row], some[nearest[row, column]]]))
    joined = np.concatenate(pairs)
    constant = (statistics.minima == statistics.maxima).all(axis=1)
    joined = joined[~constant[joined[:, 0]]]
    n = len(statistics.digests)
    graph = coo_array((np.ones(len(joined)), (joined[:, 0], joined[:, 1])), shape=(n, n))
    _, group_of = connected_components(graph, directed=False)
    involved = np.unique(joined)
    groups: dict[int, list[int]] = {}
    for index in involved.tolist():
        groups.setdefault(int(group_of[index]), []).append(index)
    return sorted(groups.values())


def _equal_neighbours(digests: np.ndarray) -> np.ndarray:
    """Pairs (m, 2) of images whose pixels are equal, each with the next one like it."""
    order = np.argsort(digests, kind="stable")
    same = digests[order[1:]] == digests[order[:-1]]
    return np.column_stack([order[:-1][same], order[1:][same]])


def _large_errors(errors: np.ndarray) -> np.ndarray:
    large = np.zeros(len(errors), dtype=bool)
    some = errors > 0
    if some.sum() < MIN_IMAGES:
        return large
    size = np.log(errors[some])
    above = size - np.median(size)
    spread = 1.4826 * np.median(np.abs(above))
    large[some] = (above > ERROR_DEVIATIONS * spread) & (above > np.log(ERROR_FACTOR))
    return large


def _ranks_within(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ranks from -1/2 to 1/2 among the images of the same label."""
    from scipy.stats import rankdata

    ranks = np.zeros(len(values))
    for label in np.unique(labels):
        inside = labels == label
        ranks[inside] = (rankdata(values[inside]) - 0.5) / inside.sum() - 0.5
    return ranks


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _about(
    evidence: Evidence, kind: str, found: np.ndarray, title: str, meaning: str, action: str | None = None
) -> Alert | None:
    """Make an alert about the images `found`, if there are any."""
    images = np.flatnonzero(found)
    if not len(images):
        return None
    names = [evidence.names[index] for index in images.tolist()]
    return Alert(kind, title.format(_count(len(images), "image")), meaning, action or _leave_out(kind), images, names)


def _leave_out(kind: str) -> str:
    return f'stack = stack[np.setdiff1d(np.arange(len(stack)), report.alerts["{kind}"].images)]'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _of(evidence: Evidence) -> ImageStatistics:
    assert evidence.statistics is not None, "looked for only where the images were read"
    return evidence.statistics
