"""Names of the files to write."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from imgstack_ml.io.locations.names import natural_key
from imgstack_ml.io.write.filenames import file_names

NASTY = [
    "../../etc/passwd.png",
    "/abs/.hidden.png",
    "a\nb.png",
    "-rf.png",
    'q"<img onerror=1>|?*.png',
    os.fsdecode(b"\xff\xfe.png"),
    "..",
    "con.png",
    "n" * 300,
    "像" * 100,
    "archive.zip::sub/1.png",
    "C:\\x\\y.png",
    "",
]


def assert_safe(names, folder="/out"):
    for name in names:
        assert os.path.dirname(os.path.normpath(os.path.join(folder, name))) == folder
        assert name[0] not in ".-"
        assert len(name.encode()) <= 255  # and is UTF-8
        assert not set(name) & set('\0\n/\\:*?"<>|')
    assert len({name.casefold() for name in names}) == len(names)
    assert names == sorted(names, key=natural_key)


def test_no_name_leaves_the_folder():
    assert_safe(file_names(None, NASTY, len(NASTY), ".png"))
    for name in NASTY:
        assert_safe(file_names(None, [name], 1, ".tif"))
        assert_safe(file_names(None, [name, name], 2, ".tif"))


@settings(max_examples=25)
@given(st.lists(st.text(max_size=300), max_size=12))
def test_any_names_are_safe_unique_and_in_order(sources):
    assert_safe(file_names(None, sources, len(sources), ".png"))


def test_frames_are_in_order_for_programs_that_sort_by_text():
    names = file_names(None, [f"/data/film.tif[{i}]" for i in range(120)], 120, ".tif")
    assert names == sorted(names)
    assert names[7] == "film.tif[007].tif"
