"""Statistics of each image in one read, against NumPy image by image."""

import dask
import numpy as np
import pytest

from imgstack_ml import NonFiniteError, open_stack
from imgstack_ml.datasets import load_digits, load_faces, load_textures, load_tissue, make_cells
from imgstack_ml.inspection.statistics import image_statistics, odd_ranges, read_statistics
from tests.lib.images import write_folder, write_image
from tests.lib.stacks import counted


def images_of(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(3, 2, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def assert_statistics(found, images):
    channels = images if images.ndim == 4 else images[..., np.newaxis]
    channels = channels.reshape(len(images), -1, channels.shape[-1])
    np.testing.assert_array_equal(found.minima, channels.min(axis=1))
    np.testing.assert_array_equal(found.maxima, channels.max(axis=1))
    np.testing.assert_allclose(found.means, channels.mean(axis=1, dtype=np.float64), rtol=1e-12, atol=1e-12)
    assert len(np.unique(found.digests)) == len({image.tobytes() for image in images})


# Each dtype with each shape; of the ways to compute, each of the four with several of both.
WAYS = [(1, "threads"), (5, "synchronous"), (23, "threads"), (5, "threads")]
DTYPES = ["uint8", "uint16", "int32", "float32", "float64"]
SHAPES = [(9, 7), (16, 20, 3), (5, 30, 2), (40,), (1, 1)]
CASES = [(shape, dtype, *WAYS[(i + j) % len(WAYS)]) for i, shape in enumerate(SHAPES) for j, dtype in enumerate(DTYPES)]


@pytest.mark.parametrize(("image_shape", "dtype", "chunks", "scheduler"), CASES)
def test_statistics_are_those_of_numpy_in_one_read(image_shape, dtype, chunks, scheduler):
    images = images_of((23, *image_shape), dtype)
    source = counted(images, chunks)
    with dask.config.set(scheduler=scheduler):
        found = read_statistics(source.data)
    assert source.n_reads == 1
    assert_statistics(found, images)
    for field, expected in zip(found, image_statistics(images), strict=True):
        np.testing.assert_array_equal(field, expected)


def test_share_at_the_top_of_each_channel():
    images = images_of((3, 50, 40, 3), "uint8") // 2
    images[1, :10, :, 2] = 255
    found = image_statistics(images)
    expected = (images == images.max(axis=(1, 2), keepdims=True)).mean(axis=(1, 2))
    np.testing.assert_allclose(found.at_top, expected)
    assert found.at_top[1, 2] == 0.2


def test_pictures_of_few_levels_have_no_top():
    assert np.all(image_statistics(load_digits()[0]).at_top == 0)
    masks = images_of((4, 64, 64), "uint8") > 100
    assert np.all(image_statistics(masks.astype(np.uint8) * 255).at_top == 0)


def test_signatures_are_cell_means_without_brightness_and_contrast():
    images = images_of((6, 24, 16), "uint8")
    cells = images.reshape(6, 8, 3, 8, 2).mean(axis=(2, 4)).reshape(6, 64)
    expected = (cells - cells.mean(axis=1, keepdims=True)) / cells.std(axis=1, keepdims=True)
    np.testing.assert_allclose(image_statistics(images).signatures, expected, atol=2e-3)
    brighter = 10 + 1.7 * images.astype(np.float64)
    np.testing.assert_allclose(image_statistics(brighter).signatures, expected, atol=2e-3)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_constant_images_have_no_signature(value):
    found = image_statistics(np.full((2, 10, 10), value, np.uint8))
    assert np.isnan(found.signatures).all()
    assert not odd_ranges(found).any()


def test_files_with_nan_are_named(tmp_path):
    write_folder(tmp_path, 5, (6, 6), "float32", ".tif")
    write_image(tmp_path / "img3.tif", np.full((6, 6), np.nan, np.float32))
    with pytest.raises(NonFiniteError, match=r"img3\.tif"):
        read_statistics(open_stack(tmp_path))


def test_dim_images_are_odd():
    cells = make_cells(300, 48)
    odd = np.flatnonzero(odd_ranges(read_statistics(cells)))
    width = np.ptp(cells.astype(int), axis=(1, 2, 3))
    assert len(odd) >= 10
    np.testing.assert_array_equal(odd, np.flatnonzero(width < np.median(width) / 2))


def test_no_range_is_odd_in_clean_collections():
    for images in (load_faces()[0][:100], load_digits()[0], load_textures()[0], load_tissue()):
        assert not odd_ranges(read_statistics(images)).any()
