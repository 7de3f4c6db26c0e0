"""What the stack transformers share: scikit-learn's protocol, with lazy and N-D output left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin

from ._validation import is_lazy, unwrap

__all__ = ["StackTransformer"]


class StackTransformer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of the transformers that give a value for every pixel.

    ``set_output`` holds for 2-D results in memory. Stacks and lazy results pass it untouched, so that
    ``Pipeline.set_output(transform="pandas")`` works and draws no stack into memory.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)  # scikit-learn wraps transform here
        for name in ("transform", "fit_transform"):
            if name in vars(cls):
                setattr(cls, name, _stacks_pass(vars(cls)[name]))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags


def _stacks_pass(wrapped: Callable) -> Callable:
    """Call the method as it was before scikit-learn wrapped it wherever its input is lazy or a stack."""
    plain = wrapped.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(wrapped)
    def method(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        stack = is_lazy(X) or (isinstance(unwrap(X)[0], np.ndarray) and X.ndim > 2)
        return (plain if stack else wrapped)(self, X, *args, **kwargs)

    return method


# Inherited, and so wrapped before a subclass can be looked at.
StackTransformer.fit_transform = _stacks_pass(TransformerMixin.fit_transform)
