"""Copies among real images: each one is found, whatever was done to it, and nothing else."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from imgstack_ml.datasets import load_faces, load_textures, load_tissue, make_cells
from imgstack_ml.inspection.statistics import read_statistics
from imgstack_ml.report.duplicates import near_duplicates


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=70)
    return np.asarray(Image.open(file))


COPIES = {
    "equal": lambda image: image,
    "as JPEG": jpeg,
    "darker": lambda image: (image * 0.85).astype(np.uint8),
    "noisy": lambda image: (image + np.random.default_rng(0).normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8),
}


@cache
def collection_named(name):
    return {
        "faces": lambda: load_faces()[0][:100],
        "textures": lambda: load_textures()[0],
        "tissue": load_tissue,
        "cells": lambda: make_cells(80, 64),
    }[name]()


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("collection", ["faces", "textures", "tissue", "cells"])
def test_copies(collection, kind):
    images = collection_named(collection).copy()
    images[60] = COPIES[kind](images[7])
    images[23] = COPIES[kind](images[11])
    assert near_duplicates(read_statistics(images)) == [[7, 60], [11, 23]]
