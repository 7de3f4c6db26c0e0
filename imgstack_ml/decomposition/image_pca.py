"""Principal component analysis of an image stack."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .. import __version__
from ..base.lazy import map_images, source_of
from ..base.transformer import for_table
from ..base.validation import Images, check_images, data_and_files, rows_are_views
from ..errors import RankWarning
from ..linalg.incremental import Summary, merge_summaries
from ..linalg.signs import component_signs
from ..passes.blas import one_blas_thread
from ..passes.checkpoint import Checkpoint, open_checkpoint
from ..passes.memory import Allowance, allowance, format_bytes, within_plan
from ..passes.runner import PassRunner, batch_rows
from .factors import Factors, Wanted
from .plan import Plan, check_n_components, plan_fit
from .problem import Problem
from .projection import log_likelihood, project, reconstruct
from .solvers import SOLVERS
from .streaming import factors_of_summary, first_look

__all__ = ["ImagePCA"]

_CENTRED = "a StackCenterer was fitted on these images, which took a read; ImagePCA centres without one: leave it out"
_ENDLESS = 10**9  # images that partial_fit expects
_READ_BYTES = 2**28  # of its batches and their summaries in flight
_DECIDING = ("n_components", "svd_solver", "n_oversamples", "tol", "max_passes", "memory_limit")  # what a fit finds
_COVARIANCE_VALUES = 10_000  # get_covariance makes a square of this many values a side, at most (800 MB)


class ImagePCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Principal component analysis of a stack of images that need not fit in memory.

    Takes whole stacks or flattened rows, NumPy or lazy Dask, and centres by itself without an extra read.

    Parameters
    ----------
    n_components : int, float or None, default=None
        Number of components; or the share of the variance to explain, between 0 and 1; or None for
        min(n_images, n_values).
    svd_solver : {"auto", "gram", "covariance_eigh", "tsqr", "randomized"}, default="auto"
        ``"gram"``: inner products of images; for up to a few thousand images of any size. One read if the raw
        images fit `memory_limit`, else about half as many reads as panels that fit, and one more.
        ``"covariance_eigh"``: inner products of pixels; for images of up to a few thousand values. One read, more
        if small singular values need more precision and the raw images do not fit.
        ``"tsqr"``: tall-skinny QR (`dask.array.linalg.tsqr`) in float64, for small singular values: down
        to max(n_images, n_values) * 2e-16 of the largest. One read; if images have more values than there are
        images, they must fit `memory_limit`.
        ``"randomized"``: the streaming solver, for any number of images of any size: a summary in the first read,
        then a block Krylov iteration, one read a step, until `certificate_` says that the result is within `tol`;
        two or three reads as a rule, one if the raw images fit `memory_limit`.
        ``"auto"``: an exact one of the first three while it fits and takes at most 1.3 times as long as the
        randomized one, by the nominal costs that `plan` shows; else ``"randomized"``.
    whiten : bool, default=False
        Scale scores to unit variance.
    n_oversamples : int, default=10
        Directions beyond n_components that the randomized solver works with, at least: more of them make it
        converge in fewer reads. The exact solvers ignore it, as they do the next two.
    tol : float, default=1e-4
        The randomized solver stops when the largest estimated relative error of an explained variance is within
        this, and so is the variance missed, as a share of what is left over.
    max_passes : int, default=6
        Reads of the stack that the randomized solver may make, the first one and those for scores included. With 1,
        for data that can be seen once, variances are lower bounds, and scores cost another read when they are
        computed. Images that are kept in memory are read once whatever this says.
    memory_limit : "auto", int or str, default="auto"
        Bytes, or a string such as ``"1GB"``, that a fit may hold per process above what the process held before,
        results included. ``"auto"``: what the solver needs, and raw images kept for later passes while the sum is
        up to 512 MiB, or takes no more than reading again would; never more than half of the memory available.
    random_state : int, RandomState instance or None, default=None
        Seed of the random sums of images that the randomized solver adds to its first basis, so that no direction
        is missed for good. It changes converged results within `tol` only; an int makes them repeat.
    progress : bool, default=False
        Show a bar for each pass, on stderr.
    checkpoint : str, PathLike or None, default=None
        A folder, made for this alone, in which `fit` saves what its reads of a lazy stack have found so far: the same
        fit, begun again after it failed or was killed, goes on from there and gives the same result, bit for bit if it
        runs in as many threads. Removed when the fit is done. See the notes.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_), float32 or float64
        Principal axes, orthonormal, in rows, by decreasing variance. The entry of largest magnitude of each is
        positive.
    eigenimages_ : ndarray of shape (n_components_, height, width[, n_channels])
        The same as images; a view.
    mean_ : ndarray of shape (n_features_in_,), float64
        Mean of the images, in their intensity units.
    mean_image_ : ndarray of shape (height, width[, n_channels])
        The same as an image; a view.
    explained_variance_ : ndarray of shape (n_components_,), float64
        Variance along each axis (ddof=1).
    explained_variance_ratio_ : ndarray of shape (n_components_,), float64
        Its share of the total variance, which is exact; 0 for a constant stack.
    singular_values_ : ndarray of shape (n_components_,), float64
        Singular values of the centred stack.
    noise_variance_ : float
        Mean of the variances left out, as in Tipping & Bishop (1999).
    n_components_ : int
        Number of components.
    n_samples_ : int
        Images seen in fit.
    n_features_in_ : int
        Values in one image: height x width x channels.
    image_shape_ : tuple of int
        Shape of an image, (n_features_in_,) for rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of a data frame, where one was given.
    svd_solver_ : str
        The solver that `fit` used.
    n_passes_ : float
        Reads of the whole stack in fit; 1.5 means that images were decoded 1.5 times on average.
    n_iter_ : int
        Products of the covariance with a block that the randomized solver formed, by a read or from images kept in
        memory; 0 for the exact solvers and after a single read.
    certificate_ : Certificate or None
        What the randomized solver knows about its error: exact captured variance, estimated deficit, rigorous
        bounds. None for the exact solvers.

    See Also
    --------
    sklearn.decomposition.PCA : The same for data in memory.

    Notes
    -----
    8- and 16-bit integers and float32 are multiplied in float32 and summed in float64; float64 stays float64.
    ``"gram"`` and ``"covariance_eigh"`` square singular values. Where the smallest one asked for could drown in the
    rounding of the largest, they work again in float64, and then on what the components known so far leave of the
    images, down to 1e-12 of the largest (sqrt(n_images * 2e-16) if the Gram solver cannot keep the images). What is
    below is reported as variance 0, never as noise.

    A checkpoint is written after a wave of up to 16 groups of batches, a few GB of images where memory is plenty, when
    that takes no more than 2 % of the time since the last one; what came after it is read again. It is for one fit at
    a time: of the same parameters, images (files, their sizes and times of change; else Dask's name of the array) and
    version of this package. Of another
    one nothing is used, and a warning says what has changed. The number of images read that `n_passes_` gives includes
    those read before. Where the disk is full, a warning says how many bytes were needed, and the fit goes on. Nothing
    is saved of images that are kept in memory, which take a single read, nor by ``"tsqr"``, which runs in one piece.

    Examples
    --------
    >>> import dask.array as da
    >>> from imgstack_ml import ImagePCA
    >>> stack = da.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype="uint8", chunks=(20, 16, 16))
    >>> pca = ImagePCA(n_components=4).fit(stack)
    >>> pca.eigenimages_.shape, pca.n_passes_
    ((4, 16, 16), 1.0)
    >>> pca.transform(stack)  # lazy in, lazy out
    dask.array<project, shape=(60, 4), dtype=float32, chunksize=(20, 4), chunktype=numpy.ndarray>
    """

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        svd_solver: str = "auto",
        whiten: bool = False,
        n_oversamples: int = 10,
        tol: float = 1e-4,
        max_passes: int = 6,
        memory_limit: int | str = "auto",
        random_state: Any = None,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ):
        self.n_components = n_components
        self.svd_solver = svd_solver
        self.whiten = whiten
        self.n_oversamples = n_oversamples
        self.tol = tol
        self.max_passes = max_passes
        self.memory_limit = memory_limit
        self.random_state = random_state
        self.progress = progress
        self.checkpoint = checkpoint

    def fit(self, X: Any, y: Any = None) -> ImagePCA:
        """Find the principal components of a stack.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            At least two images; or rows of shape (n_samples, n_features).
        y : ignored

        Returns
        -------
        self : ImagePCA

        Raises
        ------
        MemoryLimitError
            Before anything is read, if `memory_limit` is too small for the solver.
        NonFiniteError
            Naming the image (and file) with a NaN or infinite pixel.
        ValueError
            For a single image, too many components, unknown chunk sizes.

        Warns
        -----
        RankWarning
            If the images have fewer independent directions than components; the rest have variance 0.
        ConvergenceWarning
            If `max_passes` reads leave an estimated error above `tol`, or a share of the variance not reached.
        """
        self._fit(X)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> ImagePCA:
        """Add images to what was learned so far, for data that arrives in batches; each is read once.

        Keeps a mergeable summary of all images, as the first read of the randomized solver does, with more
        directions than components. Variances are lower bounds; `certificate_` says how far off they can be. After
        `fit`, or on a loaded model, it goes on from the components alone.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            One or more images of the shape seen before.
        y : ignored

        Returns
        -------
        self : ImagePCA

        Raises
        ------
        ValueError
            If there are more components than values in an image.
        """
        first = not hasattr(self, "components_")
        images = check_images(self, X, reset=first)
        source, shift = _uncentred(images)
        problem = replace(self._problem(source, self._components_of_batches(images, first)), n=_ENDLESS)
        sizes = problem.sizes()
        runner = PassRunner(source, read_bytes=max(_READ_BYTES, 4 * sizes.summary_bytes), progress=self.progress)
        with one_blas_thread():
            summary, _ = first_look(runner, problem, sizes, draws=0)
            summary = summary._replace(mean=summary.mean - shift)
            if not first:
                summary = merge_summaries(self._summary_so_far(), summary, size=sizes.summary)
            problem = replace(problem, n=summary.n)
            factors = factors_of_summary(summary, problem, self._wanted())
        self.svd_solver_, self.n_passes_, self._summary = "randomized", 1.0, summary
        self._store(factors, problem)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray | da.Array:
        """Fit, and return the scores of the images; no further read where the solver has them.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            As for `fit`.
        y : ignored

        Returns
        -------
        scores : ndarray or dask array of shape (n_images, n_components_)
            As from `transform`; a Dask array in the row chunks of `X` for lazy input.
        """
        images, scores = self._fit(X)
        if scores is None:
            return for_table(self, self._project(images))
        scores = (scores / self._score_scale()).astype(self.components_.dtype)
        if isinstance(images.data, da.Array):
            return for_table(self, da.from_array(scores, chunks=(images.data.chunks[0], -1)))
        return scores

    def transform(self, X: Any) -> np.ndarray | da.Array:
        """Project images on the components.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted, or rows if rows were fitted.

        Returns
        -------
        scores : ndarray or dask array of shape (n_images, n_components_)
            In the dtype of `components_`; lazy for lazy input.
        """
        return for_table(self, self._project(check_images(self, X, reset=False)))

    def inverse_transform(self, X: Any) -> np.ndarray | da.Array:
        """Images from scores: the reconstruction from n_components_ components.

        Parameters
        ----------
        X : ndarray or dask array of shape (n_images, n_components_)
            Scores, as from `transform`.

        Returns
        -------
        images : ndarray or dask array of shape (n_images, *image_shape_)
            In the dtype of `components_`, in the intensity units of the stack; lazy for lazy input.

        Raises
        ------
        ValueError
            If `X` does not have n_components_ columns.
        """
        check_is_fitted(self)
        scores = data_and_files(X)[0]
        scores = scores if isinstance(scores, da.Array) else np.asarray(scores)
        if scores.ndim != 2 or scores.shape[1] != self.n_components_:
            raise ValueError(f"X has shape {scores.shape}; inverse_transform needs (n_images, {self.n_components_}).")
        return map_images(
            partial(reconstruct, self.image_shape_),
            scores,
            image_shape=self.image_shape_,
            dtype=self.components_.dtype,
            axes=self.components_,
            mean=self.mean_,
            scale=self._score_scale(),
        )

    def score_samples(self, X: Any) -> np.ndarray | da.Array:
        """Log-likelihood of each image under the probabilistic PCA model.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.

        Returns
        -------
        log_likelihood : ndarray or dask array of shape (n_images,), float64

        Raises
        ------
        ValueError
            If no variance is left to stand for noise, so that the model has no density.

        References
        ----------
        Tipping & Bishop (1999), "Mixtures of probabilistic principal component analyzers", eq. 5; evaluated in the
        basis of the components, without a matrix of pixels x pixels.
        """
        images = check_images(self, X, reset=False)
        k, p, noise = self.n_components_, self.n_features_in_, self.noise_variance_
        if (noise == 0 and k < p) or self.explained_variance_[-1] <= 0:
            raise ValueError(
                "The components explain all the variance, so that the model has no noise and no likelihood. "
                f"Fit fewer components, e.g. ImagePCA({max(1, k // 2)})."
            )
        noise = noise or 1.0  # all of k == p directions are components: no residual to weigh
        log_det = np.log(self.explained_variance_).sum() + (p - k) * np.log(noise)
        return map_images(
            partial(log_likelihood, noise, p * np.log(2 * np.pi) + log_det),
            images.data,
            image_shape=(),
            dtype=np.dtype(np.float64),
            axes=self.components_,
            mean=self.mean_,
            variance=self.explained_variance_,
        )

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood of the images; reads a lazy stack once.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images of the shape fitted.
        y : ignored

        Returns
        -------
        log_likelihood : float
        """
        return float(np.mean(np.asarray(self.score_samples(X))))

    def get_covariance(self) -> np.ndarray:
        """Covariance of the values of an image under the model: components and equal noise in all directions.

        Returns
        -------
        covariance : ndarray of shape (n_features_in_, n_features_in_), float64

        Raises
        ------
        ValueError
            If an image has more than 10,000 values: the square of them would not fit in memory.
        """
        check_is_fitted(self)
        p = self.n_features_in_
        if p > _COVARIANCE_VALUES:
            raise ValueError(
                f"The covariance of {p} values is a matrix of {p} x {p}, {8 * p * p / 2**30:.3g} GiB; get_covariance "
                f"makes up to {_COVARIANCE_VALUES} x {_COVARIANCE_VALUES}. Use components_, explained_variance_ and "
                "noise_variance_, which hold the same."
            )
        axes = self.components_.astype(np.float64)
        covariance = (axes.T * np.maximum(self.explained_variance_ - self.noise_variance_, 0)) @ axes
        covariance.flat[:: p + 1] += self.noise_variance_
        return covariance

    def plan(self, X: Any) -> Plan:
        """Say what `fit` would do, without reading a pixel.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            As for `fit`.

        Returns
        -------
        plan : Plan
            Solver, reads, multiply-adds and peak bytes, and the alternatives; its repr is a table.

        Raises
        ------
        MemoryLimitError
            As `fit` would.
        """
        source, shift = _uncentred(check_images(clone(self), X, reset=True))
        plan = self._plan(source)[0]
        return replace(plan, notes=(_CENTRED,)) if np.any(shift) else plan

    @property
    def eigenimages_(self) -> np.ndarray:
        """Components as images (n_components_, height, width[, n_channels]); a view."""
        return self.components_.reshape(-1, *self.image_shape_)

    @property
    def mean_image_(self) -> np.ndarray:
        """Mean as an image (height, width[, n_channels]); a view."""
        return self.mean_.reshape(self.image_shape_)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags

    def _fit(self, X: Any) -> tuple[Images, np.ndarray | None]:
        images = check_images(self, X, reset=True)
        source, shift = _uncentred(images)
        self._check_parameters()
        wanted, allowed = self._wanted(), allowance(self.memory_limit)
        plan, problem = self._plan(source, allowed)
        # Passes run in as many threads as there are cores. What lies between them gains little from BLAS threads of
        # its own, and loses all when others use the machine: eigh of 844 x 844 takes 0.09 s with one thread, and with
        # two 0.1 s on an idle machine and 2 s on a busy one.
        with one_blas_thread(), self._open_checkpoint(source, allowed, wanted) as checkpoint:
            if checkpoint is not None:
                plan, wanted = self._as_begun(checkpoint, source, plan, wanted)
            need = plan.chosen
            runner = PassRunner(source, read_bytes=need.reading_bytes, progress=self.progress, checkpoint=checkpoint)
            with within_plan(need.peak_bytes):
                factors = SOLVERS[plan.solver](runner, need, problem, wanted)
        self.svd_solver_ = plan.solver
        self.n_passes_ = runner.n_passes
        self.__dict__.pop("_summary", None)
        return images, self._store(factors._replace(mean=factors.mean - shift), problem)

    def _open_checkpoint(
        self, images: Images, allowed: Allowance, wanted: Wanted
    ) -> AbstractContextManager[Checkpoint | None]:
        """Open the checkpoint, where one is asked for and the images are not in memory."""
        if self.checkpoint is None or not isinstance(images.data, da.Array):
            return nullcontext()
        fit = {name: repr(getattr(self, name)) for name in _DECIDING}
        fit["random_state"] = repr(self.random_state) if isinstance(self.random_state, Integral) else "no int"
        fit["the name of the images, which follows from files, sizes, times of change and blocks,"] = images.data.name
        fit["the version of imgstack_ml"] = __version__
        return open_checkpoint(self.checkpoint, fit, {**allowed._asdict(), "seed": wanted.seed})

    def _as_begun(self, checkpoint: Checkpoint, images: Images, plan: Plan, wanted: Wanted) -> tuple[Plan, Wanted]:
        """Plan with the memory and the seed that a fit which is resumed began with."""
        begun = checkpoint.begun
        before = self._plan(images, Allowance(begun["limit"], begun["keep"]))[0]
        if before.peak_bytes > plan.memory_limit:
            checkpoint.discard(
                f"it takes {format_bytes(before.peak_bytes)} of memory, and {format_bytes(plan.memory_limit)} are left"
            )
            return plan, wanted
        if before.solver == "tsqr" and not before.chosen.keeps_images:
            warnings.warn(
                "svd_solver='tsqr' runs in one piece, and nothing can be saved of it: checkpoint is not used.",
                UserWarning,
                stacklevel=4,
            )
        return before, wanted._replace(seed=begun["seed"])

    def _plan(self, images: Images, allowed: Allowance | None = None) -> tuple[Plan, Problem]:
        n, p = len(images.data), images.n_pixels
        if n < 2:
            raise ValueError(f"ImagePCA needs at least 2 images to see any variance, and got n_samples={n}.")
        check_n_components(self.n_components, n, p)
        self._check_parameters()
        problem = self._problem(images, self.n_components)
        return plan_fit(problem, self.svd_solver, allowed or allowance(self.memory_limit)), problem

    def _check_parameters(self) -> None:
        if self.svd_solver not in ("auto", *SOLVERS):
            raise ValueError(f"svd_solver={self.svd_solver!r} must be one of {('auto', *SOLVERS)}.")
        for name, least in (("n_oversamples", 0), ("max_passes", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r} must be an int of at least {least}.")
        if self.checkpoint is not None and not isinstance(self.checkpoint, str | os.PathLike):
            raise ValueError(f"checkpoint={self.checkpoint!r} must be None or a folder, e.g. checkpoint='unfinished'.")
        if not isinstance(self.tol, Real) or not self.tol >= 0:
            raise ValueError(f"tol={self.tol!r} must be a number of at least 0, e.g. tol=1e-4.")

    def _problem(self, images: Images, n_components: Any) -> Problem:
        n = len(images.data)
        if isinstance(images.data, da.Array):
            block = max(images.data.chunks[0])
        else:
            block = None if rows_are_views(images.data) else min(n, batch_rows(images))
        return Problem.of(
            (n, images.n_pixels),
            images.data.dtype,
            n_components,
            block,
            n_oversamples=self.n_oversamples,
            max_passes=self.max_passes,
        )

    def _wanted(self) -> Wanted:
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return Wanted(self.n_components, float(self.tol), int(self.max_passes), int(seed))

    def _components_of_batches(self, images: Images, first: bool) -> int | float:
        """Return the number of components that partial_fit looks for, or their share of the variance."""
        self._check_parameters()
        p = images.n_pixels
        check_n_components(self.n_components, _ENDLESS, p)
        if self.n_components is None:
            return min(len(images.data), p) if first else self.n_components_
        return self.n_components

    def _summary_so_far(self) -> Summary:
        """Summarise what was learned: as partial_fit keeps it, or by the components after fit or load_model."""
        kept = getattr(self, "_summary", None)
        if kept is not None:
            return kept
        degrees = max(self.n_samples_ - 1, 1)
        ratio = self.explained_variance_ratio_[0]
        total = degrees * self.explained_variance_[0] / ratio if ratio > 0 else 0.0
        rows = self.components_ * self.singular_values_[:, None].astype(self.components_.dtype)
        nothing = np.empty((0, rows.shape[1]), rows.dtype)
        rest = np.zeros(rows.shape[1])
        return Summary(self.n_samples_, self.mean_, rest, total, rows, np.inf, nothing, np.empty(0))

    def _store(self, factors: Factors, problem: Problem) -> np.ndarray | None:
        """Set the fitted attributes, settle the signs, and return the scores where the solver had them."""
        n, k = problem.n, len(factors.singular_values)
        signs = component_signs(factors.components)
        self.components_ = np.multiply(factors.components, signs[:, None], out=factors.components)
        self.mean_ = factors.mean
        self.n_components_ = k
        self.n_samples_ = n
        self.n_iter_ = factors.n_iter
        self.certificate_ = factors.certificate
        self.singular_values_ = factors.singular_values
        degrees = max(n - 1, 1)  # partial_fit may have seen one image so far
        self.explained_variance_ = factors.singular_values**2 / degrees
        total = factors.total / degrees
        self.explained_variance_ratio_ = self.explained_variance_ / (total if total > 0 else 1.0)
        left = min(n, problem.p) - k
        rest = total - float(self.explained_variance_.sum())
        rounding = max(n, problem.p) * np.finfo(np.float64).eps * total
        self.noise_variance_ = rest / left if left > 0 and rest > rounding else 0.0
        if factors.rank < min(k, n - 1):
            warnings.warn(
                f"The {n} images have {factors.rank} independent direction(s) about their mean, and {k} components "
                f"were asked for: the last {k - factors.rank} have variance 0 and arbitrary directions.",
                RankWarning,
                stacklevel=4,
            )
        return None if factors.scores is None else factors.scores * signs

    def _score_scale(self) -> np.ndarray:
        """Return what scores are divided by: ones, or standard deviations when whitening."""
        if not self.whiten:
            return np.ones(self.n_components_)
        scale = np.sqrt(self.explained_variance_)
        scale[scale == 0] = 1  # scores along a direction of variance 0 are rounding, and stay so
        return scale

    def _project(self, images: Images) -> np.ndarray | da.Array:
        return map_images(
            project,
            images.data,
            image_shape=(self.n_components_,),
            dtype=self.components_.dtype,
            axes=self.components_,
            mean=self.mean_,
            scale=self._score_scale(),
        )


def _uncentred(images: Images) -> tuple[Images, np.ndarray | float]:
    """Images as they were before a constant image was subtracted, and that image: their components are the same.

    A centred stack takes four times the memory of the 8-bit images that it was made from.
    """
    if not isinstance(images.data, da.Array):
        return images, 0.0
    source = source_of(images.data)
    return Images(source.data, images.files), source.shift
