"""Gather everything that the page shows, as plain data for the template."""

from __future__ import annotations

from typing import Any, NamedTuple

from markupsafe import Markup

from ..inspection import IntensityDisplay, ScoresDisplay, ScreeDisplay
from ..inspection.pictures import share_text
from ..inspection.pipelines import find_channel_names, names_of_channels, split_at_pca
from ..inspection.scores import spread_out
from .alerts import way_without_all
from .evidence import Alert, Evidence
from .figures import svg_of
from .survey import Survey
from .tables import Table, certificate_table, command_line, fit_table, images_table, verdict, versions_table
from .tiles import MAX_EIGENIMAGES, Tile, alert_tiles, eigenimage_tiles, reconstruction_tiles

__all__ = ["Content", "gather"]

_MAX_NAMED = 5  # images of an alert that are named and shown
_N_THUMBNAILS = 12


class AlertContent(NamedTuple):
    """An alert, the names of its first images, the number of further names, and pictures of the first images."""

    alert: Alert
    names: list[str]
    n_more: int
    tiles: list[Tile]


class Content(NamedTuple):
    """The page as plain data; what is not known is empty or None, and the template leaves out its section."""

    title: str
    verdict: str
    alerts: list[AlertContent]
    was_read: bool
    images: Table
    intensity: Markup | None
    scree: Markup
    certificate: Table
    eigenimages: list[Tile]
    n_more_eigenimages: int
    scores: Markup | None
    reconstructions: list[tuple[str, list[list[Tile]]]]
    fit: Table
    command: str
    model: str
    versions: Table
    live: dict[str, Any] | None = None
    without_all: str = ""  # lines that leave out the images of several alerts
    by_channel: bool = False  # whether the channels of an eigenimage are drawn one by one


def gather(
    estimator: Any,
    stack: Any,
    survey: Survey | None,
    evidence: Evidence,
    alerts: dict[str, Alert],
    run: dict[str, Any] | None,
) -> Content:
    """Gather everything that the page shows.

    Parameters
    ----------
    estimator : ImagePCA or Pipeline
        Fitted.
    stack : ImageStack, array or None
    survey : Survey or None
        What the read of the stack found.
    evidence : Evidence
    alerts : dict of str to Alert
    run : dict or None
        As in the ``run.json`` of the command line.

    Returns
    -------
    Content
    """
    _, pca = split_at_pca(estimator)
    eigenimages = eigenimage_tiles(estimator)
    channels = names_of_channels(estimator, stack)
    n_images = pca.n_samples_ if evidence.scores is None else len(evidence.scores)
    return Content(
        title=f"Principal components of {n_images:,} images",
        verdict=verdict(pca, alerts, was_read=survey is not None),
        alerts=[_alert_content(alert, survey, channels) for alert in alerts.values()],
        was_read=survey is not None,
        images=images_table(stack, survey, evidence, run),
        intensity=None if survey is None else _intensity_plot(survey, evidence, channels),
        scree=_scree_plot(estimator, pca),
        certificate=certificate_table(getattr(pca, "certificate_", None)),
        eigenimages=eigenimages,
        n_more_eigenimages=max(0, len(pca.components_) - MAX_EIGENIMAGES) if eigenimages else 0,
        scores=_scores_plot(pca, evidence, survey, channels),
        reconstructions=[] if survey is None else _reconstructions(survey, evidence, find_channel_names(estimator)),
        fit=fit_table(estimator, pca, run),
        command=command_line(run),
        model=repr(estimator),
        versions=versions_table(run),
        without_all=way_without_all(alerts, evidence),
        by_channel=len(eigenimages) > 1 + min(len(pca.components_), MAX_EIGENIMAGES),
    )


def _alert_content(alert: Alert, survey: Survey | None, channels: tuple[str, ...]) -> AlertContent:
    n_more = max(0, len(alert.names) - _MAX_NAMED)
    return AlertContent(alert, alert.names[:_MAX_NAMED], n_more, alert_tiles(alert, survey, _MAX_NAMED, channels))


def _scree_plot(estimator: Any, pca: Any) -> Markup:
    ratio = ", ".join(share_text(share) for share in pca.explained_variance_ratio_[:5])
    title = f"Variance explained by each component: {ratio}{', …' if len(pca.components_) > 5 else ''}"
    return svg_of(lambda ax: ScreeDisplay.from_estimator(estimator, ax=ax), (5.6, 3.1), title=title, salt="scree")


def _intensity_plot(survey: Survey, evidence: Evidence, channels: tuple[str, ...]) -> Markup:
    known = channels if len(channels) == survey.statistics.means.shape[1] else None
    return svg_of(
        lambda ax: IntensityDisplay.from_statistics(
            survey.statistics, names=evidence.names, channel_names=known, ax=ax
        ),
        (9.0, 4.6),
        title="Largest and mean intensity of each image, by image and against each other",
        salt="intensity",
    )


def _scores_plot(pca: Any, evidence: Evidence, survey: Survey | None, channels: tuple[str, ...]) -> Markup | None:
    if evidence.scores is None or evidence.scores.shape[1] < 2:
        return None
    display = ScoresDisplay(
        evidence.scores,
        labels=evidence.labels,
        explained_variance_ratio=pca.explained_variance_ratio_,
        channel_names=channels,
    )
    if survey is not None and survey.thumbnails:
        chosen = spread_out(display.plane, _N_THUMBNAILS, list(survey.thumbnails))
        display.thumbnails = {index: survey.thumbnails[index] for index in chosen}
    title = "Scores of the images along the first two components"
    return svg_of(lambda ax: display.plot(ax=ax), (6.2, 5.0), title=title, salt="scores")


def _reconstructions(
    survey: Survey, evidence: Evidence, channels: tuple[str, ...]
) -> list[tuple[str, list[list[Tile]]]]:
    """Rows of pictures under a heading each, for the worst and the best reconstructions."""
    ranked = {"Reconstructed worst": survey.worst, "Reconstructed best": survey.best}
    return [
        (heading, reconstruction_tiles([(found, evidence.names[found.position]) for found in rows], channels))
        for heading, rows in ranked.items()
        if rows
    ]
