"""Lazy stacks: many images behind one Dask array, one task a block."""

import dataclasses
import functools
import html
import math
import operator
import os
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.blockwise import BlockwiseDepDict, blockwise
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from .decode import FileReader, FunctionReader, decode, read_with
from .header import fingerprint, scan
from .listing import Source, list_files, root_folder
from .store import is_store, open_store

__all__ = ["ImageStack", "images_per_block", "imread", "lazy_array", "open_stack"]

_BLOCK_BYTES = 64_000_000
_BLOCKS_PER_THREAD = 8
# Below this the cost of a task is no longer small beside that of reading its images.
_MIN_IMAGES = 16


class Reader(Protocol):
    """What reads a block of images: small, picklable, told by keys which images are meant."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image."""

    @property
    def dtype(self) -> np.dtype:
        """Their dtype."""

    @property
    def images_per_chunk(self) -> int:
        """Number of neighbours that can only be read together."""

    def read(self, keys: Any) -> np.ndarray:
        """Read the images that `keys` name into one block."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageStack:
    """Images of one shape and dtype, on disk, to be read block by block.

    Made by `open_stack`. Every estimator takes it as it takes an array. It is small and picklable: it holds
    names, no pixels.

    Parameters
    ----------
    reader : object
        Reads the images of a block.
    files : tuple of str
        ``files[i]`` is the file of image ``i``.
    rows : ndarray of int or None
        Where the images are stored in one array: their places in it. Else they are read by their files.
    labels : ndarray of str or None
        Sub-folder of each image, relative to the source, where it was read recursively.
    problems : tuple of (str, str)
        Path and reason of each file that was left out.
    chunks : "auto" or int
        Images in a block.

    Attributes
    ----------
    data : dask.array.Array of shape (n_images, height, width[, n_channels])
        The pixels, lazy.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from imgstack_ml import open_stack, save_stack
    >>> stack = open_stack(save_stack(np.zeros((6, 4, 4)), os.path.join(tempfile.mkdtemp(), "x.zarr")))
    >>> stack.shape, stack[[5, 0, 3]].shape
    ((6, 4, 4), (3, 4, 4))
    """

    reader: Reader
    files: tuple[str, ...]
    rows: np.ndarray | None = None
    labels: np.ndarray | None = None
    problems: tuple[tuple[str, str], ...] = ()
    chunks: str | int = "auto"

    @functools.cached_property
    def data(self) -> da.Array:
        """The pixels as a Dask array, one task a block."""
        keys = self.files if self.rows is None else self.rows
        return lazy_array(self.reader, keys, self.chunks)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_images, height, width[, n_channels])."""
        return (len(self.files), *self.reader.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the pixels."""
        return self.reader.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 1 + len(self.reader.shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: Any) -> Any:
        """Select images.

        Parameters
        ----------
        key : int, slice, sequence of int or of bool
            ``[key, ...]`` means the same as ``[key]``.

        Returns
        -------
        ImageStack or dask.array.Array
            The images selected, grouped into blocks anew, so that reading them decodes each one once; for an
            int, that image as a lazy array.
        """
        key = _image_key(key)
        if not isinstance(key, slice) and np.ndim(key) == 0:
            index = range(len(self))[operator.index(key)]
            return self[[index]].data[0]
        positions = _positions(key, len(self))
        return dataclasses.replace(
            self,
            files=tuple(self.files[i] for i in positions.tolist()),
            rows=None if self.rows is None else self.rows[positions],
            labels=None if self.labels is None else self.labels[positions],
        )

    def __getstate__(self) -> dict[str, Any]:
        # Without the graph, which is made again from the rest.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Refuse: the pixels would all be read behind the user's back."""
        raise TypeError(
            "an ImageStack is not read into an array unasked; "
            "take stack.data (a lazy Dask array) or stack.data.compute()"
        )

    def __repr__(self) -> str:
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        lines = [
            f"ImageStack of {len(self)} images {self.reader.shape}, {self.dtype}: "
            f"{format_bytes(n_bytes)} in {self.data.numblocks[0]} blocks"
        ]
        if self.files:
            lines.append(f"  files: {self.files[0]!r} … {self.files[-1]!r}")
        if self.labels is not None:
            lines.append(f"  labels: {_count_labels(self.labels)}")
        if self.problems:
            lines.append(f"  left out: {len(self.problems)} files, see .problems")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>{self.data._repr_html_()}"


def open_stack(
    source: Source,
    *,
    recursive: bool = False,
    chunks: str | int = "auto",
    sort: str = "natural",
    on_error: str = "raise",
) -> ImageStack:
    """Open images on disk as one lazy stack.

    The headers of all files are read, no pixel is decoded.

    Parameters
    ----------
    source : str, PathLike or sequence of these
        A folder, a glob pattern, a file, a list of files (taken in its own order), or a folder that `save_stack`
        wrote. A path that exists is taken literally, brackets included.
    recursive : bool, default=False
        Whether a folder's sub-folders are searched too; their names become `labels`.
    chunks : "auto" or int, default="auto"
        Images in a block. ``"auto"``: up to 64 MB, but at least 8 blocks per thread as long as a block keeps 16
        images.
    sort : {"natural", "name"}, default="natural"
        Order of the files of a folder or pattern: ``img2`` before ``img10``, or by plain comparison.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file whose header cannot be read raises, or is left out with a warning and listed in
        `problems`. A file that fails later, in decoding, always raises.

    Returns
    -------
    ImageStack

    Raises
    ------
    FileNotFoundError
        The source matches nothing.
    BadImageError
        A header cannot be read; from ``.data.compute()``, a file cannot be decoded.
    MixedStackError
        The images differ in shape or dtype.
    StoreError
        A stored stack is incomplete or damaged.

    Notes
    -----
    JPEG, PNG and single-page TIFF are read, told by content: grey, RGB and RGBA with 8 bits a channel, grey PNG
    and any TIFF with 16, TIFF also in floating point. Pixels come as they are stored; an EXIF orientation is not
    applied. Paths become absolute, so that the stack outlives a change of folder.
    """
    _check_block_size(chunks)
    path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if path is not None and is_store(path):
        store = open_store(os.path.abspath(path))
        rows = np.arange(store.n_images)
        return ImageStack(store.reader, store.files, rows, store.labels, chunks=chunks)
    found = scan(list_files(source, recursive=recursive, sort=sort), on_error=on_error)
    labels = _folder_labels(found.files, root_folder(path)) if path is not None and recursive else None
    reader = FileReader(found.shape, found.dtype, found.fingerprint)
    return ImageStack(reader, found.files, None, labels, found.problems, chunks)


def imread(
    pattern: Source,
    imread: Callable[[str], Any] | None = None,
    preprocess: Callable[[Any], Any] | None = None,
) -> da.Array:
    """Read images as one lazy Dask array: the call of `dask.array.image.imread`.

    Unlike there, files come in natural order (2 before 10), several to a block, and one that does not fit the
    others is named.

    Parameters
    ----------
    pattern : str, PathLike or sequence of these
        Glob pattern, or any source of files that `open_stack` takes.
    imread : callable, optional
        From a file name to an image, instead of this package's own reader. The first file is read at once, to
        learn shape and dtype.
    preprocess : callable, optional
        Applied to each image.

    Returns
    -------
    dask.array.Array of shape (n_images, ...)

    Raises
    ------
    FileNotFoundError
        The pattern matches nothing.
    BadImageError
        A file cannot be read, or makes another shape or dtype than the first one.
    MixedStackError
        The images differ in shape or dtype (found at once without `imread` and `preprocess`).
    """
    if imread is None and preprocess is None:
        return open_stack(pattern).data
    files = list_files(pattern)
    read = decode if imread is None else imread
    first = read_with(read, preprocess, files[0])
    reader = FunctionReader(read, preprocess, first.shape, first.dtype, fingerprint(files))
    return lazy_array(reader, tuple(files), "auto")


def lazy_array(reader: Reader, keys: Sequence[Any] | np.ndarray, chunks: str | int) -> da.Array:
    """Make the Dask array whose blocks a reader reads.

    Each task holds the keys of its own images only, so that the graph stays small.

    Parameters
    ----------
    reader : object
        With `shape` and `dtype` of an image, `images_per_chunk`, and ``read(keys)``.
    keys : sequence
        One for each image.
    chunks : "auto" or int
        Images in a block; see `open_stack`.

    Returns
    -------
    dask.array.Array of shape (len(keys), *reader.shape)
    """
    size = images_per_block(reader, len(keys)) if chunks == "auto" else int(chunks)
    groups = [keys[start : start + size] for start in range(0, len(keys), size)] or [keys]
    name = f"images-{tokenize(reader, keys, size)}"
    axes = string.ascii_letters[: 1 + len(reader.shape)]
    # What da.from_array does, with names in place of slices: one task a block, which later layers fuse with.
    layer = blockwise(
        reader.read,
        name,
        axes,
        BlockwiseDepDict({(i,): group for i, group in enumerate(groups)}),
        axes[0],
        numblocks={},
        new_axes=dict.fromkeys(axes[1:], 1),
    )
    sizes = (tuple(map(len, groups)), *((n,) for n in reader.shape))
    return da.Array(HighLevelGraph.from_collections(name, layer), name, sizes, dtype=reader.dtype)


def images_per_block(reader: Reader, n_images: int) -> int:
    """Choose the size of blocks: see `open_stack`, ``chunks="auto"``.

    Parameters
    ----------
    reader : object
    n_images : int

    Returns
    -------
    int
        A multiple of the reader's `images_per_chunk`.
    """
    image_bytes = max(1, math.prod(reader.shape) * reader.dtype.itemsize)
    n_threads = dask.config.get("num_workers", None) or CPU_COUNT
    by_threads = max(_MIN_IMAGES, n_images // (_BLOCKS_PER_THREAD * n_threads))
    size = min(by_threads, max(1, _BLOCK_BYTES // image_bytes))
    return max(1, size // reader.images_per_chunk) * reader.images_per_chunk


def _check_block_size(chunks: str | int) -> None:
    if chunks == "auto" or (isinstance(chunks, int) and not isinstance(chunks, bool) and chunks > 0):
        return
    raise ValueError(f'chunks={chunks!r} is not a number of images in a block; give "auto" or a positive int')


def _folder_labels(files: Sequence[str], root: str) -> np.ndarray:
    return np.array([os.path.relpath(os.path.dirname(file), root).replace(os.sep, "/") for file in files])


def _image_key(key: Any) -> Any:
    """Reduce an index to its part about images."""
    parts = key if isinstance(key, tuple) else (key,)
    if parts and parts[0] is Ellipsis:
        parts = (slice(None), *parts)
    if not parts or any(part is not Ellipsis for part in parts[1:]):
        raise IndexError(f"an ImageStack is indexed by image only; for pixels take stack.data[{key!r}]")
    if isinstance(parts[0], da.Array):
        raise TypeError("an ImageStack is not indexed by a Dask array; compute it first: stack[index.compute()]")
    return parts[0]


def _positions(key: Any, n_images: int) -> np.ndarray:
    # An empty list would become an array of floats.
    index = key if isinstance(key, slice) or len(key) else slice(0)
    positions = np.arange(n_images)[index if isinstance(index, slice) else np.asarray(index)]
    if positions.ndim != 1:
        raise IndexError(f"an ImageStack is indexed by a list of images, not by {positions.ndim} axes of them")
    return positions


def _count_labels(labels: np.ndarray) -> str:
    names, counts = np.unique(labels, return_counts=True)
    shown = ", ".join(f"{name!r} ({count})" for name, count in zip(names[:5].tolist(), counts, strict=False))
    return shown + (f", … {len(names)} in all" if len(names) > 5 else "")
