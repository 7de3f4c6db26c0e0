"""Headers of many files."""

import os

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError, MixedStackError
from imgstack_ml.io import scan as scanning
from imgstack_ml.io.formats.registry import find_images
from imgstack_ml.io.locations.open import read_state
from tests.lib.images import random_pixels, write_folder, write_image


def test_unchanged_files_are_not_opened_again(tmp_path, monkeypatch):
    write_folder(tmp_path, 5)
    first = open_stack(tmp_path)
    opened = []
    original = find_images.__wrapped__.__globals__["open_bytes"]
    monkeypatch.setitem(
        find_images.__wrapped__.__globals__, "open_bytes", lambda name: opened.append(name) or original(name)
    )
    assert open_stack(tmp_path).data.name == first.data.name
    assert not opened
    write_image(tmp_path / "img3.png", random_pixels((8, 6, 3), seed=9))
    assert open_stack(tmp_path).data.name != first.data.name
    assert opened == [str(tmp_path / "img3.png")]


@pytest.mark.parametrize("slow", [0, 1e9])
def test_threads_and_one_thread_agree(tmp_path, monkeypatch, slow):
    monkeypatch.setattr(scanning, "_SLOW", slow)
    pixels = write_folder(tmp_path, 80)
    (tmp_path / "img40.png").write_text("text")
    with pytest.warns(UserWarning, match="1 of 80") as caught:
        stack = open_stack(tmp_path, on_error="skip")
    assert caught[0].filename == __file__
    assert [name for name, _ in stack.problems] == [str(tmp_path / "img40.png")]
    np.testing.assert_array_equal(stack.data.compute(), np.delete(pixels, 40, axis=0))
    with pytest.raises(BadImageError, match=r"img40\.png"):
        open_stack(tmp_path)


def test_states_see_the_size_and_the_time(tmp_path):
    path = write_image(tmp_path / "a.png", random_pixels((4, 4)))
    (before,) = scanning.keys_of_files([path]).states()
    assert before == read_state(path)
    assert before.n_bytes == os.path.getsize(path)
    os.utime(path, ns=(0, 0))
    assert list(scanning.keys_of_files([path]).states()) != [before]


def test_mixed_shapes_are_counted(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"a{i}.png", random_pixels((4, 5)))
    write_image(tmp_path / "b.png", random_pixels((4, 5, 3)))
    with pytest.raises(MixedStackError) as caught:
        open_stack(tmp_path)
    message = str(caught.value)
    assert "the 6 images are not of one shape and dtype" in message
    assert f"5 of shape (4, 5), uint8, e.g. '{tmp_path}/a0.png', '{tmp_path}/a1.png'" in message
    assert f"1 of shape (4, 5, 3), uint8, e.g. '{tmp_path}/b.png'" in message
    assert message.endswith("To bring them to one kind: open_stack(..., mode='L')")


def test_mixed_dtypes_are_counted(tmp_path):
    write_image(tmp_path / "a.png", random_pixels((4, 5), "uint16"))
    write_image(tmp_path / "b.tif", random_pixels((4, 5), "uint8"))
    write_image(tmp_path / "c.tif", random_pixels((4, 5), "uint8"))
    with pytest.raises(MixedStackError, match=r"(?s)2 of shape \(4, 5\), uint8.*1 .*uint16.*dtype='uint16'\)$"):
        open_stack(tmp_path)


def test_bad_header_raises_or_is_listed(tmp_path):
    pixels = write_folder(tmp_path, 3)
    bad = tmp_path / "img1.png"
    bad.write_text("text")
    with pytest.raises(BadImageError, match=r"img1\.png") as refused:
        open_stack(tmp_path)
    assert refused.value.__notes__ == ["to leave out files that cannot be read: open_stack(..., on_error='skip')"]
    with pytest.raises(BadImageError) as alone:
        open_stack([bad])
    assert not hasattr(alone.value, "__notes__")
    with pytest.warns(UserWarning, match="1 of 3 files cannot be read .* listed in .problems") as caught:
        stack = open_stack(tmp_path, on_error="skip")
    assert caught[0].filename == __file__
    assert stack.problems == (
        (
            str(bad),
            "it is of no format that is read (it begins with b'text'). To read it: open_stack(..., reader=function)",
        ),
    )
    np.testing.assert_array_equal(stack.data.compute(), pixels[[0, 2]])
    assert stack[:1].problems == stack.problems
    assert "left out: 1 file" in repr(stack)


def test_skipping_all_files_raises(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(BadImageError, match=r"a\.png'.*empty .*none of the 2 files can be read"):
        open_stack(tmp_path, on_error="skip")


def test_bad_on_error(tmp_path):
    write_folder(tmp_path, 1)
    with pytest.raises(ValueError, match="on_error='ignore' is not known"):
        open_stack(tmp_path, on_error="ignore")
