"""What stands on the page, as plain data: texts, tables and pictures, ready for the template."""

from __future__ import annotations

import platform
import shlex
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from ..inspection import IntensityDisplay, ScoresDisplay, ScreeDisplay
from ..inspection._drawing import (
    as_shown,
    component_picture,
    limits_of,
    mean_title,
    plain_picture,
    share_text,
    shrink,
    signed_picture,
)
from ..inspection._steps import estimator_steps, split_at_pca
from ..inspection.eigenimages import find_eigenimages
from ..inspection.scores import spread_out
from .alerts import Alert, Evidence
from .figures import picture_uri, svg_of
from .survey import PICTURE_SIDE, Reconstruction, Survey

__all__ = ["Content", "gather"]

_MAX_EIGENIMAGES = 24
_N_THUMBNAILS = 12
_NAMED = 6  # images that an alert names; and shows, where there is a picture
_PACKAGES = ("imgstack_ml", "numpy", "dask", "scikit-learn", "matplotlib")
_CMAP = "RdBu_r"


class Picture(NamedTuple):
    """An image on the page: its address, what it shows, and the line below it."""

    uri: str
    alt: str
    caption: str


class Warned(NamedTuple):
    """An alert, the images that it names, how many more there are, and pictures of some."""

    alert: Alert
    names: list[str]
    n_more: int
    pictures: list[Picture]


@dataclass
class Content:
    """The page in plain data; what is not known is empty, and its section is left out."""

    title: str
    verdict: str
    alerts: list[Warned]
    looked: bool
    facts: list[tuple[str, str]]
    scree: Any
    certificate: list[tuple[str, str]]
    eigenimages: list[Picture]
    n_eigenimages_more: int
    intensity: Any = None
    scores: Any = None
    reconstructions: list[tuple[str, list[list[Picture]]]] = field(default_factory=list)
    fit: list[tuple[str, str]] = field(default_factory=list)
    command: str = ""
    model: str = ""
    versions: list[tuple[str, str]] = field(default_factory=list)


def gather(
    estimator: Any,
    stack: Any,
    found: Survey | None,
    evidence: Evidence,
    alerts: dict[str, Alert],
    run: dict[str, Any] | None,
) -> Content:
    """Bring together all that the page shows.

    Parameters
    ----------
    estimator : ImagePCA or Pipeline
        Fitted.
    stack : ImageStack, array or None
    found : Survey or None
        What the read of the stack has found.
    evidence : Evidence
    alerts : dict of str to Alert
    run : dict or None
        As in the ``run.json`` of the command line.

    Returns
    -------
    Content
    """
    _, pca = split_at_pca(estimator)
    eigenimages = _eigenimages(estimator)
    n_images = pca.n_samples_ if evidence.scores is None else len(evidence.scores)
    content = Content(
        title=f"Principal components of {n_images:,} images",
        verdict=_verdict(pca, alerts, looked=found is not None),
        alerts=[_warned(alert, found) for alert in alerts.values()],
        looked=found is not None,
        facts=_facts(stack, found, evidence, run),
        scree=_scree(estimator, pca),
        certificate=_certificate(getattr(pca, "certificate_", None)),
        eigenimages=eigenimages,
        n_eigenimages_more=max(0, len(pca.components_) - _MAX_EIGENIMAGES) if eigenimages else 0,
        fit=_fit(estimator, pca, run),
        command=_command_line(run),
        model=repr(estimator),
        versions=_versions(run),
    )
    if evidence.scores is not None and evidence.scores.shape[1] > 1:
        content.scores = _scores(pca, evidence, found)
    if found is not None:
        content.intensity = _intensity(found, evidence)
        content.reconstructions = _reconstructions(found, evidence)
    return content


# Words -------------------------------------------------------------------------------------------------


def _verdict(pca: Any, alerts: dict[str, Alert], *, looked: bool) -> str:
    k, share = len(pca.components_), float(pca.explained_variance_ratio_.sum())
    text = f"{k} component{'s explain' if k > 1 else ' explains'} {share_text(share)} of the variance"
    certificate = getattr(pca, "certificate_", None)
    if certificate is not None and not certificate.converged:
        text += ", not known to be within the tolerance asked for"
    if not alerts:
        return f"{text}. " + ("No alerts." if looked else "The images were not looked at.")
    return f"{text}. {len(alerts)} finding{'s' if len(alerts) > 1 else ''} to look at first."


def _facts(stack: Any, found: Survey | None, evidence: Evidence, run: dict[str, Any] | None) -> list[tuple[str, str]]:
    source = (run or {}).get("input", {})
    rows = [("source", source["source"])] if source else []
    if stack is not None:
        shape, dtype = stack.shape[1:], str(stack.dtype)
        rows.append(("images", f"{stack.shape[0]:,} of {' × '.join(map(str, shape))}, {dtype}"))
    elif source:
        shape = " × ".join(map(str, source["image_shape"]))
        rows.append(("images", f"{source['n_images']:,} of {shape}, {source['dtype']}"))
    if evidence.problems:
        rows.append(("left out", f"{len(evidence.problems):,} files"))
    if evidence.labels is not None:
        labels, counts = np.unique(evidence.labels, return_counts=True)
        shown = ", ".join(f"{label} ({count:,})" for label, count in zip(labels[:8], counts, strict=False))
        rows.append(("labels", shown + (f", … {len(labels)} in all" if len(labels) > 8 else "")))
    if found is not None:
        statistics = found.statistics
        fingerprint = blake2b(statistics.digests.astype("<u8").tobytes(), digest_size=8).hexdigest()
        rows += [
            ("intensities", f"{statistics.minima.min():.4g} to {statistics.maxima.max():.4g}"),
            ("mean intensity", f"{statistics.means.mean():.4g}"),
            ("fingerprint of the pixels", fingerprint),
        ]
    return rows


def _certificate(certificate: Any) -> list[tuple[str, str]]:
    if certificate is None or not certificate.total_variance:
        return []
    total = certificate.total_variance
    low, high = (f"{100 * bound / total:.2g} %" for bound in certificate.deficit_bounds)
    sign = "" if certificate.is_exact else "at least "
    rows = [("captured", f"{sign}{certificate.captured_variance / total:.4%} of the variance".replace("%", " %"))]
    if certificate.estimated_deficit is not None:
        rows += [
            ("missed, by estimate", f"{100 * certificate.estimated_deficit / total:.2g} %"),
            ("error of a variance, by estimate", f"{certificate.largest_error:.1e} at most"),
        ]
    return [*rows, ("missed, for certain", f"between {low} and {high}")]


def _fit(estimator: Any, pca: Any, run: dict[str, Any] | None) -> list[tuple[str, str]]:
    fit = (run or {}).get("fit", {})
    steps = estimator_steps(estimator)
    rows = [
        ("steps", " → ".join(type(step).__name__ for step in steps)),
        ("components", str(len(pca.components_))),
        ("solver", str(getattr(pca, "svd_solver_", getattr(pca, "svd_solver", "")))),
    ]
    passes = sum(getattr(step, "n_passes_", 0) for step in steps)
    if passes:
        rows.append(("reads of the images", f"{passes:.3g}"))
    if fit:
        from dask.utils import format_bytes

        rows.append(("time", f"{fit['seconds']:.1f} s to fit, {run['seconds']:.1f} s in all"))  # type: ignore[index]
        rows.append(("memory", f"planned peak {format_bytes(fit['planned_peak_bytes'])}"))
    return rows


def _command_line(run: dict[str, Any] | None) -> str:
    """Write the command of a run as it can be typed again."""
    if not run:
        return ""
    options = dict(run["parameters"])
    words = [
        options.pop("source", None) or options.pop("out"),
        *(["-o", options.pop("out")] if "out" in options else []),
    ]
    names = {"n_components": "-k", "recursive": "-r"}
    for name, value in options.items():
        option = names.get(name, f"--{name.replace('_', '-')}")
        if value is True:
            words.append(option)
        elif value not in (False, None):
            words += [option, "x".join(map(str, value)) if name == "shape" else str(value)]
    return shlex.join(["imgstack-ml", run["command"], *map(str, words)])


def _versions(run: dict[str, Any] | None) -> list[tuple[str, str]]:
    if run:
        return list(run["versions"].items())
    return [("python", platform.python_version()), *((name, version(name)) for name in _PACKAGES)]


# Pictures ----------------------------------------------------------------------------------------------


def _warned(alert: Alert, found: Survey | None) -> Warned:
    thumbnails = {} if found is None else found.thumbnails
    shown = [index for index in alert.images[:_NAMED].tolist() if index in thumbnails]
    pictures = []
    if shown:
        limits = limits_of(np.stack(list(thumbnails.values())))
        pictures = [_picture(plain_picture(thumbnails[index], limits), f"image {index}", str(index)) for index in shown]
    return Warned(alert, alert.names[:_NAMED], max(0, len(alert.names) - _NAMED), pictures)


def _scree(estimator: Any, pca: Any) -> Any:
    ratio = ", ".join(share_text(share) for share in pca.explained_variance_ratio_[:5])
    title = f"Variance explained by each component: {ratio}{', …' if len(pca.components_) > 5 else ''}"
    return svg_of(lambda ax: ScreeDisplay.from_estimator(estimator, ax=ax), (5.6, 3.1), title=title, salt="scree")


def _intensity(found: Survey, evidence: Evidence) -> Any:
    return svg_of(
        lambda ax: IntensityDisplay.from_statistics(found.statistics, names=evidence.names, ax=ax),
        (9.0, 4.6),
        title="Largest and mean intensity of each image, in their order, and one against another",
        salt="intensity",
    )


def _scores(pca: Any, evidence: Evidence, found: Survey | None) -> Any:
    assert evidence.scores is not None
    display = ScoresDisplay(
        evidence.scores, labels=evidence.labels, explained_variance_ratio=pca.explained_variance_ratio_
    )
    if found is not None and found.thumbnails:
        chosen = spread_out(display.plane, _N_THUMBNAILS, list(found.thumbnails))
        display.thumbnails = {index: found.thumbnails[index] for index in chosen}
    title = "Scores of the images along the first two components"
    return svg_of(lambda ax: display.plot(ax=ax), (6.2, 5.0), title=title, salt="scores")


def _eigenimages(estimator: Any) -> list[Picture]:
    """Mean image and first eigenimages; none where the shape of an image is not known."""
    _, pca = split_at_pca(estimator)
    try:
        eigenimages, mean_image = find_eigenimages(estimator, _MAX_EIGENIMAGES)
    except ValueError:
        return []
    mean = shrink(as_shown(mean_image[np.newaxis]), PICTURE_SIDE)[0]
    pictures = [_picture(plain_picture(mean), "mean of the images", mean_title(mean))]
    shown = shrink(as_shown(eigenimages), PICTURE_SIDE)
    for number, (image, ratio) in enumerate(zip(shown, pca.explained_variance_ratio_, strict=False), start=1):
        caption = f"PC {number} · {share_text(ratio)}"
        pictures.append(_picture(component_picture(image, ratio, _CMAP), f"eigenimage {number}", caption))
    return pictures


def _reconstructions(found: Survey, evidence: Evidence) -> list[tuple[str, list[list[Picture]]]]:
    if not found.worst:
        return []
    return [
        ("Reconstructed worst", [_beside(one, evidence.names[one.position]) for one in found.worst]),
        ("Reconstructed best", [_beside(one, evidence.names[one.position]) for one in found.best]),
    ]


def _beside(one: Reconstruction, name: str) -> list[Picture]:
    limits = limits_of(one.image[np.newaxis])
    missing = one.image.astype(np.float64) - one.reconstruction
    return [
        _picture(plain_picture(one.image, limits), f"{name}, original", name),
        _picture(plain_picture(one.reconstruction, limits), f"{name}, reconstructed", "reconstruction"),
        _picture(signed_picture(missing, _CMAP), f"{name}, difference", f"missing · rms {one.error:.3g}"),
    ]


def _picture(picture: tuple[np.ndarray, dict[str, Any]], alt: str, caption: str) -> Picture:
    return Picture(picture_uri(_pixels(*picture)), alt, caption)


def _pixels(values: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Colours (height, width, 3) in 8 bits, as `imshow` would show them."""
    if values.ndim == 3:
        return np.rint(255 * values).astype(np.uint8)
    from matplotlib import colormaps

    low, high = options["vmin"], options["vmax"]
    scaled = ((values.astype(np.float64) - low) / (high - low)).clip(0, 1)
    return colormaps[options["cmap"]](scaled, bytes=True)[..., :3].copy()
