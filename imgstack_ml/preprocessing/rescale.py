"""Intensity rescaling: scikit-image's `rescale_intensity` for every image of a stack, computed a block at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from skimage.exposure.exposure import DTYPE_RANGE

from ..base.lazy import map_images
from ..base.parts import map_pixels
from ..base.transformer import StackTransformer
from ..base.validation import Images, StackLike, check_images, is_pair
from ..linalg.large_integers import beyond_float64, exact_number
from ..passes.fit_together import PassLearner, fit_together
from ..passes.steps import Pass, range_pass
from .intensity import is_word, output_dtype, rescale_block

__all__ = ["IntensityRescaler"]

_DTYPE_NAMES = {name for name in DTYPE_RANGE if isinstance(name, str)}


class IntensityRescaler(PassLearner, StackTransformer):
    """Stretch or shrink the intensities of every image to a range, as scikit-image does for one.

    Each image becomes what ``skimage.exposure.rescale_intensity(image, in_range, out_range)`` returns for it: clipped
    to `in_range`, then mapped linearly to `out_range`. As in scikit-image, integer results are truncated, not rounded,
    and the pixels of a constant image are clipped to `out_range`. There is no mask: all pixels count.

    Parameters
    ----------
    in_range : {"image", "stack", "dtype"}, dtype name or (min, max), default="image"
        Range of intensities that is mapped to `out_range`; values outside of it are clipped.

        - ``"image"``: minimum and maximum of each image;
        - ``"stack"``: minimum and maximum of all images in `fit`, which takes one pass;
        - ``"dtype"``: the range of the images' dtype, (-1, 1) for floats;
        - the name of a dtype, or ``"uint10"``, ``"uint12"``, ``"uint14"``: its range;
        - a pair of numbers, min <= max.
    out_range : {"dtype", "image"}, dtype name or (min, max), default="dtype"
        Range of intensities after rescaling.

        - ``"dtype"``: the range of the images' dtype; the dtype is kept;
        - ``"image"``: minimum and maximum of each image; the dtype is kept;
        - the name of a dtype: its range, and the result has that dtype (uint16 for ``"uint10"`` and the like);
        - a pair of numbers: the result is float32 for float16 and float32 images, float64 for all others. A
          pair (1, 0) inverts the contrast.

        The lower end of a dtype's range is 0 where that of `in_range` is not negative.
    channel_axis : {None, -1}, default=None
        -1 rescales each channel of (n_images, height, width, n_channels) as a separate image. None gives all channels
        of an image one range, which keeps its colors.
    percentiles : (low, high), optional
        Percentiles of each image, or channel, to use in place of its minimum and maximum:
        ``in_range = np.percentile(image, (low, high))``. Only with ``in_range="image"``.

    Attributes
    ----------
    in_range_ : (min, max), ndarray of shape (2, n_channels) or str
        The range in use: for ``in_range="stack"`` the one found in `fit` (with ``channel_axis=-1`` an array of minima
        and maxima), otherwise `in_range`. Ends that float64 does not hold are ints.
    image_shape_ : tuple of int
        Shape of one image.
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
    n_features_in_ : int
        Pixels of one image times channels.
    feature_names_in_ : ndarray of str
        Column names, if `fit` got a data frame.
    n_passes_ : float
        Reads of a lazy stack in `fit`: 1 for ``in_range="stack"``, otherwise 0.

    Notes
    -----
    The arithmetic is scikit-image's, step by step: in float64 for integers, in the images' own precision for floats.
    For large 8-bit images, and for large 16-bit images with few values or one range for all, it runs once for each
    possible value, and pixels are looked up in a table of the results.

    Results differ from scikit-image's in a few cases. The largest value of an integer dtype may not be representable in
    that precision: for 64-bit integers, for 32-bit integers from float32 images, and for 16-bit integers from float16
    images. There scikit-image's cast overflows, which can make the brightest pixels the most negative. Here they get
    the largest representable value. Nor are results scikit-image's for integers beyond 2**53, which it rounds to
    float64: here the lower end of the range is subtracted before. Percentiles of signed integers do not overflow.

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

    def fit(self, X: StackLike, y: Any = None) -> IntensityRescaler:
        """Check the parameters and the images' shape; for ``in_range="stack"``, read the images once.

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
            If parameters are invalid, contradict each other, or do not suit these images.
        NonFiniteError
            If an image holds NaN or infinity. A lazy stack is checked here only with ``in_range="stack"``.
        """
        fit_together([self], X)
        return self

    def _needed_pass(self, images: Images) -> Pass | None:
        _check_ranges(self.in_range, self.out_range, self.percentiles)
        _check_stack(images, self.channel_axis)
        if not is_word(self.in_range, "stack"):
            return None
        n_channels = 1 if self.channel_axis is None else images.image_shape[-1]
        return range_pass(n_channels)

    def _learn(self, found: np.ndarray | None, images: Images) -> None:
        if found is None:
            self.in_range_ = self.in_range
            return
        if self.channel_axis is None:
            self.in_range_ = (exact_number(found[0, 0]), exact_number(found[1, 0]))
        else:
            self.in_range_ = found if beyond_float64(found) else found.astype(np.float64)

    def transform(self, X: StackLike) -> np.ndarray | da.Array:
        """Rescale the images.

        Parameters
        ----------
        X : ImageStack, dask array or array-like of shape (n_images, *image_shape_)
            The images.

        Returns
        -------
        ndarray or dask array of shape (n_images, *image_shape_)
            Lazy for lazy input; `out_range` determines the dtype.

        Raises
        ------
        NonFiniteError
            If an image holds NaN or infinity; names the image (and file). For a lazy stack this happens when the result
            is computed.
        """
        images = check_images(self, X, reset=False, finite=False)  # rescale_block refuses NaN
        _check_stack(images, self.channel_axis)
        kernel = partial(
            rescale_block,
            in_range=self.in_range_,
            out_range=self.out_range,
            per_channel=self.channel_axis is not None,
            percentiles=self.percentiles,
        )
        options = dict[str, Any](dtype=output_dtype(images.data.dtype, self.out_range), finite=False, fills=True)
        if not (is_word(self.in_range_, "image") or is_word(self.out_range, "image")):
            return map_pixels(kernel, images, all_channels=self.channel_axis is not None, **options)
        return map_images(kernel, images.data, image_shape=images.image_shape, files=images.files, **options)


def _check_ranges(in_range: Any, out_range: Any, percentiles: Any) -> None:
    _check_range("in_range", in_range, ("image", "stack", "dtype"))
    _check_range("out_range", out_range, ("dtype", "image"))
    if not isinstance(in_range, str) and in_range[0] > in_range[1]:
        raise ValueError(f"in_range={in_range!r} needs min <= max, e.g. ({in_range[1]!r}, {in_range[0]!r})")
    if percentiles is None:
        return
    if not (is_pair(percentiles) and 0 <= percentiles[0] < percentiles[1] <= 100):
        raise ValueError(f"percentiles={percentiles!r} needs 0 <= low < high <= 100, e.g. percentiles=(2, 98)")
    if not is_word(in_range, "image"):
        raise ValueError(
            f"percentiles={percentiles!r} replace the minimum and maximum of each image, which in_range={in_range!r} "
            f"does not use. Set in_range='image', or percentiles=None."
        )


def _check_range(name: str, value: Any, words: tuple[str, ...]) -> None:
    known = value in _DTYPE_NAMES or value in words if isinstance(value, str) else is_pair(value)
    if not known:
        raise ValueError(
            f"{name}={value!r} is not known; it is one of {', '.join(map(repr, words))}, the name of a dtype "
            f"('uint8', 'uint10', 'float32', ...), or a pair of finite numbers (min, max)"
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
