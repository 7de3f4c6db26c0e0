"""Images that are not read: by name and by content, in folders, archives and at URLs; and what never counts."""

import io
import os

import fsspec
import numpy as np
import pytest
from PIL import Image, features

from imgstack_ml import open_stack
from imgstack_ml.io.locations.unread import kind_of_file, kind_of_name
from tests.lib.images import pack, png_bytes, random_pixels, touch, write_folder

PILLOW = ("webp", "gif", "bmp", "jp2", "ppm", "ico", "tga", "dds", "pcx", "jpeg", "png", "tiff")
PILLOW += ("avif",) * ("avif" in features.get_supported())  # Pillow 11.3 and later


def written(format):
    """A file of this format, by Pillow."""
    with io.BytesIO() as file:
        Image.fromarray(random_pixels((16, 16, 3))).save(file, "JPEG2000" if format == "jp2" else format.upper())
        return file.getvalue()


@pytest.mark.parametrize("format", PILLOW)
def test_pictures_are_known_by_their_first_bytes(format, tmp_path):
    """Those that have a signature: a .tga, .pcx or .ico is told by its name only."""
    path = tmp_path / "picture"
    path.write_bytes(written(format))
    weak = format in ("ico", "tga", "dds", "pcx")
    assert (kind_of_file(str(path)) is None) == weak
    if format not in ("jpeg", "png", "tiff"):
        assert kind_of_name(f"x.{format.upper()}") == f".{format}"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0" * 128 + b"DICM" + b"\0" * 99, "DICOM"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"ZISRAWFILE\0\0", "CZI"),
        (b"\0\0\0\x20ftypisom", "MP4"),
        (b"text", None),
        (b"", None),
        (b"P1 is a text, BM and MM too", None),
        (b"BM begins a text of more than 26 letters", None),
        (b"GIF8 text", None),
    ],
)
def test_other_contents(content, kind, tmp_path):
    for name, shown in (("scan", "no suffix"), ("scan.dat", ".dat")):
        (tmp_path / name).write_bytes(content)
        assert kind_of_file(str(tmp_path / name)) == (kind and f"{shown} ({kind})")


HIDDEN = (
    "Thumbs.db",
    "desktop.ini",
    ".DS_Store",
    "._img1.heic",
    ".cache/a.gif",
    "__MACOSX/a.gif",
    "notes.txt",
    "a.csv",
)


@pytest.fixture
def places(tmp_path):
    """The same files in a folder, an archive and at a URL; and the pixels that are read."""
    folder = tmp_path / "in"
    pixels = write_folder(folder, 4)
    touch(folder, "a.heic", "c.mp4", "stack.oir", "brain.nii.gz", *HIDDEN)
    (folder / "b.HEIC").symlink_to("a.heic")
    archive = pack(folder, tmp_path / "x.zip")
    system = fsspec.filesystem("memory")
    system.put(str(folder), f"/{tmp_path.name}", recursive=True)
    yield [str(folder), archive, f"memory://{tmp_path.name}/"], pixels
    system.rm(f"/{tmp_path.name}", recursive=True)


def test_they_are_counted_and_warned_of_once(places):
    sources, pixels = places
    for source in sources:
        with pytest.warns(UserWarning, match=r"holds 5 images of kinds that are not read.*: \.heic \(2\), ") as caught:
            stack = open_stack(source, recursive=True)
        assert (len(caught), caught[0].filename) == (1, __file__)
        assert dict(stack.unread) == {".heic": 2, ".mp4 (beside images)": 1, ".oir": 1, ".nii.gz": 1}
        assert stack[1:].summary().unread == stack.unread
        assert "        2  not read: .heic" in repr(stack.summary())
        np.testing.assert_array_equal(stack.data.compute(), pixels)


def test_pictures_without_a_suffix_are_counted(tmp_path):
    write_folder(tmp_path, 2)
    os.rename(tmp_path / "img1.png", tmp_path / "img1")
    with pytest.warns(UserWarning, match=r"1 image of kinds that are not read.*no suffix \(PNG\) \(1\)"):
        assert len(open_stack(tmp_path)) == 1
    os.rename(tmp_path / "img0.png", tmp_path / "img0.dat")
    with pytest.raises(FileNotFoundError, match=r"Images that are not read: (.*PNG.*){2}; convert"):
        open_stack(tmp_path)


def test_hidden_files_and_what_was_not_asked_for_never_warn(tmp_path):
    write_folder(tmp_path, 3)
    touch(tmp_path, *HIDDEN, "@eaDir/img0.png", "$RECYCLE.BIN/img1.png", "lost+found/img2.png")
    assert len(open_stack(tmp_path, recursive=True)) == 3
    touch(tmp_path, "a.heic")
    assert len(open_stack(tmp_path / "*.png")) == len(open_stack([tmp_path / f"img{i}.png" for i in range(3)])) == 3


@pytest.mark.parametrize(
    ("pattern", "n_links"), [("in", 3), ("in/**/*.png", 3), ("i*/**/img?.png", 3), ("in/a/**/*.png", 4)]
)
def test_links_to_folders_are_counted(tmp_path, pattern, n_links):
    write_folder(tmp_path / "in" / "a", 2)
    write_folder(tmp_path / "out", 3)
    links = {"loop": "in", "sibling": "in/a", "up": ".", "out": "out", "out.png": "out", ".hidden": "out"}
    for name, target in links.items():
        (tmp_path / "in" / "a" / name).symlink_to(tmp_path / target)
    with pytest.warns(UserWarning, match=rf"holds {n_links} links to folders, which .*own name$") as caught:
        stack = open_stack(tmp_path / pattern, recursive=True)
    assert len(caught) == 1
    assert len(stack) == 2
    assert f"{n_links}  not read: link to a folder" in repr(stack.summary())
    assert len(open_stack(tmp_path / "in" / "a")) == 2  # without a warning: sub-folders are not asked for


@pytest.mark.parametrize("suffix", [".zip", ".tar", "memory", "file"])
def test_images_without_a_suffix_elsewhere_are_counted(tmp_path, suffix):
    write_folder(tmp_path / "in", 2)
    (tmp_path / "in" / "scan").write_bytes(png_bytes(np.zeros((4, 4), np.uint8)))
    (tmp_path / "in" / "README").write_text("no image")
    (tmp_path / "in" / "empty").touch()
    if suffix == "memory":
        path = f"memory:/{tmp_path}/in"
        fsspec.filesystem("memory").put(f"{tmp_path}/in/", f"{tmp_path}/in/", recursive=True)
    elif suffix == "file":
        path = f"file://{tmp_path}/in"
    else:
        path = pack(tmp_path / "in", tmp_path / f"x{suffix}")
    with pytest.warns(UserWarning, match=r"holds 1 image of .*: no suffix \(PNG\) \(1\)"):
        assert len(open_stack(path)) == 2
