"""ImageStack: images on disk as one lazy Dask array, with their names."""

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.utils import format_bytes

from ..base.channels import are_colours, colour_names, numbered_names
from ..base.notebook import table
from ..base.validation import FileStack
from ..base.warn import warn
from ..errors import BadImageError
from ..files.names import is_url
from ..passes.progress import iterate_rows
from .formats.base import is_picture
from .keys import FileKeys
from .lazy import Reader, find_faults, lazy_array
from .locations.names import split_member
from .locations.numbered import NumberedNames
from .shown import ShownImage, strip
from .summary import Kinds, StackSummary

if TYPE_CHECKING:
    import xarray

__all__ = ["ImageStack", "without_faults"]

_WITHOUT_NAME = re.compile(r"Channel:\d+:\d+|")  # as OME numbers channels
_DIMENSIONS = {"t": "time", "s": "scene", "p": "position", "c": "channel"}  # names in xarray; others stay


@dataclass(frozen=True, eq=False, repr=False)
class ImageStack(FileStack):
    """Images on disk, all of one shape and dtype, that are read block by block.

    `open_stack` makes it, and every estimator takes it as it takes an array. It holds names and no pixels, so that it
    is small and can be pickled.

    Parameters
    ----------
    reader : object
        Reads the images of a block.
    files : tuple of str, or a sequence equal to one
        ``files[i]`` names image ``i``: its file, ``file[3]`` where the file has several images, or
        ``archive.zip::member``.
    keys : sequence or None
        By which the reader finds each image; None where that is its name in `files`.
    labels : ndarray of str or None
        Sub-folder of each image, relative to the source; ``"."`` for images beside the sub-folders. None where the
        source was not read recursively, or has no sub-folders.
    problems : tuple of (str, str)
        Path and reason of each file that was left out.
    chunks : "auto" or int
        Images in a block.
    kinds : Kinds or None
        The headers of the images, which `summary` counts.
    unread : tuple of (str, int)
        Kinds of images that are not read here, such as ``".heic"``, and how many of each the source holds.
    coords : dict of str to ndarray of int
        For each axis of the files that counts images, such as ``"t"``, the position of each image along it.
    channel_names : tuple of str
        Of all channels, or of the single one that was selected; empty where the files do not name them.

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
    files: Sequence[str]
    keys: Sequence[Any] | np.ndarray | None = None
    labels: np.ndarray | None = None
    problems: tuple[tuple[str, str], ...] = ()
    chunks: str | int = "auto"
    kinds: Kinds | None = None
    unread: tuple[tuple[str, int], ...] = ()
    coords: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    channel_names: tuple[str, ...] = ()

    @functools.cached_property
    def data(self) -> da.Array:
        """The pixels as a Dask array, one task a block."""
        return lazy_array(self.reader, self._keys, self.chunks)

    @property
    def _keys(self) -> Sequence[Any] | np.ndarray:
        return self.files if self.keys is None else self.keys

    @property
    def inputs(self) -> tuple[str, ...]:
        """Files and folders of this machine that the pixels are read from, each once."""
        path = getattr(getattr(self.reader, "reader", self.reader), "path", None)
        if path is not None:
            return (path,)
        names = dict.fromkeys(getattr(key, "file", key) for key in self._keys)
        archives = dict.fromkeys((split_member(name) or (name,))[0] for name in names)
        return tuple(name for name in archives if not is_url(name))

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes that count the images of a file, then those of an image: y, x and, where there are channels, c."""
        return (*self.coords, *"yxc"[: len(self.reader.shape)])

    @property
    def known_channels(self) -> tuple[str, ...]:  # type: ignore[override]
        """`channel_names`; else colours, where the images are pictures in colour by their mode, or numbers."""
        if self.ndim < 4 or any(not _WITHOUT_NAME.fullmatch(name) for name in self.channel_names):
            return self.channel_names
        mode = getattr(getattr(self.reader, "conversion", None), "mode", None)
        modes = {mode} if mode else {header.mode for header in ([] if self.kinds is None else self.kinds.headers)}
        names = colour_names(self.shape[3]) if modes and all(map(is_picture, modes)) else ()
        return names or numbered_names(self.shape[3])

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
            The selected images in new blocks, so that reading them decodes each image once. For an int, that image as
            a lazy array, of which a notebook shows the picture.
        """
        key = _key_of_images(key)
        if not isinstance(key, slice) and np.ndim(key) == 0:
            position = _position(key, len(self))
            image, name = self[[position]].data[0], self.files[position]
            return ShownImage.of(image, name, self.known_channels, colours=self._in_colours)
        return self._select(_positions(key, len(self)))

    def __getattr__(self, name: str) -> Any:
        hint = f"; its lazy pixels have one: stack.data.{name}" if hasattr(da.Array, name) else ""
        raise AttributeError(f"an ImageStack has no attribute {name!r}{hint}")

    def _select(self, positions: np.ndarray) -> "ImageStack":
        places = positions.tolist()
        files, keys = self.files, self.keys
        if keys is not None:
            keys = keys[positions] if isinstance(keys, np.ndarray | FileKeys) else tuple(keys[i] for i in places)
        return dataclasses.replace(
            self,
            files=files.select(positions) if isinstance(files, NumberedNames) else tuple(files[i] for i in places),
            keys=keys,
            labels=None if self.labels is None else self.labels[positions],
            kinds=None if self.kinds is None else self.kinds.select(positions),
            coords={axis: places[positions] for axis, places in self.coords.items()},
        )

    def summary(self) -> StackSummary:
        """Count the images by the shape, dtype, format and mode that they have in their files.

        Returns
        -------
        StackSummary
            With `counts`, a tuple of ``(header, count)``, `n_problems`, and `unread`, a tuple of ``(kind, count)`` of
            the images that are not read here; printed as a table.
        """
        counts = () if self.kinds is None else self.kinds.counts()
        return StackSummary(counts, len(self.problems), self.unread)

    def verify(self, *, progress: bool = False) -> "ImageStack":
        """Decode every image once, and leave out those that cannot be decoded.

        The whole stack is read block by block, by the scheduler that Dask is set to. No pixel is kept.

        Parameters
        ----------
        progress : bool, default=False
            Show a bar of images, on stderr.

        Returns
        -------
        ImageStack
            The images that can be decoded. The others are listed in its `problems`, and a warning counts them. The
            stack itself where there are no others.

        Raises
        ------
        BadImageError
            No image can be decoded.
        """
        return without_faults(self, progress=progress)

    def to_xarray(self) -> "xarray.DataArray":
        """Return the lazy pixels with named axes; needs xarray.

        Returns
        -------
        xarray.DataArray
            Dimensions ``("sample", "y", "x")``, and ``"channel"`` where the images have channels. The coordinates of
            ``sample`` are `files`, and, where there are such, ``label`` and the axes that count images: ``time``,
            ``z``, ``scene``, ``position``. Those of ``channel`` are `channel_names`.

        Raises
        ------
        ImportError
            xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray needs the package xarray: pip install 'imgstack_ml[xarray]'") from error
        coords: dict[str, Any] = {"sample": np.array(self.files, dtype=object)}
        if self.labels is not None:
            coords["label"] = ("sample", self.labels)
        coords |= {_DIMENSIONS.get(axis, axis): ("sample", places) for axis, places in self.coords.items()}
        if self.channel_names:  # of a single one that was selected, a coordinate without an axis
            coords["channel"] = list(self.channel_names) if self.ndim == 4 else self.channel_names[0]
        return xarray.DataArray(self.data, dims=("sample", "y", "x", "channel")[: self.ndim], coords=coords)

    def __getstate__(self) -> dict[str, Any]:
        # Without the cached Dask array, whose graph is large and is made again from these fields.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Raise: NumPy would read all pixels into memory where the user did not ask for it."""
        raise TypeError(
            "an ImageStack does not become a NumPy array by itself; "
            "take stack.data (a lazy Dask array) or stack.data.compute()"
        )

    def __repr__(self) -> str:
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        lines = [
            f"ImageStack of {len(self)} images {self.reader.shape}, {self.dtype}: "
            f"{format_bytes(n_bytes)} in {self.data.numblocks[0]} blocks"
        ]
        return "\n".join([*lines, *(f"  {name}: {text}" for name, text in self._facts())])

    def _facts(self) -> list[tuple[str, str]]:
        """Name and text of what there is to say of the images."""
        facts = [("files", f"{self.files[0]!r} … {self.files[-1]!r}")] if self.files else []
        if self.coords or self.channel_names:
            sizes = [f"{axis} ({len(np.unique(places))})" for axis, places in self.coords.items()]
            unnamed = "; the file does not say what q is" if "q" in self.coords else ""
            names = [f"c ({', '.join(self.channel_names)})"] if self.channel_names else []
            facts.append(("axes", ", ".join(sizes + names) + unnamed))
        if self.labels is not None:
            facts.append(("labels", _count_labels(self.labels)))
        if self.problems:
            facts.append(("left out", f"{len(self.problems)} files, see .problems"))
        return facts

    def _repr_html_(self) -> str:
        """Table and a strip of at most 8 images, which are decoded for it."""
        n_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = " × ".join(map(str, self.reader.shape))
        blocks = f"{self.data.numblocks[0]:,} of up to {max(self.data.chunks[0], default=0):,} images"
        rows = [
            ("images", f"{len(self):,} of {shape}, {self.dtype}"),
            ("bytes", format_bytes(len(self) * n_bytes)),
            ("blocks", blocks),
            *self._facts(),
        ]
        if self.kinds is not None:
            rows.append(("as stored", "; ".join(map(str.strip, repr(self.summary()).splitlines()[1:]))))
        pictures = strip(self.files, lambda index: self[index].compute(), n_bytes, colours=self._in_colours)
        return table(rows, caption="ImageStack") + pictures

    @property
    def _in_colours(self) -> bool:
        """Whether channels are the colours of pictures, in 8 bits."""
        return self.dtype == np.uint8 and are_colours(self.known_channels)


def without_faults(stack: ImageStack, *, finite: bool = False, progress: bool = False) -> ImageStack:
    """Decode every image once, as `ImageStack.verify` does; with `finite`, those with NaN or infinity are left out too.

    Raises
    ------
    BadImageError
        No image is left.
    """
    faults = find_faults(stack.reader, stack._keys, stack.chunks, finite=finite)
    image_bytes = stack.dtype.itemsize * math.prod(stack.shape[1:])
    reasons = np.concatenate(list(iterate_rows(faults, image_bytes, "verify", progress=progress)))
    bad = {stack.files[i]: reasons[i] for i in np.flatnonzero(reasons != "").tolist()}
    if not bad:
        return stack
    what = "be used" if finite else "be decoded"
    if len(bad) == len(stack):
        name, reason = next(iter(bad.items()))
        raise BadImageError(name, f"{reason} (none of the {len(bad)} images can {what})")
    warn(f"{len(bad)} of {len(stack)} images cannot {what} and are left out; they are listed in .problems")
    good = stack._select(np.flatnonzero(reasons == ""))
    return dataclasses.replace(good, problems=(*stack.problems, *((name, str(why)) for name, why in bad.items())))


def _key_of_images(key: Any) -> Any:
    """Return the part of an index that selects images; raise if it selects pixels."""
    parts = key if isinstance(key, tuple) else (key,)
    if parts and parts[0] is Ellipsis:
        parts = (slice(None), *parts)
    if any(np.ndim(part) > 1 and getattr(part, "dtype", None) == "bool" for part in parts):
        raise IndexError(
            "an ImageStack is indexed by image only. For the pixels inside a mask take "
            "ImageFlattener(mask=mask).fit_transform(stack), or ImagePCA(mask=mask)"
        )
    if not parts or any(part is not Ellipsis for part in parts[1:]):
        text = "index" if any(map(np.ndim, parts)) else repr(key)
        raise IndexError(f"an ImageStack is indexed by image only; for pixels take stack.data[{text}]")
    if isinstance(parts[0], da.Array):
        raise TypeError("an ImageStack is not indexed by a Dask array; compute it first: stack[index.compute()]")
    return parts[0]


def _position(key: Any, n_images: int) -> int:
    if isinstance(key, str):
        raise TypeError(f"images are selected by position; of a file it is stack.files.index({key!r})")
    if isinstance(key, bool | np.bool_):  # stack[stack.files == name] compares a tuple with a str: False
        raise TypeError(
            f"stack[{key}] selects no image; a list of bools selects images, e.g. stack[stack.labels == 'face'] or "
            "stack[[file.endswith('1.png') for file in stack.files]]"
        )
    position = operator.index(key)
    if not -n_images <= position < n_images:
        raise IndexError(f"there is no image {position} in a stack of {n_images}")
    return position % n_images


def _positions(key: Any, n_images: int) -> np.ndarray:
    # NumPy would make an array of floats of an empty list, and floats do not index.
    index = key if isinstance(key, slice) or len(key) else slice(0)
    positions = np.arange(n_images)[index if isinstance(index, slice) else np.asarray(index)]
    if positions.ndim != 1:
        raise IndexError(f"an ImageStack is indexed by a list of images, not by an array of {positions.ndim} axes")
    return positions


def _count_labels(labels: np.ndarray) -> str:
    names, counts = np.unique(labels, return_counts=True)
    shown = ", ".join(f"{name!r} ({count})" for name, count in zip(names[:5].tolist(), counts, strict=False))
    return shown + (f", … {len(names)} in all" if len(names) > 5 else "")
