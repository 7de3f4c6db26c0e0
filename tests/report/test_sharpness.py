"""Images out of focus, enlarged or strongly compressed are found among sharp ones."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

import imgstack_ml as im
from imgstack_ml.report.sharpness import concatenate_sharpness, images_on_a_grid, images_without_detail, sharpness_of

UNSHARP = [7, 30, 31]


def scenes(n=60, side=64, n_channels=3, dtype=np.uint8):
    """Patches of fields and grain, each lit in its own way."""
    rng = np.random.default_rng(5)
    fields = gaussian_filter(rng.normal(size=(n, side, side, n_channels)), (0, 5, 5, 0))
    grain = gaussian_filter(rng.normal(size=(n, side, side, 1)), (0, 0.7, 0.7, 0))
    images = 120 + 20 * (fields / fields.std() + grain / grain.std()) * rng.uniform(0.8, 1.2, (n, 1, 1, 1))
    images = images.clip(1, 250) + rng.normal(0, 1, images.shape)
    images = images[..., 0] if n_channels == 1 else images
    return np.rint(images).astype(dtype)


def blurred(image):
    return gaussian_filter(image.astype(float), (2.5, 2.5, 0)[: image.ndim])


def enlarged(image):
    return np.repeat(np.repeat(image[::4, ::4], 4, axis=0), 4, axis=1)


def enlarged_smoothly(image):
    return zoom(image[::4, ::4].astype(float), (4, 4, 1)[: image.ndim], order=1)


def compressed(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=5)
    return np.asarray(Image.open(file))


def alerts_about(images, pca=None):
    pca = im.ImagePCA(8, random_state=0).fit(images) if pca is None else pca
    return im.generate_report(pca, images).alerts


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("fault", [blurred, enlarged, enlarged_smoothly, compressed])
def test_unsharp_images_are_named(fault, n_channels):
    images = scenes(n_channels=n_channels)
    for i in UNSHARP:
        images[i] = np.rint(fault(images[i])).clip(0, 255)
    alert = alerts_about(images)["sharpness"]
    assert alert.images.tolist() == UNSHARP
    assert alert.title == "3 images less sharp than the others"


@pytest.mark.parametrize("factor", [1e-140, 1e-6, 1e6, 1e140])
def test_units_change_nothing(factor):
    images = scenes(n_channels=1, dtype=np.float64)
    for i, fault in zip(UNSHARP, (blurred, enlarged, enlarged_smoothly), strict=True):
        images[i] = fault(images[i])
    assert alerts_about(images * factor)["sharpness"].images.tolist() == UNSHARP


def test_collections_of_differing_sharpness_are_silent():
    images = scenes().astype(float)
    depths = np.random.default_rng(6).uniform(0, 3, len(images))
    images = np.array([gaussian_filter(image, (depth, depth, 0)) for image, depth in zip(images, depths, strict=True)])
    assert alerts_about(np.rint(images).astype(np.uint8)) == {}


def test_what_many_images_have_is_common():
    images = scenes(n_channels=1)
    images[::3] = [enlarged(image) for image in images[::3]]
    assert not images_on_a_grid(sharpness_of(images)).any()
    images[7] = np.repeat(np.repeat(images[7, ::3, ::3], 3, axis=0), 3, axis=1)[
        :64, :64
    ]  # squares of 3 pixels, which the others do not have
    assert np.flatnonzero(images_on_a_grid(sharpness_of(images))).tolist() == [7]


def test_skies_and_fields_with_cells_are_sharp():
    """A sky has the noise of a smooth field; a field with cells has the noise of empty ones."""
    rng = np.random.default_rng(7)
    images = scenes(n_channels=1, dtype=np.float64)
    images[5] = 120 + np.linspace(-60, 60, 64) + rng.normal(0, 1, (64, 64))
    cells = 100 + rng.normal(0, 2, (60, 64, 64))
    y, x = np.mgrid[:64, :64]
    cells[9] += 80 * np.exp(-((y - 30) ** 2 + (x - 20) ** 2) / 50)
    for stack in (images, cells):
        found = images_without_detail(sharpness_of(stack), np.zeros(60, bool), np.zeros(60), in_movie=False)
        assert not found.any()


def test_images_are_compared_within_groups_and_frames_with_their_neighbours():
    images = scenes(n_channels=1, dtype=np.float64)
    none, groups = np.zeros(60, bool), np.arange(60) % 2
    images[1::2] = gaussian_filter(images[1::2], (0, 1.5, 1.5))  # a class of smooth things
    images[4] = gaussian_filter(images[4], 1.5)
    found = images_without_detail(sharpness_of(images), none, groups, in_movie=False)
    assert np.flatnonzero(found).tolist() == [4]
    movie = np.array([gaussian_filter(image, 0.03 * i) for i, image in enumerate(scenes(n_channels=1, dtype=float))])
    assert not images_without_detail(sharpness_of(movie), none, none, in_movie=True).any()
    movie[20] = gaussian_filter(movie[20], 3)
    found = images_without_detail(sharpness_of(movie), none, none, in_movie=True)
    assert np.flatnonzero(found).tolist() == [20]
    movie[20] = 7
    assert not images_without_detail(sharpness_of(movie), none, none, in_movie=True).any()


@pytest.mark.parametrize(("shape", "dtype"), [((20, 17), "uint8"), ((40, 19, 3), "float32"), ((16, 30, 2), "int64")])
def test_differences_are_those_of_numpy(shape, dtype):
    images = (100 * np.random.default_rng(8).random((5, *shape))).astype(dtype)
    found = concatenate_sharpness([sharpness_of(images[:2]), sharpness_of(images[2:])])
    values = images.reshape(5, *shape[:2], -1).astype(np.float64)
    down, across = (max(1, side // 20) for side in shape[:2])
    rows, columns = values[:, ::down], values[:, :, ::across]
    fine = [np.square(np.diff(rows, n=2, axis=2)), np.square(np.diff(columns, n=2, axis=1))]
    finest = np.sqrt(np.mean([squares.mean(axis=(1, 2, 3)) for squares in fine], axis=0))
    np.testing.assert_allclose(found.finest, finest, rtol=1e-5)
    np.testing.assert_allclose(found.contrast, np.sqrt(rows.var(axis=(1, 2)).mean(axis=1)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5), (3, 3), (5,), (15, 40), (3, 3, 3), (1, 1)])
def test_of_tiny_images_nothing_is_known(shape):
    found = sharpness_of(np.random.default_rng(9).normal(size=(30, *shape)))
    assert np.isnan(found.finest).all()
    assert not images_on_a_grid(found).any()
    assert not images_without_detail(found, np.zeros(30, bool), np.zeros(30), in_movie=False).any()


def test_of_missing_pixels_nothing_is_known():
    images = scenes(n_channels=1, dtype=np.float64)
    images[3], images[4] = blurred(images[3]), blurred(images[4])
    images[4, 5, 7] = np.nan
    images[5, ::2] = np.nan
    found = sharpness_of(images)
    assert not np.isfinite(found.contrast[5])
    named = images_without_detail(found, np.zeros(60, bool), np.zeros(60), in_movie=False)
    assert named[3]
    assert not named[5]
    mask = np.ones((64, 64), bool)
    mask[:8] = False
    images = scenes(n_channels=1)
    assert "sharpness" not in alerts_about(images, im.ImagePCA(4, mask=mask).fit(images))
