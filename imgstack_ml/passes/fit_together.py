"""Fits that share one read of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..base.validation import Images, check_images
from .runner import Pass, PassRunner

__all__ = ["PassLearner", "fit_together", "reads_of"]


class PassLearner:
    """Mixin of the estimators that learn by one pass, or by none: what they look for, and what they make of it."""

    n_passes_: float
    transform: Callable

    def _look(self, images: Images) -> Pass | None:
        """Check the parameters against the images, unread, and return the pass that is needed."""
        raise NotImplementedError

    def _learn(self, found: Any, images: Images) -> None:
        """Set the fitted attributes from the result of that pass, None where there was none."""
        raise NotImplementedError


def fit_together(
    estimators: Iterable[Any],
    X: Any,
    y: Any = None,
    *,
    progress: bool = False,
    memory_limit: str | int | float = "auto",
) -> float:
    """Fit several estimators on one stack, reading it as few times as can be.

    `StackCenterer`, `IntensityRescaler` and the features learn in one pass, which all of them share. Others, such
    as `ImagePCA` and Pipelines, are then fitted one after another and read for themselves.

    Parameters
    ----------
    estimators : iterable of estimators
        Fitted in place, each as its own ``fit(X, y)`` would.
    X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
        The images.
    y : array-like of shape (n_images,), optional
        Passed on to the estimators that read for themselves.
    progress : bool, default=False
        Show a bar for the read that is shared, which tells what is learned, on stderr. Estimators that read for
        themselves have a parameter of their own.
    memory_limit : str or int, default="auto"
        Bytes, or a string such as ``"1GB"``, that the read which is shared may hold above what the process held before,
        on a cluster each worker; 256 MiB of images at the most, beside what they are summed up in. ``"auto"`` is half
        of the memory available, and no limit on a cluster. Estimators that read for themselves have one of their own.

    Returns
    -------
    n_passes : float
        Reads of a lazy stack in all, as far as the estimators count theirs in ``n_passes_``. That of an estimator that
        shared the pass is 1.

    Raises
    ------
    NonFiniteError
        Naming the image (and file) with a NaN or infinite pixel.
    MemoryLimitError
        If a block of images does not fit `memory_limit`. Nothing was read then.
    ValueError
        For parameters that an estimator refuses; before anything is read where it learns by the shared pass.

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
    n_passes = _learn_in_one_pass(learners, X, progress, memory_limit) if learners else 0.0
    for estimator in estimators:
        if not isinstance(estimator, PassLearner):
            estimator.fit(X, y)
            n_passes += reads_of(estimator)
    return n_passes


def reads_of(estimator: Any) -> float:
    """Sum up the reads of the stack that the fit of an estimator, or of the steps of a Pipeline, counted."""
    steps = [step for _, step in getattr(estimator, "steps", [(None, estimator)])]
    return sum(getattr(step, "n_passes_", 0.0) for step in steps)


def _learn_in_one_pass(learners: list[PassLearner], X: Any, progress: bool, memory_limit: str | int | float) -> float:
    checked = [check_images(learner, X, reset=True) for learner in learners]
    passes = [learner._look(images) for learner, images in zip(learners, checked, strict=True)]
    wanted = [one for one in passes if one is not None]
    n_passes = 0.0
    found = iter(())
    if wanted:
        runner = PassRunner(checked[0], progress=progress)
        found = iter(runner.run_together(wanted, memory_limit))
        n_passes = runner.n_passes
    for learner, images, one in zip(learners, checked, passes, strict=True):
        learner._learn(None if one is None else next(found), images)
        learner.n_passes_ = 0.0 if one is None else n_passes
    return n_passes
