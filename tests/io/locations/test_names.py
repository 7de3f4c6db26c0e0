"""Names of files: members of archives, and their natural order."""

import numpy as np
import pytest
import tifffile

from imgstack_ml import open_stack
from imgstack_ml.io.locations.names import split_member
from tests.lib.images import list_files, random_pixels, relative, touch


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("/a/b.png", None),
        ("/a/b::c.png", None),
        ("/a.zip", None),
        ("/a.zip::b/c.png", ("/a.zip", "b/c.png")),
        ("/a.TAR::b::c.png", ("/a.TAR", "b::c.png")),
        ("simplecache::s3://b/x.zip::c.png", ("simplecache::s3://b/x.zip", "c.png")),
    ],
)
def test_split_member(name, parts):
    assert split_member(name) == parts


def test_file_whose_name_looks_like_a_members(tmp_path):
    pixels = random_pixels((5, 6, 3), np.uint8)
    path = tmp_path / "a.zip::b.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    (image,) = open_stack([path]).data.compute()
    np.testing.assert_array_equal(image, pixels)


def test_names_equal_but_for_case_or_zeros_have_one_order(tmp_path):
    touch(tmp_path, "a1.png", "A1.png", "a01.png", "A01.png")
    assert relative(list_files(tmp_path), tmp_path) == ["A01.png", "A1.png", "a01.png", "a1.png"]
