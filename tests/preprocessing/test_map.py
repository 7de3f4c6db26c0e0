"""ImageMap: any function on every image, against a plain loop; what fit reads; errors that name image and file."""

import pickle
import threading

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from skimage.exposure import equalize_adapthist
from skimage.filters import rank
from skimage.segmentation import slic
from skimage.transform import resize, rotate
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

from imgstack_ml import ImageFlattener, ImageFunctionError, ImageMap, ImagePCA, open_stack
from tests.lib.grids import CHUNKS, chunked, pairwise
from tests.lib.images import random_pixels, write_folder, write_image
from tests.lib.stacks import counted

SHAPES = [(11, 12), (11, 9, 8), (11, 9, 8, 3)]
DTYPES = ["uint8", "uint16", "float32", "float64"]


def brightest(image):
    return image.max()


def corners(image):
    return image.ravel()[[0, -1]]


def upside_down(image):
    return image[::-1]


def halves(image):
    return image.reshape(-1)[: image.size // 4 * 2].reshape(2, -1) / 2


def scaled(image, factor):
    return image * factor


def row_means(images):
    return images.reshape(len(images), -1).mean(axis=1)


def doubled(images):
    return images * 2.0


def refuses_13(image):
    if image.flat[0] == 13:
        raise KeyError("no thirteen")
    return image.mean()


def numbered(n=20, shape=(4, 3), dtype="uint8"):
    """Images that hold their own position."""
    return np.broadcast_to(np.arange(n, dtype=dtype).reshape(-1, *(1,) * len(shape)), (n, *shape)).copy()


# results


@pytest.mark.parametrize(
    ("shape", "dtype", "chunks", "func", "scheduler"),
    pairwise(SHAPES, DTYPES, CHUNKS, [brightest, corners, upside_down, halves], ["sync", "threads"]),
)
def test_as_a_loop_does(shape, dtype, chunks, func, scheduler):
    X = random_pixels(shape, dtype)
    X.setflags(write=False)
    expected = np.stack([func(image) for image in X])
    if expected.ndim == 1:
        expected = expected[:, None]
    data = chunked(X, chunks)
    mapper = ImageMap(func).fit(data)
    result = mapper.transform(data)
    assert isinstance(result, type(data))
    assert (mapper.output_shape_, mapper.output_dtype_) == (expected.shape[1:], expected.dtype)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    with dask.config.set(scheduler=scheduler):
        computed = np.asarray(result)
    assert computed.dtype == expected.dtype
    assert_array_equal(computed, expected)
    if isinstance(data, da.Array):
        assert result.chunks[0] == data.chunks[0]
        assert result._meta.dtype == expected.dtype
        assert result._meta.ndim == expected.ndim


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("func", [row_means, doubled])
def test_batches(func, chunks):
    X = random_pixels((11, 9, 8), "uint16")
    data = chunked(X, chunks)
    expected = func(X)
    result = ImageMap(func, batch=True).fit_transform(data)
    assert result.dtype == expected.dtype
    assert_array_equal(result, expected.reshape(11, *(expected.shape[1:] or (1,))))


@pytest.mark.parametrize(
    ("func", "kw_args"),
    [
        (slic, {"n_segments": 6, "channel_axis": -1}),
        (equalize_adapthist, {"kernel_size": 8}),
        (resize, {"output_shape": (7, 5)}),
        (rotate, {"angle": 30}),
    ],
)
def test_scikit_image(func, kw_args, tmp_path):
    pixels = write_folder(tmp_path, 6, (24, 20, 3))
    result = ImageMap(func, kw_args=kw_args).fit_transform(open_stack(tmp_path, chunks=2))
    assert_array_equal(result.compute(), np.stack([func(image, **kw_args) for image in pixels]))


def test_functions_that_need_writable_images_take_read_only_blocks():
    X = random_pixels((5, 9, 8))
    X.setflags(write=False)
    footprint = np.ones((3, 3))
    result = ImageMap(rank.mean, kw_args={"footprint": footprint}).fit_transform(da.from_array(X, chunks=(2, -1, -1)))
    assert_array_equal(result, np.stack([rank.mean(image.copy(), footprint) for image in X]))


@pytest.mark.parametrize("lazily", [False, True])
def test_a_function_that_changes_its_image_changes_a_copy(lazily):
    X = random_pixels((7, 4, 3))
    before = X.copy()

    def blackened(image):
        image[:] = 0
        return image

    result = ImageMap(blackened).fit_transform(da.from_array(X, chunks=(3, -1, -1)) if lazily else X)
    assert not np.asarray(result).any()
    assert_array_equal(X, before)


def test_a_batch_is_read_only_and_what_it_returns_is_a_copy():
    X = random_pixels((7, 4, 3))
    with pytest.raises(ImageFunctionError, match="read-only"):
        ImageMap(lambda images: images.fill(0), batch=True).fit(X)
    result = ImageMap(lambda images: images, batch=True).fit_transform(da.from_array(X, chunks=(3, -1, -1))).compute()
    assert not np.may_share_memory(result, X)
    result[:] = 0


def test_images_with_nan_are_handed_on():
    X = random_pixels((6, 4, 3), "float32")
    X[2, 1, 1] = np.nan
    for data in (X, da.from_array(X, chunks=(2, -1, -1))):
        assert_array_equal(ImageMap(np.nan_to_num).fit_transform(data), np.nan_to_num(X))


# laziness, and what is read


def test_fit_reads_one_block_and_transform_nothing(no_arrays):
    source = counted(random_pixels((20, 4, 3)), 6)
    mapper = ImageMap(brightest).fit(source.data)
    assert dict(source.reads) == dict.fromkeys(range(6), 1)
    result = mapper.transform(source.data)
    assert sum(source.reads.values()) == 6
    result.compute()
    assert source.reads == dict.fromkeys(range(20), 1) | dict.fromkeys(range(6), 2)


def test_fit_reads_nothing_when_told_what_to_expect():
    source = counted(random_pixels((20, 4, 3)), 6)
    mapper = ImageMap(brightest, output_shape=(), output_dtype="uint8").fit(source.data)
    assert not source.reads
    assert mapper.transform(source.data).shape == (20, 1)


def test_fit_reads_one_file_of_a_stack(tmp_path):
    pixels = write_folder(tmp_path, 9)
    stack = open_stack(tmp_path, chunks=9)
    for i in range(1, 9):
        (tmp_path / f"img{i}.png").unlink()  # any other read fails
    mapper = ImageMap(brightest).fit(stack)
    assert mapper.output_dtype_ == pixels.dtype


def test_one_task_a_block_read_included_and_a_small_graph(tmp_path):
    write_folder(tmp_path, 40)
    stack = open_stack(tmp_path, chunks=1)
    mapper = ImageMap(scaled, kw_args={"factor": np.ones((8, 6, 3))}).fit(stack)
    result = mapper.transform(stack)
    assert len(result.dask.layers) == len(stack.data.dask.layers) + 1
    (optimized,) = dask.optimize(result)
    assert len(optimized.dask) == 40
    factor = np.ones((1000, 8, 6, 3))
    big = ImageMap(scaled, kw_args={"factor": factor}).fit(stack)
    assert len(pickle.dumps(big.transform(stack).dask)) < 1.5 * factor.nbytes


def test_the_same_map_has_the_same_name_and_another_has_not():
    X = da.from_array(random_pixels((6, 4, 3)), chunks=2)
    names = [ImageMap(resize, kw_args={"output_shape": (k, 2)}).fit_transform(X).name for k in (2, 2, 3)]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("resize-")


# errors


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_an_exception_names_image_and_file(tmp_path, scheduler):
    for i, image in enumerate(numbered()):
        write_image(tmp_path / f"img{i}.png", image)
    stack = open_stack(tmp_path, chunks=3)
    result = ImageMap(refuses_13).fit_transform(stack)
    with (
        dask.config.set(scheduler=scheduler),
        pytest.raises(ImageFunctionError, match=r"^image 13 \(.*img13\.png'\): refuses_13 raised KeyError: 'no") as e,
    ):
        result.compute()
    assert isinstance(e.value.__cause__, KeyError)
    assert (e.value.index, e.value.file) == (13, stack.files[13])
    with dask.config.set(scheduler=scheduler), pytest.raises(ImageFunctionError, match=r"image 2 \(.*img13\.png"):
        ImageMap(refuses_13).fit_transform(stack[[4, 5, 13, 6]]).compute()
    with pytest.raises(ImageFunctionError, match=r"image 0 \(.*img13\.png"):
        ImageMap(refuses_13).fit(stack[13:])


@pytest.mark.parametrize("chunks", [None, (3, -1, -1), (20, 2, 2)])
def test_arrays_name_the_position(chunks):
    X = numbered()
    data = X if chunks is None else da.from_array(X, chunks=chunks)
    mapper = ImageMap(refuses_13).fit(data)
    with pytest.raises(ImageFunctionError, match=r"^image 13: refuses_13 raised"):
        np.asarray(mapper.transform(data))
    with pytest.raises(ImageFunctionError, match=r"^image 13: refuses_13 raised"):
        np.asarray(mapper.transform(data)[13:14])


@pytest.mark.parametrize(
    ("func", "options", "message"),
    [
        (lambda im: im[: 1 + im.flat[0] // 13], {}, r"image 13: .* returned shape \(2, 3\), and \(1, 3\) is needed"),
        (
            lambda im: im[:2],
            {"output_shape": (3, 3)},
            r"image 0: lambda returned shape .2, 3., and \(3, 3\) is needed",
        ),
        (
            lambda im: [1, 2.5][im.flat[0] // 13],
            {},
            r"image 13: .* float64, which does not fit int64.*dtype='float64'",
        ),
        (brightest, {"output_dtype": "int8"}, "image 0: brightest returned uint8, which does not fit int8"),
        (lambda im: "text", {}, "image 0: lambda returned <U4 values; ImageMap needs numbers"),
        (lambda im: None, {}, "image 0: lambda returned object values"),
        (lambda im: [[1], [1, 2]], {}, "image 0: lambda raised ValueError"),
        (lambda ims: ims.mean(), {"batch": True}, r"lambda returned shape \(1?,?\) for a batch of 1 images"),
        (
            lambda ims: ims[:2],
            {"batch": True},
            r"and the 19 after it: .* \(2, 4, 3\) for a batch of 20",
        ),
    ],
)
def test_results_that_do_not_fit(func, options, message):
    with pytest.raises(ImageFunctionError, match=message):
        ImageMap(func, **options).fit_transform(numbered())


def test_a_wider_dtype_may_be_declared():
    result = ImageMap(lambda im: [1, 2.5][im.flat[0] // 13], output_dtype=float).fit_transform(numbered())
    assert_array_equal(result[:, 0], np.where(np.arange(20) < 13, 1, 2.5))
    batch = ImageMap(row_means, batch=True, output_dtype=np.complex128).fit_transform(numbered())
    assert batch.dtype == np.complex128


def test_wrong_parameters_and_input():
    X = numbered()
    with pytest.raises(TypeError, match="func=3 cannot be called"):
        ImageMap(3).fit(X)
    with pytest.raises(NotFittedError):
        ImageMap(brightest).transform(X)
    with pytest.raises(ValueError, match=r"fitted on images of shape \(4, 3\)"):
        ImageMap(brightest).fit(X).transform(numbered(shape=(3, 4)))


@pytest.mark.parametrize("what", ["func", "kw_args"])
def test_what_cannot_be_sent_is_refused_before_anything_is_read(what):
    lock = threading.Lock()
    func = (lambda image, lock=lock: image.max()) if what == "func" else (lambda image, lock: image.max())
    mapper = ImageMap(func, kw_args={"lock": lock} if what == "kw_args" else None)
    source = counted(numbered(), 5)
    assert_array_equal(mapper.fit_transform(source.data)[:, 0], np.arange(20))
    reads = source.n_reads
    with dask.config.set(scheduler="processes"):
        for method in (mapper.fit, mapper.transform):
            with pytest.raises(TypeError, match=rf"{what}=.*cannot be sent to other processes.*scheduler='threads'"):
                method(source.data)
    assert source.n_reads == reads


# scikit-learn


CHECKED = {"number": ImageMap(brightest), "image": ImageMap(upside_down), "batch": ImageMap(row_means, batch=True)}


# scikit-learn's own ids hold the addresses of functions, which differ from process to process.
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(*pair, id=f"{name}-{pair[1].func.__name__}")
        for name, mapper in CHECKED.items()
        for pair in estimator_checks_generator(mapper)
    ],
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("lazily", [False, True])
def test_set_output_frames_rows_and_passes_stacks(container, lazily):
    frames = pytest.importorskip(container)
    X = random_pixels((11, 9, 8))
    data = da.from_array(X, chunks=(4, -1, -1)) if lazily else X
    frame = ImageMap(corners).set_output(transform=container).fit_transform(data)
    assert isinstance(frame, frames.DataFrame)
    assert list(frame.columns) == ["imagemap0", "imagemap1"]
    assert_array_equal(frame.to_numpy(), X.reshape(11, -1)[:, [0, -1]])
    images = ImageMap(upside_down).set_output(transform=container).fit_transform(data)
    assert isinstance(images, type(data))
    assert_array_equal(images, X[:, ::-1])


def test_in_a_pipeline(no_arrays):
    X = random_pixels((30, 9, 8))
    y = np.arange(30) % 2
    X[y == 1, :4] //= 3
    stack = da.from_array(X, chunks=(7, -1, -1))
    steps = make_pipeline(ImageMap(halves), ImageFlattener(), ImagePCA(3)).set_output(transform="pandas")
    with dask.config.set(scheduler="sync"):
        names = steps[:2].fit(stack).get_feature_names_out()
    assert list(names[:2]) == ["imagemap0", "imagemap1"]
    model = make_pipeline(ImageMap(halves), ImagePCA(3), ImageMap(np.asarray), LogisticRegression())
    assert model.fit(X, y).score(X, y) == 1


def test_clone_and_pickle():
    X = random_pixels((11, 9, 8))
    mapper = ImageMap(resize, kw_args={"output_shape": (3, 3)}).fit(X)
    again = pickle.loads(pickle.dumps(mapper))
    assert_array_equal(again.transform(X), mapper.transform(X))
    assert not hasattr(clone(mapper), "output_shape_")
    assert "ImageMap" in mapper._repr_html_()


def test_a_table_keeps_its_index():
    table = pd.DataFrame(random_pixels((5, 4), "float64"), index=list("abcde"), columns=list("wxyz"))
    frame = ImageMap(brightest).set_output(transform="pandas").fit_transform(table)
    assert list(frame.index) == list("abcde")


@pytest.mark.slow
def test_processes():
    stack = da.from_array(numbered(), chunks=(6, -1, -1))
    with dask.config.set(scheduler="processes", num_workers=2):
        result = ImageMap(lambda image: image.max() / 2).fit_transform(stack)
        assert_array_equal(result.compute()[:, 0], np.arange(20) / 2)
        with pytest.raises(ImageFunctionError, match="image 13: refuses_13 raised KeyError"):
            ImageMap(refuses_13).fit_transform(stack).compute()
