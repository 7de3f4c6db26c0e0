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
    """Base class of the errors that this package defines. Catch it to catch them all.

    Examples
    --------
    >>> from imgstack_ml import ImgstackError, load_model
    >>> try:
    ...     load_model("missing.safetensors")
    ... except ImgstackError as error:
    ...     print(error)
    there is no model file 'missing.safetensors'
    """


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

    Examples
    --------
    >>> import os
    >>> import tempfile
    >>> from pathlib import Path
    >>> from imgstack_ml import BadImageError, imread
    >>> file = Path(tempfile.mkdtemp(), "damaged.png")
    >>> _ = file.write_text("no image")
    >>> try:
    ...     imread(file)
    ... except BadImageError as error:
    ...     os.path.basename(error.path)
    'damaged.png'
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

    Examples
    --------
    >>> from imgstack_ml import ClusterLostError, ImagePCA
    >>> from imgstack_ml.datasets import load_faces
    >>> pca = ImagePCA(2, checkpoint="fit")
    >>> try:  # on a cluster whose workers may be taken away
    ...     pca.fit(load_faces()[0])
    ... except ClusterLostError as error:
    ...     print(f"start workers for {error.address} and fit again: pca resumes where it was")
    ImagePCA(checkpoint='fit', n_components=2)
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

    Examples
    --------
    >>> import os
    >>> import tempfile
    >>> import numpy as np
    >>> from imgstack_ml import MixedStackError, open_stack, write_images
    >>> folder = tempfile.mkdtemp()
    >>> for side in (4, 5):
    ...     _ = write_images(np.zeros((1, side, side), np.uint8), os.path.join(folder, str(side)))
    >>> try:
    ...     open_stack(folder, recursive=True)
    ... except MixedStackError as error:
    ...     [header.shape for header, n_images in error.counts]
    [(4, 4), (5, 5)]
    """

    counts: tuple[tuple[Any, int], ...] = ()


class MemoryLimitError(ImgstackError, ValueError):
    """A fit or transform needs more memory than `memory_limit` allows.

    Raised before any pixel is read. The message says how many bytes are needed, and what would need fewer.

    Examples
    --------
    >>> import dask.array as da
    >>> from imgstack_ml import ImagePCA, MemoryLimitError
    >>> try:
    ...     ImagePCA(2, memory_limit="1MB").fit(da.zeros((600, 64, 64)))
    ... except MemoryLimitError as error:
    ...     print(str(error).partition(" need")[0])
    600 images of 4096 values with 2 components
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

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImageError, ImagePCA
    >>> images = np.ones((5, 4, 4))
    >>> images[3, 0, 0] = np.nan
    >>> try:
    ...     ImagePCA(1).fit(images)
    ... except ImageError as error:
    ...     error.index
    3
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

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImageHistogram, NonFiniteError
    >>> images = np.array([[[0.0, 1.0]], [[np.inf, 0.0]]])
    >>> try:
    ...     ImageHistogram(range=(0, 1)).fit_transform(images)
    ... except NonFiniteError as error:
    ...     print(str(error).partition(".")[0])
    image 1 contains NaN or infinity
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

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImageFunctionError, ImageMap
    >>> def contrast(image):
    ...     return image * (255 // int(image.max()))
    >>> try:
    ...     ImageMap(contrast).fit_transform(np.zeros((2, 4, 4), np.uint8))
    ... except ImageFunctionError as error:
    ...     print(error.index, repr(error.__cause__).partition("(")[0])
    0 ZeroDivisionError
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

    Examples
    --------
    >>> from imgstack_ml import ImagePCA, ImagesChangedError, open_stack, save_stack
    >>> from imgstack_ml.datasets import load_faces
    >>> stack = load_faces()[0]
    >>> try:
    ...     pca = ImagePCA(2).fit(stack)
    ... except ImagesChangedError:  # while a microscope still writes the files
    ...     pca = ImagePCA(2).fit(open_stack(save_stack(stack, "stack.zarr")))
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

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from imgstack_ml import StoreError, save_stack
    >>> try:
    ...     save_stack(np.zeros((2, 4, 4)), tempfile.gettempdir())
    ... except StoreError as error:
    ...     print("choose another name")
    choose another name
    """


class RankWarning(UserWarning):
    """The images have fewer independent directions than `n_components`.

    The remaining components are arbitrary orthonormal ones of variance 0. Choose fewer components to avoid the warning.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from imgstack_ml import ImagePCA, RankWarning
    >>> images = np.arange(4.0)[:, None, None] * np.ones((4, 3, 3))  # of one direction
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", RankWarning)
    ...     pca = ImagePCA(2).fit(images)
    >>> pca.explained_variance_.round(9)
    array([15.,  0.])
    """
