"""From a source to a list of files."""

import pytest

from imgstack_ml.io.locations.listing import root_folder
from tests.lib.images import list_files, relative, touch


def test_natural_order_is_the_default(tmp_path):
    touch(tmp_path, "img10.png", "img9.png", "IMG2.png", "img1.PNG", "b/1.png")
    assert relative(list_files(tmp_path), tmp_path) == ["img1.PNG", "IMG2.png", "img9.png", "img10.png"]
    assert relative(list_files(tmp_path, sort="name"), tmp_path) == ["IMG2.png", "img1.PNG", "img10.png", "img9.png"]


def test_sub_folders_are_ordered_naturally_too(tmp_path):
    names = ["day2/1.png", "day10/1.png", "day10/a/3.png", "x.png"]
    touch(tmp_path, *reversed(names))
    assert relative(list_files(tmp_path, recursive=True), tmp_path) == names
    assert relative(list_files(tmp_path / "**" / "*.png"), tmp_path) == names


def test_list_keeps_its_order_and_duplicates(tmp_path):
    files = [tmp_path / "9.png", str(tmp_path / "10.png"), tmp_path / "1.png", tmp_path / "9.png"]
    assert list_files(files) == [str(file) for file in files]
    assert list_files(tuple(files)) == [str(file) for file in files]


def test_single_file_and_relative_paths(tmp_path, monkeypatch):
    touch(tmp_path, "odd.name", "1.png")
    monkeypatch.chdir(tmp_path)
    assert list_files("odd.name") == [str(tmp_path / "odd.name")]
    assert list_files(["odd.name"]) == [str(tmp_path / "odd.name")]
    assert list_files("*.png") == list_files(".") == [str(tmp_path / "1.png")]


def test_empty_list_and_unknown_order():
    with pytest.raises(FileNotFoundError, match="the list of files given is empty"):
        list_files([])
    with pytest.raises(ValueError, match=r"sort='size' is not known; it is one of 'natural', 'name'"):
        list_files(".", sort="size")


def test_root_folder(tmp_path):
    touch(tmp_path, "run[1]/a/1.png")
    assert root_folder(tmp_path) == str(tmp_path)
    assert root_folder(tmp_path / "run[1]" / "**" / "*.png") == str(tmp_path / "run[1]")
