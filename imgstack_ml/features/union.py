"""A union of transformers that reads a stack once for all of them."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import sklearn
from sklearn.pipeline import FeatureUnion
from sklearn.utils.validation import check_is_fitted

from ..base.lazy import join_rows
from ..base.state import unchanged_if_it_fails
from ..base.transformer import for_table
from ..base.validation import StackLike
from ..passes.fit_together import PassLearner, fit_together, reads_of

__all__ = ["ImageFeatureUnion"]


class ImageFeatureUnion(FeatureUnion):
    """Put the rows of several transformers side by side, and read each image once for all of them.

    It is scikit-learn's FeatureUnion for stacks of images. In `fit`, members that learn in one pass (the features,
    `IntensityRescaler`, `StackCenterer`) share it; the others, as `ImagePCA` and Pipelines, then read the images for
    themselves. `transform` of a lazy stack is one task a block, which reads the block and applies all members to it.

    Parameters
    ----------
    transformer_list : list of (str, transformer)
        Names and members. Each member returns rows (n_images, d) for a stack; ``"drop"`` in its place leaves it out.
    transformer_weights : dict of str to float, optional
        Factors for the columns of members, by their names.
    verbose_feature_names_out : bool, default=True
        Begin the names of features with the name of their member.

    Attributes
    ----------
    n_passes_ : float
        Reads of a lazy stack in `fit`: the shared one, if there is any, and those of the other members.

    See Also
    --------
    fit_together : Fit several estimators in one read, without a union.

    Examples
    --------
    >>> import dask.array as da
    >>> from imgstack_ml import ChannelStatistics, ImageFeatureUnion, ImageHistogram, ImagePCA
    >>> stack = da.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype="uint8", chunks=(20, 16, 16))
    >>> features = ImageFeatureUnion(
    ...     [("mean", ChannelStatistics(("mean",))), ("hist", ImageHistogram(8, "stack")), ("pca", ImagePCA(4))]
    ... )
    >>> features.fit(stack).n_passes_
    2.0
    >>> features.transform(stack)
    dask.array<join, shape=(60, 13), dtype=float64, chunksize=(20, 13), chunktype=numpy.ndarray>
    """

    def __init__(
        self,
        transformer_list: list[tuple[str, Any]],
        *,
        transformer_weights: dict[str, float] | None = None,
        verbose_feature_names_out: bool = True,
    ):
        super().__init__(
            transformer_list,
            transformer_weights=transformer_weights,
            verbose_feature_names_out=verbose_feature_names_out,
        )

    def fit(self, X: StackLike, y: Any = None) -> ImageFeatureUnion:
        """Fit all members.

        Parameters
        ----------
        X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
            The images; rows of a 2-D input are images of one line.
        y : array-like of shape (n_images,), optional
            Passed to members that do not share the pass.

        Returns
        -------
        self : ImageFeatureUnion

        Raises
        ------
        ValueError
            If there is no member, or a member refuses its parameters or the images.
        NonFiniteError
            If an image that is read holds NaN or infinity; names the image (and file).
        """
        with sklearn.config_context(transform_output="default"):
            self.n_passes_ = fit_together([member for _, member in self._members()], X, y)
        return self

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Transform the images by every member.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, *image_shape)
            Images of the shape fitted.

        Returns
        -------
        features : ndarray or dask array of shape (n_images, total of the members' features)
            Lazy for lazy input; in the common dtype of all members' rows.

        Raises
        ------
        ValueError
            If a member returns images, not rows.
        NonFiniteError
            If an image holds NaN or infinity; names the image (and file). For a lazy stack this happens when the result
            is computed.
        """
        check_is_fitted(self)
        with sklearn.config_context(transform_output="default"):
            rows = self._joined([(name, member.transform(X)) for name, member in self._members()])
        return for_table(self, rows)

    def fit_transform(self, X: StackLike, y: Any = None) -> np.ndarray | da.Array:
        """Fit all members and transform the images; saves a read where `ImagePCA` has the scores from its fit.

        Parameters
        ----------
        X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
            As for `fit`.
        y : array-like of shape (n_images,), optional
            As for `fit`.

        Returns
        -------
        features : ndarray or dask array of shape (n_images, total of the members' features)
            As from `transform`.
        """
        members = self._members()
        with unchanged_if_it_fails(self), sklearn.config_context(transform_output="default"):
            self.n_passes_ = fit_together([member for _, member in members if isinstance(member, PassLearner)], X)
            parts = []
            for name, member in members:
                if isinstance(member, PassLearner):
                    parts.append((name, member.transform(X)))
                else:
                    parts.append((name, member.fit_transform(X, y)))
                    self.n_passes_ += reads_of(member)
            rows = self._joined(parts)
        return for_table(self, rows)

    def set_output(self, *, transform: str | None = None) -> ImageFeatureUnion:
        """Choose what `transform` returns; members still return arrays, which are joined and then made a data frame.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, optional
            Type of the result; None changes nothing.

        Returns
        -------
        self : ImageFeatureUnion
        """
        return super(FeatureUnion, self).set_output(transform=transform)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _members(self) -> list[tuple[str, Any]]:
        self._validate_names([name for name, _ in self.transformer_list])
        self._validate_transformer_weights()
        members = [(name, member) for name, member in self.transformer_list if not _is_word(member, "drop")]
        if not members:
            raise ValueError(
                "ImageFeatureUnion has no members; give one, e.g. ImageFeatureUnion([('hist', ImageHistogram())])"
            )
        for name, member in members:
            if _is_word(member, "passthrough"):
                raise ValueError(
                    f"{name!r} is 'passthrough', which gives images, not rows. Use ImageFlattener() instead"
                )
        return members

    def _joined(self, parts: list[tuple[str, Any]]) -> np.ndarray | da.Array:
        weights = self.transformer_weights or {}
        rows = []
        for name, part in parts:
            if part.ndim != 2:
                raise ValueError(
                    f"{name!r} gives shape {part.shape}, and ImageFeatureUnion needs rows (n_images, n_features). "
                    f"Put an ImageFlattener after it: make_pipeline({name}, ImageFlattener())"
                )
            part = part if isinstance(part, da.Array) else np.asarray(part)
            rows.append(part * weights[name] if name in weights else part)
        return join_rows(rows)


def _is_word(member: Any, word: str) -> bool:
    return isinstance(member, str) and member == word
