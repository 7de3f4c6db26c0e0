"""Rescale the intensities of blocks of images: the values of scikit-image's `rescale_intensity`, computed faster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from skimage.exposure.exposure import intensity_range

from ..errors import NonFiniteError
from ..linalg.extremes import extremes_of, joined_channels
from ..linalg.large_integers import LAST, between, differences

__all__ = ["is_word", "output_dtype", "rescale_block"]

_PACKED = ("uint10", "uint12", "uint14")  # intensity ranges that have no NumPy dtype of their own

_TILE = 2**22  # bytes of images at a time: they stay in cache from the search for their range to their rescaling
_PIECE = 2**20  # bytes of numbers or indices at a time: they stay in cache, and threads rarely wait for the GIL
_TABLE_PAYS = 2**13  # pixels: in larger 8-bit images, looking up 256 results is faster than arithmetic per pixel
_VALUES_PAY = 16  # pixels per value between minimum and maximum: with more, looking up is faster in 16-bit images


class _Ranges(NamedTuple):
    """Ends of the input and the output range, each (n_images, n_channels): float64, or Python's exact numbers."""

    low: np.ndarray
    high: np.ndarray
    out_low: np.ndarray
    out_high: np.ndarray


class _LinearMap(NamedTuple):
    """Maps a pixel to ``(clip(pixel, low, high) - low) / width * gain + offset``.

    The arrays broadcast against (n_images, n_rows, row length), in the precision of the arithmetic.
    """

    low: np.ndarray
    high: np.ndarray
    width: np.ndarray
    gain: np.ndarray
    offset: np.ndarray


def rescale_block(
    block: np.ndarray,
    *,
    in_range: Any = "image",
    out_range: Any = "dtype",
    per_channel: bool = False,
    percentiles: Sequence[float] | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Rescale a block of images, each as `skimage.exposure.rescale_intensity` would.

    Parameters
    ----------
    block : ndarray of shape (n_images, height, width[, n_channels]) or (n_images, n_pixels)
        Not changed; may be read-only.
    in_range, out_range
        As in `IntensityRescaler`, but for ``"stack"`` the numbers: (min, max), or (2, n_channels) if `per_channel`.
    per_channel : bool
        Rescale each channel of an image as a separate image.
    percentiles : (low, high), optional
        For ``in_range="image"``.
    out : ndarray, optional
        Array for the result, C-contiguous, of its shape and dtype.

    Returns
    -------
    ndarray of the shape of `block`, dtype as `output_dtype` gives

    Raises
    ------
    NonFiniteError
        Naming the first image of the block with NaN or infinity, or with a range beyond the dtype.
    """
    out = np.empty(block.shape, output_dtype(block.dtype, out_range)) if out is None else out
    images, result = joined_channels(np.ascontiguousarray(block)), joined_channels(out)
    n_channels = block.shape[-1] if per_channel else 1
    ranges_of = partial(_ranges, in_range=in_range, out_range=out_range, percentiles=percentiles)
    if _one_table_serves(block, in_range, out_range, per_channel):
        first = images[:1]
        _look_up(_tables_of_results(block.dtype, ranges_of(first, extremes_of(first, 1)), out.dtype), images, result)
        return out
    step = max(1, _TILE // (block.itemsize * prod(block.shape[1:])))
    for i in range(0, len(images), step):
        tile = images[i : i + step]
        extremes = extremes_of(tile, n_channels)
        _refuse_nonfinite(*extremes, start=i)
        clip = percentiles is not None or not is_word(in_range, "image")
        try:
            with np.errstate(over="raise"):
                _rescale_tile(tile, extremes, ranges_of(tile, extremes), result[i : i + step], clip=clip)
        except FloatingPointError as error:
            wide = int(np.argmax((extremes[1].astype(np.float64) / 2 - extremes[0].astype(np.float64) / 2).max(axis=1)))
            largest = max(abs(float(ends[wide].max())) for ends in extremes)
            reason = (
                f"has values up to {largest:.3g}, and its range, or in_range or out_range, is beyond {block.dtype}. "
                f"Rescale X / {largest:.1g}, or X.astype('float64')."
            )
            raise NonFiniteError(i + wide, None, reason) from error
        for j in _beyond_float64(extremes, in_range):
            one, (lowest, highest) = slice(j, j + 1), extremes
            exact = ranges_of(tile[one], (lowest[one], highest[one]), exact=True)
            _rescale_integers(tile[j], exact, result[i + j])
    return out


def output_dtype(dtype: np.dtype, out_range: Any) -> np.dtype:
    """Dtype that `skimage.exposure.rescale_intensity` returns for images of `dtype`."""
    if isinstance(out_range, str):
        if out_range in ("dtype", "image"):
            return np.dtype(dtype.type)
        return np.dtype(np.uint16 if out_range in _PACKED else out_range)
    return np.dtype(np.float32 if dtype.type in (np.float16, np.float32) else np.float64)


def is_word(value: Any, word: str) -> bool:
    """Return whether a parameter, which may be an array, is the string `word`."""
    return isinstance(value, str) and value == word


def _refuse_nonfinite(minima: np.ndarray, maxima: np.ndarray, start: int) -> None:
    finite = np.isfinite(minima) & np.isfinite(maxima)  # NaN makes both NaN
    if not finite.all():
        raise NonFiniteError(start + int(np.argmin(finite.all(axis=1))))


def _ranges(
    images: np.ndarray,
    extremes: tuple[np.ndarray, np.ndarray],
    *,
    in_range: Any,
    out_range: Any,
    percentiles: Sequence[float] | None,
    exact: bool = False,
) -> _Ranges:
    """Return input and output range of each image and channel; `exact` is for integers only."""
    shape, kind = extremes[0].shape, np.dtype(object if exact else np.float64)
    if percentiles is not None:
        low, high = _percentiles(images, shape[1], percentiles, exact)
    elif is_word(in_range, "image"):
        low, high = extremes
    else:
        low, high = _numbers(in_range, images.dtype, kind)
    low, high = (np.broadcast_to(end, shape).astype(kind) for end in (low, high))
    out_low, out_high = extremes if is_word(out_range, "image") else _numbers(out_range, images.dtype, kind)
    if isinstance(out_range, str) and out_range != "image":
        out_low = np.where(low >= 0, 0, out_low)
    out_low, out_high = (np.broadcast_to(end, shape).astype(kind) for end in (out_low, out_high))
    return _Ranges(low, high, out_low, out_high)


def _numbers(named_range: Any, dtype: np.dtype, kind: np.dtype) -> np.ndarray:
    """Return the two ends of a range that does not depend on the images."""
    if isinstance(named_range, str):
        named_range = intensity_range(np.empty(0, dtype), named_range)
    if kind.hasobject:
        ends = [end.tolist() if isinstance(end, np.generic | np.ndarray) else end for end in named_range]
        return np.frompyfunc(Fraction, 1, 1)(np.array(ends, object))
    return np.asarray(named_range, kind)


def _percentiles(
    images: np.ndarray, n_channels: int, percentiles: Sequence[float], exact: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high percentile of each image and channel, (n_images, n_channels) each.

    NumPy interpolates a percentile of n values between two neighbours in sorted order. `_order_statistics` finds these
    without sorting, and `numpy.quantile` of the two does the same arithmetic as `numpy.percentile` of all n.
    """
    planes = images.reshape(len(images), -1, n_channels)
    if planes.dtype.kind == "b":
        planes = planes.view(np.uint8)
    position = (planes.shape[1] - 1) * (np.asarray(percentiles, np.float64) / 100)
    below = position.astype(np.intp)
    neighbours = np.empty((2, len(images), n_channels, 2), planes.dtype)
    for i, channel in np.ndindex(len(images), n_channels):
        neighbours[:, i, channel] = _order_statistics(planes[i, :, channel], below)
    share = position - below
    if exact:
        ends = between(neighbours[0], neighbours[1], share)
        return ends[..., 0], ends[..., 1]
    # As float64, since NumPy's differences of the values of a signed dtype could overflow.
    ends = np.quantile(neighbours.astype(np.float64) if planes.dtype.kind == "i" else neighbours, share, axis=0)
    return ends[0, ..., 0], ends[1, ..., 1]


def _order_statistics(values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return [[v[r0], v[r1]], [v[r0 + 1], v[r1 + 1]]] for the sorted values v and two ascending `ranks` r0, r1."""
    values = values.copy()
    last = len(values) - 1
    if values.itemsize == 1:
        values.sort(kind="stable")  # radix sort: several times faster on bytes than partition
        return values[[ranks, np.minimum(ranks + 1, last)]]
    found = np.empty((2, 2), values.dtype)
    done = 0
    for j, rank in enumerate(ranks):
        values[done:].partition(rank - done)  # one rank a call: only then NumPy uses vector instructions
        found[:, j] = values[rank], values[min(rank + 1, last) :].min()
        done = rank
    return found


def _linear_map(ranges: _Ranges, dtype: np.dtype, row_length: int) -> _LinearMap:
    """Return the map from input to output ranges, in `dtype`, for rows of `row_length` values."""
    low, high, out_low, out_high = ranges
    constant = low == high  # such images are clipped to the output range
    arrays = (
        low,
        high,
        np.where(constant, 1, high - low),
        np.where(constant, 0, out_high - out_low),
        np.where(constant, np.clip(low, out_low, out_high), out_low),
    )
    n_channels = low.shape[1]
    along_rows = 1 if n_channels == 1 else row_length // n_channels
    return _LinearMap(*(np.tile(array.astype(dtype), along_rows)[:, None] for array in arrays))


def _rescale_tile(
    images: np.ndarray, extremes: tuple[np.ndarray, np.ndarray], ranges: _Ranges, out: np.ndarray, *, clip: bool
) -> None:
    """Rescale a few images: by tables of results if that is faster, otherwise pixel by pixel."""
    n_channels = ranges.low.shape[1]
    if images.itemsize == 1 and n_channels <= 256 and images[0].size >= _TABLE_PAYS * n_channels:
        look_up = _look_up if n_channels == 1 else _look_up_channels
        for table, image, target in zip(_tables_of_results(images.dtype, ranges, out.dtype), images, out, strict=True):
            look_up(table, image, target)
        return
    linear = _linear_map(ranges, _precision(images.dtype), images.shape[2])
    if images.dtype.kind in "iu" and images.itemsize == 2 and n_channels == 1:
        lowest, highest = (ends.astype(np.int32) for ends in extremes)
        n_values = int((highest - lowest).max()) + 1
        if n_values * _VALUES_PAY <= images[0].size:
            _apply_to_values(images, (lowest + np.arange(n_values, dtype=np.int32))[:, None], linear, out)
            return
    _apply(linear, images, out, clip=clip)


def _beyond_float64(extremes: tuple[np.ndarray, np.ndarray], in_range: Any) -> np.ndarray:
    """Return the positions of 64-bit images that float64 would round, or whose input range it would."""
    if extremes[0].dtype.kind not in "iu" or extremes[0].itemsize < 8:
        return np.empty(0, np.intp)
    if not isinstance(in_range, str) and max(abs(end) for end in np.ravel(np.array(in_range, object))) > LAST:
        return np.arange(len(extremes[0]))
    return np.flatnonzero((extremes[0] < -LAST).any(axis=1) | (extremes[1] > LAST).any(axis=1))


def _rescale_integers(image: np.ndarray, ranges: _Ranges, out: np.ndarray) -> None:
    """Rescale an image of 64-bit integers that float64 would round: differences are exact before they are rounded."""
    n_channels = ranges.low.shape[1]
    pixels, results = image.reshape(-1, n_channels), out.reshape(-1, n_channels)
    for channel, (low, high, out_low, out_high) in enumerate(zip(*(end[0] for end in ranges), strict=True)):
        start, gain = out_low, out_high - out_low
        if low == high:  # such images are clipped to the output range
            start, gain, high = min(max(low, out_low), out_high), 0, low + 1
        for i in range(0, len(pixels), _PIECE // 8):
            values, (bottom, top) = differences(pixels[i : i + _PIECE // 8, channel], (low, high))
            work = (np.clip(values, bottom, top) - bottom) * float(gain) / float(high - low)
            results[i : i + len(work), channel] = _from(start, work, gain, out.dtype)


def _from(start: Any, work: np.ndarray, gain: Any, dtype: np.dtype) -> np.ndarray:
    """Return ``start + work``, where `work` is from 0 to `gain`; for 64-bit integers added as integers."""
    if dtype.kind not in "iu" or dtype.itemsize < 8:
        return (work + float(start)).astype(dtype)
    work = np.where(work < -start, np.ceil(work), work)  # so that negative results are truncated, not rounded down
    steps = np.minimum(np.minimum(work, 2.0**64 - 2**11).astype(np.uint64), np.uint64(int(gain)))
    return (steps + np.uint64(int(start) % 2**64)).astype(dtype)


def _apply_to_values(images: np.ndarray, values: np.ndarray, linear: _LinearMap, out: np.ndarray) -> None:
    """Rescale each of the `values` (n_images, 1, n_values) of 16-bit images once, and look up the pixels."""
    results = np.empty(values.shape, out.dtype)
    _apply(linear, values, results, clip=True)  # clipped: some values lie beyond the maximum of their image
    codes = values.astype(np.uint16)
    table = np.empty(2**16, out.dtype)
    for i, image in enumerate(images):
        table[codes[i, 0]] = results[i, 0]
        _look_up(table, image, out[i])


def _precision(dtype: np.dtype) -> np.dtype:
    """Return the dtype of NumPy's arithmetic between images of `dtype` and Python floats, which scikit-image uses."""
    return np.dtype(dtype.type if dtype.kind == "f" else np.float64)


def _apply(linear: _LinearMap, images: np.ndarray, out: np.ndarray, *, clip: bool) -> None:
    """Map `images` to `out`, a piece at a time, in the order of scikit-image's operations."""
    precision = linear.low.dtype
    ceiling = _ceiling(out.dtype, precision)
    scales, shifts = (linear.gain != 1).any(), linear.offset.any()
    scratch = None
    for piece in _pieces(images.shape, _PIECE // precision.itemsize):
        part, target = images[piece], out[piece]
        low, high, width, gain, offset = (array[piece[0]] for array in linear)
        if out.dtype == precision:
            work = target
        else:
            scratch = np.empty(part.shape, precision) if scratch is None else scratch
            work = scratch[: part.shape[0], : part.shape[1]]
        if part.dtype != precision:
            np.copyto(work, part)  # faster than a conversion in each ufunc
            part = work
        np.subtract(_clipped(part, low, high, work) if clip else part, low, out=work)
        np.divide(work, width, out=work)
        if scales:
            np.multiply(work, gain, out=work)
        if shifts:
            np.add(work, offset, out=work)
        if ceiling is not None:
            np.minimum(work, ceiling, out=work)
        if work is not target:
            np.copyto(target, work, casting="unsafe")


def _pieces(shape: tuple[int, ...], n_pixels: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of images and of rows: pieces of about `n_pixels`, none larger than the first."""
    n_images, height, width = shape
    n_rows = min(height, max(1, n_pixels // width))
    n_whole = max(1, n_pixels // (height * width))
    for i in range(0, n_images, n_whole):
        for row in range(0, height, n_rows):
            yield slice(i, i + n_whole), slice(row, row + n_rows)


def _clipped(values: np.ndarray, low: np.ndarray, high: np.ndarray, out: np.ndarray) -> np.ndarray:
    if low.shape[2] == 1:
        return np.clip(values, low, high, out=out)
    np.maximum(values, low, out=out)  # numpy.clip is slow where its bounds vary along a row
    return np.minimum(out, high, out=out)


def _ceiling(dtype: np.dtype, precision: np.dtype) -> np.floating | None:
    """Return the largest float that casts to integers of `dtype`; None if the maximum of `dtype` is exact in floats."""
    if dtype.kind not in "iu":
        return None
    top, digits = int(np.iinfo(dtype).max), np.finfo(precision).nmant + 1
    excess = top.bit_length() - digits
    return precision.type(top - top % 2**excess) if excess > 0 else None


def _one_table_serves(block: np.ndarray, in_range: Any, out_range: Any, per_channel: bool) -> bool:
    """Return whether one table can map all pixels, and there are more pixels than entries in it."""
    fixed = not (per_channel or is_word(in_range, "image") or is_word(out_range, "image"))
    return fixed and block.dtype.kind in "biu" and block.itemsize <= 2 and block.size >= 256**block.itemsize


def _tables_of_results(dtype: np.dtype, ranges: _Ranges, out_dtype: np.dtype) -> np.ndarray:
    """Return results (n_images, n_channels, n_values) for every value of an 8- or 16-bit dtype.

    Values are in the order of their bit patterns: 0 to the maximum, then for signed dtypes the minimum to -1.
    """
    codes = np.arange(2 if dtype.kind == "b" else 256**dtype.itemsize, dtype=f"u{dtype.itemsize}")
    values = codes.view(dtype.newbyteorder("="))
    tables = np.empty((ranges.low.size, 1, len(values)), out_dtype)
    each = _Ranges(*(end.reshape(-1, 1) for end in ranges))
    _apply(_linear_map(each, _precision(dtype), 1), np.broadcast_to(values, tables.shape), tables, clip=True)
    return tables.reshape(*ranges.low.shape, -1)


def _look_up(table: np.ndarray, images: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with ``table[images]``; negative values index from the end, where the table has them."""
    table = table.reshape(-1)
    values, results = images.reshape(-1), out.reshape(-1)
    if values.itemsize == results.itemsize == 1 and len(values) > 256**2:
        even = len(values) // 2 * 2
        _take(_table_of_pairs(table), values[:even].view(np.uint16), results[:even].view(np.uint16))
        values, results = values[even:], results[even:]
    _take(table, values, results)


def _look_up_channels(tables: np.ndarray, image: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with each 8-bit value's entry in its channel's table."""
    n_channels, n_values = tables.shape
    starts = np.tile(np.arange(n_channels, dtype=np.uint16) * n_values, image.shape[1] // n_channels)
    step = max(1, _PIECE // starts.nbytes)
    for row in range(0, len(image), step):
        indices = image[row : row + step].view(np.uint8) + starts
        np.take(tables.reshape(-1), indices, out=out[row : row + step], mode="wrap")


def _take(table: np.ndarray, indices: np.ndarray, out: np.ndarray) -> None:
    step = max(1, _PIECE // 8)  # NumPy converts the indices to 8 bytes each
    for i in range(0, len(indices), step):
        np.take(table, indices[i : i + step], out=out[i : i + step], mode="wrap")


def _table_of_pairs(table: np.ndarray) -> np.ndarray:
    """Return a table for two bytes at a time, read as one 16-bit number in either byte order: half as many look-ups."""
    full = np.zeros(256, np.uint16)
    full[: len(table)] = table.view(np.uint8)
    return np.bitwise_or.outer(full << 8, full).ravel()
