"""Principal component analysis of an image stack."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..base.lazy import map_images, note_samples, samples_of
from ..base.mask import put_back
from ..base.missing import check_missing
from ..base.state import unchanged_if_it_fails
from ..base.transformer import for_table
from ..base.validation import Images, StackLike, check_images, check_rows
from ..linalg.signs import settle_signs
from .checks import warn_of_rank
from .fit import fit_images, plan_images
from .labelled import LabelledMixin
from .likelihood import LikelihoodMixin
from .missing import SCORINGS
from .partial_fit import learn_batch
from .plan import Plan
from .projection import in_intensities, reconstruct, score_scale, scores_of
from .records import Factors, FitSize
from .residuals import ResidualsMixin

__all__ = ["ImagePCA"]


class ImagePCA(
    ResidualsMixin, LabelledMixin, LikelihoodMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Principal component analysis of a stack of images that need not fit in memory.

    Takes stacks or flattened rows, as NumPy or lazy Dask arrays. Centring is part of the fit and costs no extra read.

    Parameters
    ----------
    n_components : int, float or None, default=None
        Number of components; or the share of the variance to explain, between 0 and 1; or None for
        min(n_images, n_values).
    svd_solver : {"auto", "gram", "covariance_eigh", "tsqr", "randomized"}, default="auto"
        ``"gram"``: exact, by inner products of images; for up to a few thousand images of any size. One read if the raw
        images fit `memory_limit`. Otherwise the images are divided into panels that fit, and the number of reads is
        about half the number of panels, plus one.
        ``"covariance_eigh"``: exact, by inner products of pixels; for images of up to a few thousand values. One read;
        more if small singular values need more precision and the raw images do not fit.
        ``"tsqr"``: exact, by tall-skinny QR (`dask.array.linalg.tsqr`) in float64; for small singular values, down
        to max(n_images, n_values) * 2e-16 of the largest. One read; if images have more values than there are
        images, they must fit `memory_limit`.
        ``"randomized"``: the streaming solver, for any number of images of any size. It makes a summary in the first
        read, then a step of a block Krylov iteration in each further read, until `certificate_` says that the
        result is within `tol`. Usually two or three reads; one if the raw images fit `memory_limit`.
        ``"auto"``: one of the exact solvers, if it fits and takes at most 1.3 times as long as the streaming solver by
        nominal costs; else ``"randomized"``. If that has not converged, with images in memory, when an exact solver
        would have ended, the exact one goes on: at most twice the time of the better one. `plan` says when.
    whiten : bool, default=False
        Scale scores to unit variance.
    n_oversamples : int, default=10
        Smallest number of directions beyond n_components that the randomized solver works with. With more of them it
        converges in fewer reads. Exact solvers ignore `n_oversamples`, `tol` and `max_passes`.
    tol : float, default=1e-4
        The randomized solver stops when two estimates are within `tol`: the largest relative error of an explained
        variance, and the variance missed as a share of what is left over. It warns of a `tol` below rounding.
    max_passes : int, default=6
        Most reads of the stack by the randomized solver. With 1, for data that can be read only once, variances are
        lower bounds, and scores need another read when they are computed. Images that are kept in memory are read once
        in any case.
    memory_limit : "auto", int or str, default="auto"
        Peak memory of a fit in each process, above what the process held before, results included: bytes, or a string
        such as ``"1GB"``. ``"auto"``: as much as the solver needs, at most half of the memory available. Raw images are
        kept for later passes if the sum is up to 512 MiB, or not larger than it would be without them.
    random_state : int, RandomState instance or None, default=None
        Seed of the random sums of images that the randomized solver adds to its first basis, so that it misses no
        direction. Converged results depend on it within `tol` only. With an int, results repeat. Exact solvers and
        `partial_fit` draw no random numbers.
    progress : bool, default=False
        Show a bar for each pass, on stderr.
    checkpoint : str, PathLike or None, default=None
        A folder of its own, in which `fit` saves the results of its reads of a lazy stack. If the fit fails or is
        killed, the same call resumes from there and gives the same result, to the last bit if it runs in as many
        threads. The folder is removed when the fit is done. See the notes.
    mask : array-like of bool, "finite" or None, default=None
        True for the pixels to use, False for those to leave out: of shape (height, width), for all channels, or of that
        of an image; (n_features,) for rows. In masked arrays of NumPy, True means the opposite. ``"finite"`` uses the
        pixels that are finite in all images, which takes one read more of a stack of floats. Pixels outside are not
        looked at by any method, and may be NaN or infinite. Results are those of rows of the pixels inside. None uses
        all pixels.
    missing : {"raise", "mean", "als"}, default="raise"
        What to do with missing pixels, in `fit`, `fit_transform` and `transform`; in all other methods they are errors.
        ``"raise"``: an error names the image. ``"mean"``: each gets the mean of the images that show it, which takes
        one read more, and every solver works; variances are too small by what is missing.
        ``"als"``: components are those of the observed pixels, by alternating least squares, for a number of
        components and ``svd_solver="auto"``. At most `max_passes` reads, and at least three; one if the images fit
        `memory_limit`. Each image gets scores by least squares over the pixels that it shows.
    missing_values : float, default=nan
        What marks a missing pixel: NaN, or a number such as 0 or 65535, which ``missing="raise"`` refuses. Pixels that
        a masked array masks are missing too.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_), float32 or float64
        Principal axes, orthonormal, in rows, by decreasing variance; 0 outside the mask. The entry of largest magnitude
        of each is positive.
    eigenimages_ : ndarray of shape (n_components_, height, width[, n_channels])
        The same as images; a view.
    mean_ : ndarray of shape (n_features_in_,), float64
        Mean of the images, in their intensity units; 0 outside the mask.
    mask_ : ndarray of bool of the shape of an image, or None
        True for the pixels that are used; None if there is no mask.
    mean_image_ : ndarray of shape (height, width[, n_channels])
        The same as an image; a view.
    explained_variance_ : ndarray of shape (n_components_,), float64
        Variance along each axis: sums of squares divided by ``total_weight_ - 1``.
    explained_variance_ratio_ : ndarray of shape (n_components_,), float64
        Share of the total variance, which is exact; 0 for a constant stack. With ``missing="als"`` the sum is the share
        of the observed squares about the mean that the components explain.
    singular_values_ : ndarray of shape (n_components_,), float64
        Singular values of the centred stack.
    residual_variance_image_ : ndarray of shape (height, width[, n_channels]), float64
        Variance that the components leave of each pixel, within 1e-6 of that of the pixel (1e-14 in float64). It costs
        no read. After `partial_fit` or a single read, it is all that the variances, lower bounds then, leave.
    noise_variance_ : float
        Mean of the variances along all other directions, as in Tipping & Bishop (1999).
    n_components_ : int
        Number of components.
    n_samples_ : int
        Images seen in fit, without those of weight 0.
    total_weight_ : float
        Sum of their weights; `n_samples_` without weights.
    n_features_in_ : int
        Values in one image: height x width x channels.
    image_shape_, channel_names_ : tuple of int, tuple of str
        Shape of an image, (n_features_in_,) for rows. Names of its channels, where it has several.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of a data frame, where one was given.
    svd_solver_ : str
        The solver that `fit` used.
    n_passes_ : float
        Reads of the whole stack in fit; 1.5 means that images were decoded 1.5 times on average.
    n_iter_ : int
        Iterations of the randomized solver: products of the covariance with a block. 0 for the exact solvers and after
        a single read.
    certificate_ : Certificate or None
        Accuracy of the randomized solver's result: exact captured variance, estimated deficit, rigorous bounds. None
        for the exact solvers.

    See Also
    --------
    sklearn.decomposition.PCA : The same for data in memory.

    Notes
    -----
    8- and 16-bit integers and float32 are multiplied in float32 and summed in float64; float64 stays float64.
    ``"gram"`` and ``"covariance_eigh"`` square singular values. If the smallest one asked for could be lost in the
    rounding of the largest, they compute again in float64, and then with the components known so far taken out of the
    images, down to 1e-12 of the largest (sqrt(n_images * 2e-16) if the Gram solver cannot keep the images). Smaller
    ones are reported as variance 0, never as noise.

    A checkpoint is written after a wave of up to 16 groups of batches (a few GB of images if there is enough memory),
    if writing takes no more than 2 % of the time since the last one. Images read after the last checkpoint are read
    again. A checkpoint belongs to one fit: the same parameters, the same version of this package, and the same images
    (files, their sizes and times of change; for other arrays Dask's name). If one of these has changed, nothing is
    used, and a warning says what has changed. `n_passes_` includes the reads before the interruption. If the disk is
    full, a warning says how many bytes are needed, and the fit continues. Nothing is saved of images that are kept in
    memory, since one read is enough for them, nor by ``"tsqr"``, which runs in one piece.

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
        mask: Any = None,
        missing: str = "raise",
        missing_values: float = np.nan,
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
        self.mask = mask
        self.missing = missing
        self.missing_values = missing_values

    def fit(self, X: StackLike, y: Any = None, sample_weight: ArrayLike | None = None) -> ImagePCA:
        """Find the principal components of a stack.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            At least two images; or rows of shape (n_samples, n_features).
        y : ignored
        sample_weight : array-like of shape (n_images,), optional
            How often each image counts, as if it were repeated. One of weight 0 is not looked at.

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
            For a single image, too many components, unknown chunk sizes; for a mask that is not Boolean, has another
            shape than the images, or leaves no pixel; for weights that are negative, or add up to no more than 1.

        Warns
        -----
        RankWarning
            If the images have fewer independent directions than components. The other components have variance 0.
        ConvergenceWarning
            If the estimated error is above `tol` after `max_passes` reads, or the share of the variance is not reached.
        """
        with unchanged_if_it_fails(self):
            self._fit(X, sample_weight)
        return self

    def partial_fit(self, X: StackLike, y: Any = None, sample_weight: ArrayLike | None = None) -> ImagePCA:
        """Learn from a batch of images, for data that arrives in batches; each image is read once.

        Keeps a summary of all images so far, as the first read of the randomized solver does, with more directions than
        components. Variances are lower bounds; `certificate_` says how far off they can be. `save_model` saves the
        summary, too. After `fit`, only the components are known of the images before.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            One or more images of the shape seen before.
        y : ignored
        sample_weight : array-like of shape (n_images,), optional
            How often each image of the batch counts, as in `fit`.

        Returns
        -------
        self : ImagePCA

        Raises
        ------
        ValueError
            If there are more components than values in an image; for ``mask="finite"`` and `missing`, which only `fit`
            takes, and another mask than before.

        Warns
        -----
        ConvergenceWarning
            If the directions kept explain less than the share of the variance asked for. Later batches keep more.
        """
        with unchanged_if_it_fails(self):
            images = self._checked(X, sample_weight, reset=not hasattr(self, "components_"))
            factors, size, self._summary = learn_batch(images, self)
            self.svd_solver_, self.n_passes_ = "randomized", 1.0
            self._store(factors, size, images.mask)
        return self

    def fit_transform(
        self, X: StackLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> np.ndarray | da.Array:
        """Fit, and return the scores of the images; without another read if the solver has the scores.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            As for `fit`.
        y : ignored
        sample_weight : array-like of shape (n_images,), optional
            As for `fit`. Images of weight 0 get scores, too, in another read, as where some weigh 1e-6 of others.

        Returns
        -------
        scores : ndarray or dask array of shape (n_images, n_components_)
            As from `transform`; a Dask array in the row chunks of `X` for lazy input.
        """
        with unchanged_if_it_fails(self):
            images, scores = self._fit(X, sample_weight)
            if images.absent:
                images, scores = self._checked(X), None
            if scores is None:
                return for_table(self, self._project(images))
        scores = scores / score_scale(self.explained_variance_, self.whiten)
        scores = in_intensities(scores, 0, self.components_.dtype, "scores")
        if isinstance(images.data, da.Array):
            scores = da.from_array(scores, chunks=(images.data.chunks[0], -1))
            return for_table(self, note_samples(scores, samples_of(images.data)))
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
        return for_table(self, self._project(self._checked(X)))

    def inverse_transform(self, X: np.ndarray | da.Array) -> np.ndarray | da.Array:
        """Images from scores: the reconstruction from n_components_ components.

        Parameters
        ----------
        X : ndarray or dask array of shape (n_images, n_components_)
            Scores, as from `transform`.

        Returns
        -------
        images : ndarray or dask array of shape (n_images, *image_shape_)
            In the dtype of `components_`, in the intensity units of the stack, and 0 outside the mask; lazy for lazy
            input.

        Raises
        ------
        ValueError
            If `X` does not have n_components_ columns, or has NaN or infinity.
        """
        check_is_fitted(self)
        scores = check_rows("ImagePCA.inverse_transform", X, self.n_components_)
        return map_images(
            partial(reconstruct, self.image_shape_),
            scores.data,
            image_shape=self.image_shape_,
            dtype=self.components_.dtype,
            files=scores.files,
            axes=self.components_,
            mean=self.mean_,
            scale=score_scale(self.explained_variance_, self.whiten),
        )

    def plan(self, X: StackLike) -> Plan:
        """Plan the fit without reading a pixel.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            As for `fit`.

        Returns
        -------
        plan : Plan
            Solver, reads, multiply-adds and peak memory, also of the other solvers; its repr is a table.

        Raises
        ------
        MemoryLimitError
            As `fit` would.
        """
        images = check_images(clone(self), X, reset=True, mask=self.mask, missing_values=self._marks_missing())
        return plan_images(images, self.get_params(deep=False))

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing != "raise"
        return tags

    def _checked(self, X: StackLike, sample_weight: Any = None, reset: bool = False) -> Images:
        marks = self._marks_missing()
        return check_images(self, X, reset=reset, mask=self.mask, missing_values=marks, sample_weight=sample_weight)

    def _fit(self, X: StackLike, sample_weight: Any) -> tuple[Images, np.ndarray | None]:
        """Validate, fit, store; return the images, and their scores where the solver has them."""
        images = self._checked(X, sample_weight, reset=True)
        found = fit_images(images, self.get_params(deep=False))
        self.__dict__.pop("_summary", None)  # of partial_fit
        self.svd_solver_, self.n_passes_ = found.solver, found.n_passes
        scores = self._store(found.factors, found.size, found.mask)
        return images._replace(mask=found.mask), scores

    def _store(self, factors: Factors, size: FitSize, mask: np.ndarray | None) -> np.ndarray | None:
        """Set the fitted attributes with settled signs, and return the scores if the solver has them."""
        n, k = size.n, len(factors.singular_values)
        signs = settle_signs(factors.components)
        self.mask_ = mask
        self.components_ = put_back(factors.components, mask)
        self.mean_ = put_back(factors.mean[None], mask)[0]
        self.n_components_ = k
        self.n_samples_ = n
        self.total_weight_ = size.total_weight or n
        self.n_iter_ = factors.n_iter
        self.certificate_ = factors.certificate
        self.singular_values_ = factors.singular_values
        self.explained_variance_ = factors.singular_values**2 / size.degrees
        total = factors.total / size.degrees
        self.explained_variance_ratio_ = self.explained_variance_ / (total if total > 0 else 1.0)
        left = min(max(n, self.total_weight_), size.p) - k
        self.__dict__.pop("residual_variance_image_", None)
        if factors.left is not None:
            np.divide(factors.left, size.degrees, out=factors.left)
            self.residual_variance_image_ = put_back(factors.left[None], mask).reshape(self.image_shape_)
        rest = total - float(self.explained_variance_.sum())
        rounding = max(n, size.p) * np.finfo(np.float64).eps * total
        self.noise_variance_ = rest / left if left > 0 and rest > rounding else 0.0
        warn_of_rank(factors.rank, k, n)
        return None if factors.scores is None else factors.scores * signs

    def _marks_missing(self) -> float | None:
        """Return the value that marks missing pixels; None if these are errors."""
        check_missing(self.missing, self.missing_values)
        return None if self.missing == "raise" else self.missing_values

    def _project(self, images: Images) -> np.ndarray | da.Array:
        axes, mean = self._inside(self.components_), self._inside(self.mean_)
        scoring = SCORINGS[self.missing] if images.missing else None
        return scores_of(images, axes, mean, score_scale(self.explained_variance_, self.whiten), scoring)
