"""Base classes of the transformers: ``set_output`` makes tables of rows and leaves stacks of images as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import sklearn
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin

from .state import unchanged_if_it_fails
from .validation import is_lazy

__all__ = ["ImageTransformer", "StackTransformer", "for_table"]


class ImageTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of the transformers of images.

    ``set_output`` applies to 2-D results only. Stacks of images are returned as they are, so that
    ``Pipeline.set_output(transform="pandas")`` works and no stack is loaded into memory.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)  # scikit-learn wraps transform here
        if "transform" in vars(cls):
            cls.transform = _set_output_for_rows_only(cls.transform)

    def _returns_stack(self, X: Any) -> bool:
        """Return whether `transform` of `X` returns images, which ``set_output`` must not touch."""
        return False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


@functools.wraps(TransformerMixin.fit_transform.__wrapped__)
def _fit_transform(self: Any, X: Any, y: Any = None, **fit_params: Any) -> Any:
    with unchanged_if_it_fails(self):
        return TransformerMixin.fit_transform.__wrapped__(self, X, y, **fit_params)


# The method without scikit-learn's ``set_output`` wrapper: it calls transform, which makes the table already.
ImageTransformer.fit_transform = _fit_transform


class StackTransformer(OneToOneFeatureMixin, ImageTransformer):  # type: ignore[misc]  # scikit-learn has no types
    """Base of the transformers that return a value for every pixel; ``set_output`` leaves lazy rows lazy, too."""

    def _returns_stack(self, X: Any) -> bool:
        return is_lazy(X) or getattr(X, "ndim", 2) > 2

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def for_table(estimator: Any, rows: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Return `rows`, computed if ``set_output`` asks for a data frame: polars takes no Dask array."""
    own = getattr(estimator, "_sklearn_output_config", {}).get("transform")
    container = sklearn.get_config()["transform_output"] if own is None else own
    return rows if container == "default" or not isinstance(rows, da.Array) else rows.compute()


def _set_output_for_rows_only(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that skips scikit-learn's ``set_output`` wrapper where the result is a stack."""
    plain = wrapped.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(wrapped)
    def method(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        return (plain if self._returns_stack(X) else wrapped)(self, X, *args, **kwargs)

    return method
