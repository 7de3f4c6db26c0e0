"""Intensity rescaling: scikit-image's `rescale_intensity` for every image of a stack, at the pace of a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import isfinite, prod
from numbers import Real
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from skimage.exposure.exposure import DTYPE_RANGE, intensity_range

from .._blocks import map_images
from .._errors import NonFiniteError
from .._passes import PassRunner
from .._transformer import StackTransformer
from .._validation import Images, check_images

__all__ = ["IntensityRescaler", "output_dtype", "rescale_block"]

_DTYPE_NAMES = {name for name in DTYPE_RANGE if isinstance(name, str)}
_PACKED = ("uint10", "uint12", "uint14")  # intensity ranges that have no NumPy dtype of their own

_TILE = 2**22  # bytes of images whose ranges are found at once: they stay in cache until they are rescaled
_PIECE = 2**16  # pixels in floating point at a time: half a megabyte of float64
_TABLE_PAYS = 2**13  # pixels of an 8-bit image from which a table of its 256 values beats arithmetic


class IntensityRescaler(StackTransformer):
    """Stretch or shrink the intensities of every image to a range, as scikit-image does for one.

    Each image comes out as ``skimage.exposure.rescale_intensity(image, in_range, out_range)`` would return it:
    clipped to `in_range`, then mapped linearly to `out_range`. Integer results are cut off, not rounded, and
    the pixels of a constant image are clipped to `out_range`, both as in scikit-image.

    Parameters
    ----------
    in_range : {"image", "stack", "dtype"}, dtype name or (min, max), default="image"
        Intensities that become the ends of `out_range`; what lies outside is clipped.

        - ``"image"``: minimum and maximum of each image;
        - ``"stack"``: minimum and maximum of all images seen in `fit`, found in one pass;
        - ``"dtype"``: the range of the images' dtype, (-1, 1) for floats;
        - the name of a dtype, ``"uint10"``, ``"uint12"`` and ``"uint14"`` included: its range;
        - a pair of numbers, min <= max.
    out_range : {"dtype", "image"}, dtype name or (min, max), default="dtype"
        Intensities after rescaling.

        - ``"dtype"``: the range of the images' dtype, which is kept;
        - ``"image"``: minimum and maximum of each image, whose dtype is kept;
        - the name of a dtype: its range, and the result has that dtype (uint16 for ``"uint10"`` and the like);
        - a pair of numbers: the result is float32 for float16 and float32 images, float64 for all others. A
          pair (1, 0) inverts the contrast.

        The lower end of a dtype's range is 0 where that of `in_range` is not negative.
    channel_axis : {None, -1}, default=None
        -1 rescales each channel of (n_images, height, width, n_channels) as an image of its own. None takes all
        channels of an image together, which keeps its colors.
    percentiles : (low, high), optional
        Percentiles of each image, or channel, that take the place of its minimum and maximum:
        ``in_range = np.percentile(image, (low, high))``. Only with ``in_range="image"``.

    Attributes
    ----------
    in_range_ : (min, max), ndarray of shape (2, n_channels) or str
        The range in use: learned for ``in_range="stack"`` (an array of minima and maxima with
        ``channel_axis=-1``), otherwise `in_range`.
    image_shape_ : tuple of int
        Shape of one image.
    n_features_in_ : int
        Pixels of one image times channels.
    feature_names_in_ : ndarray of str
        Where `fit` got a table with column names.
    n_passes_ : float
        Reads of a lazy stack in `fit`: 1 for ``in_range="stack"``, otherwise 0.

    Notes
    -----
    Arithmetic is scikit-image's, step by step: float64 for integers, the images' own precision for floats. For
    8-bit images, and 16-bit ones with a range that is the same for all, it runs once over the possible values
    and the pixels are looked up.

    Results differ from scikit-image's in one point. The upper end of a wide integer range may have no equal in
    that precision (64-bit integers; 32-bit ones made from float32 images, 16-bit ones from float16): there
    scikit-image's cast overflows, which can turn the brightest pixels into the most negative ones. Here they get
    the largest value below the end that the arithmetic can hold.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import IntensityRescaler
    >>> stack = np.array([[[51, 102], [153, 51]], [[10, 20], [20, 10]]], dtype=np.uint8)
    >>> IntensityRescaler().fit_transform(stack)
    array([[[  0, 127],
            [255,   0]],
    <BLANKLINE>
           [[  0, 255],
            [255,   0]]], dtype=uint8)
    >>> IntensityRescaler(in_range="stack", out_range=(0, 1)).fit(stack).in_range_
    (10.0, 153.0)
    """

    def __init__(
        self,
        in_range: Any = "image",
        out_range: Any = "dtype",
        channel_axis: int | None = None,
        percentiles: tuple[float, float] | None = None,
    ):
        self.in_range = in_range
        self.out_range = out_range
        self.channel_axis = channel_axis
        self.percentiles = percentiles

    def fit(self, X: Any, y: Any = None) -> IntensityRescaler:
        """Check the parameters and the images' shape; read the images, once, for ``in_range="stack"`` only.

        Parameters
        ----------
        X : ImageStack, dask array or array-like, (n_images, height, width[, n_channels]) or (n_samples, n_features)
            The images; rows of a 2-D input are images of one line.
        y : None
            Ignored.

        Returns
        -------
        self : IntensityRescaler

        Raises
        ------
        ValueError
            For parameters that have no meaning, alone, together or for these images.
        NonFiniteError
            If an image holds NaN or infinity; of a lazy stack with ``in_range="stack"`` only.
        """
        images = check_images(self, X, reset=True)
        _check_ranges(self.in_range, self.out_range, self.percentiles)
        _check_stack(images, self.channel_axis)
        if _is(self.in_range, "stack"):
            runner = PassRunner(images)
            self.in_range_ = _stack_range(runner, None if self.channel_axis is None else images.image_shape[-1])
            self.n_passes_ = runner.n_passes
        else:
            self.in_range_ = self.in_range
            self.n_passes_ = 0.0
        return self

    def transform(self, X: Any) -> Any:
        """Rescale the images.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, *image_shape_)
            The images.

        Returns
        -------
        ndarray or dask array of shape (n_images, *image_shape_)
            Lazy for a lazy input; the dtype is as `out_range` says.

        Raises
        ------
        NonFiniteError
            If an image holds NaN or infinity; for a lazy stack when it is computed.
        """
        images = check_images(self, X, reset=False)
        _check_stack(images, self.channel_axis)
        kernel = partial(
            rescale_block,
            in_range=self.in_range_,
            out_range=self.out_range,
            per_channel=self.channel_axis is not None,
            percentiles=self.percentiles,
        )
        arrays = {}
        if isinstance(images.data, da.Array):
            kernel = partial(_rescale_lazily, rescale=kernel)
            arrays["starts"] = np.cumsum((0, *images.data.chunks[0]))
        dtype = output_dtype(images.data.dtype, self.out_range)
        return map_images(kernel, images.data, image_shape=images.image_shape, dtype=dtype, **arrays)


class _Ranges(NamedTuple):
    """Ends of the input and the output range, each float64 (n_images, n_channels)."""

    low: np.ndarray
    high: np.ndarray
    out_low: np.ndarray
    out_high: np.ndarray


class _Line(NamedTuple):
    """The map of a pixel: clipped to [low, high], less low, over width, times gain, plus offset.

    Arrays that broadcast against (n_images, n_rows, row length), in the precision of the arithmetic.
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
) -> np.ndarray:
    """Rescale a block of images, each as `skimage.exposure.rescale_intensity` would.

    Parameters
    ----------
    block : ndarray of shape (n_images, height, width[, n_channels]) or (n_images, n_pixels)
        Left as it is; may be read-only.
    in_range, out_range
        As in `IntensityRescaler`, with numbers for ``"stack"``: (min, max), or (2, n_channels) if `per_channel`.
    per_channel : bool
        Take each channel of each image as an image.
    percentiles : (low, high), optional
        For ``in_range="image"``.

    Returns
    -------
    ndarray of the shape of `block`, dtype as `output_dtype` gives

    Raises
    ------
    NonFiniteError
        Naming the first image of the block with NaN or infinity.
    """
    out = np.empty(block.shape, output_dtype(block.dtype, out_range))
    images, result = _as_rows(np.ascontiguousarray(block)), _as_rows(out)
    n_channels = block.shape[-1] if per_channel else 1
    ranges_of = partial(_ranges, in_range=in_range, out_range=out_range, percentiles=percentiles)
    if _one_table_serves(block, in_range, out_range, per_channel):
        first = images[:1]
        _look_up(_tables(block.dtype, ranges_of(first, _extremes(first, 1)), out.dtype), images, result)
        return out
    step = max(1, _TILE // (block.itemsize * prod(block.shape[1:])))
    for i in range(0, len(images), step):
        tile = images[i : i + step]
        extremes = _extremes(tile, n_channels)
        _refuse_nonfinite(*extremes, start=i)
        clip = percentiles is not None or not _is(in_range, "image")
        _rescale_tile(tile, ranges_of(tile, extremes), result[i : i + step], clip=clip)
    return out


def output_dtype(dtype: np.dtype, out_range: Any) -> np.dtype:
    """Dtype that `skimage.exposure.rescale_intensity` returns for images of `dtype`."""
    if isinstance(out_range, str):
        if out_range in ("dtype", "image"):
            return np.dtype(dtype.type)
        return np.dtype(np.uint16 if out_range in _PACKED else out_range)
    return np.dtype(np.float32 if dtype.type in (np.float16, np.float32) else np.float64)


def _rescale_lazily(
    block: np.ndarray, starts: np.ndarray, block_id: tuple[int, ...], *, rescale: partial
) -> np.ndarray:
    """Rescale a block of a lazy stack, so that an error names the position in the stack, not in the block."""
    try:
        return rescale(block)
    except NonFiniteError as error:
        raise NonFiniteError(int(starts[block_id[0]]) + error.index) from None


def _is(value: Any, word: str) -> bool:
    """Whether a parameter that may be an array is this word."""
    return isinstance(value, str) and value == word


def _as_rows(images: np.ndarray) -> np.ndarray:
    """(n_images, height, width x n_channels), a view of a contiguous block: channels vary fastest in a row."""
    height, *row = images.shape[1:] if images.ndim > 2 else (1, images.shape[1])
    return images.reshape(len(images), height, prod(row))


def _extremes(images: np.ndarray, n_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Minima and maxima (n_images, n_channels) of rows as `_as_rows` gives."""
    if n_channels == 1:
        planes = images.reshape(len(images), -1)
        return planes.min(axis=1)[:, None], planes.max(axis=1)[:, None]
    # First down the columns, where neighbours in memory stay apart and NumPy's vector loops apply.
    columns = (len(images), -1, n_channels)
    lowest, highest = images.min(axis=1).reshape(columns), images.max(axis=1).reshape(columns)
    return lowest.min(axis=1), highest.max(axis=1)


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
) -> _Ranges:
    """Find the ends of the ranges of each image and channel."""
    shape = extremes[0].shape
    if percentiles is not None:
        low, high = _percentiles(images, shape[1], percentiles)
    elif _is(in_range, "image"):
        low, high = extremes
    else:
        low, high = _numbers(in_range, images.dtype)
    low, high = (np.broadcast_to(end, shape).astype(np.float64) for end in (low, high))
    out_low, out_high = extremes if _is(out_range, "image") else _numbers(out_range, images.dtype)
    if isinstance(out_range, str) and out_range != "image":
        out_low = np.where(low >= 0, 0, out_low)
    out_low, out_high = (np.broadcast_to(end, shape).astype(np.float64) for end in (out_low, out_high))
    return _Ranges(low, high, out_low, out_high)


def _numbers(named_range: Any, dtype: np.dtype) -> np.ndarray:
    """Return the two ends of a range that does not depend on the images."""
    if isinstance(named_range, str):
        named_range = intensity_range(np.empty(0, dtype), named_range)
    return np.asarray(named_range, np.float64)


def _percentiles(images: np.ndarray, n_channels: int, percentiles: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """`numpy.percentile` of each image and channel, (n_images, n_channels) each, equal to the last bit.

    The percentiles of n values depend on four of them, and NumPy interpolates between those: `numpy.quantile`
    of the two neighbours does the very same arithmetic.
    """
    planes = images.reshape(len(images), -1, n_channels)
    if planes.dtype.kind == "b":
        planes = planes.view(np.uint8)
    position = (planes.shape[1] - 1) * (np.asarray(percentiles, np.float64) / 100)
    below = position.astype(np.intp)
    neighbours = np.empty((2, len(images), n_channels, 2), planes.dtype)
    for i, channel in np.ndindex(len(images), n_channels):
        neighbours[:, i, channel] = _order_statistics(planes[i, :, channel], below)
    ends = np.quantile(neighbours, position - below, axis=0)
    return ends[0, ..., 0], ends[1, ..., 1]


def _order_statistics(values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Values of two ascending `ranks` in sorted order, and below them the values of the next ranks."""
    values = values.copy()
    last = len(values) - 1
    if values.itemsize == 1:
        values.sort(kind="stable")  # radix sort; NumPy's selection is several times slower on bytes
        return values[[ranks, np.minimum(ranks + 1, last)]]
    found = np.empty((2, 2), values.dtype)
    done = 0
    for j, rank in enumerate(ranks):
        values[done:].partition(rank - done)  # one rank at a time: only then NumPy uses vector instructions
        found[:, j] = values[rank], values[min(rank + 1, last) :].min()
        done = rank
    return found


def _line(ranges: _Ranges, dtype: np.dtype, row_length: int) -> _Line:
    """Turn ranges into maps for rows of `row_length` values, in `dtype`."""
    low, high, out_low, out_high = ranges
    constant = low == high  # clipped to the output range, and not stretched
    arrays = (
        low,
        high,
        np.where(constant, 1, high - low),
        np.where(constant, 0, out_high - out_low),
        np.where(constant, np.clip(low, out_low, out_high), out_low),
    )
    n_channels = low.shape[1]
    along_rows = 1 if n_channels == 1 else row_length // n_channels
    return _Line(*(np.tile(array.astype(dtype), along_rows)[:, None] for array in arrays))


def _rescale_tile(images: np.ndarray, ranges: _Ranges, out: np.ndarray, *, clip: bool) -> None:
    """Rescale a few images by the way that is fastest for their dtype and size."""
    n_channels = ranges.low.shape[1]
    if images.itemsize == 1 and n_channels <= 256 and images[0].size >= _TABLE_PAYS * n_channels:
        look_up = _look_up if n_channels == 1 else _look_up_channels
        for table, image, target in zip(_tables(images.dtype, ranges, out.dtype), images, out, strict=True):
            look_up(table, image, target)
    else:
        line = _line(ranges, _precision(images.dtype), images.shape[2])
        _stretch(images, line, out, clip=clip)


def _precision(dtype: np.dtype) -> np.dtype:
    """Dtype in which NumPy combines images of `dtype` with Python floats, as scikit-image does."""
    return np.dtype(dtype.type if dtype.kind == "f" else np.float64)


def _stretch(images: np.ndarray, line: _Line, out: np.ndarray, *, clip: bool) -> None:
    """Scikit-image's arithmetic, in its order, a piece at a time."""
    precision = line.low.dtype
    ceiling = _ceiling(out.dtype, precision)
    scales, shifts = (line.gain != 1).any(), line.offset.any()
    scratch = None
    for piece in _pieces(images.shape):
        part, target = images[piece], out[piece]
        low, high, width, gain, offset = (array[piece[0]] for array in line)
        if out.dtype == precision:
            work = target
        else:
            scratch = np.empty(part.shape, precision) if scratch is None else scratch
            work = scratch[: part.shape[0], : part.shape[1]]
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


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Cut images into pieces that stay in cache, none larger than the first: whole images, or rows of one."""
    n_images, height, width = shape
    n_rows = min(height, max(1, _PIECE // width))
    n_whole = max(1, _PIECE // (height * width))
    for i in range(0, n_images, n_whole):
        for row in range(0, height, n_rows):
            yield slice(i, i + n_whole), slice(row, row + n_rows)


def _clipped(values: np.ndarray, low: np.ndarray, high: np.ndarray, out: np.ndarray) -> np.ndarray:
    if low.shape[2] == 1:
        return np.clip(values, low, high, out=out)
    np.maximum(values, low, out=out)  # numpy.clip is slow where its bounds vary along a row
    return np.minimum(out, high, out=out)


def _ceiling(dtype: np.dtype, precision: np.dtype) -> np.floating | None:
    """Largest float that casts to integers of `dtype`, where the floats go beyond that."""
    if dtype.kind not in "iu":
        return None
    top, digits = int(np.iinfo(dtype).max), np.finfo(precision).nmant + 1
    excess = top.bit_length() - digits
    return precision.type(top - top % 2**excess) if excess > 0 else None


def _one_table_serves(block: np.ndarray, in_range: Any, out_range: Any, per_channel: bool) -> bool:
    """Whether all pixels take the same map, so many of them that a table of all their values pays."""
    fixed = not (per_channel or _is(in_range, "image") or _is(out_range, "image"))
    return fixed and block.dtype.kind in "biu" and block.itemsize <= 2 and block.size >= 256**block.itemsize


def _tables(dtype: np.dtype, ranges: _Ranges, out_dtype: np.dtype) -> np.ndarray:
    """Results for every value of an 8- or 16-bit dtype, in the order of the bit patterns.

    Of shape (n_images, n_channels, n_values).
    """
    codes = np.arange(2 if dtype.kind == "b" else 256**dtype.itemsize, dtype=f"u{dtype.itemsize}")
    values = codes.view(dtype.newbyteorder("="))
    tables = np.empty((ranges.low.size, 1, len(values)), out_dtype)
    each = _Ranges(*(end.reshape(-1, 1) for end in ranges))
    _stretch(np.broadcast_to(values, tables.shape), _line(each, _precision(dtype), 1), tables, clip=True)
    return tables.reshape(*ranges.low.shape, -1)


def _look_up(table: np.ndarray, images: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with ``table[images]``; negative values index from the end, where the bit patterns put them."""
    table = table.reshape(-1)
    values, results = images.reshape(-1), out.reshape(-1)
    if values.itemsize == results.itemsize == 1 and len(values) > 256**2:
        even = len(values) // 2 * 2
        _take(_pairs(table), values[:even].view(np.uint16), results[:even].view(np.uint16))
        values, results = values[even:], results[even:]
    _take(table, values, results)


def _look_up_channels(tables: np.ndarray, image: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with each 8-bit value's entry in its channel's table."""
    n_channels, n_values = tables.shape
    starts = np.tile(np.arange(n_channels, dtype=np.uint16) * n_values, image.shape[1] // n_channels)
    step = max(1, _PIECE // image.shape[1])
    for row in range(0, len(image), step):
        indices = image[row : row + step].view(np.uint8) + starts
        np.take(tables.reshape(-1), indices, out=out[row : row + step], mode="wrap")


def _take(table: np.ndarray, indices: np.ndarray, out: np.ndarray) -> None:
    for i in range(0, len(indices), _PIECE):  # in pieces, since NumPy widens the indices to 8 bytes
        np.take(table, indices[i : i + _PIECE], out=out[i : i + _PIECE], mode="wrap")


def _pairs(table: np.ndarray) -> np.ndarray:
    """Table of two neighbouring bytes read as one 16-bit number: half as many look-ups, in either byte order."""
    full = np.zeros(256, np.uint16)
    full[: len(table)] = table.view(np.uint8)
    return np.bitwise_or.outer(full << 8, full).ravel()


def _stack_range(runner: PassRunner, n_channels: int | None) -> tuple[float, float] | np.ndarray:
    """Find the range of all images in one pass, (2, n_channels) unless that is None."""
    ends = runner.run(partial(_range_step, n_channels=n_channels or 1), _wider, label="range").astype(np.float64)
    return (float(ends[0, 0]), float(ends[1, 0])) if n_channels is None else ends


def _range_step(blocks: Sequence[np.ndarray], start: int, *, n_channels: int) -> np.ndarray:
    """Minima and maxima of some blocks, (2, n_channels), in their dtype."""
    extremes = [_extremes(_as_rows(block), n_channels) for block in blocks]
    lowest = np.concatenate([minima for minima, _ in extremes]).min(axis=0)
    highest = np.concatenate([maxima for _, maxima in extremes]).max(axis=0)
    return np.stack([lowest, highest])


def _wider(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([np.minimum(a[0], b[0]), np.maximum(a[1], b[1])])


def _check_ranges(in_range: Any, out_range: Any, percentiles: Any) -> None:
    _check_range("in_range", in_range, ("image", "stack", "dtype"))
    _check_range("out_range", out_range, ("dtype", "image"))
    if not isinstance(in_range, str) and in_range[0] > in_range[1]:
        raise ValueError(f"in_range={in_range!r} needs min <= max, e.g. ({in_range[1]!r}, {in_range[0]!r})")
    if percentiles is None:
        return
    if not (_is_pair(percentiles) and 0 <= percentiles[0] < percentiles[1] <= 100):
        raise ValueError(f"percentiles={percentiles!r} needs 0 <= low < high <= 100, e.g. percentiles=(2, 98)")
    if not _is(in_range, "image"):
        raise ValueError(
            f"percentiles={percentiles!r} are those of each image, and in_range={in_range!r} leaves no use for "
            f"them. Set in_range='image', or percentiles=None."
        )


def _check_range(name: str, value: Any, words: tuple[str, ...]) -> None:
    known = value in _DTYPE_NAMES or value in words if isinstance(value, str) else _is_pair(value)
    if not known:
        raise ValueError(
            f"{name}={value!r} is not known; it is one of {', '.join(map(repr, words))}, the name of a dtype "
            f"('uint8', 'uint10', 'float32', ...), or a pair of finite numbers (min, max)"
        )


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(end, Real) and isfinite(end) for end in value)
    )


def _check_stack(images: Images, channel_axis: Any) -> None:
    dtype, shape = images.data.dtype, images.data.shape
    if dtype.type not in DTYPE_RANGE:
        raise ValueError(
            f"X has dtype {dtype}, whose range scikit-image does not know. Convert it, e.g. X.astype('float64')."
        )
    if channel_axis is None or (len(shape) == 4 and channel_axis in (-1, 3)):
        return
    if channel_axis not in (-1, 3):
        raise ValueError(f"channel_axis={channel_axis!r} is not known; it is None or -1, the last axis")
    raise ValueError(
        f"channel_axis={channel_axis!r} needs a stack (n_images, height, width, n_channels), and X has shape "
        f"{shape}. Set channel_axis=None."
    )
