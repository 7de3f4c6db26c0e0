"""Files that fsspec reaches."""

import fsspec
import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import pack, write_folder


@pytest.fixture
def memory(tmp_path):
    """A folder of images, and the same one in fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    pixels = write_folder(tmp_path / "in" / "a", 12)
    pack(tmp_path / "in" / "a", tmp_path / "in" / "x.zip")
    root = f"/{tmp_path.name}"
    system.put(str(tmp_path / "in"), root, recursive=True)
    yield f"memory:/{root}", pixels
    system.rm(root, recursive=True)


def test_memory(memory):
    url, pixels = memory
    for source in (f"{url}/a", f"{url}/a/", f"{url}/a/*.png", f"{url}/x.zip", f"zip://*.png::{url}/x.zip"):
        stack = open_stack(source, chunks=5)
        np.testing.assert_array_equal(stack.data.compute(scheduler="threads"), pixels)
        assert stack.inputs == ()
    assert open_stack(f"{url}/a").files[10] == f"{url}/a/img10.png"
    assert open_stack(f"{url}/x.zip").files[10] == f"{url}/x.zip::img10.png"
    assert open_stack([f"{url}/a/img3.png"]).data.compute().tobytes() == pixels[3].tobytes()
    labelled = open_stack(url, recursive=True)
    assert set(labelled.labels.tolist()) == {"a"}


def test_cache_in_front_of_memory(memory):
    url, pixels = memory
    stack = open_stack(f"simplecache::{url}/a/*.png")
    assert stack.files[2] == f"simplecache::{url}/a/img2.png"
    np.testing.assert_array_equal(stack.data.compute(), pixels)


def test_remote_files_that_are_missing_or_change(memory):
    url, _ = memory
    with pytest.raises(FileNotFoundError, match="no images found: searched"):
        open_stack(f"{url}/none/*.png")
    with pytest.raises(BadImageError, match=r"none\.png"):
        open_stack(f"{url}/none.png")
    stack = open_stack(f"{url}/a")
    fsspec.filesystem("memory").pipe(f"{url}/a/img3.png", b"text")
    with pytest.raises(BadImageError, match=r"img3\.png.*has changed since .* and has 4 now"):
        stack.data.compute()
    with pytest.warns(UserWarning, match="1 of 12"):
        assert open_stack(f"{url}/a", on_error="skip").data.name != stack.data.name


def test_file_urls_are_local_paths(tmp_path):
    pixels = write_folder(tmp_path / "in", 4)
    path = pack(tmp_path / "in", tmp_path / "x.zip")
    for source in (f"file://{tmp_path}/in", f"file://{tmp_path}/in/*.png", f"zip://*.png::file://{path}"):
        stack = open_stack(source)
        assert stack.files[0].startswith(str(tmp_path))
        np.testing.assert_array_equal(stack.data.compute(), pixels)


def test_unknown_protocols_are_named():
    with pytest.raises(ValueError, match="nosuch"):
        open_stack("nosuch://bucket/a.png")
