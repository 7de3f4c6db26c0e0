"""Whatever reads a stack refuses blocks that are not as declared, and NaN; the same everywhere, and by name."""

from dataclasses import dataclass
from typing import ClassVar

import dask
import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tifffile
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    ChannelStatistics,
    ComponentFilter,
    HOGFeatures,
    ImageFeatureUnion,
    ImageFlattener,
    ImageHistogram,
    ImageMap,
    ImagePCA,
    ImageStack,
    IntensityDisplay,
    IntensityRescaler,
    NonFiniteError,
    ReconstructionDisplay,
    ScoresDisplay,
    StackCenterer,
    TextureFeatures,
    fit_together,
    generate_report,
    open_stack,
    save_stack,
    write_images,
)
from tests.lib.stacks import photographs

X = photographs(12, (6, 8), "uint8").astype(np.float32)
READ_IN_FIT = {
    "center": StackCenterer(with_std=True),
    "rescale": IntensityRescaler(in_range="stack"),
    "histogram": ImageHistogram(4, range="stack"),
    **{f"pca {solver}": ImagePCA(2, svd_solver=solver) for solver in ("gram", "covariance_eigh", "tsqr", "randomized")},
    "union": ImageFeatureUnion([("mean", ChannelStatistics()), ("pca", ImagePCA(2))]),
    "flat": make_pipeline(ImageFlattener(), ImagePCA(2)),
    "centred": make_pipeline(StackCenterer(), ImagePCA(2)),
    "filter": ComponentFilter(ImagePCA(2), remove=[0]),
}
READ_LATER = {
    "flatten": ImageFlattener(),
    "map": ImageMap(np.max, output_shape=(), output_dtype=np.float32),
    "statistics": ChannelStatistics(),
    "texture": TextureFeatures(),
    "hog": HOGFeatures(pixels_per_cell=(3, 4), cells_per_block=(1, 1)),
}
TAKE_NAN = {"first image", "save_stack", "write_images", "transform flatten", "transform map"}

SLOW = {"report", "intensities", "scores", "pictures", "save_stack", "transform centred", "transform flat"}


@pytest.fixture(scope="module")
def calls():
    """Everything that reads the pixels of a stack, by name: a function of the stack and a folder to write into."""
    fitted = {name: clone(one).fit(X) for name, one in {**READ_IN_FIT, **READ_LATER}.items()}
    pca, center = fitted["pca gram"], fitted["center"]
    return {
        "partial_fit": lambda data, path: ImagePCA(2).partial_fit(data).components_,
        "fit_transform": lambda data, path: ImagePCA(2).fit_transform(data),
        "fit_together": lambda data, path: fit_together([StackCenterer(), ImagePCA(2)], data),
        "first image": lambda data, path: ImageMap(np.max).fit(data).output_shape_,
        "score": lambda data, path: pca.score(data),
        "reconstruct": lambda data, path: pca.reconstruct(data, dtype="uint8"),
        "residuals": lambda data, path: pca.residuals(data),
        "outlier_statistics": lambda data, path: pca.outlier_statistics(data).q,
        "score_samples": lambda data, path: pca.score_samples(data),
        "center back": lambda data, path: center.inverse_transform(data),
        "save_stack": lambda data, path: open_stack(save_stack(data, path / "a.zarr")).data,
        "write_images": lambda data, path: open_stack(write_images(data, path / "out", format="tiff")).data,
        "report": lambda data, path: len(generate_report(pca, data).alerts),
        "intensities": lambda data, path: IntensityDisplay.from_stack(data).means,
        "scores": lambda data, path: ScoresDisplay.from_estimator(pca, data, n_thumbnails=12).scores,
        "pictures": lambda data, path: ReconstructionDisplay.from_estimator(pca, data, indices=[1]).images,
        **{f"fit {k}": lambda data, path, one=one: clone(one).fit(data).transform(X) for k, one in READ_IN_FIT.items()},
        **{f"transform {k}": lambda data, path, one=one: one.transform(data) for k, one in fitted.items()},
    }


def outcomes(calls, data, path):
    """What each call returns or raises, on one thread: starting more takes longer than reading these images."""
    found = {}
    for name, call in calls.items():
        (path / name).mkdir()
        with dask.config.set(scheduler="synchronous"):
            try:
                found[name] = np.asarray(call(data, path / name))
            except Exception as error:
                found[name] = error
    plt.close("all")
    return found


def beginning_with(block, kind="blocks"):
    """A stack that declares blocks of four images of float32, or of four half images, the first of which is `block`."""
    first, *rest = (
        da.from_delayed(dask.delayed(one, pure=False, traverse=False), (4, *X.shape[1:]), dtype=np.float32)
        for one in (block, X[4:8], X[8:])
    )
    if kind == "halves":
        right = da.concatenate([da.from_array(X[i : i + 4, :, 4:]) for i in (0, 4, 8)])
        left = [da.from_delayed(dask.delayed(block[:, :, :4], pure=False), (4, 6, 4), dtype=np.float32)]
        return da.concatenate([da.concatenate([*left, da.from_array(X[4:, :, :4], chunks=(4, 6, 4))]), right], axis=2)
    if kind == "empty":
        return da.concatenate([first, da.from_array(X[:0], chunks=(1, 6, 8)), *rest])
    return da.concatenate([first, *rest])


@pytest.mark.parametrize(
    ("block", "kind", "error", "message"),
    [
        (np.ma.masked_array(X[:4], X[:4] > 9), "blocks", TypeError, "is a masked array"),
        (np.ma.masked_array(X[:4], X[:4] > 9), "halves", TypeError, "is a masked array"),
        (X[:3], "blocks", ValueError, r"has shape \(3, 6, 8\), and X declares \(4, 6, 8\)"),
        (X[:5], "empty", ValueError, r"has shape \(5, 6, 8\), and X declares \(4, 6, 8\)"),
        (X[:4].astype(np.float64), "blocks", ValueError, "has dtype float64.*float32"),
    ],
    ids=["masked", "masked, cut", "short", "long", "dtype"],
)
def test_blocks_that_are_not_as_declared_are_refused_by_all(block, kind, error, message, calls, tmp_path):
    for name, found in outcomes(calls, beginning_with(block, kind), tmp_path).items():
        assert type(found) is error, (name, found)
        assert found.args[0].startswith("X.blocks[0] (images 0 to 3) "), (name, found)
        with pytest.raises(error, match=message):
            raise found


def test_nan_in_a_lazy_stack_is_named_by_all_that_compute_with_it(calls, tmp_path):
    bad = X[:4].copy()
    bad[1, 2, 3] = np.inf
    for name, found in outcomes(calls, beginning_with(bad), tmp_path).items():
        if name in TAKE_NAN:
            assert isinstance(found, np.ndarray), name
        else:
            assert isinstance(found, NonFiniteError), (name, found)
            assert found.index == 1, name


def test_a_dtype_that_casts_safely_changes_nothing(calls, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    calls = {name: call for name, call in calls.items() if name not in SLOW}
    expected = outcomes(calls, da.from_array(X, chunks=(4, 6, 8)), tmp_path / "a")
    for name, found in outcomes(calls, beginning_with(X[:4].astype(np.uint8)), tmp_path / "b").items():
        assert found.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


@dataclass(frozen=True)
class Camera:
    """A reader that leaves out a frame."""

    shape: ClassVar = X.shape[1:]
    dtype: ClassVar = X.dtype
    images_per_chunk: ClassVar = 1
    left_out: int = 6

    def read(self, keys):
        return X[[key for key in keys if key != self.left_out]]


def test_a_reader_that_leaves_out_a_frame_is_refused_with_the_files_of_its_block(calls, tmp_path):
    stack = ImageStack(Camera(), tuple(f"{i}.tif" for i in range(12)), keys=np.arange(12), chunks=4)
    calls = {name: call for name, call in calls.items() if name not in ("first image", "pictures")}  # other images
    for name, found in outcomes(calls, stack, tmp_path).items():
        says = str(found)
        assert says.startswith("X.blocks[1] (images 4 to 7, from '4.tif', '7.tif') has shape (3, 6, 8)"), (name, says)


def test_files_are_named_behind_other_steps(tmp_path):
    bad = X.copy()
    bad[7, 0, 0] = np.nan
    for i, image in enumerate(bad):
        tifffile.imwrite(tmp_path / f"{i:02}.tif", image)
    stack = open_stack(tmp_path, chunks=5)
    pipeline = make_pipeline(ImageFlattener(), ImagePCA(2))
    for call in (pipeline.fit, lambda data: np.asarray(clone(pipeline).fit(X).transform(data))):
        with pytest.raises(NonFiniteError, match=r"image 7 \(.*07\.tif'\)"):
            call(stack)


@pytest.mark.parametrize("kind", [np.asarray, lambda X: da.from_array(X, chunks=(5, 3, 4))], ids=["numpy", "dask"])
def test_an_imputer_of_scikit_learn_can_follow_an_image_flattener(kind):
    bad = X.copy()
    bad[[1, 7], [0, 2], [3, 3]] = np.nan
    pipeline = make_pipeline(ImageFlattener(), SimpleImputer(), PCA(2)).fit(kind(bad))
    rows = SimpleImputer().fit_transform(bad.reshape(12, -1))
    np.testing.assert_array_equal(pipeline[1].transform(pipeline[0].transform(kind(bad))), rows)
    np.testing.assert_allclose(pipeline.transform(kind(bad)), PCA(2).fit(rows).transform(rows), atol=1e-3)
    with pytest.raises(TypeError, match="masked array"):
        ImageFlattener().fit(np.ma.masked_invalid(bad))


@pytest.mark.parametrize("lazy", [False, True])
def test_values_whose_results_are_no_numbers_are_named(lazy):
    def result(call, X):
        return np.asarray(call(da.from_array(X, chunks=(5, -1, -1)) if lazy else X))

    def with_7(value, dtype):
        values = (X % 2).astype(dtype)
        values[7] = value
        return values

    hog = HOGFeatures(pixels_per_cell=(3, 4), cells_per_block=(1, 1), transform_sqrt=True)
    with pytest.raises(NonFiniteError, match="image 7 has negative pixels"):
        result(hog.fit_transform, with_7(-1, "float32"))
    for dtype, value in (("float32", 3e38), ("float64", 1e308)):
        center = StackCenterer().fit(np.full_like(X, -value, dtype=dtype))
        with pytest.raises(NonFiniteError, match=rf"image 7 .*values up to \de.*beyond {dtype}\. Fit X / \de"):
            result(center.transform, with_7(value, dtype))
        with pytest.raises(NonFiniteError, match=f"image 7 .*beyond {dtype}"):
            result(center.inverse_transform, with_7(-value, dtype))
        with pytest.raises(NonFiniteError, match=f"image 7 has values up to .*beyond {dtype}"):
            result(IntensityRescaler().fit_transform, with_7(np.where(X[7] > 99, value, -value), dtype))
    for with_std in (False, True):
        with pytest.raises(ValueError, match=r"beyond float64\. Divide the stack"):
            result(StackCenterer(with_std).fit, np.where(np.arange(12)[:, None, None] > 5, 1e308, -1e308) + X)
    with pytest.raises(NonFiniteError, match=r"image 7 .*beyond float16"):
        result(IntensityRescaler().fit_transform, with_7(np.where(X[7] > 99, 60000, -60000), "float16"))
