"""What is not read is told: what it is, and the line that helps; the page of the documentation says the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from imgstack_ml.io.formats.registry import _BUILT_IN
from imgstack_ml.io.locations.known import KNOWN, known_by_content, known_by_name

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "formats.md"
READ = {suffix.lstrip(".") for kind in _BUILT_IN for suffix in kind.suffixes}


def rows():
    """The table of the page: python -m tests.io.formats.test_advice prints it."""
    yield "| suffix | what it is | what to install |"
    yield "|---|---|---|"
    for kind in KNOWN:
        suffixes = kind.suffixes.split()
        if suffixes:
            how = f"`pip install 'imgstack_ml[{kind.extra}]'`" if kind.extra else "nothing"
            how = how if set(suffixes) <= READ else kind.advice
            how += "" if kind.tested else " (untested: no such file was at hand)"
            what = kind.noun or kind.name
            yield f"| {' '.join(f'.{suffix}' for suffix in suffixes)} | {what} | {how} |"


def test_the_page_says_what_the_table_says():
    assert "\n".join(rows()) in PAGE.read_text(encoding="utf-8"), "run python -m tests.io.formats.test_advice"


def test_the_table_knows_all_formats_and_has_an_answer_for_each_kind():
    assert not READ - {suffix for kind in KNOWN for suffix in kind.suffixes.split()}
    for kind in KNOWN:
        assert kind.advice or kind.extra or set(kind.suffixes.split()) <= READ, kind
        for suffix in kind.suffixes.split():
            assert known_by_name(f"x.{suffix.upper()}") == (f".{suffix}", kind)
    assert known_by_content(b"text") is known_by_name("text") is None


MISSING = {
    "film.mp4": ("av", b"\0\0\0\x20ftypisom", r"it is a video: pip install 'imgstack_ml\[video\]'"),
    "x.czi": ("czifile", b"ZISRAWFILE", r"it is a Zeiss CZI file: pip install 'imgstack_ml\[microscopy\]'"),
    "x.nd2": ("nd2", b"\xda\xce\xbe\x0a", r"it is a Nikon ND2 file: pip install 'imgstack_ml\[microscopy\]'"),
    "x.lif": ("liffile", b"p\0\0\0\0\0\0\0*", r"it is a Leica LIF file: pip install 'imgstack_ml\[microscopy\]'"),
    "x.dcm": ("pydicom", bytes(128) + b"DICM", r"pip install 'imgstack_ml\[medical\]'"),
    "x.fits": ("astropy.io.fits", b"SIMPLE  =  ", r"pip install 'imgstack_ml\[astro\]'"),
    "x.he5": ("h5py", b"\x89HDF\r\n\x1a\n", r"pip install 'imgstack_ml\[hdf5\]'"),
    "x.heic": ("-", b"\0\0\0\x20ftypheic", r"HEIF, which is not read\. To read it: pip install pillow-heif"),
    "x.cr2": ("-", b"\0\0", r"camera raw, which is not read.*rawpy"),
    "x.svs": ("-", b"\0\0", r"a slide scan, which is not read.*tiffslide"),
    "x.nii.gz": ("-", b"\x1f\x8b", r"NIfTI.*nibabel"),
    "x.xyz": (
        "-",
        b"what",
        r"of no format that is read \(it begins with b'what.*\)\. To read it: open_stack\(..., reader=",
    ),
    "y.dcm": ("-", b"what", "its name says that it is of the format DICOM, and it begins otherwise"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_told(tmp_path, monkeypatch, name):
    module, content, match = MISSING[name]
    monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    (tmp_path / name).write_bytes(content + bytes(300))
    with pytest.raises(BadImageError, match=rf"{name}.*{match}"):
        open_stack([tmp_path / name])


def test_no_optional_package_is_imported_before_it_is_needed():
    code = "import sys, imgstack_ml.io.formats.registry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"av", "czifile", "nd2", "liffile", "pydicom", "astropy", "h5py"} & set(loaded)


if __name__ == "__main__":
    print("\n".join(rows()))
