"""What ``demo`` and ``pca`` share: fit a Pipeline that ends in an ImagePCA, and write the results."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import NonFiniteError
from .model import MODEL_FILE
from .output import OutputFolder
from .pictures import write_pictures
from .run import Run
from .table import compute_rows, write_csv

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from ... import ImageStack

__all__ = ["Analysis", "analyse", "describe_fit", "plan_of", "score_names", "write_report", "write_results"]


class Analysis(NamedTuple):
    """A fitted Pipeline that ends in an ImagePCA, the plan of its fit, the seconds it took, and the scores (n, k)."""

    pipeline: Pipeline
    plan: Any
    seconds: float
    scores: np.ndarray


def score_names(k: int) -> list[str]:
    """Name the columns of the scores on k components."""
    return [f"PC{number}" for number in range(1, 1 + k)]


def analyse(pipeline: Pipeline, run: Run) -> Analysis:
    """Fit a Pipeline that ends in an ImagePCA to the images, after printing the plan of the fit."""
    started = perf_counter()
    images, pca = _before_pca(pipeline, run.stack)
    plan = pca.plan(images)
    read_before = any(getattr(step, "n_passes_", 0) for _, step in pipeline.steps[:-1])
    run.terminal.status(f"fitting {len(run.stack)} images: {_plan_text(plan, read_before=read_before)}")
    pca.set_params(progress=run.terminal.progress)
    try:
        # Some solvers compute the scores in the fit; the others read the images once more.
        scores = compute_rows(pca.fit_transform(images), run, "scores")
    except NonFiniteError as error:
        if error.file is None:
            error.add_note(f"image {error.index} is the file {run.stack.files[error.index]!r}")
        raise
    finally:
        pca.set_params(progress=False)  # progress belongs to this terminal, not to the saved model
    return Analysis(pipeline, plan, perf_counter() - started, scores)


def plan_of(pipeline: Pipeline, stack: ImageStack) -> Any:
    """Plan the fit of `analyse`, by `ImagePCA.plan`. Images are read only if a step before the PCA learns from them."""
    images, pca = _before_pca(pipeline, stack)
    return pca.plan(images)


def _before_pca(pipeline: Pipeline, stack: ImageStack) -> tuple[Any, Any]:
    """Fit the steps before the PCA; return the lazy images that they give, and the PCA."""
    images: Any = stack
    for _, step in pipeline.steps[:-1]:
        images = step.fit_transform(images)
    return images, pipeline.steps[-1][1]


def write_results(folder: OutputFolder, analysis: Analysis, run: Run, *, full_size: bool = False) -> None:
    """Write model, scores, the list of skipped files, and pictures; with `full_size` also the eigenimages as a TIFF."""
    from ... import save_model

    run.terminal.status(f"writing results to {folder.path}")
    folder.remove_record()
    with folder.writing(MODEL_FILE) as temporary:
        save_model(analysis.pipeline, temporary)
    with folder.writing("scores.csv") as temporary:
        write_csv(temporary, score_names(analysis.scores.shape[1]), analysis.scores, run)
    run.write_skipped(folder)
    write_pictures(folder, analysis.pipeline, full_size)


def write_report(folder: OutputFolder, analysis: Analysis, run: Run, record: dict[str, Any]) -> None:
    """Write the page about the run, with its `record` so far; the images are read once more for it."""
    from ... import generate_report

    run.terminal.status("reading the images once more, for the report")
    page = generate_report(
        analysis.pipeline, run.stack, names=run.image_names, run=record, progress=run.terminal.progress
    )
    with folder.writing("report.html") as temporary:
        page.save_as_html(temporary)


def describe_fit(analysis: Analysis) -> dict[str, Any]:
    """Describe a fit in values that JSON can hold, for the record of the run."""
    steps = [step for _, step in analysis.pipeline.steps]
    pca = steps[-1]
    return {
        "steps": [type(step).__name__ for step in steps],
        "n_components": int(pca.n_components_),
        "solver": pca.svd_solver_,
        "n_passes": float(sum(getattr(step, "n_passes_", 0) for step in steps)),
        "planned_peak_bytes": int(analysis.plan.peak_bytes),
        "seconds": round(analysis.seconds, 3),
        "explained_variance_ratio": pca.explained_variance_ratio_.tolist(),
        **_accuracy(pca),
    }


def _accuracy(pca: Any) -> dict[str, Any]:
    """Accuracy of a randomized fit, from its certificate; an exact fit has none."""
    certificate = pca.certificate_
    if certificate is None or certificate.estimated_deficit is None:
        return {}
    return {
        "estimated_error": certificate.largest_error,
        "missed_at_most": certificate.deficit_bounds[1] / (certificate.total_variance or 1.0),
        "converged": certificate.converged,
    }


def _plan_text(plan: Any, *, read_before: bool) -> str:
    from dask.utils import format_bytes

    reads = f"{plan.n_passes:.3g} {'more ' if read_before else ''}read{'' if plan.n_passes == 1 else 's'}"
    return f"{plan.solver} solver, {reads} of the images, at most {format_bytes(plan.peak_bytes)} of memory"
