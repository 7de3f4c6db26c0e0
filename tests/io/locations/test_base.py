"""Parts of files."""

import io
import os

import pytest

from imgstack_ml.io.locations.base import Window


def test_window_is_a_file():
    window = Window(io.BytesIO(b"0123456789"), 2, 5)
    assert (window.read(2), window.tell(), window.read(), window.read(1)) == (b"23", 2, b"456", b"")
    assert (window.seek(-2, os.SEEK_END), window.read(9)) == (3, b"56")
    assert (window.seek(1), window.seek(1, os.SEEK_CUR), window.read(1)) == (1, 2, b"4")
    with pytest.raises(ValueError, match="in front of its beginning"):
        window.seek(-1)
    window.seek(20)
    assert window.read(1) == b""
