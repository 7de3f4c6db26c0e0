"""Look for alerts: findings about a stack that are worth a look before its results are believed."""

from __future__ import annotations

import numpy as np

from . import image_alerts, stack_alerts
from .evidence import Alert, Evidence
from .remedies import LEFT_OUT, remedy
from .sensor import stuck_pixels

__all__ = ["faulty_images", "find_alerts", "way_without_all"]


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
    found = [stack_alerts.skipped_files(evidence), stack_alerts.still_channels(evidence)]
    single: list[Alert | None] = []
    if statistics is not None:
        clipped = image_alerts.share_at_the_end(statistics, evidence, places)
        single = [
            image_alerts.constant_images(statistics, evidence),
            image_alerts.half_written(statistics, evidence),
            image_alerts.overexposed_images(clipped, evidence),
            image_alerts.odd_exposures(clipped, evidence),
        ]
    # What these say of an image also explains that its light differs; that it is unlike the others, unless it is
    # overexposed; that it makes up most of a component, unless its range is another.
    dark, unlike, strong = np.zeros((3, n), dtype=bool)
    for alert in filter(None, single):
        dark[alert.images] = True
        unlike[alert.images] |= alert.kind != "clipped"
        strong[alert.images] |= alert.kind != "range"
    found += single
    if evidence.sharpness is not None:
        found.append(image_alerts.unsharp_images(evidence.sharpness, dark, evidence))
    if statistics is not None:
        found += [
            image_alerts.images_of_other_channels(statistics, evidence),
            image_alerts.images_that_are_turned(statistics, evidence),
            image_alerts.duplicate_images(statistics, evidence),
        ]
    if evidence.outliers is not None:
        found.append(image_alerts.outliers(evidence.outliers, unlike, evidence))
    found += [stack_alerts.still_pixels(places, evidence), stack_alerts.illumination(evidence)]
    drift = None if scores is None else stack_alerts.drift(scores, dark, evidence)
    found += [None if scores is None else image_alerts.leverage(scores, strong, evidence), drift]
    if scores is not None and evidence.prepared is not None and drift is None:
        found.append(stack_alerts.brightness(scores, evidence.prepared, dark, evidence))
    return {alert.kind: alert for alert in found if alert is not None}


def faulty_images(alerts: dict[str, Alert]) -> np.ndarray:
    """Return positions, ascending, of the images of all alerts against which leaving them out helps."""
    found = [alert.images for kind, alert in alerts.items() if kind in LEFT_OUT]
    return np.unique(np.concatenate([np.empty(0, dtype=int), *found]))


def way_without_all(alerts: dict[str, Alert], evidence: Evidence) -> str:
    """Write the lines that leave out the images of all alerts together; empty if fewer than two are of that kind."""
    if sum(kind in LEFT_OUT for kind in alerts) < 2:
        return ""
    names = [evidence.names[index] for index in faulty_images(alerts).tolist()]
    return remedy("all", evidence.estimator, names, evidence.run, n_images=len(evidence.names))
