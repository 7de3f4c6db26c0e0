"""The report: read the stack, look for alerts, gather the content, fill the template, save the page."""

from __future__ import annotations

import html
import os
import tempfile
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.validation import StackLike
from ..files.atomic import atomic_path
from ..files.space import explain_full_disk
from ..inspection.pipelines import split_at_pca
from ..inspection.stacks import check_stack, image_names, printable
from .alerts import faulty_images, find_alerts
from .content import gather
from .evidence import Alert, Evidence
from .live import as_json, live_data
from .page import render
from .remedies import Run
from .survey import Survey, outlier_statistics, read_survey
from .tables import command_line

__all__ = ["Report", "generate_report"]

_MAX_BYTES = 8_000_000  # of the page


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """One HTML page about a fitted estimator and its images, made by `generate_report`.

    The page contains its pictures and styles, and loads nothing. It is complete without scripts. Where they run, its
    reader can ask for single images, other components, sums of components, and the names of a group of images. A
    notebook shows it as the value of a cell.

    Attributes
    ----------
    alerts : dict of str to Alert
        Findings that are worth a look before the results are believed, by kind, such as ``"constant"`` or
        ``"duplicates"``. `Alert` lists and explains the kinds.
    html : str
        The page.
    keep : ndarray of int
        Positions of the images that no alert about single images names, an odd range excepted, which rescaling
        corrects: ``model.fit(stack[report.keep])`` leaves out all the others.

    Examples
    --------
    >>> import os
    >>> import tempfile
    >>> from imgstack_ml import ImagePCA, generate_report
    >>> from imgstack_ml.datasets import load_faces
    >>> faces = load_faces()[0][:100]
    >>> report = generate_report(ImagePCA(4).fit(faces), faces)
    >>> sorted(report.alerts)
    ['clipped']
    >>> report.save_as_html(os.path.join(tempfile.mkdtemp(), "report.html"))
    """

    alerts: dict[str, Alert]
    html: str
    keep: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))

    def save_as_html(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the page to a file, which appears complete or not at all.

        Parameters
        ----------
        path : path
            The file, e.g. ``"report.html"``.
        overwrite : bool, default=False
            Replace an existing file.

        Raises
        ------
        StoreError
            If `path` is a URL, if the file exists and `overwrite` is False, if its folder is missing, or if the disk is
            full; the message then names the bytes that the page needs.
        """
        page = self.html.encode()
        with explain_full_disk(os.fspath(path), len(page)), atomic_path(path, overwrite=overwrite) as temporary:
            Path(temporary).write_bytes(page)

    def open_in_browser(self) -> str:
        """Show the page in the browser, from a temporary file.

        Returns
        -------
        path : str
            The file. It is not removed, because the browser may read it at any time.
        """
        path = os.path.join(tempfile.mkdtemp(prefix="imgstack_ml-report-"), "report.html")
        self.save_as_html(path)
        webbrowser.open(Path(path).as_uri())
        return path

    def __repr__(self) -> str:
        lines = [f"Report of {len(self.html) / 1e6:.1f} MB; .save_as_html('report.html'), .open_in_browser()"]
        lines += [f"  {alert.kind}: {alert.title}" for alert in self.alerts.values()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        # In a frame, so that the styles of the page and of the notebook do not mix.
        page = html.escape(self.html)
        style = "width:100%;height:40rem;border:0"
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" title="report" style="{style}"></iframe>'


def generate_report(
    estimator: Any,
    stack: StackLike | None = None,
    *,
    scores: npt.ArrayLike | None = None,
    run: dict[str, Any] | None = None,
    names: list[str] | None = None,
    progress: bool = False,
) -> Report:
    """Make a page about a fitted PCA, or a Pipeline that has one, and its images.

    Parameters
    ----------
    estimator : ImagePCA or Pipeline
        The fitted estimator.
    stack : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels]), optional
        Images, as for the estimator's `transform`; usually those that it was fitted on. They are read once, for
        alerts, intensities, scores, and the best and worst reconstructions. If None, nothing is read, and the page is
        about the model only.
    scores : array-like of shape (n_images, n_components), optional
        Scores to show if `stack` is None.
    run : dict, optional
        The record of a run of the command line, as in its ``run.json``.
    names : list of str, optional
        A name for each image; by default the files of an ImageStack.
    progress : bool, default=False
        Show a bar during the read, on stderr.

    Returns
    -------
    Report

    Raises
    ------
    NotFittedError
        If there is no fitted PCA.
    NonFiniteError
        Naming the image (and file) with a NaN or infinite pixel.

    Notes
    -----
    Peak memory: the blocks being read, up to 1000 thumbnails, and 300 to 400 bytes for the statistics of each image.

    The page takes at most 8 MB. It holds the scores of at most 20,000 images, which are a sample of more, and pictures
    of at most 1000 of these; others it shows as their reconstruction from at most 24 components.

    Examples
    --------
    >>> from imgstack_ml import ImagePCA, generate_report
    >>> from imgstack_ml.datasets import load_faces
    >>> stack = load_faces()[0][:100]
    >>> stack[7] = 90  # a shutter that stayed closed
    >>> report = generate_report(ImagePCA(8).fit(stack), stack)
    >>> report.alerts["constant"].images
    array([7])
    >>> 7 in report.keep
    False
    """
    if stack is not None and not hasattr(stack, "dtype"):  # a list, or a table
        stack = check_stack("generate_report", stack).data
    survey = None if stack is None else read_survey(estimator, stack, progress=progress)
    if survey is not None:
        scores = survey.scores
    evidence = _evidence(estimator, stack, survey, scores, names)
    if run:
        evidence = evidence._replace(run=Run(run, command_line(run)))
    alerts = find_alerts(evidence)
    content = gather(estimator, stack, survey, evidence, alerts, run)
    page = render("report.html.j2", title=content.title, content=content)
    room = _MAX_BYTES - len(page.encode())
    if live := live_data(estimator, survey, evidence, room=room):
        page = render("report.html.j2", title=content.title, content=content._replace(live=live), data=as_json(live))
    return Report(alerts, page, np.setdiff1d(np.arange(len(evidence.names)), faulty_images(alerts)))


def _evidence(
    estimator: Any, stack: Any, survey: Survey | None, scores: npt.ArrayLike | None, names: list[str] | None
) -> Evidence:
    """Collect what is known about the images; check the scores and names that the user gave."""
    _, pca = split_at_pca(estimator)
    checked = None if scores is None else _check_scores(scores, len(pca.explained_variance_ratio_))
    n_images = 0 if checked is None else len(checked)
    names = image_names(stack, n_images) if names is None else [printable(name) for name in names]
    if len(names) != n_images and checked is not None:
        raise ValueError(f"{len(names)} names were given for {n_images} images")
    return Evidence(
        statistics=None if survey is None else survey.statistics,
        scores=checked,
        outliers=None if survey is None else outlier_statistics(pca, survey),
        explained_variance_ratio=pca.explained_variance_ratio_,
        names=names,
        labels=getattr(stack, "labels", None),
        problems=[(printable(name), reason) for name, reason in getattr(stack, "problems", ())],
        prepared=None if survey is None else survey.prepared,
        estimator=estimator,
        sharpness=None if survey is None else survey.sharpness,
    )


def _check_scores(scores: npt.ArrayLike, k: int) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] != k or not len(scores):
        raise ValueError(f"scores has shape {scores.shape}; the PCA has {k} components and needs (n_images, {k})")
    return scores
