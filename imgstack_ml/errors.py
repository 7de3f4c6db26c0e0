"""Exceptions and warnings of the package."""

from __future__ import annotations

from collections.abc import Sequence

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


class ImgstackError(Exception):
    """Base class of the errors that this package raises about its own matters."""


class BadImageError(ImgstackError, OSError):
    """A file that should hold an image cannot be read as one.

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

    def __reduce__(self):  # an error crosses process borders on a cluster
        return type(self), (self.path, self.reason)


class ClusterLostError(ImgstackError, RuntimeError):
    """All workers of a cluster were lost, and no new one came.

    Parameters
    ----------
    address : str
        Of the scheduler.
    """

    def __init__(self, address: str):
        super().__init__(
            f"the cluster at {address} has lost all its workers, and the work cannot go on. Start workers, and call "
            "again; with ImagePCA(checkpoint='folder') a fit goes on where it was."
        )
        self.address = address

    def __reduce__(self):
        return type(self), (self.address,)


class MixedStackError(ImgstackError, ValueError):
    """The images of a source differ in shape or dtype, so that they are not one stack."""


class MemoryLimitError(ImgstackError, ValueError):
    """What was asked for cannot be done within the memory limit; raised before a pixel is read."""


class ImageError(ImgstackError):
    """Something about one image of a stack.

    Parameters
    ----------
    index : int
        Position of the image in the stack.
    file : str, optional
        Its file, where known.
    """

    _more: tuple = ()  # further arguments of a subclass

    def __init__(self, index: int, file: str | None = None, message: str = ""):
        super().__init__(f"image {index}" + (f" ({file!r})" if file else "") + message)
        self.index = index
        self.file = file

    def at(self, start: int, files: Sequence[str] | None) -> ImageError:
        """Return the same error in a stack, where `index` counted from its image `start`, and `files` begin there."""
        file = self.file if files is None else str(files[self.index])
        return type(self)(start + self.index, file, *self._more)

    def __reduce__(self):  # an error crosses process borders on a cluster
        return type(self), (self.index, self.file, *self._more)


class NonFiniteError(ImageError, ValueError):
    """An image holds NaN or infinite pixels.

    Parameters
    ----------
    index : int
        Position of the image in the stack.
    file : str, optional
        Its file, where known.
    """

    def __init__(self, index: int, file: str | None = None):
        message = (
            f" contains NaN or infinity. Mend or leave it out, e.g. keep = np.arange(len(X)) != {index}; X = X[keep]"
        )
        super().__init__(index, file, message)


class ImageFunctionError(ImageError, RuntimeError):
    """A function given to `ImageMap` raised, or made something unlike what it made of the other images.

    What the function raised is the ``__cause__``, as far as it did not cross process borders.

    Parameters
    ----------
    index : int
        Position of the image in the stack; of the first one where the function got several.
    file : str, optional
        Its file, where known.
    reason : str
        What went wrong.
    n_images : int
        Images that the function got at once.
    """

    def __init__(self, index: int, file: str | None, reason: str, n_images: int = 1):
        several = f" and the {n_images - 1} after it" if n_images > 1 else ""
        super().__init__(index, file, f"{several}: {reason}")
        self.reason = reason
        self.n_images = n_images
        self._more = (reason, n_images)


class ImagesChangedError(ImgstackError, RuntimeError):
    """The pixels of a stack were not the same in two reads of one fit."""

    def __init__(self) -> None:
        super().__init__(
            "The images changed between two reads: the files were written to during the fit, or a task of the stack "
            "gives something else each time. Store it once and fit that: "
            "save_stack(stack, 'stack.zarr'), then open_stack('stack.zarr')."
        )

    def __reduce__(self):
        return type(self), ()


class StoreError(ImgstackError, OSError):
    """A stored stack or model is missing, incomplete, damaged, or would be overwritten."""


class RankWarning(UserWarning):
    """The data have fewer independent directions than the components asked for."""
