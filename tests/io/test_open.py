"""open_stack and imread."""

import inspect
import os
import pickle
import zipfile

import dask
import dask.array as da
import numpy as np
import pytest
from dask.array.image import imread as dask_imread

from imgstack_ml import imread, open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.arrays import sources
from tests.lib.images import random_pixels, write_folder, write_image
from tests.lib.workers import run_code


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_stack_of_a_folder(tmp_path, suffix):
    pixels = write_folder(tmp_path, 12, suffix=suffix)
    stack = open_stack(tmp_path)
    assert (stack.shape, stack.dtype, stack.ndim, len(stack)) == ((12, 8, 6, 3), np.uint8, 4, 12)
    assert stack.files == tuple(str(tmp_path / f"img{i}{suffix}") for i in range(12))
    assert (stack.labels, stack.problems) == (None, ())
    computed = stack.data.compute()
    assert (computed.shape, computed.dtype) == (stack.data.shape, stack.data.dtype) == (stack.shape, stack.dtype)
    if suffix != ".jpg":
        np.testing.assert_array_equal(computed, pixels)


def test_list_keeps_its_order(tmp_path):
    pixels = write_folder(tmp_path, 5)
    order = [3, 0, 4, 0]
    stack = open_stack([tmp_path / f"img{i}.png" for i in order])
    np.testing.assert_array_equal(stack.data.compute(), pixels[order])


def test_labels_are_the_sub_folders(tmp_path):
    for name in ("cats/1.png", "cats/b/2.png", "dogs/1.png", "top.png"):
        write_image(tmp_path / name, random_pixels((4, 4)))
    for source in (tmp_path, tmp_path / "**" / "*.png"):
        stack = open_stack(source, recursive=True)
        assert stack.labels.tolist() == ["cats", "cats/b", "dogs", "."]
        assert stack[[2, 0]].labels.tolist() == ["dogs", "cats"]
        assert "labels: '.' (1), 'cats' (1), 'cats/b' (1), 'dogs' (1)" in repr(stack)
    assert open_stack(tmp_path / "cats").labels is None
    assert open_stack(tmp_path / "dogs", recursive=True).labels is None  # no sub-folders


def test_a_source_that_is_none_is_refused():
    for source in (3, None, True):
        with pytest.raises(TypeError, match=f"the source is {source}; give a folder"):
            open_stack(source)


def test_stack_outlives_a_change_of_folder(tmp_path, monkeypatch):
    pixels = write_folder(tmp_path / "images", 3)
    monkeypatch.chdir(tmp_path)
    stack = open_stack("images")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(stack.data.compute(), pixels)


@pytest.mark.parametrize("chunks", [0, -1, 2.5, True, "64MB", None])
def test_bad_chunks(tmp_path, chunks):
    with pytest.raises(ValueError, match='give "auto" or a positive int'):
        open_stack(tmp_path, chunks=chunks)


def test_imread_is_natural_and_grouped(tmp_path):
    pixels = write_folder(tmp_path, 12)
    data = imread(str(tmp_path / "*.png"))
    assert isinstance(data, da.Array)
    assert data.chunks == ((12,), (8,), (6,), (3,))
    np.testing.assert_array_equal(data.compute(), pixels)


def test_imread_takes_the_arguments_of_dasks(tmp_path):
    assert list(inspect.signature(imread).parameters)[:3] == list(inspect.signature(dask_imread).parameters)
    pixels = write_folder(tmp_path, 3)
    np.testing.assert_array_equal(imread(filename=str(tmp_path / "*.png")), pixels)
    with pytest.warns(FutureWarning, match=r"imread\(pattern=...\) is imread\(filename=...\) now.*0\.4") as caught:
        np.testing.assert_array_equal(imread(pattern=str(tmp_path / "*.png")), pixels)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.raises(TypeError, match="needs the files to read"):
        imread()


def test_imread_with_functions(tmp_path):
    pixels = write_folder(tmp_path, 5)
    grey = imread(str(tmp_path / "*.png"), preprocess=lambda image: image.mean(axis=-1))
    assert (grey.shape, grey.dtype) == ((5, 8, 6), np.float64)
    np.testing.assert_array_equal(grey.compute(), pixels.mean(axis=-1))
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", pixels[i])
    loaded = imread(str(tmp_path / "*.npy"), imread=np.load)
    np.testing.assert_array_equal(loaded.compute(), pixels)
    means = imread(str(tmp_path / "*.npy"), imread=np.load, preprocess=np.mean)
    np.testing.assert_array_equal(means.compute(), pixels.mean(axis=(1, 2, 3)))


def test_imread_with_functions_names_the_file(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.zeros((4, 4 + i // 2)))
    data = imread(str(tmp_path / "*.npy"), imread=np.load)
    assert data.shape == (3, 4, 4)
    with pytest.raises(BadImageError, match=r"2\.npy'.*makes \(4, 5\), float64 of it; the first .*\(4, 4\)"):
        data.compute()
    (tmp_path / "1.npy").write_text("text")
    with pytest.raises(BadImageError, match=r"1\.npy"):
        data.compute()
    (tmp_path / "0.npy").write_text("text")
    with pytest.raises(BadImageError, match=r"0\.npy"):
        imread(str(tmp_path / "*.npy"), imread=np.load)


def test_imread_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches '\*\.png'"):
        imread(str(tmp_path / "*.png"))


def test_every_kind_is_small_and_read_the_same(tmp_path):
    pixels, found = sources(tmp_path)
    for source in found:
        stack = open_stack(source, chunks=6)
        tasks = dict(dask.optimize(stack.data)[0].__dask_graph__())
        assert len(tasks) == 2
        assert max(len(pickle.dumps(task)) for task in tasks.values()) < 1000 + len(pickle.dumps(stack.files[:6]))
        np.testing.assert_array_equal(stack.data.compute(scheduler="threads"), pixels)
        order = np.random.default_rng(0).permutation(12)
        np.testing.assert_array_equal(stack[order].data.compute(), pixels[order])
        copy = pickle.loads(pickle.dumps(stack))
        assert copy.data.name == stack.data.name
        assert open_stack(source, chunks=6).data.name == stack.data.name


MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import numpy as np
from imgstack_ml import open_stack
stack = open_stack(sys.argv[1], chunks=16)
one = stack.data.compute(scheduler="synchronous")
many = stack.data.compute(scheduler="threads", num_workers=16)
print(len(stack), np.array_equal(one, many))
"""


@pytest.mark.parametrize("n", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_files_with_few_handles(tmp_path, n):
    resource = pytest.importorskip("resource", reason="Windows has no limits of processes")
    path = write_image(tmp_path / "one.png", random_pixels((8, 6)))
    content = (tmp_path / "one.png").read_bytes()
    (tmp_path / "many").mkdir()
    for i in range(n):
        (tmp_path / "many" / f"{i}.png").write_bytes(content)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 256
    done = run_code(MANY, tmp_path / "many")
    assert done.stdout.split() == [str(n), "True"]
    assert path.endswith("one.png")


def test_a_reader_of_ones_own(tmp_path):
    """Names, labels, states and conversions are those of files that the package reads itself."""
    pixels = random_pixels((4, 6, 5), "uint16")
    for i, name in enumerate(("a/1.raw", "a/2.raw", "b/10.raw", "b/.hidden")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels[i].tofile(tmp_path / name)

    def read(path):
        return np.fromfile(path, "uint16").reshape(6, 5)

    stack = open_stack(tmp_path, recursive=True, reader=read, dtype="float32", chunks=2)
    assert [os.path.basename(file) for file in stack.files] == ["1.raw", "2.raw", "10.raw"]
    assert stack.labels.tolist() == ["a", "a", "b"]
    assert stack.data.dtype == "float32"
    np.testing.assert_array_equal(stack[[2, 0]].data, pixels[[2, 0]])
    np.testing.assert_array_equal(imread(tmp_path / "*/*.raw", imread=read), pixels[:3])
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "b/10.raw", "10.raw")
    np.testing.assert_array_equal(open_stack(tmp_path / "in.zip", reader=read).data, pixels[2:3])
    (tmp_path / "b/10.raw").write_bytes(b"short")
    with pytest.raises(BadImageError, match=r"10\.raw.* has changed since the stack was opened"):
        stack.data.compute()
    with pytest.raises(BadImageError, match=r"10\.raw.*cannot reshape"):
        open_stack(tmp_path / "b", reader=read)
    with pytest.raises(ValueError, match=r"reader=\.\.\. reads none: open_stack\(\.\.\.\)\.verify\(\)"):
        open_stack(tmp_path / "a", reader=read, on_error="skip")
    with pytest.raises(BadImageError, match=r"makes \(30,\), uint16 of it; an image is of shape"):
        open_stack(tmp_path / "a", reader=lambda path: np.fromfile(path, "uint16"))
