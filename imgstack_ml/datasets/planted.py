"""Stacks whose principal components are known."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["PlantedStack", "make_planted"]


class PlantedStack(NamedTuple):
    """A stack and its principal components, from `make_planted`.

    Examples
    --------
    >>> from imgstack_ml.datasets import make_planted
    >>> stack, mean, singular_values, modes = make_planted(20, (4, 5), n_modes=3)
    >>> stack.shape, mean.shape, singular_values.shape, modes.shape
    ((20, 4, 5), (4, 5), (3,), (3, 4, 5))
    """

    stack: np.ndarray
    mean: np.ndarray
    singular_values: np.ndarray
    modes: np.ndarray


def make_planted(
    n: int,
    image_shape: tuple[int, ...],
    *,
    n_modes: int = 5,
    noise: float = 0.0,
    dtype: npt.DTypeLike = np.float64,
    seed: int = 0,
    decay: float = 0.5,
) -> PlantedStack:
    """Make a stack whose principal components are known.

    Parameters
    ----------
    n : int
        Number of images, at least ``n_modes + 1``.
    image_shape : tuple of int
        Shape of one image, e.g. ``(64, 64)`` or ``(64, 64, 3)``.
    n_modes : int, default=5
        Number of principal components.
    noise : float, default=0.0
        Standard deviation of white noise, as a share of the intensity range. The components returned are those
        before noise is added and values are rounded to an integer dtype.
    dtype : dtype, default=float64
        Floats are around 0.5, within [0, 1] without noise; unsigned integers use the range 0 to their maximum.
    seed : int, default=0
        Seed of the random numbers.
    decay : float, default=0.5
        Ratio of each singular value to the one before.

    Returns
    -------
    PlantedStack
        ``stack`` (n, *image_shape), ``mean`` (*image_shape), ``singular_values`` (n_modes,) of the centred
        stack, and its components as images, the orthonormal ``modes`` (n_modes, *image_shape) of arbitrary sign.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml.datasets import make_planted
    >>> planted = make_planted(20, (4, 5), n_modes=3)
    >>> centred = (planted.stack - planted.stack.mean(axis=0)).reshape(20, -1)
    >>> bool(np.allclose(np.linalg.svd(centred)[1][:3], planted.singular_values))
    True
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "uf":
        raise ValueError(f"dtype={dtype} must be a float or an unsigned integer, e.g. dtype=np.uint8")
    n_features = int(np.prod(image_shape))
    if not 1 <= n_modes <= min(n - 1, n_features):
        raise ValueError(f"n_modes={n_modes} must lie between 1 and {min(n - 1, n_features)} for {n} images")
    rng = np.random.default_rng(seed)
    U = _orthonormal(rng, n, n_modes, centred=True)
    V = _orthonormal(rng, n_features, n_modes)
    s = decay ** np.arange(n_modes, dtype=np.float64)
    deviation = (U * s) @ V.T
    full = float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
    scale = 0.4 * full / np.abs(deviation).max()  # values are within 0.1 and 0.9 of the range
    mean = np.full(n_features, 0.5 * full)
    pixels = mean + scale * deviation
    if noise:
        pixels += noise * full * rng.standard_normal(pixels.shape)
    if dtype.kind == "u":
        pixels = np.rint(pixels).clip(0, full)
    return PlantedStack(
        stack=pixels.reshape(n, *image_shape).astype(dtype),
        mean=mean.reshape(image_shape),
        singular_values=scale * s,
        modes=V.T.reshape(n_modes, *image_shape),
    )


def _orthonormal(rng: np.random.Generator, n_rows: int, n_cols: int, centred: bool = False) -> np.ndarray:
    """Return random orthonormal columns, each of mean 0 if `centred`."""
    random = rng.standard_normal((n_rows, n_cols))
    if centred:
        random -= random.mean(axis=0)
    return np.linalg.qr(random)[0]
