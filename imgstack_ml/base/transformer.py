"""What the transformers share: scikit-learn's protocol, with stacks left alone and tables made of rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import sklearn
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin

from .validation import data_and_files, is_lazy

__all__ = ["ImageTransformer", "StackTransformer", "for_table"]


class ImageTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of the transformers of images.

    ``set_output`` holds for 2-D results. Stacks pass it untouched, so that ``Pipeline.set_output(transform="pandas")``
    works and draws no stack into memory.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)  # scikit-learn wraps transform here
        if "transform" in vars(cls):
            cls.transform = _stacks_pass(cls.transform)

    def _gives_stack(self, X: Any) -> bool:
        """Tell whether `transform` of `X` gives what is no table."""
        return False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


# As TransformerMixin has it, before scikit-learn wraps it: transform, which it calls, makes the table.
ImageTransformer.fit_transform = TransformerMixin.fit_transform.__wrapped__


class StackTransformer(OneToOneFeatureMixin, ImageTransformer):  # type: ignore[misc]  # scikit-learn has no types
    """Base of the transformers that give a value for every pixel; lazy rows pass ``set_output``, too."""

    def _gives_stack(self, X: Any) -> bool:
        return is_lazy(X) or (isinstance(data_and_files(X)[0], np.ndarray) and X.ndim > 2)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def for_table(estimator: Any, rows: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Compute lazy rows where ``set_output`` asks for a data frame: polars takes no Dask array."""
    asked = getattr(estimator, "_sklearn_output_config", {}).get("transform")
    container = sklearn.get_config()["transform_output"] if asked is None else asked
    return rows if container == "default" or not isinstance(rows, da.Array) else rows.compute()


def _stacks_pass(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    """Call the method as it was before scikit-learn wrapped it wherever its result is a stack."""
    plain = wrapped.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(wrapped)
    def method(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        return (plain if self._gives_stack(X) else wrapped)(self, X, *args, **kwargs)

    return method
