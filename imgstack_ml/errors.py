"""Exceptions and warnings of the package. Each says when it is raised and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "BadImageError",
    "ClusterLostError",
    "ImageError",
    "ImageFunctionError",
    "ImagesChangedError",
    "ImgstackError",
    "MemoryLimitError",
    "MixedStackError",
    "NonFiniteError",
    "RankWarning",
    "StoreError",
]

# Errors are sent between processes on a cluster. Python recreates an error from `args` alone, which is the message.
# The classes that take other arguments say how they are recreated, in `__reduce__`.


class ImgstackError(Exception):
    """Base class of the errors that this package defines. Catch it to catch them all."""


class BadImageError(ImgstackError, OSError):
    """A file cannot be read as an image.

    Raised when a file is opened or an image is computed. Repair or remove the file, or leave it out:
    ``open_stack(..., on_error="skip")``.

    Parameters
    ----------
    path : str
        The file.
    reason : str
        What is wrong with it.
    """

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path!r} cannot be read as an image: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class ClusterLostError(ImgstackError, RuntimeError):
    """A Dask cluster lost all its workers during a computation, and no new one came for half a minute.

    Start workers and call again. A fit with ``ImagePCA(checkpoint="folder")`` resumes where it was.

    Parameters
    ----------
    address : str
        Address of the scheduler.
    """

    def __init__(self, address: str):
        super().__init__(
            f"the cluster at {address} has lost all its workers, and the work cannot go on. Start workers and call "
            "again; with ImagePCA(checkpoint='folder'), a fit resumes where it was."
        )
        self.address = address

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.address,)


class MixedStackError(ImgstackError, ValueError):
    """The images of a source have different shapes or dtypes, so that they are not one stack.

    Raised when a stack is opened. The message names images of each kind, and how to select or convert them.

    Attributes
    ----------
    counts : tuple of (Header, int)
        Each kind and its number of images, as in `ImageStack.summary`, the most frequent first; empty for arrays.
    """

    counts: tuple[tuple[Any, int], ...] = ()


class MemoryLimitError(ImgstackError, ValueError):
    """A fit or transform needs more memory than `memory_limit` allows.

    Raised before any pixel is read. The message says how many bytes are needed, and what would need fewer.
    """


class ImageError(ImgstackError):
    """Base class of the errors that are about one image of a stack.

    Parameters
    ----------
    index : int
        Position of the image in the stack.
    file : str, optional
        File of the image, if it is known.
    message : str
        Follows the position and the file in the text.
    """

    _more: tuple[Any, ...] = ()  # further arguments that a subclass takes after `file`

    def __init__(self, index: int, file: str | None = None, message: str = ""):
        super().__init__(f"image {index}" + (f" ({file!r})" if file else "") + message)
        self.index = index
        self.file = file

    def at(self, start: int, files: Sequence[str] | None) -> ImageError:
        """Return the same error for the whole stack, if `index` is a position in a block of it.

        Parameters
        ----------
        start : int
            Position of the block's first image in the stack.
        files : sequence of str, optional
            Files of the images of the block.
        """
        file = self.file if files is None else str(files[self.index])
        return type(self)(start + self.index, file, *self._more)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self.file, *self._more)


class NonFiniteError(ImageError, ValueError):
    """An image has NaN or infinite pixels, or pixels from which NaN or infinity would be computed.

    Raised when the image is read. Repair it, or leave it out as the message shows.

    Parameters
    ----------
    index : int
        Position of the image in the stack.
    file : str, optional
        File of the image, if it is known.
    reason : str, optional
        What is wrong with its pixels, if that is something else than NaN or infinity among them.
    """

    def __init__(self, index: int, file: str | None = None, reason: str | None = None):
        advice = f"Repair it or leave it out, e.g. keep = np.arange(len(X)) != {index}; X = X[keep]"
        way = "Only ImagePCA(missing='als') takes NaN as missing pixels, with no step before it but ImageFlattener"
        super().__init__(index, file, f" {reason or f'contains NaN or infinity. {advice}. {way}'}")
        self._more = (reason,)


class ImageFunctionError(ImageError, RuntimeError):
    """A function given to `ImageMap` raised an error, or returned another shape or dtype than for other images.

    ``__cause__`` is the error that the function raised, unless that happened in another process. Correct the function;
    try it on the image that the message names.

    Parameters
    ----------
    index : int
        Position of the image in the stack; of the first one if the function got several images at once.
    file : str, optional
        File of the image, if it is known.
    reason : str
        What went wrong.
    n_images : int
        Number of images that the function got at once.
    """

    def __init__(self, index: int, file: str | None, reason: str, n_images: int = 1):
        several = f" and the {n_images - 1} after it" if n_images > 1 else ""
        super().__init__(index, file, f"{several}: {reason}")
        self.reason = reason
        self.n_images = n_images
        self._more = (reason, n_images)


class ImagesChangedError(ImgstackError, RuntimeError):
    """A fit read the images several times, and the pixels were not the same each time.

    Store the stack once and fit the stored one, as the message shows.
    """

    def __init__(self) -> None:
        super().__init__(
            "The images changed between two reads: the files were written to during the fit, or a task of the stack "
            "returns different pixels each time. Store the stack once and fit the stored one: "
            "save_stack(stack, 'stack.zarr'), then open_stack('stack.zarr')."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class StoreError(ImgstackError, OSError):
    """A stored stack, model or other output is missing, incomplete or damaged, or cannot be written.

    The message says which of these, and what to do.
    """


class RankWarning(UserWarning):
    """The images have fewer independent directions than `n_components`.

    The remaining components are arbitrary orthonormal ones of variance 0. Choose fewer components to avoid the warning.
    """
