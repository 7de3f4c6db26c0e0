"""A union of transformers that reads a stack once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import sklearn
from scipy.sparse import issparse
from sklearn.pipeline import FeatureUnion
from sklearn.utils.metadata_routing import _raise_for_params, _routing_enabled, process_routing
from sklearn.utils.validation import _check_feature_names_in, _num_samples

from ..base.lazy import join_rows
from ..base.state import unchanged_if_it_fails
from ..base.transformer import ImageTransformer, for_table
from ..base.validation import Images, StackLike, check_images, data_and_files
from ..passes.fit_together import PassLearner, fit_together, reads_of
from .base import distinct

__all__ = ["ImageFeatureUnion"]


class ImageFeatureUnion(FeatureUnion):
    """Put the rows of several transformers side by side, and read each image once for all of them.

    It is scikit-learn's FeatureUnion for stacks of images. In `fit`, members that learn in one pass (the features,
    `IntensityRescaler`, `StackCenterer`) share it; the others, as `ImagePCA` and Pipelines, then read the images for
    themselves. `transform` of a lazy stack is one task a block, which reads the block and applies all members to it.

    Parameters
    ----------
    transformer_list : list of (str, transformer)
        Names and members. Each member returns rows (n_images, d) for a stack. ``"drop"`` in its place leaves it out;
        ``"passthrough"`` gives the rows of a 2-D input as they are.
    transformer_weights : dict of str to float, optional
        Factors for the columns of members, by their names.
    verbose_feature_names_out : bool, default=True
        Begin the names of features with the name of their member.

    Attributes
    ----------
    n_passes_ : float
        Reads of a lazy stack in `fit`: the shared one, if there is any, and those of the other members.

    Notes
    -----
    What scikit-learn's FeatureUnion takes has the same meaning here, with two exceptions. There is no `n_jobs`: all
    members are applied to a block in one task, and Dask computes blocks side by side. There is no `verbose`: most
    members are fitted in one read, which is no time of one member; `fit_together` has a progress bar.

    Metadata, such as `sample_weight`, is routed to members as by FeatureUnion. A member that gets any is fitted for
    itself. Sparse rows become dense.

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

    def fit(self, X: StackLike, y: Any = None, **fit_params: Any) -> ImageFeatureUnion:
        """Fit all members.

        Parameters
        ----------
        X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
            The images; rows of a 2-D input are images of one line.
        y : array-like of shape (n_images,), optional
            Passed to members that do not share the pass.
        **fit_params : dict
            Metadata for the members: routed, or passed to ``fit`` of all members, as scikit-learn is configured.

        Returns
        -------
        self : ImageFeatureUnion

        Raises
        ------
        TypeError
            If a member is a class, or has no ``fit`` and ``transform``.
        ValueError
            If there is no member, or a member refuses its parameters or the images.
        NonFiniteError
            If an image that is read holds NaN or infinity; names the image (and file).
        """
        routed = self._routed("fit", fit_params)
        with unchanged_if_it_fails(self), sklearn.config_context(transform_output="default"):
            for name, member in self._fit_shared(X, routed, "fit"):
                fit = getattr(member, "fit", None) or member.fit_transform
                fit(X, y, **routed[name].get("fit", {}))
                self.n_passes_ += reads_of(member)
        return self

    def transform(self, X: StackLike, **params: Any) -> np.ndarray | da.Array:
        """Transform the images by every member.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, *image_shape)
            Images of the shape fitted.
        **params : dict
            Metadata, routed to the members' ``transform``.

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
        _raise_for_params(params, self, "transform")
        routed = self._routed("transform", params)
        with sklearn.config_context(transform_output="default"):
            parts = {name: _transformed(member, X, routed[name]) for name, member in self._members()}
            rows = self._joined(parts, X)
        return for_table(self, rows)

    def fit_transform(self, X: StackLike, y: Any = None, **params: Any) -> np.ndarray | da.Array:
        """Fit all members and transform the images; saves a read where `ImagePCA` has the scores from its fit.

        Parameters
        ----------
        X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
            As for `fit`.
        y : array-like of shape (n_images,), optional
            As for `fit`.
        **params : dict
            As for `fit`.

        Returns
        -------
        features : ndarray or dask array of shape (n_images, total of the members' features)
            As from `transform`.
        """
        routed = self._routed("fit_transform", params)
        parts = {}
        with unchanged_if_it_fails(self), sklearn.config_context(transform_output="default"):
            for name, member in self._fit_shared(X, routed, "fit_transform"):
                if hasattr(member, "fit_transform"):
                    parts[name] = member.fit_transform(X, y, **routed[name].get("fit_transform", {}))
                else:
                    fitted = member.fit(X, y, **routed[name].get("fit", {}))
                    parts[name] = _transformed(fitted, X, routed[name])
                self.n_passes_ += reads_of(member)
            for name, member in self._members():
                if name not in parts:
                    parts[name] = _transformed(member, X, routed[name])
            rows = self._joined(parts, X)
        return for_table(self, rows)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features; a name that occurs again gets a number.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns of `X`.

        Returns
        -------
        names : ndarray of str, shape (total of the members' features,)

        Raises
        ------
        ValueError
            If ``verbose_feature_names_out=False`` and names of two members are equal.
        """
        return distinct(super().get_feature_names_out(input_features).tolist())

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

    @property
    def n_features_in_(self) -> int:
        """Values in one image; defined if a member says it."""
        return self._said_by_a_member("n_features_in_")

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Column names, if `fit` got a data frame."""
        return self._said_by_a_member("feature_names_in_")

    def __sklearn_is_fitted__(self) -> bool:
        # Of members without a state, nothing shows that they are fitted.
        return hasattr(self, "n_passes_") or super().__sklearn_is_fitted__()

    def _said_by_a_member(self, attribute: str) -> Any:
        for _, member in self._members():
            if hasattr(member, attribute):
                return getattr(member, attribute)
        raise AttributeError(f"no member of this {type(self).__name__} has {attribute!r}")

    def _members(self) -> list[tuple[str, Any]]:
        """Names and estimators; ``"passthrough"`` is one, too."""
        members = [(name, member) for name, member in self.transformer_list if not _is_word(member, "drop")]
        return [(name, self._rows() if _is_word(member, "passthrough") else member) for name, member in members]

    def _iter(self) -> Iterator[tuple[str, Any, float | None]]:
        """As in FeatureUnion, whose methods call it."""
        for name, member in self._members():
            yield name, member, (self.transformer_weights or {}).get(name)

    def _rows(self) -> _Rows:
        rows = vars(self).get("_passed", None)
        if rows is None:  # before fit, or in a loaded model, where the other members know the columns
            rows = _Rows()
            for _, member in self.transformer_list:
                columns = {name: getattr(member, name) for name in _COLUMNS if hasattr(member, name)}
                rows.__dict__.update(columns)
            if hasattr(rows, "n_features_in_"):
                rows.image_shape_ = (rows.n_features_in_,)
        return rows

    def _routed(self, method: str, params: dict[str, Any]) -> Any:
        if _routing_enabled():
            return process_routing(self, method, **params)
        methods = {"fit": params, "fit_transform": params, "transform": {}}
        return {name: methods for name, _ in self.transformer_list}

    def _fit_shared(self, X: StackLike, routed: Any, method: str) -> list[tuple[str, Any]]:
        """Check the members, fit those that share a pass, and return the others."""
        if all(_is_word(member, "drop") for _, member in self.transformer_list):
            raise ValueError(
                "ImageFeatureUnion has no members; give one, e.g. ImageFeatureUnion([('hist', ImageHistogram())])"
            )
        for _, member in self.transformer_list:
            if isinstance(member, type):  # in the words of scikit-learn 1.9; versions before fail later
                name = member.__name__
                raise TypeError(f"Expected an estimator instance ({name}()), got estimator class instead ({name}).")
        self._validate_transformers()
        self._validate_transformer_weights()
        for name, member in self.transformer_list:
            if _is_word(member, "passthrough") and getattr(X, "ndim", 2) > 2:
                raise ValueError(
                    f"{name!r} is 'passthrough', which gives images, not rows. Use ImageFlattener() instead"
                )
        self._passed = _Rows()
        members = self._members()
        shared = [name for name, one in members if isinstance(one, PassLearner) and not routed[name].get(method)]
        self.n_passes_ = fit_together([member for name, member in members if name in shared], X)
        return [(name, member) for name, member in members if name not in shared]

    def _joined(self, parts: dict[str, Any], X: Any) -> np.ndarray | da.Array:
        weights = self.transformer_weights or {}
        n_images = _num_samples(data_and_files(X)[0])
        rows = []
        for name, member in self._members():
            part = parts[name]
            part = part if isinstance(part, da.Array) else np.asarray(part.toarray() if issparse(part) else part)
            if part.ndim != 2:
                raise ValueError(_not_rows(name, member, part.shape))
            if len(part) != n_images:
                raise ValueError(f"{name!r} gives {len(part)} rows for {n_images} images, and needs one for each image")
            rows.append(part * weights[name] if name in weights else part)
        return join_rows(rows)


_COLUMNS = ("n_features_in_", "feature_names_in_", "image_shape_")


class _Rows(PassLearner, ImageTransformer):
    """The member that ``"passthrough"`` stands for."""

    def fit(self, X: StackLike, y: Any = None) -> _Rows:
        fit_together([self], X)
        return self

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        return check_images(self, X, reset=False, finite=False).data

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        names: np.ndarray = _check_feature_names_in(self, input_features)
        return names

    def _needed_pass(self, images: Images) -> None:
        pass

    def _learn(self, found: Any, images: Images) -> None:
        pass


def _transformed(member: Any, X: Any, routed: Any) -> Any:
    return member.transform(X, **routed.get("transform", {}))


def _not_rows(name: str, member: Any, shape: tuple[int, ...]) -> str:
    """Say what to type where a member gives no rows."""
    given = f"{name!r} gives shape {shape}, and ImageFeatureUnion needs rows (n_images, n_features). "
    if len(shape) < 2:
        return f"{given}Return a column, e.g. values[:, None]"
    return f"{given}Flatten them: ({name!r}, make_pipeline({member!r}, ImageFlattener()))"


def _is_word(member: Any, word: str) -> bool:
    return isinstance(member, str) and member == word
