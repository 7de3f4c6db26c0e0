"""The check that every block of a lazy stack passes when it is computed: it is what the stack declares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, product
from typing import Any, NamedTuple, TypeAlias

import dask
import dask.array as da
import numpy as np
from dask.layers import ArrayBlockwiseDep

from ..errors import NonFiniteError
from .mask import pixels_at, positions_inside

__all__ = ["Check", "Place", "Places", "checked_block", "first_nonfinite", "gated"]


#: Checks consecutive blocks, NaN and infinity included, and takes the pixels inside a mask, if their positions follow.
#: Dask does not look into it, as it would into a tuple.
Check: TypeAlias = Callable[..., list[np.ndarray]]


class Place(NamedTuple):
    """Where a block is in its stack.

    Attributes
    ----------
    number : tuple of int
        Of the block: ``X.blocks[number]``.
    start : int
        Position of its first image.
    shape : tuple of int
        The shape that the stack declares.
    files : sequence of str, or None
        Of its images, where they are known.
    positions : ndarray of int, or None
        Of the pixels inside a mask, in its part of an image; None for all.
    """

    number: tuple[int, ...]
    start: int
    shape: tuple[int, ...]
    files: Sequence[str] | None
    positions: np.ndarray | None = None

    def __str__(self) -> str:
        number = ", ".join(map(str, self.number if any(self.number[1:]) else self.number[:1]))
        last = self.start + max(1, self.shape[0]) - 1
        images = f"image {self.start}" if last == self.start else f"images {self.start} to {last}"
        files = "" if not self.files else ", ".join(dict.fromkeys(repr(str(self.files[i])) for i in (0, -1)))
        return f"X.blocks[{number}] ({images}{files and f', from {files}'})"


class Places(ArrayBlockwiseDep):
    """The `Place` of each block, as an argument of `dask.array.blockwise` with the first `n_axes` axes as indices.

    `mask` is that of whole images, of which blocks hold parts.
    """

    def __init__(
        self,
        chunks: tuple[tuple[int, ...], ...],
        files: Sequence[str] | None,
        n_axes: int | None = None,
        mask: np.ndarray | None = None,
    ):
        super().__init__(chunks[:n_axes])
        self._all_chunks = chunks
        self._inside = None if mask is None else _positions_of_parts(mask, chunks[1:])
        self._starts = (0, *accumulate(chunks[0]))
        self._files = files

    def __getitem__(self, idx: tuple[int, ...]) -> Place:
        number = (*idx, *(0,) * (len(self._all_chunks) - len(idx)))  # one block along the axes that are no indices
        start, stop = self._starts[number[0] : number[0] + 2]
        shape = tuple(sizes[i] for sizes, i in zip(self._all_chunks, number, strict=True))
        files = None if self._files is None else self._files[start:stop]
        return Place(number, start, shape, files, None if self._inside is None else self._inside[number[1:]])

    def check_of(self, dtype: np.dtype, first: int, stop: int, whole: bool = False, missing: bool = False) -> Check:
        """Return the check of the blocks `first` to `stop` of a stack of `dtype` whose blocks are of whole images.

        With `whole`, blocks stay as they are, and only pixels inside a mask are searched for NaN and infinity. With
        `missing`, NaN is a missing pixel, and no error.
        """
        return partial(_checked_blocks, dtype, [self[(i,)] for i in range(first, stop)], whole, missing)


def _positions_of_parts(
    mask: np.ndarray, chunks: tuple[tuple[int, ...], ...]
) -> dict[tuple[int, ...], np.ndarray | None]:
    """Positions of the pixels inside a mask in the part of an image of each chunk, by the number of the chunk."""
    edges = [np.cumsum((0, *sizes)).tolist() for sizes in chunks]
    numbers = product(*(range(len(sizes)) for sizes in chunks))
    return {
        number: positions_inside(mask[tuple(slice(*axis[i : i + 2]) for axis, i in zip(edges, number, strict=True))])
        for number in numbers
    }


def gated(
    data: da.Array,
    files: Sequence[str] | None = None,
    *,
    finite: bool = False,
    mask: np.ndarray | None = None,
    missing: bool = False,
) -> da.Array:
    """Return a lazy stack whose blocks are checked when they are computed, in the same task where Dask can fuse them.

    Parameters
    ----------
    data : dask array
    files : sequence of str, optional
        Files of the images, for error messages.
    finite : bool
        Whether NaN and infinity are errors.
    mask : ndarray of bool, optional
        Of pixels that are looked at. Blocks of which it leaves pixels out are rows of those inside when they are
        computed, whatever shape they have here.
    missing : bool
        Whether NaN is a missing pixel, and no error.
    """
    axes = tuple(range(data.ndim))
    checked: da.Array = da.blockwise(
        partial(checked_block, data.dtype, finite, missing=missing),
        axes,
        data,
        axes,
        Places(data.chunks, files, mask=mask),
        axes,
        name=f"checked-{dask.base.tokenize(data.name, finite, mask, missing)}",
        dtype=data.dtype,
        meta=np.empty((0,) * data.ndim, data.dtype),
        align_arrays=False,
    )
    return checked


def checked_block(
    dtype: np.dtype,
    finite: bool,
    block: Any,
    place: Place,
    positions: np.ndarray | None = None,
    whole: bool = False,
    missing: bool = False,
) -> np.ndarray:
    """Return a block as a NumPy array of the declared shape and dtype, or the pixels inside a mask as rows.

    Parameters
    ----------
    dtype : dtype
        The declared one. A block of a dtype that casts to it safely is cast.
    finite : bool
        Whether NaN and infinity are errors.
    block : object
        What the task of the block returned.
    place : Place
    positions : ndarray of int, optional
        Of the pixels inside a mask; by default those of `place`. Those outside are not looked at.
    whole : bool
        Return the whole block in spite of `positions`.
    missing : bool
        Whether NaN is a missing pixel, and no error.

    Raises
    ------
    TypeError
        The block is masked, sparse, or no array.
    ValueError
        It has another shape or dtype than its stack declares.
    NonFiniteError
        Naming the image (and file) with NaN or infinity.
    """
    if type(block) is not np.ndarray:
        block = _plain(block, place)
    if block.shape != place.shape:
        raise ValueError(
            f"{place} has shape {block.shape}, and X declares {place.shape}. Correct the function that makes it, or "
            "the declared shape: with more or fewer images, all later ones would be at other positions."
        )
    if block.dtype != dtype:
        if not np.can_cast(block.dtype, dtype, "safe"):
            raise ValueError(
                f"{place} has dtype {block.dtype}, which does not cast safely to {dtype}, as X declares. "
                f"{_convert(block.dtype, dtype)}"
            )
        block = block.astype(dtype)
    images: np.ndarray = block
    positions = place.positions if positions is None else positions
    used = images if positions is None else pixels_at(images, positions)
    bad = first_nonfinite(used, missing) if finite else None
    if bad is not None:
        raise NonFiniteError(bad).at(place.start, place.files)
    return images if whole else used


def _convert(found: np.dtype, declared: np.dtype) -> str:
    """Say how blocks come to have the declared dtype; one that no estimator takes is not declared instead."""
    if found.kind == "c":
        real = f"lambda block: np.real(block).astype('{declared}')"
        return f"Take e.g. the real parts: X.map_blocks({real}, dtype='{declared}', meta=X._meta)."
    convert = f"onvert all blocks: X.map_blocks(np.ndarray.astype, '{declared}', dtype='{declared}', meta=X._meta)."
    if found.kind not in "biuf" or found.itemsize > 8:
        return f"C{convert}"
    return f"Declare dtype='{found}' where X is made, or c{convert}"


def _checked_blocks(
    dtype: np.dtype,
    places: Sequence[Place],
    whole: bool,
    missing: bool,
    blocks: Sequence[Any],
    positions: np.ndarray | None = None,
) -> list[np.ndarray]:
    checked = partial(checked_block, dtype, True, positions=positions, whole=whole, missing=missing)
    return [checked(block, place) for block, place in zip(blocks, places, strict=True)]


def first_nonfinite(rows: np.ndarray, missing: bool = False) -> int | None:
    """Index of the first image with a NaN or infinite value, or None; NaN is allowed where it is a missing pixel."""
    if rows.dtype.kind != "f":
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        # Fast, and true for nearly every block. NumPy adds float16 slowly, and the sum would often be infinite.
        if np.isfinite(rows.sum(dtype=np.float64 if rows.itemsize == 2 else None)):
            return None
    flat = rows.reshape(len(rows), -1)
    bad = np.isinf(flat).any(axis=1) if missing else ~np.isfinite(flat).all(axis=1)
    return int(bad.argmax()) if bad.any() else None


def _plain(block: Any, place: Place) -> np.ndarray:
    """Return a memory map or matrix as a plain array; raise for what is masked, sparse or no array."""
    if isinstance(block, np.ma.MaskedArray):
        raise TypeError(
            f"{place} is a masked array, whose mask would be ignored. Pass dask.array.ma.filled(X, value), or "
            "dask.array.ma.getdata(X) to ignore it on purpose."
        )
    if not isinstance(block, np.ndarray):
        dense = "block.todense()" if hasattr(block, "todense") else "np.asarray(block)"
        raise TypeError(
            f"{place} is a {type(block).__name__}, and NumPy arrays are needed. Pass "
            f"X.map_blocks(lambda block: {dense}, dtype=X.dtype, meta=np.empty((0,) * X.ndim, X.dtype))."
        )
    plain: np.ndarray = np.asarray(block)
    return plain
