"""Exceptions and warnings of the package."""

__all__ = [
    "BadImageError",
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


class MixedStackError(ImgstackError, ValueError):
    """The images of a source differ in shape or dtype, so that they are not one stack."""


class MemoryLimitError(ImgstackError, ValueError):
    """What was asked for cannot be done within the memory limit; raised before a pixel is read."""


class NonFiniteError(ImgstackError, ValueError):
    """An image holds NaN or infinite pixels.

    Parameters
    ----------
    index : int
        Position of the image in the stack.
    file : str, optional
        Its file, where known.
    """

    def __init__(self, index: int, file: str | None = None):
        where = f"image {index}" + (f" ({file!r})" if file else "")
        super().__init__(
            f"{where} contains NaN or infinity. Mend or leave it out, "
            f"e.g. keep = np.arange(len(X)) != {index}; X = X[keep]"
        )
        self.index = index
        self.file = file

    def __reduce__(self):
        return type(self), (self.index, self.file)


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
