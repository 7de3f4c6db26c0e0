"""Principal component analysis of an image stack."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..base.lazy import map_images
from ..base.transformer import for_table
from ..base.validation import Images, StackLike, check_images, data_and_files
from ..base.warn import warn
from ..errors import RankWarning
from ..linalg.signs import component_signs
from ..passes.blas import one_blas_thread
from ..passes.memory import Allowance, allowance, within_plan
from ..passes.runner import PassRunner
from .checks import check_n_components, check_parameters, fit_size, uncentred
from .likelihood import LikelihoodMixin
from .partial_fit import components_of_batches, learn_batch, summary_of_model
from .plan import Plan, plan_fit
from .projection import project, reconstruct
from .request import Factors, FitRequest
from .resume import fit_checkpoint, resumed
from .sizes import FitSize
from .solvers import SOLVERS

__all__ = ["ImagePCA"]

_CENTRED = "a StackCenterer was fitted on these images, which took a read; ImagePCA centres without one: leave it out"


class ImagePCA(LikelihoodMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
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

    def fit(self, X: StackLike, y: Any = None) -> ImagePCA:
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

    def partial_fit(self, X: StackLike, y: Any = None) -> ImagePCA:
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
        fitted = self.n_components_ if hasattr(self, "components_") else None
        images = check_images(self, X, reset=fitted is None)
        params = self.get_params(deep=False)
        params["n_components"] = components_of_batches(params, images, fitted)
        so_far = None if fitted is None else getattr(self, "_summary", None) or summary_of_model(self)
        factors, size, summary = learn_batch(images, params, self._request(), so_far, self.progress)
        self.svd_solver_, self.n_passes_, self._summary = "randomized", 1.0, summary
        self._store(factors, size)
        return self

    def fit_transform(self, X: StackLike, y: Any = None) -> np.ndarray | da.Array:
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

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
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

    def inverse_transform(self, X: np.ndarray | da.Array) -> np.ndarray | da.Array:
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

    def plan(self, X: StackLike) -> Plan:
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
        source, shift = uncentred(check_images(clone(self), X, reset=True))
        plan = self._plan(source, allowance(self.memory_limit))
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

    def _fit(self, X: StackLike) -> tuple[Images, np.ndarray | None]:
        """Validate, plan, solve, store; return the images, and their scores where the solver has them."""
        images = check_images(self, X, reset=True)
        source, shift = uncentred(images)
        allowed = allowance(self.memory_limit)
        plan = self._plan(source, allowed)
        factors = self._solve(source, plan, allowed)
        self.__dict__.pop("_summary", None)  # of partial_fit
        scores = self._store(factors._replace(mean=factors.mean - shift), fit_size(source, self.get_params(deep=False)))
        return images, scores

    def _plan(self, images: Images, allowed: Allowance) -> Plan:
        """Choose a solver from metadata alone."""
        n, p = len(images.data), images.n_pixels
        if n < 2:
            raise ValueError(f"ImagePCA needs at least 2 images to see any variance, and got n_samples={n}.")
        params = self.get_params(deep=False)
        check_n_components(self.n_components, n, p)
        check_parameters(params)
        return plan_fit(fit_size(images, params), self.svd_solver, allowed)

    def _solve(self, images: Images, plan: Plan, allowed: Allowance) -> Factors:
        """Run the solver of the plan, or of the plan that a fit in the checkpoint began with."""
        params, request = self.get_params(deep=False), self._request()
        size = fit_size(images, params)
        # Passes run in as many threads as there are cores. The work between them gains little from BLAS threads of its
        # own, and loses a lot when others use the machine: eigh of 844 x 844 takes 0.09 s with one thread, and with
        # two 0.1 s on an idle machine and 2 s on a busy one.
        with one_blas_thread(), fit_checkpoint(params, images, allowed, request) as checkpoint:
            plan, request = resumed(checkpoint, partial(self._plan, images), plan, request)
            cost = plan.chosen
            runner = PassRunner(images, read_bytes=cost.reading_bytes, progress=self.progress, checkpoint=checkpoint)
            with within_plan(cost.peak_bytes):
                factors = SOLVERS[plan.solver](runner, cost, size, request)
        self.svd_solver_, self.n_passes_ = plan.solver, runner.n_passes
        return factors

    def _request(self) -> FitRequest:
        return FitRequest.of(self.n_components, self.tol, self.max_passes, self.random_state)

    def _store(self, factors: Factors, size: FitSize) -> np.ndarray | None:
        """Set the fitted attributes, settle the signs, and return the scores where the solver had them."""
        n, k = size.n, len(factors.singular_values)
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
        left = min(n, size.p) - k
        rest = total - float(self.explained_variance_.sum())
        rounding = max(n, size.p) * np.finfo(np.float64).eps * total
        self.noise_variance_ = rest / left if left > 0 and rest > rounding else 0.0
        if factors.rank < min(k, n - 1):
            warn(
                f"The {n} images have {factors.rank} independent direction(s) about their mean, and {k} components "
                f"were asked for: the last {k - factors.rank} have variance 0 and arbitrary directions.",
                RankWarning,
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
