"""Several transformers over one stack, which is read once."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import sklearn
from sklearn.pipeline import FeatureUnion
from sklearn.utils.validation import check_is_fitted

from ..base.lazy import join_rows
from ..base.transformer import for_table
from ..base.validation import StackLike
from ..passes.fit_together import PassLearner, fit_together, reads_of

__all__ = ["ImageFeatureUnion"]


class ImageFeatureUnion(FeatureUnion):
    """Put the results of several transformers side by side, and decode each image once for all of them.

    scikit-learn's FeatureUnion, whose parameters and names it has, for stacks: members that learn by one pass
    share it in `fit` (features, `IntensityRescaler`, `StackCenterer`; `ImagePCA` and Pipelines read for themselves,
    after that), and `transform` of a lazy stack is one task a block, which applies all members to it.

    Parameters
    ----------
    transformer_list : list of (str, transformer)
        The members; each gives rows (n_images, d) for a stack. ``"drop"`` in place of one leaves it out.
    transformer_weights : dict of str to float, optional
        Factors for the columns of a member.
    verbose_feature_names_out : bool, default=True
        Put the name of its member before the name of a feature.

    Attributes
    ----------
    n_passes_ : float
        Reads of a lazy stack in fit: 1 for all members that share it, and those of the others.

    See Also
    --------
    fit_together : The same for estimators that are not put side by side.

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
            Passed on to members that do not share the pass.

        Returns
        -------
        self : ImageFeatureUnion

        Raises
        ------
        ValueError
            If there is no member, or for what one of them refuses.
        NonFiniteError
            Naming the image (and file) with a NaN or infinite pixel, of those that are read.
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
            Lazy for lazy input; in the dtype that holds those of all members.

        Raises
        ------
        ValueError
            If a member gives stacks, not rows.
        NonFiniteError
            Naming the image (and file) with a NaN or infinite pixel; for a lazy stack when it is computed.
        """
        check_is_fitted(self)
        with sklearn.config_context(transform_output="default"):
            rows = self._joined([(name, member.transform(X)) for name, member in self._members()])
        return for_table(self, rows)

    def fit_transform(self, X: StackLike, y: Any = None) -> np.ndarray | da.Array:
        """Fit all members and transform the images; no further read for scores that `ImagePCA` has from its fit.

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
        with sklearn.config_context(transform_output="default"):
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
        """Choose what `transform` returns; members go on returning arrays, which are joined before they are computed.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, optional
            Kind of the result; None leaves it as it is.

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
        members = [(name, member) for name, member in self.transformer_list if not _is(member, "drop")]
        if not members:
            raise ValueError(
                "ImageFeatureUnion has no members; give one, e.g. ImageFeatureUnion([('hist', ImageHistogram())])"
            )
        for name, member in members:
            if _is(member, "passthrough"):
                raise ValueError(f"{name!r} is 'passthrough', which gives images, not rows. Put ImageFlattener() there")
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


def _is(member: Any, word: str) -> bool:
    return isinstance(member, str) and member == word
