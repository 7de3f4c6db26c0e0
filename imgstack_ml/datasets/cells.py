"""Generated images of fluorescent cells, in any number and at any size."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["N_CELL_IMAGES", "cell_image", "make_cells"]

N_CELL_IMAGES = 844  # the size of the tutorial's own collection


def make_cells(n: int = N_CELL_IMAGES, size: int = 256, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Generate images that look like fluorescent cells under a microscope.

    About one image in ten is dim, with a very different intensity range from the others; some are greener
    than red, others redder than green.

    Parameters
    ----------
    n : int, default=844
        Number of images; the default is the size of the tutorial's collection.
    size : int, default=256
        Height and width in pixels. The same scene is drawn at any size.
    seed : int, default=0
        Another seed, other images.

    Returns
    -------
    stack : ndarray of shape (n, size, size, 3), uint8
        RGB images. Image i is ``cell_image(i, size, seed=seed)``, whatever ``n`` is.

    Examples
    --------
    >>> from imgstack_ml.datasets import make_cells
    >>> make_cells(3, 64).shape
    (3, 64, 64, 3)
    """
    stack = np.empty((n, size, size, 3), dtype=np.uint8)
    for index in range(n):
        stack[index] = cell_image(index, size, seed=seed)
    return stack


def cell_image(index: int, size: int = 256, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Generate one image of the endless collection that `make_cells` begins.

    Parameters
    ----------
    index : int
        Number of the image, from 0.
    size : int, default=256
        Height and width in pixels.
    seed : int, default=0
        Number of the collection.

    Returns
    -------
    image : ndarray of shape (size, size, 3), uint8
        RGB image; a function of the three arguments alone, so that any image can be made by itself.
    """
    rng = np.random.default_rng([seed, index])
    scene = _draw_scene(rng)
    light = _render(scene, size)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32)
    # The camera's grain follows the light, as shot noise does; a dim image is not mostly noise.
    pixels = 255 * scene.exposure * light * (1 + 0.06 * grain) + grain
    return np.rint(pixels.clip(0, 255)).astype(np.uint8)


class _Spots(NamedTuple):
    """Gaussian spots in the unit square."""

    y: np.ndarray
    x: np.ndarray
    width: np.ndarray  # standard deviation, as a share of the side
    weight: np.ndarray


class _Scene(NamedTuple):
    """What one image shows, free of its size in pixels."""

    bodies: _Spots  # several overlapping lobes make a cell of irregular outline
    greenness: np.ndarray  # of each lobe, 0 (red stain) to 1 (green stain)
    nuclei: _Spots
    granules: _Spots
    background: np.ndarray  # RGB of the medium
    illumination: np.ndarray  # cosine coefficients of the lamp's unevenness
    exposure: float


def _draw_scene(rng: np.random.Generator) -> _Scene:
    """Draw places, colours and lighting at random."""
    n_cells, n_lobes, n_granules = int(rng.integers(12, 30)), 4, 5
    y, x = rng.uniform(-0.05, 1.05, (2, n_cells))
    radius = rng.uniform(0.035, 0.075, n_cells)
    image_greenness = rng.beta(1.6, 1.9)
    greenness = np.clip(image_greenness + 0.18 * rng.standard_normal(n_cells), 0, 1)
    is_dim = rng.random() < 0.1
    frequency = np.arange(4)
    return _Scene(
        bodies=_scatter(rng, y, x, radius, n_lobes, spread=0.55, width=(0.45, 0.7), weight=(0.7, 1.0)),
        greenness=np.repeat(greenness, n_lobes),
        nuclei=_scatter(rng, y, x, radius, 1, spread=0.2, width=(0.3, 0.45), weight=(0.8, 1.2)),
        granules=_scatter(rng, y, x, radius, n_granules, spread=0.6, width=(0.06, 0.16), weight=(0.3, 1.3)),
        background=rng.uniform(0.02, 0.13, 3),
        illumination=0.4 * rng.standard_normal((4, 4)) / (1 + frequency[:, None] + frequency) ** 1.5,
        exposure=rng.uniform(0.15, 0.3) if is_dim else rng.uniform(0.7, 1.15),
    )


def _scatter(
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    radius: np.ndarray,
    n_each: int,
    *,
    spread: float,
    width: tuple[float, float],
    weight: tuple[float, float],
) -> _Spots:
    """Scatter `n_each` spots about each cell; spread and width are in units of the cell's radius."""
    y, x, radius = (np.repeat(values, n_each) for values in (y, x, radius))
    dy, dx = spread * radius * rng.standard_normal((2, len(radius)))
    return _Spots(y + dy, x + dx, radius * rng.uniform(*width, len(radius)), rng.uniform(*weight, len(radius)))


def _render(scene: _Scene, size: int) -> np.ndarray:
    """Draw the scene as light of shape (size, size, 3), dark 0 to bright 1 and above."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    field = _paint(scene.bodies, grid)
    green_field = _paint(scene.bodies._replace(weight=scene.bodies.weight * scene.greenness), grid)
    body = _edge(field, 0.55, 9)
    nucleus = _edge(_paint(scene.nuclei, grid), 0.5, 8)
    granules = _paint(scene.granules, grid) * body
    green = green_field / (field + 1e-6)

    stain = body * (0.35 + 0.25 * np.minimum(field, 1.5)) * (1 - 0.5 * nucleus) + 0.6 * granules
    light = np.empty((size, size, 3), dtype=np.float32)
    light[..., 0] = stain * (1 - green) + 0.15 * granules
    light[..., 1] = stain * green + 0.15 * granules
    light[..., 2] = 0.12 * stain + 0.55 * nucleus
    light += scene.background.astype(np.float32)

    waves = np.cos(np.pi * np.arange(len(scene.illumination))[:, None] * grid).astype(np.float32)
    lamp = np.exp(waves.T @ scene.illumination.astype(np.float32) @ waves)
    return light * lamp[..., None]


def _paint(spots: _Spots, grid: np.ndarray) -> np.ndarray:
    """Sum Gaussian spots on a square grid: each is a product in y and x, so one matrix product draws all."""

    def profile(centre: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((grid - centre[:, None]) / spots.width[:, None]) ** 2).astype(np.float32)

    return (profile(spots.y).T * spots.weight.astype(np.float32)) @ profile(spots.x)


def _edge(field: np.ndarray, level: float, steepness: float) -> np.ndarray:
    """Turn a smooth field into regions with a soft edge where it crosses a level."""
    return 1 / (1 + np.exp(steepness * (level - field)))
