"""Fits that share one read of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..base.state import unchanged_if_it_fails
from ..base.validation import Images, check_images
from .runner import Pass, PassRunner

__all__ = ["PassLearner", "fit_together", "learn_in_one_pass", "reads_of"]


class PassLearner:
    """Mixin of the estimators whose fit is one pass over the images, or needs no pass."""

    n_passes_: float
    transform: Callable[..., Any]

    def _needed_pass(self, images: Images) -> Pass | None:
        """Check the parameters against the images, without reading them, and return the pass that `fit` needs."""
        raise NotImplementedError

    def _learn(self, found: Any, images: Images) -> None:
        """Set the fitted attributes from `found`, the result of that pass, or None if no pass was needed."""
        raise NotImplementedError


def fit_together(
    estimators: Iterable[Any],
    X: Any,
    y: Any = None,
    *,
    progress: bool = False,
    memory_limit: str | int | float = "auto",
) -> float:
    """Fit several estimators on one stack, reading it as few times as possible.

    `StackCenterer`, `IntensityRescaler` and the features share one pass over the images. Other estimators, such as
    `ImagePCA` and Pipelines, are fitted after that, one by one, and read the images themselves.

    Parameters
    ----------
    estimators : iterable of estimators
        Each is fitted in place, with the same result as ``fit(X, y)``. If one of them fails, all stay as they were.
    X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
        The images.
    y : array-like of shape (n_images,), optional
        Passed to the estimators that read the images themselves.
    progress : bool, default=False
        Show a progress bar of the shared pass on stderr, with what it is for. Estimators that read the images
        themselves have a parameter of their own.
    memory_limit : str or int, default="auto"
        Memory that the shared pass may take beyond what the process held before, on a cluster each worker: bytes, or a
        string such as ``"1GB"``. At most 256 MiB of images are in memory at a time, and the results besides.
        ``"auto"`` is half of the available memory, and no limit on a cluster. Estimators that read the images
        themselves have a parameter of their own.

    Returns
    -------
    n_passes : float
        How many times the whole stack was read. The shared pass counts once here, and as 1 in the ``n_passes_`` of
        each estimator that shared it. An estimator without ``n_passes_`` counts as 0.

    Raises
    ------
    NonFiniteError
        An image has a NaN or infinite pixel. The message names the image, and its file if it is known.
    MemoryLimitError
        One block of images needs more than `memory_limit`. It is raised before anything is read.
    ValueError
        An estimator refuses its parameters. For estimators that share the pass, it is raised before anything is read.

    Examples
    --------
    >>> import dask.array as da
    >>> from imgstack_ml import IntensityRescaler, StackCenterer, fit_together
    >>> stack = da.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype="uint8", chunks=(20, 16, 16))
    >>> centerer, rescaler = StackCenterer(), IntensityRescaler(in_range="stack")
    >>> fit_together([centerer, rescaler], stack)
    1.0
    >>> centerer.mean_.shape, rescaler.in_range_
    ((16, 16), (0.0, 255.0))
    """
    estimators = list(estimators)
    learners = [estimator for estimator in estimators if isinstance(estimator, PassLearner)]
    with unchanged_if_it_fails(*estimators):
        n_passes = learn_in_one_pass(learners, X, progress, memory_limit) if learners else 0.0
        for estimator in estimators:
            if not isinstance(estimator, PassLearner):
                estimator.fit(X, y)
                n_passes += reads_of(estimator)
        return n_passes


def reads_of(estimator: Any) -> float:
    """Sum of ``n_passes_`` of an estimator, or of the steps of a Pipeline. A missing one counts as 0."""
    steps = [step for _, step in getattr(estimator, "steps", [(None, estimator)])]
    return sum(getattr(step, "n_passes_", 0.0) for step in steps)


def learn_in_one_pass(
    learners: list[PassLearner],
    X: Any,
    progress: bool = False,
    memory_limit: str | int | float = "auto",
    sample_weight: Any = None,
) -> float:
    """Fit estimators that need one pass at most, all of them by the same pass, and count it.

    With `sample_weight`, images have weights, which all of the estimators must take.
    """
    checked = [check_images(learner, X, reset=True, sample_weight=sample_weight) for learner in learners]
    passes = [learner._needed_pass(images) for learner, images in zip(learners, checked, strict=True)]
    needed = [one for one in passes if one is not None]
    n_passes = 0.0
    results: Iterator[Any] = iter(())
    if needed:
        runner = PassRunner(checked[0], progress=progress)
        results = iter(runner.run_together(needed, memory_limit))
        n_passes = runner.n_passes
    for learner, images, one in zip(learners, checked, passes, strict=True):
        learner._learn(None if one is None else next(results), images)
        learner.n_passes_ = 0.0 if one is None else n_passes
    return n_passes
