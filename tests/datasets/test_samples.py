import numpy as np
import pytest
from PIL import Image

from imgstack_ml.datasets import (
    SAMPLES,
    cell_image,
    load_digits,
    load_faces,
    load_textures,
    load_tissue,
    make_cells,
    make_planted,
    write_sample,
)
from imgstack_ml.errors import StoreError


@pytest.mark.parametrize(
    ("load", "shape", "names"),
    [
        (load_faces, (200, 25, 25), {"face", "nonface"}),
        (load_digits, (1797, 8, 8), set("0123456789")),
        (load_textures, (192, 64, 64), {"brick", "grass", "gravel"}),
    ],
)
def test_labelled_samples(load, shape, names):
    stack, labels = load()
    assert stack.shape == shape
    assert stack.dtype == np.uint8
    assert stack.max() > 200
    assert labels.shape == shape[:1]
    assert set(labels) == names


def test_digits_keep_their_17_levels():
    from sklearn.datasets import load_digits as reference

    stack, labels = load_digits()
    assert np.array_equal(np.rint(stack / 255 * 16), reference().images)
    assert np.array_equal(labels.astype(int), reference().target)


def test_patches_put_together_are_the_photograph():
    from skimage.data import immunohistochemistry

    patches = load_tissue(128)
    assert patches.shape == (16, 128, 128, 3)
    rows = [np.hstack(patches[row : row + 4]) for row in range(0, 16, 4)]
    assert np.array_equal(np.vstack(rows), immunohistochemistry())


@pytest.mark.parametrize("patch", [0, 513])
def test_patch_must_fit(patch):
    with pytest.raises(ValueError, match=f"patch={patch} must lie between 1 and 512"):
        load_textures(patch)


def test_cell_image_depends_on_its_arguments_alone():
    stack = make_cells(4, 32, seed=7)
    assert stack.dtype == np.uint8
    assert np.array_equal(stack[3], cell_image(3, 32, seed=7))
    assert np.array_equal(stack[:2], make_cells(2, 32, seed=7))
    assert not np.array_equal(stack[0], stack[1])
    assert not np.array_equal(stack[0], cell_image(0, 32, seed=8))


def test_cells_have_what_the_tutorial_finds_in_its_own():
    stack = make_cells(200, 48)
    brightest = stack.max(axis=(1, 2, 3))
    red, green, _ = stack.mean(axis=(1, 2)).T
    assert 0.05 < np.mean(brightest < 150) < 0.2  # a very different intensity range
    assert np.median(brightest) == 255
    assert 0.25 < np.mean(red < green) < 0.75
    # Dark background, bright cells.
    assert np.median(stack) < 50


def test_spectrum_of_cells_decays_but_is_not_of_low_rank():
    rows = make_cells(120, 48).reshape(120, -1).astype(np.float64)
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    share = values / values.sum()
    assert share[0] > 0.1
    assert share[:10].sum() < 0.7
    assert np.all(share[:119] > 1e-5)  # 120 centred images have rank 119 at most


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6), (np.uint16, 1e-3), (np.uint8, 2e-2)]
)
@pytest.mark.parametrize("image_shape", [(9, 7), (6, 5, 3)])
def test_planted_components_are_found(dtype, tolerance, image_shape):
    planted = make_planted(60, image_shape, n_modes=4, dtype=dtype, decay=0.7)
    rows = planted.stack.reshape(60, -1).astype(np.float64)
    mean = rows.mean(axis=0)
    _, s, Vt = np.linalg.svd(rows - mean, full_matrices=False)
    modes = planted.modes.reshape(4, -1)

    assert planted.stack.dtype == dtype
    assert planted.modes.shape == (4, *image_shape)
    np.testing.assert_allclose(modes @ modes.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(s[:4], planted.singular_values, rtol=tolerance)
    np.testing.assert_allclose(np.abs(np.sum(modes * Vt[:4], axis=1)), 1, rtol=tolerance)
    np.testing.assert_allclose(mean, planted.mean.ravel(), rtol=tolerance)


def test_planted_noise_is_a_share_of_the_range():
    quiet = make_planted(200, (20, 20), dtype=np.uint16)
    noisy = make_planted(200, (20, 20), dtype=np.uint16, noise=0.01)
    noise = noisy.stack.astype(float) - quiet.stack
    assert noise.std() == pytest.approx(0.01 * 65535, rel=0.02)


def test_planted_refuses_what_it_cannot_plant():
    with pytest.raises(ValueError, match="n_modes=5 must lie between 1 and 4"):
        make_planted(5, (8, 8), n_modes=5)
    with pytest.raises(ValueError, match="unsigned integer"):
        make_planted(5, (8, 8), n_modes=2, dtype=np.int16)


@pytest.mark.parametrize("name", SAMPLES)
def test_written_sample_reads_back(name, tmp_path):
    files = write_sample(name, tmp_path / "new" / name, n=7)
    samples = list(SAMPLES[name](7, 0))
    assert files == [str(tmp_path / "new" / name / sample.file) for sample in samples]
    assert sorted(files) == sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    for file, sample in zip(files, samples, strict=True):
        pixels = np.asarray(Image.open(file))
        assert pixels.shape == sample.image.shape
        if name == "cells":  # JPEG
            assert np.abs(pixels.astype(int) - sample.image).mean() < 5
        else:
            assert np.array_equal(pixels, sample.image)


def test_labels_become_folders_and_share_the_number(tmp_path):
    files = write_sample("faces", tmp_path, n=5)
    assert [file.removeprefix(str(tmp_path)) for file in files] == [
        "/face/0001.png",
        "/nonface/0001.png",
        "/face/0002.png",
        "/nonface/0002.png",
        "/face/0003.png",
    ]


@pytest.mark.parametrize(("name", "total"), [("faces", 200), ("digits", 1797), ("textures", 192), ("tissue", 64)])
def test_all_images_by_default_each_once(name, total):
    files = {sample.file for sample in SAMPLES[name](None, 0)}
    assert len(files) == total


def test_seed_makes_other_cells(tmp_path):
    (first,) = write_sample("cells", tmp_path / "a", n=1)
    (second,) = write_sample("cells", tmp_path / "b", n=1, seed=1)
    assert not np.array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(second)))


def test_folder_in_use_is_refused_and_kept(tmp_path):
    kept = tmp_path / "notes.txt"
    kept.write_text("mine")
    with pytest.raises(StoreError, match="is not empty; choose a new or empty folder"):
        write_sample("tissue", tmp_path, n=2)
    with pytest.raises(StoreError, match="is a file; choose a new"):
        write_sample("tissue", kept, n=2)
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("dogs", None, "no sample named 'dogs'; there are faces, digits"),
        ("faces", 201, "n=201, but this sample has 200 images"),
        ("tissue", 65, "n=65, but this sample has 64 images"),
        ("cells", 0, "n=0 must be at least 1"),
    ],
)
def test_impossible_samples_write_nothing(name, n, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_sample(name, tmp_path / "out", n=n)
    assert not (tmp_path / "out").exists()
