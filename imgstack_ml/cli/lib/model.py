"""A saved model as the input of a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ...errors import ImgstackError

__all__ = ["MODEL_FILE", "ModelError", "errors_that_name_options", "model_argument", "open_model"]

MODEL_FILE = "model.safetensors"

model_argument = click.argument("model", metavar="MODEL", type=click.Path(exists=True))


class ModelError(ImgstackError, ValueError):
    """The model cannot do what the command needs."""


def open_model(path: str) -> Any:
    """Load a model from its file, or from the folder of results that holds it.

    Raises
    ------
    StoreError
        If there is no model, or it is damaged.
    """
    from ... import load_model

    return load_model(os.path.join(path, MODEL_FILE) if os.path.isdir(path) else path)


@contextmanager
def errors_that_name_options() -> Iterator[None]:
    """Name the options that bring images to the shape of a model, where the model refuses their shape."""
    try:
        yield
    except ValueError as error:
        if " of shape " in str(error):
            error.add_note("here these are the options --shape, e.g. --shape 256x256, and --mode, e.g. --mode RGB")
        raise
