import os
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import imgstack_ml as im
from imgstack_ml.datasets import load_faces
from tests.lib.images import write_image
from tests.lib.stacks import counted, photographs


@pytest.fixture(scope="session")
def faces():
    """50 images of 25 x 25, read-only."""
    images = load_faces()[0][::4].copy()
    images.flags.writeable = False
    return images


class Made(NamedTuple):
    """A report, and what it was made of."""

    report: im.Report
    pca: im.ImagePCA
    stack: object
    n_reads: float


@pytest.fixture(scope="session")
def faces_report(faces):
    """The report of the faces as a lazy stack, and how often that was read for it."""
    pca = im.ImagePCA(8).fit(faces)
    source = counted(faces, 10)
    report = im.generate_report(pca, source.data)
    return Made(report, pca, source.data, source.n_reads)


HOSTILE = "<img src=x onerror=alert(1)>&\"'$.png"


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory):
    """A report with an alert about two images: the name of one looks like HTML, that of the other is not UTF-8."""
    folder = tmp_path_factory.mktemp("hostile")
    for i, image in enumerate(photographs(30, (20, 16, 3))):
        write_image(folder / f"img{i}.png", image)
    Image.fromarray(np.full((20, 16, 3), 9, np.uint8)).save(folder / HOSTILE)
    Image.fromarray(np.full((20, 16, 3), 7, np.uint8)).save(folder / "last.png")
    os.rename(folder / "last.png", os.fsencode(folder) + b"/last\xff.png")
    stack = im.open_stack(folder)
    pca = im.ImagePCA(6).fit(stack)
    return Made(im.generate_report(pca, stack), pca, stack, 1)
