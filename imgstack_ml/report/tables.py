"""The texts and tables of the page."""

from __future__ import annotations

import platform
from hashlib import blake2b
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np

from ..inspection.pictures import share_text
from ..inspection.pipelines import estimator_steps, find_mask
from .evidence import Alert, Evidence
from .survey import Survey

__all__ = [
    "Table",
    "certificate_table",
    "command_line",
    "fit_table",
    "images_table",
    "verdict",
    "versions_table",
]

Table: TypeAlias = list[tuple[str, str]]  # name and text of each row

_PACKAGES = ("imgstack_ml", "numpy", "dask", "scikit-learn", "matplotlib")


def verdict(pca: Any, alerts: dict[str, Alert], *, was_read: bool) -> str:
    """Write how much of the variance the components explain, and how many alerts there are."""
    k, share = len(pca.components_), float(pca.explained_variance_ratio_.sum())
    text = f"{k} component{'s explain' if k > 1 else ' explains'} {share_text(share)} of the variance"
    certificate = getattr(pca, "certificate_", None)
    if certificate is not None and not certificate.converged:
        text += ", but they may be less exact than asked for"
    if not alerts:
        return f"{text}. " + ("No alerts." if was_read else "The images were not read.")
    return f"{text}. {len(alerts)} finding{'s' if len(alerts) > 1 else ''} to look at first."


def images_table(stack: Any, survey: Survey | None, evidence: Evidence, run: dict[str, Any] | None) -> Table:
    """Describe the images: source, number, shape, labels, intensities; empty if nothing of this is known."""
    source = (run or {}).get("input", {})
    rows = [("source", source["source"])] if source else []
    if stack is not None:
        rows.append(("images", _images_text(stack.shape[0], stack.shape[1:], stack.dtype)))
    elif source:
        rows.append(("images", _images_text(source["n_images"], source["image_shape"], source["dtype"])))
    if evidence.problems:
        rows.append(("left out", f"{len(evidence.problems):,} files"))
    if evidence.labels is not None:
        labels, counts = np.unique(evidence.labels, return_counts=True)
        shown = ", ".join(f"{label} ({count:,})" for label, count in zip(labels[:8], counts, strict=False))
        rows.append(("labels", shown + (f", … {len(labels)} in all" if len(labels) > 8 else "")))
    if survey is not None:
        statistics = survey.statistics
        fingerprint = blake2b(statistics.digests.astype("<u8").tobytes(), digest_size=8).hexdigest()
        rows += [
            ("intensities", f"{statistics.minima.min():.4g} to {statistics.maxima.max():.4g}"),
            ("mean intensity", f"{statistics.means.mean():.4g}"),
            ("fingerprint of the pixels", fingerprint),
        ]
    return rows


def certificate_table(certificate: Any) -> Table:
    """Describe the `Certificate` of a fit; empty without a certificate, or without any variance."""
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


def fit_table(estimator: Any, pca: Any, run: dict[str, Any] | None) -> Table:
    """Describe the fit: steps, components, solver, reads; time and memory if a run of the command line recorded them.

    `run` is the content of ``run.json``.
    """
    steps, inside = estimator_steps(estimator), find_mask(estimator)
    rows = [
        ("steps", " → ".join(type(step).__name__ for step in steps)),
        ("components", str(len(pca.components_))),
        *([] if inside is None else [("mask", f"{np.count_nonzero(inside):,} of {inside.size:,} values are used")]),
        ("solver", str(getattr(pca, "svd_solver_", getattr(pca, "svd_solver", "")))),
    ]
    n_passes = sum(getattr(step, "n_passes_", 0) for step in steps)
    if n_passes:
        rows.append(("reads of the images", f"{n_passes:.3g}"))
    if run and run.get("fit"):
        from dask.utils import format_bytes

        rows.append(("time", f"{run['fit']['seconds']:.1f} s to fit, {run['seconds']:.1f} s in all"))
        rows.append(("memory", f"planned peak {format_bytes(run['fit']['planned_peak_bytes'])}"))
    return rows


def command_line(run: dict[str, Any] | None) -> str:
    """Give the command of a run as it can be typed again; empty without a run."""
    return str((run or {}).get("command_line", ""))


def versions_table(run: dict[str, Any] | None) -> Table:
    """List versions of the packages: those of the run, or those at hand."""
    if run:
        return list(run["versions"].items())
    return [("python", platform.python_version()), *((name, version(name)) for name in _PACKAGES)]


def _images_text(n_images: int, image_shape: Any, dtype: Any) -> str:
    return f"{n_images:,} of {' × '.join(map(str, image_shape))}, {dtype}"
