"""ImageStack: selection, verify, what it shows and refuses."""

import base64
import io
import pickle
import re

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import block_reduce
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import KFold, cross_val_score, train_test_split
from sklearn.utils import indexable

from imgstack_ml import ImageStack, open_stack, save_stack
from imgstack_ml.errors import BadImageError, StoreError
from tests.lib.images import random_pixels, write_folder, write_image

SELECTIONS = [
    slice(2, 9, 3),
    slice(None, None, -1),
    slice(0, 0),
    [],
    [4, 1, 1, -1],
    np.array([7, 0]),
    np.arange(10) % 3 == 0,
    [True, False] * 5,
    range(3),
    (np.array([5, 2]), Ellipsis),
    (slice(4), Ellipsis),
    Ellipsis,
    (Ellipsis,),
]


@pytest.mark.parametrize("key", SELECTIONS, ids=str)
def test_selection_is_numpys(tmp_path, key):
    pixels = write_folder(tmp_path, 10)
    stack = open_stack(tmp_path)[key]
    assert isinstance(stack, ImageStack)
    np.testing.assert_array_equal(stack.data.compute(), pixels[key])
    assert stack.shape == stack.data.shape == pixels[key].shape
    assert [file[-5] for file in stack.files] == [str(i) for i in np.arange(10)[key]]


@pytest.mark.parametrize("key", [3, -1, np.int64(2), (4, Ellipsis)])
def test_one_image_is_a_lazy_array(tmp_path, decoded, key):
    pixels = write_folder(tmp_path, 10)
    image = open_stack(tmp_path)[key]
    assert isinstance(image, da.Array)
    np.testing.assert_array_equal(image.compute(), pixels[key])
    assert sum(decoded.values()) == 1


@pytest.mark.parametrize(
    ("key", "error", "match"),
    [
        ((slice(None), slice(2, 5)), IndexError, r"take stack\.data\[\(slice"),
        ((0, 1), IndexError, r"take stack\.data\[\(0, 1\)\]"),
        ((Ellipsis, 0), IndexError, r"take stack\.data"),
        (10, IndexError, "no image 10 in a stack of 10"),
        (-11, IndexError, "no image -11 in a stack of 10"),
        (False, TypeError, "a list of bools selects images"),
        (np.True_, TypeError, "a list of bools selects images"),
        ([10], IndexError, "out of bounds"),
        ([True], IndexError, "boolean"),
        ([1.5], IndexError, "integer"),
        ([[1, 2]], IndexError, "not by an array of 2 axes"),
        ("a", TypeError, r"stack\.files\.index\('a'\)"),
        (1.5, TypeError, "integer"),
        ((slice(None), np.ones((5, 4), bool)), IndexError, r"ImageFlattener\(mask=mask\)[^\[]*$"),
        (np.ones((5, 4), bool), IndexError, r"ImagePCA\(mask=mask\)$"),
        ((slice(None), np.arange(3)), IndexError, r"stack\.data\[index\]$"),
        (da.ones(10, dtype=bool), TypeError, r"stack\[index\.compute\(\)\]"),
    ],
)
def test_selections_that_are_refused(tmp_path, key, error, match):
    write_folder(tmp_path, 10)
    with pytest.raises(error, match=match):
        open_stack(tmp_path)[key]


def test_shuffled_selection_decodes_each_image_once(tmp_path, decoded):
    pixels = write_folder(tmp_path, 30)
    stack = open_stack(tmp_path, chunks=4)
    order = np.random.default_rng(0).permutation(30)[:25]
    np.testing.assert_array_equal(stack[order].data.compute(), pixels[order])
    assert set(decoded.values()) == {1}
    assert sum(decoded.values()) == 25


def test_nothing_is_decoded_unasked(tmp_path, decoded):
    write_folder(tmp_path, 5)
    stack = open_stack(tmp_path)
    repr(stack), stack[::2].data, stack[0], repr(stack[0]), stack.data.mean(axis=0), list(stack)
    with pytest.raises(TypeError, match=r"take stack\.data .*\.compute\(\)"):
        np.asarray(stack)
    assert not decoded


def test_what_arrays_have_is_found_on_the_pixels(tmp_path):
    write_folder(tmp_path, 3)
    stack = open_stack(tmp_path)
    for name in ("mean", "compute", "astype"):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}'; .* stack\.data\.{name}"):
            getattr(stack, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = stack.nothing


def test_pickle(tmp_path):
    pixels = write_folder(tmp_path, 6)
    stack = open_stack(tmp_path)[[4, 2]]
    n_bytes = len(pickle.dumps(stack))
    stack.data.persist()
    copy = pickle.loads(pickle.dumps(stack))
    assert len(pickle.dumps(stack)) == n_bytes  # the graph is left out
    assert (copy.files, copy.data.name) == (stack.files, stack.data.name)
    np.testing.assert_array_equal(copy.data.compute(), pixels[[4, 2]])


def pictures_in(page):
    """Pixels of the pictures in a piece of HTML, decoded by Pillow."""
    found = re.findall(r"data:image/png;base64,([^\"]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


@pytest.mark.parametrize(
    ("shape", "dtype", "n_shown"),
    [((6, 5), "uint8", 1), ((6, 5, 3), "uint8", 1), ((6, 5, 4), "uint16", 4), ((6, 5), "float32", 1)],
)
def test_notebooks_show_pictures_that_are_decoded_for_it(tmp_path, decoded, shape, dtype, n_shown):
    """A strip of at most 8 images; of one image all channels, colours in one picture and others in one each."""
    pixels = write_folder(tmp_path, 30, shape, dtype, ".tif").astype(np.float64)
    stack = open_stack(tmp_path)
    assert not decoded
    page = stack._repr_html_()
    assert sum(decoded.values()) == len(pictures_in(page)) == 8
    assert "30 of 6 × 5" in page
    channels = [pixels[3]] if n_shown == 1 else list(np.moveaxis(pixels[3], 2, 0))
    shown = pictures_in(stack[3]._repr_html_())
    for picture, channel in zip(shown, channels, strict=True):
        low, high = (0, 255) if dtype == "uint8" else (min(0, channel.min()), channel.max())
        np.testing.assert_array_equal(picture, np.rint((channel - low) / (high - low) * 255))
    if dtype == "uint8":
        np.testing.assert_array_equal(pictures_in(page)[0], pixels[0])
    assert type(stack[3] + 1) is da.Array
    assert type(pickle.loads(pickle.dumps(stack[3]))) is da.Array


def test_notebooks_show_large_images_small_and_damaged_ones_by_name(tmp_path):
    pixels = random_pixels((500, 203))
    for i in range(3):
        write_image(tmp_path / f"{i}.png", pixels)
    stack = open_stack(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:5000])
    small = pictures_in(stack._repr_html_())
    assert len(small) == 2
    np.testing.assert_allclose(small[0], block_reduce(pixels[:498, :198], 6, np.mean), atol=0.51)
    assert "1.png" in stack[1]._repr_html_()
    assert not pictures_in(stack[1]._repr_html_())
    assert pictures_in(stack[:0]._repr_html_()) == []


def test_repr_escapes_names(tmp_path):
    write_image(tmp_path / "<img onerror=alert(1)>.png", random_pixels((4, 4)))
    stack = open_stack(tmp_path)
    assert "ImageStack of 1 images (4, 4), uint8: 16 B in 1 blocks" in repr(stack)
    assert "<img onerror" not in stack._repr_html_() + stack[0]._repr_html_()


class MeanThreshold(ClassifierMixin, BaseEstimator):
    """Tells bright images from dark ones."""

    def fit(self, X, y):
        assert isinstance(X, ImageStack)
        self.classes_ = np.unique(y)
        self.threshold_ = float(X.data.mean())
        return self

    def predict(self, X):
        return (X.data.mean(axis=(1, 2)) > self.threshold_).astype(int).compute()


def test_scikit_learn_indexes_a_stack(tmp_path, decoded):
    y = np.arange(12) % 2
    for i, bright in enumerate(y):
        write_image(tmp_path / f"{i}.png", np.full((4, 4), 200 if bright else 20, dtype="uint8"))
    stack = open_stack(tmp_path)
    assert indexable(stack, y)[0] is stack
    train, test, _, y_test = train_test_split(stack, y, random_state=0)
    np.testing.assert_array_equal(test.data[:, 0, 0].compute() > 100, y_test)
    assert len(train) == 9
    decoded.clear()
    folds = KFold(3, shuffle=True, random_state=0)
    assert cross_val_score(MeanThreshold(), stack, y, cv=folds).tolist() == [1, 1, 1]
    assert set(decoded.values()) == {3}  # read once in each fold, to fit or to predict


def cut(path, n_bytes=30):
    path.write_bytes(path.read_bytes()[:-n_bytes])


@pytest.mark.parametrize(("chunks", "scheduler"), [(1, "threads"), (4, "synchronous"), (4, "threads"), (20, "threads")])
def test_verify_leaves_out_what_cannot_be_decoded(tmp_path, chunks, scheduler):
    for i in range(12):
        write_image(tmp_path / f"img{i}.jpg", random_pixels((64, 48)))
    whole = open_stack(tmp_path).data.compute()
    cut(tmp_path / "img3.jpg")
    cut(tmp_path / "img10.jpg")
    stack = open_stack(tmp_path, chunks=chunks)
    with (
        dask.config.set(scheduler=scheduler),
        pytest.warns(UserWarning, match="2 of 12 images cannot be decoded") as caught,
    ):
        good = stack.verify()
    assert caught[0].filename == __file__
    assert [name for name, _ in good.problems] == [str(tmp_path / f"img{i}.jpg") for i in (3, 10)]
    assert all("truncated" in reason for _, reason in good.problems)
    np.testing.assert_array_equal(good.data.compute(), np.delete(whole, [3, 10], axis=0))
    assert good.verify() is good
    assert len(stack) == 12


def test_verify_of_pages_names_the_page(tmp_path):
    path = tmp_path / "a.tif"
    pixels = random_pixels((6, 40, 40))
    tifffile.imwrite(path, pixels, photometric="minisblack", compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        start, n_bytes = tiff.pages[2].dataoffsets[0], tiff.pages[2].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start + 10 : start + n_bytes] = bytes(n_bytes - 10)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="1 of 6"):
        good = open_stack(path, chunks=4).verify()
    assert [name for name, _ in good.problems] == [f"{path}[2]"]
    np.testing.assert_array_equal(good.data.compute(), np.delete(pixels, 2, axis=0))


def test_verify_of_a_store_that_lost_a_chunk(tmp_path):
    pixels = random_pixels((6, 4, 4))
    store = save_stack(pixels, tmp_path / "x.zarr")
    assert len(open_stack(store).verify()) == 6
    stack = open_stack(store)
    for chunk in (tmp_path / "x.zarr" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    with pytest.raises(BadImageError, match=r"has lost its chunk .*none of the 6 images can be decoded"):
        stack.verify()
    with pytest.raises(StoreError):
        stack.data.compute()


def test_to_xarray(tmp_path):
    pytest.importorskip("xarray")
    pixels = np.concatenate([write_folder(tmp_path / name, 3) for name in "ab"])
    stack = open_stack(tmp_path, recursive=True)
    array = stack.to_xarray()
    assert array.dims == ("sample", "y", "x", "channel")
    assert array.coords["sample"].values.tolist() == list(stack.files)
    assert array.coords["label"].values.tolist() == ["a"] * 3 + ["b"] * 3
    assert dask.is_dask_collection(array.data)
    np.testing.assert_array_equal(array.sel(sample=stack.files[4]).values, pixels[4])
    grey = open_stack(tmp_path, recursive=True, mode="L").to_xarray()
    assert grey.dims == ("sample", "y", "x")
