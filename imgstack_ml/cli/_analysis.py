"""What ``demo`` and ``pca`` have in common: fit a Pipeline to a stack, and write what was found."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import NonFiniteError
from ._input import describe_run, image_names, skipped_files
from ._output import OutputFolder
from ._table import compute_rows
from ._task import Terminal

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from .. import ImageStack
    from ..decomposition.plan import Plan

__all__ = ["Analysis", "analyse", "describe", "plan_of", "score_names", "write_report", "write_results"]

_SHEET = 64  # pictures drawn in one figure, at most
_PICTURE = 256  # small images are enlarged to about this many pixels a side


class Analysis(NamedTuple):
    """A fitted Pipeline that ends in an ImagePCA, the plan of its fit, its seconds, and the scores (n, k)."""

    pipeline: Pipeline
    plan: Plan
    seconds: float
    scores: np.ndarray


def score_names(k: int) -> list[str]:
    """Name the columns of scores on k components."""
    return [f"PC{number}" for number in range(1, 1 + k)]


def analyse(pipeline: Pipeline, stack: ImageStack, terminal: Terminal) -> Analysis:
    """Fit a Pipeline that ends in an ImagePCA, saying beforehand what that will take.

    Parameters
    ----------
    pipeline : Pipeline
    stack : ImageStack
    terminal : Terminal

    Returns
    -------
    Analysis
    """
    started = perf_counter()
    images, pca = _before_pca(pipeline, stack)
    plan = pca.plan(images)
    read = any(getattr(step, "n_passes_", 0) for _, step in pipeline.steps[:-1])
    terminal.status(f"fitting {len(stack)} images: {_plan_text(plan, more=read)}")
    pca.set_params(progress=terminal.progress)
    try:
        # Some solvers have the scores; the others need one more read of the images.
        scores = compute_rows(pca.fit_transform(images), stack, terminal, "scores")
    except NonFiniteError as error:
        if error.file is None:
            error.add_note(f"image {error.index} is the file {stack.files[error.index]!r}")
        raise
    finally:
        pca.set_params(progress=False)  # a matter of this terminal, not of the model
    return Analysis(pipeline, plan, perf_counter() - started, scores)


def plan_of(pipeline: Pipeline, stack: ImageStack) -> Plan:
    """Say what `analyse` would do; reads nothing where the steps before the PCA learn nothing."""
    images, pca = _before_pca(pipeline, stack)
    return pca.plan(images)


def _before_pca(pipeline: Pipeline, stack: ImageStack) -> tuple[Any, Any]:
    """Fit the steps before the PCA: lazy images as they reach it, and the PCA."""
    images: Any = stack
    for _, step in pipeline.steps[:-1]:
        images = step.fit_transform(images)
    return images, pipeline.steps[-1][1]


def write_results(out: OutputFolder, analysis: Analysis, stack: ImageStack, source: str, terminal: Terminal) -> None:
    """Write model, scores, the list of skipped files, and pictures.

    Parameters
    ----------
    out : OutputFolder
    analysis : Analysis
    stack : ImageStack
    source : str
        What the stack was opened from.
    terminal : Terminal
    """
    from .. import save_model

    terminal.status(f"writing results to {out.path}")
    out.begin()
    with out.writing("model.safetensors") as temporary:
        save_model(analysis.pipeline, temporary)
    _write_scores(out, image_names(stack, source), stack.labels, analysis.scores)
    if stack.problems:
        out.write_table("skipped.csv", ["file", "reason"], skipped_files(stack, source))
    _write_pictures(out, analysis.pipeline, stack.shape[1:])


def write_report(
    out: OutputFolder, analysis: Analysis, stack: ImageStack, source: str, record: dict[str, Any], terminal: Terminal
) -> None:
    """Write the page about the run, for which the images are read once more.

    Parameters
    ----------
    out : OutputFolder
    analysis : Analysis
    stack : ImageStack
    source : str
        What the stack was opened from.
    record : dict
        As `describe` makes it.
    terminal : Terminal
    """
    from .. import generate_report

    terminal.status("reading the images once more, for the report")
    names = image_names(stack, source)
    page = generate_report(analysis.pipeline, stack, names=names, run=record, progress=terminal.progress)
    with out.writing("report.html") as temporary:
        page.save_as_html(temporary)


def describe(analysis: Analysis, stack: ImageStack, source: str, started: float) -> dict[str, Any]:
    """Describe a run in JSON's terms: how it was called, what it read, what it found.

    Parameters
    ----------
    analysis : Analysis
    stack : ImageStack
    source : str
        What the stack was opened from.
    started : float
        When the command began, by `time.perf_counter`.

    Returns
    -------
    dict
    """
    pca = analysis.pipeline.steps[-1][1]
    return {
        **describe_run(stack, source, started),
        "fit": {
            "steps": [type(step).__name__ for _, step in analysis.pipeline.steps],
            "n_components": int(pca.n_components_),
            "solver": pca.svd_solver_,
            "n_passes": float(sum(getattr(step, "n_passes_", 0) for _, step in analysis.pipeline.steps)),
            "planned_peak_bytes": int(analysis.plan.peak_bytes),
            "seconds": round(analysis.seconds, 3),
            "explained_variance_ratio": pca.explained_variance_ratio_.tolist(),
            **_accuracy(pca),
        },
    }


def _accuracy(pca: Any) -> dict[str, Any]:
    """Say what the certificate of a randomized fit says; exact ones have none."""
    certificate = pca.certificate_
    if certificate is None or certificate.estimated_deficit is None:
        return {}
    return {
        "estimated_error": certificate.largest_error,
        "missed_at_most": certificate.deficit_bounds[1] / (certificate.total_variance or 1.0),
        "converged": certificate.converged,
    }


def _plan_text(plan: Plan, *, more: bool) -> str:
    from dask.utils import format_bytes

    reads = f"{plan.n_passes:.3g} {'more ' if more else ''}read{'' if plan.n_passes == 1 else 's'}"
    return f"{plan.solver} solver, {reads} of the images, at most {format_bytes(plan.peak_bytes)} of memory"


def _write_scores(out: OutputFolder, names: list[str], labels: np.ndarray | None, scores: np.ndarray) -> None:
    text = [names] if labels is None else [names, labels.tolist()]
    header = [*("file", "label")[: len(text)], *score_names(scores.shape[1])]
    # As NumPy writes them: the shortest text that gives the same number back.
    rows = scores.astype(str).tolist()
    out.write_table("scores.csv", header, ([*words, *row] for *words, row in zip(*text, rows, strict=True)))


def _write_pictures(out: OutputFolder, pipeline: Pipeline, image_shape: tuple[int, ...]) -> None:
    """Draw the eigenimages, on a sheet and one by one, the mean image, and the explained variance."""
    import matplotlib

    matplotlib.use("agg")  # no window system is needed to write files
    from matplotlib import pyplot

    from .. import EigenimageDisplay, ScreeDisplay

    sheet = EigenimageDisplay.from_estimator(pipeline, n_components=_SHEET, include_mean=True)
    _save_picture(out, "mean.png", sheet.images_[0])
    _save_pictures(out, sheet.images_[1:], first=1)
    out.write_figure("eigenimages.png", sheet.figure_)
    out.write_figure("scree.png", ScreeDisplay.from_estimator(pipeline).figure_)
    eigenimages = pipeline.steps[-1][1].components_.reshape(-1, *image_shape)
    for start in range(_SHEET, len(eigenimages), _SHEET):  # what the sheet has no room for
        display = EigenimageDisplay(eigenimages[start : start + _SHEET]).plot()
        _save_pictures(out, display.images_, first=start + 1)
        pyplot.close(display.figure_)


def _save_pictures(out: OutputFolder, artists: Iterable[Any], *, first: int) -> None:
    for number, artist in enumerate(artists, start=first):
        _save_picture(out, f"eigenimages/pc_{number:03d}.png", artist)


def _save_picture(out: OutputFolder, name: str, artist: Any) -> None:
    """Write the picture that an AxesImage shows, pixel by pixel; small ones enlarged by a whole factor."""
    from PIL import Image

    picture = Image.fromarray(artist.to_rgba(artist.get_array(), bytes=True)[..., :3].copy())
    factor = max(1, _PICTURE // max(picture.size))
    size = (factor * picture.width, factor * picture.height)
    with out.writing(name) as temporary:
        picture.resize(size, Image.Resampling.NEAREST).save(temporary, format="PNG")
