"""Files of folders and patterns."""

import os
import re
import shutil

import numpy as np
import pytest

from imgstack_ml.io.formats.registry import how_read
from imgstack_ml.io.locations.listing import find_files
from tests.lib.images import list_files, relative, touch


def test_order_does_not_depend_on_the_folder(tmp_path):
    names = [f"{prefix}{i}.tif" for prefix in ("a", "B", "", "é") for i in range(12)]
    rng = np.random.default_rng(0)
    orders = set()
    for trial in range(20):
        folder = tmp_path / str(trial)
        touch(folder, *rng.permutation(names))
        orders.add(tuple(relative(list_files(folder), folder)))
        shutil.rmtree(folder)
    assert len(orders) == 1


def test_only_images_that_are_files(tmp_path):
    touch(tmp_path, "a.jpg", "b.JPEG", "c.Png", "d.tif", "e.TIFF", ".hidden.png", "Thumbs.db", "notes.txt", "png")
    touch(tmp_path, ".cache/x.png", "dir.png/y.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "link.png").symlink_to("a.jpg")
    images = ["a.jpg", "b.JPEG", "broken.png", "c.Png", "d.tif", "e.TIFF", "link.png"]
    assert relative(list_files(tmp_path), tmp_path) == images
    assert find_files(tmp_path, how_read).unread == {".png (no regular file)": 2}
    assert relative(list_files(tmp_path, recursive=True), tmp_path) == [*images[:5], "dir.png/y.png", *images[5:]]
    assert relative(list_files(tmp_path / "*.png"), tmp_path) == ["broken.png", "link.png"]
    assert relative(list_files(tmp_path / "*"), tmp_path) == [*images, "notes.txt", "png"]
    assert relative(list_files(tmp_path / ".*.png"), tmp_path) == [".hidden.png"]


def test_loops_of_links_end(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    for name in ("a/up", "a/self", "b/up"):
        (tmp_path / name).symlink_to("..")
    expected = ["a/1.png", "b/2.png"]
    assert relative(list_files(tmp_path, recursive=True), tmp_path) == expected
    assert relative(list_files(tmp_path / "**/*.png"), tmp_path) == expected


def test_brackets_of_an_existing_path_are_literal(tmp_path):
    touch(tmp_path, "run[1]/a.png", "run[1]/b[2].png", "run1/wrong.png", "run[1]/sub3/c.png")
    folder = tmp_path / "run[1]"
    assert relative(list_files(folder), folder) == ["a.png", "b[2].png"]
    assert relative(list_files(folder / "*.png"), folder) == ["a.png", "b[2].png"]
    assert relative(list_files(folder / "b[2].png"), folder) == ["b[2].png"]
    assert relative(list_files(folder / "sub[1-3]" / "*.png"), folder) == ["sub3/c.png"]
    assert relative(list_files(tmp_path / "run[0-9]" / "*.png"), tmp_path) == ["run1/wrong.png"]


@pytest.mark.parametrize("name", ["with space.png", "new\nline.png", "st*r.png", "-x.png", "<img onerror=1>.png"])
def test_odd_names(tmp_path, name):
    touch(tmp_path, name)
    assert list_files(tmp_path) == list_files(tmp_path / name) == [str(tmp_path / name)]


def test_names_that_are_not_utf8_or_not_normalised(tmp_path):
    names = [b"\xff\xfe.png", "e\u0301.png".encode(), "\u00e9.png".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "w"):
            pass
    found = list_files(tmp_path)
    assert sorted(os.path.basename(os.fsencode(file)) for file in found) == sorted(names)


@pytest.mark.parametrize(
    ("names", "recursive", "message"),
    [
        ([], False, "no other files and no sub-folders"),
        (["notes.txt", "a.heic"], False, r"but not its sub-folders .* 2 other files \('a.heic', 'notes.txt'\)"),
        (["cats/1.png"], False, r"1 sub-folder \('cats'\)\. .*open_stack\('.*', recursive=True\)"),
        (["cats/1.heic"], True, r"and its sub-folders .*\.heic \(1\); convert .*'.*/\*\.ext'"),
    ],
)
def test_empty_folder_says_what_was_searched(tmp_path, names, recursive, message):
    touch(tmp_path, *names)
    with pytest.raises(FileNotFoundError, match=f"{re.escape(repr(str(tmp_path)))} .*{message}"):
        list_files(tmp_path, recursive=recursive)


def test_empty_pattern_says_what_was_searched(tmp_path):
    touch(tmp_path, "1.png", "2.png")
    with pytest.raises(FileNotFoundError, match=r"no file matches '\*\.pgn' in the folder .* 2 names \('1.png'"):
        list_files(tmp_path / "*.pgn")


def test_missing_path_says_how_much_of_it_exists(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no file or folder .*only {str(tmp_path)!r} exists"):
        list_files(tmp_path / "data" / "images")
    with pytest.raises(FileNotFoundError, match=rf"its folder {str(tmp_path)!r} exists"):
        list_files(tmp_path / "images")
