"""Readers of files."""

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from imgstack_ml.io.convert import Conversion
from imgstack_ml.io.readers import FileReader
from tests.lib.images import random_pixels, read_image, write_folder, write_image


def test_files_that_change_are_named(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", random_pixels((4, 4 + i))) for i in range(2)]
    with pytest.raises(BadImageError, match=r"1\.png'.* shape \(4, 5\), uint8 now, .*shape \(4, 4\)"):
        FileReader((4, 4), np.dtype("uint8")).read(paths)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_file_that_fails_in_decoding_is_named(tmp_path, on_error):
    write_folder(tmp_path, 3, suffix=".jpg")
    stack = open_stack(tmp_path, on_error=on_error)
    bad = tmp_path / "img1.jpg"
    bad.write_bytes(bad.read_bytes()[:-20])
    with pytest.raises(BadImageError, match=r"img1\.jpg") as caught:
        stack.data.compute()
    assert caught.value.path == str(bad)
    bad.unlink()
    with pytest.raises(BadImageError, match=r"img1\.jpg.*No such file"):
        stack.data.compute()


def test_identity_decodes_into_place(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.png", random_pixels((4, 4)))
    monkeypatch.setattr(Conversion, "apply", None)  # not called
    assert read_image(path).shape == (4, 4)
    assert Conversion().is_identity
    assert not Conversion(dtype="uint8").is_identity


def test_conversions_change_the_name_of_the_data(tmp_path):
    path = write_image(tmp_path / "a.png", random_pixels((8, 8)))
    options = [{}, {"shape": (4, 4)}, {"shape": (4, 4), "fit": "crop"}, {"mode": "RGB"}, {"dtype": "float32"}]
    assert len({open_stack(path, **some).data.name for some in options}) == len(options)
