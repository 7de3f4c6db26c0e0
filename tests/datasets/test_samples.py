"""Samples by name, and folders of sample images."""

import numpy as np
import pytest
from PIL import Image

from imgstack_ml.datasets import SAMPLES, write_sample
from imgstack_ml.errors import StoreError


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
