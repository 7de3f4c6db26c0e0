"""OME-TIFF: what its description may not say."""

import os

import numpy as np
import pytest
import tifffile

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.bombs import ome
from tests.lib.images import random_pixels


def test_part_of_an_ome_set_is_refused(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, random_pixels((2, 9, 7)), photometric="minisblack", metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as tiff:
        text = tiff.ome_metadata
    first, second = text.split("<TiffData", 1)[0], "</Pixels>" + text.split("</Pixels>", 1)[1]
    links = "".join(
        f'<TiffData IFD="0" FirstT="{t}" PlaneCount="1"><UUID FileName="{name}.ome.tif">urn:uuid:{t}</UUID></TiffData>'
        for t, name in enumerate("ab")
    )
    tifffile.imwrite(
        path, random_pixels((9, 7)), photometric="minisblack", description=first + links + second, metadata=None
    )
    with pytest.raises(BadImageError, match="one of several files of an OME-TIFF"):
        open_stack(path)


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
    if not named:  # it could be this very file
        np.testing.assert_array_equal(open_stack(path).data.compute(), random_pixels((3, 9, 7)))
        return
    with pytest.raises(BadImageError, match=r"a\.ome\.tif.*(several files|lacks some of the pages)"):
        open_stack(path)
