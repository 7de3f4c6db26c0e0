"""How images change with their order, and whether light alone changes them."""

from __future__ import annotations

import numpy as np

from ..inspection.statistics import ImageStatistics

__all__ = [
    "MIN_IMAGES",
    "background_follows",
    "changes_little",
    "changes_slowly",
    "correlation",
    "fading_light",
    "flickers",
    "is_light",
    "less_means",
    "steady_change",
    "typical_distance",
]

MIN_IMAGES = 20  # fewer are too few for statistics
MIN_MOVIE = 8  # fewer have no order to speak of
SLOW_SHARE = 0.75  # of the images of a movie, at least, are like the image before
# At this rank correlation (Spearman), half of the variance of the ranks follows the order of the files.
DRIFT_CORRELATION = 0.7
DRIFT_DEVIATIONS = 4.5  # standard deviations, 1 / sqrt(n - 1), of a rank correlation by chance: 1 in 100,000
# A change is steady if it goes on in all quarters of the order: two classes, or three, follow each other in one or two.
# So many standard deviations, 1 / sqrt(n / 2), are the weaker half of the quarters above 0.
DRIFT_WITHIN = 2.0
# Of the background, which nothing but the light changes, a quarter of that variance is enough, if it changes by this
# factor from first to last, and the mean intensity alike.
FADING_CORRELATION = 0.5
FADING_FACTOR = 1.25
FADING_GROUPS = 4  # of as many, half at least must agree; of fewer, the quarters of the order
# Light multiplies the means and contrasts of images alike. Logarithms of both: correlation, and ratio of deviations.
LIGHT_CORRELATION = 0.85
LIGHT_RATIOS = (0.5, 2.0)
FLICKER_SPREAD = 0.03  # of frames, where nothing else changes much from one to the next


def changes_slowly(values: np.ndarray) -> bool:
    """Whether rows (n, m) follow each other as frames of a movie do: closer to the one before than to those far off."""
    return len(values) >= MIN_MOVIE and changes_little(values, typical_distance(values) / 2)


def typical_distance(values: np.ndarray) -> float:
    """Median root mean square difference of rows (n, m) that are far from each other in the order."""
    far = [_distances(values, max(1, len(values) // part)) for part in (2, 3, 5)]
    return float(np.median(np.concatenate(far)))


def changes_little(values: np.ndarray, distance: float) -> bool:
    """Whether most rows (n, m) differ by less than a distance from the one before."""
    return len(values) >= MIN_MOVIE and bool(np.quantile(_distances(values, 1), SLOW_SHARE) < distance)


def _distances(values: np.ndarray, lag: int) -> np.ndarray:
    """Root mean square difference of each row and the one `lag` rows before."""
    return np.sqrt(np.square(values[lag:] - values[:-lag]).mean(axis=1))


def steady_change(
    values: np.ndarray, groups: np.ndarray, least: float = DRIFT_CORRELATION, *, in_most_groups: bool = False
) -> float:
    """Rank correlation of values and their order within groups; 0 if it is below `least` or not steady.

    It is steady if it goes on within all quarters of the order or, where that is asked for, in most groups.
    """
    n, order = len(values), np.arange(len(values))
    if n < MIN_IMAGES:
        return 0.0
    groups = np.unique(groups, return_inverse=True)[1]
    found = correlation(_ranks_within(order, groups), _ranks_within(values, groups))
    if abs(found) < max(least, DRIFT_DEVIATIONS / np.sqrt(n - 1)):
        return 0.0
    quarters = (4 * (_ranks_within(order, groups) + 0.5)).astype(int)
    parts, inside = (groups, groups) if in_most_groups else (quarters, 4 * groups + quarters)
    ranks = _ranks_within(order, inside), _ranks_within(values, inside)
    within = sorted(correlation(*(one[parts == part] for one in ranks)) * np.sign(found) for part in np.unique(parts))
    return found if np.mean(within[: len(within) // 2]) > DRIFT_WITHIN / np.sqrt(n / 2) else 0.0


def fading_light(statistics: ImageStatistics, groups: np.ndarray) -> float:
    """Rank correlation of the background with the order within groups, if the light changes steadily; otherwise 0.

    Light multiplies the background and the mean intensity alike.
    """
    background = _background(statistics)
    if len(background) < MIN_IMAGES or background.min() <= 0:
        return 0.0
    dark, mean = _changes(statistics, groups)
    low, high = (ratio * abs(dark) for ratio in LIGHT_RATIOS)
    if abs(dark) < np.log(FADING_FACTOR) or not low < mean * np.sign(dark) < high:
        return 0.0
    in_most = len(np.unique(groups)) >= FADING_GROUPS
    return steady_change(background, groups, FADING_CORRELATION, in_most_groups=in_most)


def background_follows(statistics: ImageStatistics, groups: np.ndarray) -> bool:
    """Whether the background changes with the order as means do: what grows or multiplies leaves it as it is."""
    if _background(statistics).min() <= 0:
        return True  # as far as one can tell
    dark, mean = _changes(statistics, groups)
    return bool(dark * np.sign(mean) > LIGHT_RATIOS[0] * abs(mean))


def _background(statistics: ImageStatistics) -> np.ndarray:
    """Mean of the darkest cell of each image, where objects are least."""
    darkest = np.nan_to_num(statistics.signatures.astype(np.float64)).min(axis=1)
    found: np.ndarray = statistics.means.mean(axis=1) + statistics.contrasts * darkest
    return found


def _changes(statistics: ImageStatistics, groups: np.ndarray) -> tuple[float, float]:
    """Change of the logarithms of the background and of the mean intensity, from first to last within groups."""
    numbers = np.unique(groups, return_inverse=True)[1]
    places = _ranks_within(np.arange(len(numbers)), numbers)
    logarithms = (np.log(_background(statistics)), np.log(statistics.means.mean(axis=1)))
    dark, mean = (float(less_means(one, groups) @ places / (places @ places)) for one in logarithms)
    return dark, mean


def is_light(statistics: ImageStatistics, seen: np.ndarray, groups: np.ndarray | None = None) -> bool:
    """Whether means and contrasts differ as if the light did, which multiplies both."""
    means, contrasts = statistics.means.mean(axis=1)[seen], statistics.contrasts[seen]
    if len(means) < MIN_IMAGES or means.min() <= 0 or contrasts.min() <= 0:
        return False
    groups = np.zeros(len(means)) if groups is None else groups[seen]
    means, contrasts = (less_means(np.log(values), groups) for values in (means, contrasts))
    low, high = (ratio * means.std() for ratio in LIGHT_RATIOS)
    return bool(low < contrasts.std() < high and correlation(means, contrasts) > LIGHT_CORRELATION)


def flickers(others: np.ndarray, light: np.ndarray) -> bool:
    """Whether the logarithms (n,) of the light of a movie jump, while all `others` (n, m) change slowly."""
    jumps = bool(np.abs(np.diff(light)).mean() > light.std() > FLICKER_SPREAD)
    return jumps and others.shape[1] > 0 and changes_slowly(others)


def less_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Subtract the mean of its group from each value."""
    _, numbers = np.unique(groups, return_inverse=True)
    return values - (np.bincount(numbers, values) / np.bincount(numbers))[numbers]


def _ranks_within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rank values among those of the same group, from -1/2 to 1/2; equal ones get their mean rank."""
    order = np.lexsort((values, groups))
    ordered, first = groups[order], np.r_[True, np.diff(groups[order]) != 0]
    ties = np.cumsum(first | np.r_[True, np.diff(values[order]) != 0]) - 1
    starts, sizes = np.flatnonzero(first)[np.cumsum(first) - 1], np.bincount(ordered)[ordered]
    places = (np.arange(len(values)) - starts + 0.5) / sizes - 0.5
    ranks = np.empty(len(values))
    ranks[order] = (np.bincount(ties, places) / np.bincount(ties))[ties]
    return ranks


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 if one of the two is constant."""
    # Near 1, in whatever units: squares of sums of squares are within float64.
    a, b = (np.ldexp(values, -int(np.frexp(np.abs(values).max())[1])) for values in (a, b))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0
