"""Pixel maps of X11."""

import numpy as np
import pytest
from PIL import Image

from tests.lib.images import assert_named, random_pixels, read_image

HEAD = "/* XPM */\nstatic char *a[] = {\n"


def xpm(names, colours, rows, head=None):
    sizes = head or f"{len(rows[0]) // len(names[0])} {len(rows)} {len(names)} {len(names[0])}"
    table = [f"{name}\ts none c {colour}" for name, colour in zip(names, colours, strict=True)]
    return HEAD + ",\n".join(f'"{text}"' for text in [sizes, *table, *rows])


def numbered(n_colours, colours):
    """An image of numbers of colours, whose names are of three characters, among them spaces."""
    names = [f"{i:3d}" for i in range(n_colours)]
    numbers = np.random.default_rng(0).permutation(np.arange(9 * 40) % n_colours).reshape(9, 40)
    rows = ["".join(names[i] for i in row) for row in numbers]
    return xpm(names, colours, rows), numbers


@pytest.mark.parametrize("n_colours", [5, 300])
@pytest.mark.parametrize("is_clear", [False, True])
def test_pixels_are_those_of_pillow(tmp_path, n_colours, is_clear):
    table = random_pixels((n_colours, 3))
    colours = [f"#{r:02x}{g:02X}{b:02x}" for r, g, b in table]
    expected = np.c_[table, np.full(n_colours, 255)] if is_clear else table
    if is_clear:
        colours[3], expected[3] = "None", 0
    content, numbers = numbered(n_colours, colours)
    path = tmp_path / "a.xpm"
    path.write_text(content)
    found = read_image(tmp_path)
    np.testing.assert_array_equal(found, expected[numbers])
    with Image.open(path) as picture:
        np.testing.assert_array_equal(found, np.asarray(picture.convert("RGBA" if is_clear else "RGB")))
    for end in np.linspace(len(HEAD), len(content) - 1, 9).astype(int):
        path.write_text(content[:end])
        assert_named(path, "it was cut")


def test_long_colours_keep_their_upper_bits(tmp_path):
    """Pillow takes other digits of them."""
    (tmp_path / "a.xpm").write_text(xpm(["a", "b"], ["#12345678abcd", "#fedc00000000"], ["ab", "bb"]))
    np.testing.assert_array_equal(read_image(tmp_path)[0], [[0x12, 0x56, 0xAB], [0xFE, 0, 0]])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (xpm(["a"], ["#123456"], ["ab"]), "a colour that is not in its table"),
        (xpm(["a"], ["green"], ["aa"]), "none of numbers such as"),
        (xpm(["a"], ["#123456"], ["a"], "60000 60000 1 1"), "it was cut"),
        (xpm(["a"], ["#123456"], ["a"], "1 1 1 1000000000"), "it was cut"),
        (xpm(["a"], ["#123456"], ["a"], "0 1 0 1"), "it was cut"),
    ],
)
def test_what_is_damaged_or_unknown_is_named(tmp_path, content, match):
    (tmp_path / "a.xpm").write_text(content)
    assert_named(tmp_path / "a.xpm", match)
