"""``imgstack-ml demo``: from image files to eigenimages and a classifier, with sample images."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from .lib.analysis import analyse, describe_fit, write_report, write_results
from .lib.model import open_model
from .lib.options import DEFAULT_COMPONENTS, OutputPath, overwrite_option, run_options, seed_option
from .lib.output import OutputFolder
from .lib.run import Run
from .lib.task import Task
from .lib.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

    from .. import ImageStack

__all__ = ["demo"]

_N_FOLDS = 5


@click.command(cls=Task, short_help="Eigenfaces from sample images, no data needed.")
@click.argument("out", default="imgstack-demo", type=OutputPath(file_okay=False))
@seed_option("Seed that shuffles the folds.")
@overwrite_option()
@run_options(scheduler=False)
def demo(out: str, terminal: Terminal, seed: int, overwrite: bool) -> None:
    """Make eigenfaces and a face detector from 200 sample images, in the folder OUT (imgstack-demo).

    The images are faces and non-faces that come with scikit-image; nothing is downloaded. They are written to
    OUT/images as PNG files and read back lazily. A Pipeline (IntensityRescaler, StackCenterer, ImageFlattener,
    ImagePCA) is fitted to them. The same Pipeline with a classifier at its end is cross-validated.

    \b
    Example:
      imgstack-ml demo
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    folder = OutputFolder(out, overwrite=overwrite)
    folder.create()
    images = os.path.join(out, "images")
    run = Run(images, _sample_stack(images, terminal), terminal, started)
    analysis = analyse(_pipeline(), run)
    write_results(folder, analysis, run)
    terminal.status(f"cross-validating a classifier in {_N_FOLDS} folds")
    labels = run.stack.labels
    assert labels is not None, "sub-folders give labels"
    predicted, classifier = _cross_validate(run.stack, labels, seed)
    folder.write_table("predictions.csv", ["file", "label", "predicted"], (run.image_names, labels, predicted))
    difference = _reload_difference(out, run.stack, analysis.scores)
    record = run.describe(fit=describe_fit(analysis), reload_difference=difference, classifier=classifier)
    write_report(folder, analysis, run, record)
    run.finish(folder, record, "Next, with images of your own: imgstack-ml pca FOLDER -o OUT")


def _sample_stack(folder: str, terminal: Terminal) -> ImageStack:
    """Write the sample images, and open them lazily, labelled by their sub-folders."""
    from .. import open_stack
    from ..datasets import write_sample

    terminal.status(f"writing sample images to {folder}")
    _remove_earlier_sample(folder)
    write_sample("faces", folder)
    return open_stack(folder, recursive=True)


def _remove_earlier_sample(folder: str) -> None:
    """Remove the images of an earlier demo, if they are unchanged, and the sub-folders that are then empty."""
    from ..datasets import SAMPLES

    sub_folders = set()
    for sample in SAMPLES["faces"](None, 0):
        path = os.path.join(folder, sample.file)
        sub_folders.add(os.path.dirname(path))
        if _has_pixels(path, sample.image):
            os.remove(path)
    for sub_folder in sub_folders:
        with suppress(OSError):  # it does not exist, or holds files of the user
            os.rmdir(sub_folder)


def _has_pixels(path: str, pixels: np.ndarray) -> bool:
    """Whether a file is an image with exactly these pixels."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array_equal(np.asarray(image), pixels)
    except (OSError, SyntaxError):  # no file, or no image; Pillow raises SyntaxError for damaged PNGs
        return False


def _reload_difference(out: str, stack: ImageStack, scores: np.ndarray) -> float:
    """Largest difference between the scores of the saved model and those of the fit, relative to the largest score."""
    import numpy as np

    reloaded = np.asarray(open_model(out).transform(stack))
    return float(np.abs(reloaded - scores).max() / np.abs(scores).max())


def _pipeline(*last: tuple[str, Any], whiten: bool = False) -> Pipeline:
    from sklearn.pipeline import Pipeline

    from .. import ImageFlattener, ImagePCA, IntensityRescaler, StackCenterer

    return Pipeline(
        [
            ("rescale", IntensityRescaler()),
            ("center", StackCenterer()),
            ("flatten", ImageFlattener()),
            ("pca", ImagePCA(DEFAULT_COMPONENTS, whiten=whiten)),
            *last,
        ]
    )


def _cross_validate(stack: ImageStack, labels: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Cross-validate a face detector as a whole Pipeline: every step is fitted anew to the other folds.

    Returns
    -------
    predicted : ndarray of shape (n_images,)
        The label of each image by the model that is fitted without its fold.
    found : dict
        Accuracy, and the rate of the most frequent class to compare it with.
    """
    import numpy as np
    from dask_ml.wrappers import ParallelPostFit
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score

    folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed)
    # Whitened scores have one scale: the penalty of LogisticRegression weighs all components alike.
    accuracy = cross_val_score(_pipeline(("classify", LogisticRegression()), whiten=True), stack, labels, cv=folds)
    # ParallelPostFit predicts lazily: images are read and classified block by block.
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
