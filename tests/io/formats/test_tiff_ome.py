"""OME-TIFF: what its description may not say."""

import os
import re

import numpy as np
import pytest
import tifffile

from imgstack_ml import open_stack
from tests.lib.bombs import ome
from tests.lib.images import random_pixels


def write_part(path, own, links, n_pages, seed=0):
    """An OME-TIFF of pages of which each plane lies in the file that `links` names."""
    pixels = random_pixels((len(links), 9, 7))
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TYX", "Channel": {"Name": ["DAPI"]}})
    with tifffile.TiffFile(path) as tiff:
        text = re.sub(' UUID="[^"]*"', f' UUID="urn:uuid:{own}"', tiff.ome_metadata)
    first, second = text.split("<TiffData", 1)[0], "</Pixels>" + text.split("</Pixels>", 1)[1]
    data = "".join(
        f'<TiffData IFD="{i}" FirstT="{t}" PlaneCount="1">'
        f'<UUID FileName="{name}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
        for t, (name, i) in enumerate(links)
    )
    with tifffile.TiffWriter(path) as tiff:
        for i in range(n_pages):
            description = first + data + second if i == 0 else None
            tiff.write(
                random_pixels((9, 7), seed=seed + i), photometric="minisblack", description=description, metadata=None
            )


def test_files_of_a_set_give_their_own_planes(tmp_path):
    links = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)]
    write_part(tmp_path / "a.ome.tif", "a", links, 2)
    write_part(tmp_path / "b.ome.tif", "b", links, 3, seed=2)
    expected = [random_pixels((9, 7), seed=i) for i in range(5)]
    np.testing.assert_array_equal(open_stack(tmp_path).data.compute(), expected)
    np.testing.assert_array_equal(open_stack(tmp_path / "b.ome.tif").data.compute(), expected[2:])


def test_planes_that_were_not_recorded_are_counted(tmp_path):
    write_part(tmp_path / "a.ome.tif", "a", [("a", i) for i in range(5)], 3)
    with pytest.warns(UserWarning, match="describes 5 planes, of which 2 are missing; 3 whole images"):
        stack = open_stack(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(stack.data.compute(), [random_pixels((9, 7), seed=i) for i in range(3)])


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "other", ["pipe.tif", "{folder}/pipe.tif", "secret.tif", "../secret.tif", "{folder}/secret.tif"]
)
def test_files_named_in_a_tiff_are_not_opened(tmp_path, monkeypatch, named, other):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    os.mkfifo(tmp_path / "pipe.tif")  # opening it would wait without an end
    secret = random_pixels((3, 9, 7), seed=1)
    for folder in (tmp_path, tmp_path / "in"):
        tifffile.imwrite(folder / "secret.tif", secret, photometric="minisblack", metadata=None)
    link = f'PlaneCount="3"><UUID FileName="{other.format(folder=tmp_path)}">%s</UUID></TiffData>'
    path = tmp_path / "a.ome.tif"
    ome(path, {'PlaneCount="3"/>': link % "@OWN"})  # a file that was called otherwise once
    np.testing.assert_array_equal(open_stack(path).data.compute(), random_pixels((3, 9, 7)))
    ome(path, {'PlaneCount="3"/>': link % "urn:uuid:1"}, named=named)
    np.testing.assert_array_equal(open_stack(path).data.compute(), random_pixels((3, 9, 7)))
