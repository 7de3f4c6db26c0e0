"""``imgstack-ml demo``: from image files to eigenimages and a classifier, with sample images."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ._analysis import analyse, describe, write_report, write_results
from ._input import image_names
from ._output import OutputFolder
from ._summary import summary
from ._task import Task, Terminal, run_options

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from .. import ImageStack

__all__ = ["demo"]

_N_COMPONENTS = 16
_N_FOLDS = 5


@click.command(cls=Task, short_help="Eigenfaces from sample images, no data needed.")
@click.argument("out", default="imgstack-demo", type=click.Path(file_okay=False))
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the shuffled folds."
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier demo.")
@run_options(scheduler=False)
def demo(out: str, terminal: Terminal, seed: int, overwrite: bool) -> None:
    """Make eigenfaces and a face detector from 200 sample images, in the folder OUT (imgstack-demo).

    The faces and non-faces that scikit-image ships are written to OUT/images as PNG files and read back lazily. A
    Pipeline (IntensityRescaler, StackCenterer, ImageFlattener, ImagePCA) is fitted to them, and a classifier on top
    is cross-validated, everything fitted anew in each fold. Nothing is downloaded.

    \b
    Example:
      imgstack-ml demo
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    folder = OutputFolder(out, overwrite=overwrite)
    folder.create()
    images = os.path.join(out, "images")
    stack = _sample_stack(images, terminal)
    analysis = analyse(_pipeline(), stack, terminal)
    write_results(folder, analysis, stack, images, terminal)
    terminal.status(f"cross-validating a classifier in {_N_FOLDS} folds")
    assert stack.labels is not None, "it was read with its sub-folders"
    predicted, classifier = _classify(stack, stack.labels, seed)
    rows = zip(image_names(stack, images), stack.labels, predicted, strict=True)
    folder.write_table("predictions.csv", ["file", "label", "predicted"], rows)
    found = {"reload_difference": _reload_difference(out, stack, analysis.scores), "classifier": classifier}
    record = {**describe(analysis, stack, images, started), **found}
    write_report(folder, analysis, stack, images, record, terminal)
    record = folder.finish(record)
    terminal.result(summary(record, out, "Next, with images of your own: imgstack-ml pca FOLDER -o OUT"), record)


def _sample_stack(folder: str, terminal: Terminal) -> ImageStack:
    """Write the sample images, and open them lazily with the names of the sub-folders as labels."""
    from .. import open_stack
    from ..datasets import write_sample

    terminal.status(f"writing sample images to {folder}")
    _remove_earlier_sample(folder)
    write_sample("faces", folder)
    return open_stack(folder, recursive=True)


def _remove_earlier_sample(folder: str) -> None:
    """Remove the images of an earlier demo, and folders that are empty then: nothing that would be missed."""
    from ..datasets import SAMPLES

    sub_folders = set()
    for sample in SAMPLES["faces"](None, 0):
        path = os.path.join(folder, sample.file)
        sub_folders.add(os.path.dirname(path))
        if _holds(path, sample.image):
            os.remove(path)
    for sub_folder in sub_folders:
        with suppress(OSError):  # it was never there, or holds something of the user's
            os.rmdir(sub_folder)


def _holds(path: str, pixels: np.ndarray) -> bool:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array_equal(np.asarray(image), pixels)
    except (OSError, SyntaxError):  # there is none, or what is there is no image; damaged PNGs are SyntaxErrors
        return False


def _reload_difference(out: str, stack: ImageStack, scores: np.ndarray) -> float:
    """Load the saved model, and return how far its scores of the files are from those of the fit, relatively."""
    import numpy as np

    from .. import load_model

    model = load_model(os.path.join(out, "model.safetensors"))
    return float(np.abs(np.asarray(model.transform(stack)) - scores).max() / np.abs(scores).max())


def _pipeline(*last: tuple[str, Any], whiten: bool = False) -> Pipeline:
    from sklearn.pipeline import Pipeline

    from .. import ImageFlattener, ImagePCA, IntensityRescaler, StackCenterer

    return Pipeline(
        [
            ("rescale", IntensityRescaler()),
            ("center", StackCenterer()),
            ("flatten", ImageFlattener()),
            ("pca", ImagePCA(_N_COMPONENTS, whiten=whiten)),
            *last,
        ]
    )


def _classify(stack: ImageStack, labels: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Cross-validate a face detector as a whole Pipeline, so that no fold has seen the images it is judged on.

    Returns
    -------
    predicted : ndarray of shape (n_images,)
        The label given to each image by the model of the fold that left it out.
    found : dict
        Accuracy and what it is to be compared with.
    """
    import numpy as np
    from dask_ml.wrappers import ParallelPostFit
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score

    folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed)
    # Whitened scores are on one scale, which the penalty of the regression asks for. Scores are all that it
    # computes of the lazy stack.
    accuracy = cross_val_score(_pipeline(("classify", LogisticRegression()), whiten=True), stack, labels, cv=folds)
    # Its predictions are lazy as the scores are: images are read and classified block by block.
    lazy_classifier = ("classify", ParallelPostFit(LogisticRegression()))
    predictions = cross_val_predict(_pipeline(lazy_classifier, whiten=True), stack, labels, cv=folds)
    predicted = np.asarray(predictions)
    classes: Counter[str] = Counter(labels.tolist())
    return predicted, {
        "classes": dict(classes),
        "n_folds": _N_FOLDS,
        "seed": seed,
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_std": float(accuracy.std()),
        "majority_rate": max(classes.values()) / len(stack),
        "n_right": int((predicted == labels).sum()),
    }
