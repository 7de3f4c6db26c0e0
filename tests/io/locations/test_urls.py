"""Files that fsspec reaches."""

import functools
import http.server
import pickle
import threading
import time

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from imgstack_ml import ImageFlattener, open_stack, save_model
from imgstack_ml.errors import BadImageError
from tests.lib.images import pack, png_bytes, write_folder


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


class Listed(MemoryFileSystem):
    """The memory file system with fsspec's cache of listings, used as s3fs and gcsfs use it."""

    protocol = "listed"
    cachable = True

    def ls(self, path, detail=True, **kwargs):
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True)
        return self.dircache[path] if detail else [info["name"] for info in self.dircache[path]]

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **kwargs):
        return fsspec.AbstractFileSystem.find(self, path, maxdepth, withdirs, detail)

    def info(self, path, **kwargs):
        path = self._strip_protocol(path)
        known = self.dircache.get(self._parent(path), ())
        return next((info for info in known if info["name"] == path), None) or super().info(path)

    def invalidate_cache(self, path=None):
        self.dircache.clear()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("listed://"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


S3 = pytest.param("s3", marks=pytest.mark.slow)  # needs moto[server] and s3fs: see CONTRIBUTING.md


@pytest.fixture(params=["memory", "listed", "http", S3, "simplecache::listed", "filecache::memory"])
def remote(request, tmp_path, monkeypatch):
    """A URL, a function that writes a file there (None removes it), and how long its clock may stand still."""
    fsspec.register_implementation("listed", Listed, clobber=True)
    monkeypatch.setattr(Listed, "store", MemoryFileSystem.store)
    if request.param == "http":
        monkeypatch.setitem(fsspec.config.conf, "http", {"use_listings_cache": True})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()

            def write(name, content):
                (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)

            yield f"http://127.0.0.1:{server.server_port}", write, 1.1
            server.shutdown()
        return
    if request.param == "s3":
        moto = pytest.importorskip("moto.server")
        pytest.importorskip("s3fs")
        server = moto.ThreadedMotoServer(port=0, verbose=False)
        server.start()
        _, port = server.get_host_and_port()
        options = {"key": "a", "secret": "b", "endpoint_url": f"http://127.0.0.1:{port}"}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        fsspec.filesystem("s3", **options).mkdir(tmp_path.name)

        def write(name, content):  # as another program would: what this process remembers stays
            other = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **options)
            path = f"{tmp_path.name}/{name}"
            other.rm(path) if content is None else other.pipe(path, content)

        yield f"s3://{tmp_path.name}", write, 0
        server.stop()
        return
    system = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"

    def write(name, content):
        system.rm(f"{root}/{name}") if content is None else system.pipe(f"{root}/{name}", content)

    yield f"{request.param}:/{root}", write, 0
    system.rm(root, recursive=True)


def grey(value):
    return png_bytes(np.full((4, 4), value, np.uint8))


def test_every_opening_sees_what_is_there(remote):
    url, write, pause = remote
    for i in range(4):
        write(f"{i}.png", grey(i))

    def read(stack):
        return stack.data[:, 0, 0].compute().tolist()

    stacks = [open_stack(source, chunks=2) for source in (url, f"{url}/", f"{url}/*.png")]
    assert list(map(read, stacks)) == [[0, 1, 2, 3]] * 3
    assert {stack.files for stack in stacks} == {tuple(f"{url}/{i}.png" for i in range(4))}
    open_stack(f"{url}/*.png")  # fills the caches anew, as the last read has emptied them
    time.sleep(pause)
    write("0.png", None)
    write("2.png", grey(77))  # of equal size
    write("9.png", grey(9))
    for source in (url, f"{url}/", f"{url}/*.png"):
        assert read(open_stack(source)) == [1, 77, 3, 9]
    assert read(open_stack([f"{url}/2.png"])) == [77]
    time.sleep(pause)
    stack = open_stack(url)
    write("3.png", grey(33))
    for each in (stack, stack[::-1]):
        with pytest.raises(BadImageError, match=r"3\.png'.*has changed since the stack was opened"):
            each.data.compute()
    assert read(open_stack(url)) == [1, 77, 33, 9]


def test_names_of_remote_folders(memory):
    url, pixels = memory
    system = fsspec.filesystem("memory")
    for name in ("run[1]", ".hidden/run"):
        system.copy(f"{url}/a", f"{url}/{name}", recursive=True)
        for source in (f"{url}/{name}", f"{url}/{name}/"):
            np.testing.assert_array_equal(open_stack(source).data.compute(), pixels)
    np.testing.assert_array_equal(open_stack(f"{url}/.hidden/run/*.png").data.compute(), pixels)
    assert len(open_stack(url, recursive=True)) == 24


class Guarded(MemoryFileSystem):
    """Files for those who know the word."""

    protocol, cachable = "guarded", False

    def __init__(self, word=None, **options):
        super().__init__(**options)
        if word != "sesame":
            raise PermissionError("the word is wrong")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("guarded://", "memory://"))


def test_storage_options_are_used_and_kept_secret(tmp_path):
    fsspec.register_implementation("guarded", Guarded, clobber=True)
    pixels = write_folder(tmp_path / "in", 5)
    Guarded("sesame").put(str(tmp_path / "in"), "/guarded", recursive=True)
    url, options = "guarded://guarded", {"storage_options": {"word": "sesame"}}
    with pytest.raises((BadImageError, PermissionError), match="the word is wrong"):
        open_stack(url)
    stack = open_stack(url, recursive=True, chunks=2, **options)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stack)).data.compute(scheduler="threads"), pixels)
    np.testing.assert_array_equal(stack[[3, 1]].data, pixels[[3, 1]])
    assert stack.verify() is stack
    mine = open_stack(url, reader=lambda path: np.asarray(Image.open(path)), dtype="float32", **options)
    np.testing.assert_array_equal(mine.data, pixels)
    save_model(ImageFlattener().fit(stack), tmp_path / "m.safetensors")
    said = [repr(stack), stack._repr_html_(), repr(stack.reader), repr(mine.reader), str(stack.data.dask)]
    assert not any("sesame" in text for text in said)
    assert b"sesame" not in (tmp_path / "m.safetensors").read_bytes()
    with pytest.raises(ValueError, match="storage_options are for URLs"):
        open_stack(tmp_path / "in", **options)
