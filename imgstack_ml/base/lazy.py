"""Apply functions to images block by block, lazily for lazy stacks: nothing here reads a pixel of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from dask.array.core import implements

from ..errors import ImageError, NonFiniteError
from ..linalg.large_integers import refuse_inexact
from .gate import Place, Places, checked_block, first_nonfinite, gated
from .mask import pixels_at

__all__ = [
    "Source",
    "counting_from",
    "files_of",
    "has_new_channels",
    "join_rows",
    "map_images",
    "note_files",
    "note_new_channels",
    "note_samples",
    "note_source",
    "note_stored",
    "samples_of",
    "source_of",
    "stored_parts",
    "whole_images",
    "with_coordinates",
]

_IN_MEMORY_BYTES = 2**22  # of a NumPy stack, mapped at a time: temporary arrays stay small


@implements(np.may_share_memory)  # type: ignore[untyped-decorator]
def _may_share_memory(*_: Any, **__: Any) -> bool:
    """Tell scikit-learn's checks that a Dask array may share memory: Dask, which has no such function, computes it.

    The images would be decoded once more for each such check, with a FutureWarning. "It may" costs a copy of rows.
    """
    return True


class Source(NamedTuple):
    """What a lazy array was computed from: ``data`` minus ``shift`` (n_pixels,), each image perhaps reshaped."""

    data: da.Array
    shift: np.ndarray | float


def note_source(
    array: np.ndarray | da.Array, data: np.ndarray | da.Array, shift: np.ndarray | float = 0.0
) -> np.ndarray | da.Array:
    """Record on a lazy `array` that it is `data` minus an image: `ImagePCA`, which centres anyway, reads `data`."""
    if isinstance(array, da.Array) and isinstance(data, da.Array):
        array._imgstack_source = (array.name, Source(data, shift))  # type: ignore[attr-defined]
    return array


def source_of(array: da.Array) -> Source:
    """Return the earliest array that `array` equals up to a constant image and reshaping: `array` itself if none.

    What `note_source` recorded holds for one name: assignment to items changes a Dask array in place and renames it.
    """
    shift: np.ndarray | float = 0.0
    name, source = getattr(array, "_imgstack_source", (None, None))
    while source is not None and name == array.name:
        array, shift = source.data, shift + source.shift
        name, source = getattr(array, "_imgstack_source", (None, None))
    return Source(array, shift)


def note_stored(array: da.Array, stored: da.Array) -> da.Array:
    """Record on a lazy stack of whole images the same stack in the chunks in which it is stored, parts of images."""
    array._imgstack_stored = (array.name, stored)  # type: ignore[attr-defined]
    return array


def stored_parts(array: Any) -> da.Array | None:
    """Return a lazy stack in its chunks as they are stored, if these hold parts of images; else None."""
    if not isinstance(array, da.Array):
        return None
    if max(array.numblocks[1:]) > 1:
        return array
    name, stored = getattr(array, "_imgstack_stored", (None, None))
    return stored if name == array.name else None


def files_of(array: da.Array) -> Sequence[str] | None:
    """Return the files of the images from which `map_images` computes `array`, one for each of its rows, if known."""
    name, files = getattr(array, "_imgstack_files", (None, None))
    return files if name == array.name else None


def note_files(array: da.Array, files: Sequence[str] | None, data: da.Array) -> da.Array:
    """Record on a lazy array the files of its rows, and what is known of the samples of `data`, of which it is made."""
    array._imgstack_files = (array.name, files)  # type: ignore[attr-defined]
    note_samples(array, samples_of(data))
    return note_new_channels(array) if has_new_channels(data) else array


def note_new_channels(array: Any) -> Any:
    """Record on a lazy `array` that its channels are not those of the stack that names its samples."""
    if isinstance(array, da.Array):
        array._imgstack_new_channels = array.name  # type: ignore[attr-defined]
    return array


def has_new_channels(array: Any) -> bool:
    """Tell whether `note_new_channels` recorded it for an array."""
    name = getattr(array, "_imgstack_new_channels", None)
    return name is not None and name == getattr(array, "name", None)


def note_samples(array: np.ndarray | da.Array, samples: Any) -> np.ndarray | da.Array:
    """Record on a lazy `array` what names its rows: a `FileStack`, or a Dataset of xarray with their coordinates."""
    if isinstance(array, da.Array) and samples is not None:
        array._imgstack_samples = (array.name, samples)  # type: ignore[attr-defined]
    return array


def samples_of(array: Any) -> Any:
    """Return what `note_samples` recorded for an array, or for the one that `map_images` computes it from; or None."""
    name, samples = getattr(array, "_imgstack_samples", (None, None))
    return samples if name is not None and name == getattr(array, "name", None) else None


def with_coordinates(X: Any) -> Any:
    """Return the array inside one of xarray. A lazy one, as an object of its own, remembers the coordinates."""
    data = X.data
    if not isinstance(data, da.Array) or not hasattr(X, "coords"):
        return data
    lazy = da.Array(data.dask, data.name, data.chunks, meta=data._meta)
    vars(lazy).update(vars(data))
    return note_samples(lazy, X.coords.to_dataset().assign_attrs(sample=X.dims[0]))


def whole_images(data: da.Array) -> da.Array:
    """Rechunk so that every block holds whole images; chunks along the first axis stay as they are.

    Blocks are checked before: rechunking would cut what is too much, and move images to other positions.
    """
    if max(data.numblocks[1:]) == 1:
        return data
    whole: da.Array = gated(data).rechunk(dict.fromkeys(range(1, data.ndim), -1))
    return whole


def map_images(
    func: Callable[..., np.ndarray],
    data: np.ndarray | da.Array,
    *,
    image_shape: tuple[int, ...],
    dtype: np.dtype,
    files: Sequence[str] | None = None,
    fills: bool = False,
    finite: bool = True,
    positions: np.ndarray | None = None,
    missing: bool = False,
    **arrays: np.ndarray,
) -> np.ndarray | da.Array:
    """Apply ``func(block, **arrays) -> block`` to blocks of whole images; those of lazy stacks are checked before.

    Parameters
    ----------
    func : callable
        Top-level function, or a `functools.partial` of one: takes a block (b, *shape), which it must not change, and
        returns (b, *image_shape) in `dtype`. An `ImageError` that it raises counts images from the start of the block;
        it reaches the user with the position in the stack.
    data : ndarray or dask array of shape (n, *shape)
        The images.
    image_shape : tuple of int
        Shape of the result for one image.
    dtype : dtype
        Dtype of the result.
    files : sequence of str, optional
        Files of the images, for error messages; each task gets the names of its own block only.
    fills : bool
        Whether `func` has a parameter ``out``. Results for NumPy stacks are then written there, without a copy.
    finite : bool
        Whether NaN and infinity in a lazy stack are errors; NumPy stacks have been searched by `check_images`.
    positions : ndarray of int, optional
        Positions of the pixels inside a mask. `func` gets rows of these, (b, n_positions), and only these are searched
        for NaN and infinity, in NumPy stacks too.
    missing : bool
        Whether NaN is a missing pixel, and no error.
    **arrays
        Arrays that `func` needs for every block. Each is in the graph once, for all blocks.

    Returns
    -------
    ndarray or dask array of shape (n, *image_shape)
        Lazy for lazy `data`: one layer is added to its graph, and nothing is read.
    """
    if isinstance(data, da.Array):
        if positions is not None:
            arrays["positions"] = positions
        check = partial(_on_block, func, data.dtype, finite, missing)
        mapped = _map_lazily(check, whole_images(data), image_shape, np.dtype(dtype), files, arrays)
        return note_files(mapped, files, data)
    out = np.empty((len(data), *image_shape), dtype)
    step = max(1, _IN_MEMORY_BYTES // max(1, data[:1].nbytes))
    for i in range(0, len(data), step):
        block, result = data[i : i + step], out[i : i + step]
        with counting_from(i, None):
            if positions is not None:
                block = pixels_at(block, positions)
                bad = first_nonfinite(block, missing) if finite else None
                if bad is not None:
                    raise NonFiniteError(bad)
            if fills:
                func(block, out=result, **arrays)
            else:
                result[:] = func(block, **arrays)
    return out


def join_rows(parts: Sequence[np.ndarray | da.Array]) -> np.ndarray | da.Array:
    """Put parts of shape (n, d_i) side by side, (n, sum of d_i); lazily if one of them is lazy.

    All parts get the row chunks of the first lazy one. Dask then fuses them, and what they are computed from, into one
    task a block, so that a block of images is read once.
    """
    plain = [part for part in parts if not isinstance(part, da.Array)]
    if len(plain) == len(parts):
        return _join_blocks(*plain)
    rows = next(part.chunks[0] for part in parts if isinstance(part, da.Array))
    lazy = [da.asarray(part, chunks=(rows, -1)).rechunk({0: rows, 1: -1}) for part in parts]
    dtype = np.result_type(*(part.dtype for part in lazy))
    joined: da.Array = da.blockwise(
        _join_blocks,
        (0, 1),
        *(item for part in lazy for item in (part, (0, 1))),
        name=f"join-{dask.base.tokenize(*(part.name for part in lazy))}",
        adjust_chunks={1: (sum(part.shape[1] for part in lazy),)},
        align_arrays=False,
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
    )
    return joined


def _join_blocks(*blocks: np.ndarray) -> np.ndarray:
    if np.result_type(*(block.dtype for block in blocks)).kind == "f":
        for block in blocks:
            refuse_inexact(block)
    return np.concatenate(blocks, axis=1)


def _map_lazily(
    checked: partial[np.ndarray],
    data: da.Array,
    image_shape: tuple[int, ...],
    dtype: np.dtype,
    files: Sequence[str] | None,
    arrays: dict[str, np.ndarray],
) -> da.Array:
    func = checked.args[0]
    token = dask.base.tokenize(*checked.args, data.name, image_shape, dtype, arrays)
    # Input axes 1, 2, ... all get index 1, which the output has. Each has one block, so that any index is right; but
    # Dask takes an index that the output lacks for a reduction, and does not fuse a reduction with its source.
    mapped: da.Array = da.blockwise(
        checked,
        range(1 + len(image_shape)),
        data,
        (0, *(1,) * (data.ndim - 1)),
        Places(data.chunks, files, n_axes=1),
        (0,),
        name=f"{dask.utils.funcname(func).strip('_')}-{token}",
        dtype=dtype,
        meta=np.empty((0,) * (1 + len(image_shape)), dtype),
        adjust_chunks={axis: (size,) for axis, size in enumerate(image_shape, 1)},
        new_axes=dict.fromkeys(range(2, 1 + len(image_shape)), (1,)),
        align_arrays=False,
        **{key: dask.delayed(array, pure=True) for key, array in arrays.items()},
    )
    return mapped


def _on_block(
    func: Callable[..., np.ndarray],
    dtype: np.dtype,
    finite: bool,
    missing: bool,
    block: Any,
    place: Place,
    positions: np.ndarray | None = None,
    **arrays: np.ndarray,
) -> np.ndarray:
    images = checked_block(dtype, finite, _unnested(block), place, positions, missing=missing)
    with counting_from(place.start, place.files):
        return func(images, **arrays)


@contextmanager
def counting_from(start: int, files: Sequence[str] | None) -> Iterator[None]:
    """Raise an error about an image of a block with its position in the stack, and its file."""
    try:
        yield
    except ImageError as error:
        raise error.at(start, files) from error.__cause__


def _unnested(block: Any) -> Any:
    """Return the block out of the lists of one item each in which `da.blockwise` passes it, without a copy."""
    while isinstance(block, list) and len(block) == 1:
        (block,) = block
    return block
