"""``ImagePCA.to_xarray``: names of axes, coordinates of samples, and zarr."""

import builtins
import json

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageFlattener, ImagePCA, IntensityRescaler, open_stack
from tests.lib.images import write_folder
from tests.lib.stacks import counted, photographs

xarray = pytest.importorskip("xarray")


@pytest.fixture
def stack(tmp_path):
    for label in "ab":
        write_folder(tmp_path / "in" / label, 5, shape=(8, 6))
    return open_stack(tmp_path / "in", recursive=True)


@pytest.mark.parametrize(
    ("shape", "dims"), [((6, 5), ["y", "x"]), ((6, 5, 3), ["y", "x", "channel"]), ((30,), ["feature"])], ids=str
)
@pytest.mark.parametrize("solver", ["gram", "randomized"])
def test_what_is_in_it(shape, dims, solver, tmp_path):
    X = photographs(12, shape)
    pca = ImagePCA(3, svd_solver=solver, random_state=0).fit(X)
    dataset = pca.to_xarray()
    assert dataset.components.dims == ("component", *dims)
    names = dataset.coords["channel"].values.tolist() if "channel" in dataset.coords else []
    assert names == ["red", "green", "blue"] * ("channel" in dims)
    assert list(dataset.mean_image.dims) == list(dataset.residual_variance_image.dims) == dims
    assert_array_equal(dataset.components, pca.eigenimages_)
    assert_array_equal(dataset.residual_variance_image, pca.residual_variance_image_)
    assert_array_equal(dataset.mean_image, pca.mean_image_)
    for name in ("explained_variance", "explained_variance_ratio", "singular_values"):
        assert_array_equal(dataset[name], getattr(pca, f"{name}_"))
    assert_array_equal(dataset.component, [0, 1, 2])
    assert dict(json.loads(json.dumps(dataset.attrs))) == dataset.attrs
    assert dataset.attrs["svd_solver"] == solver
    scores = pca.transform(X)
    dataset = pca.to_xarray(scores)
    assert dataset.scores.dims == ("sample", "component")
    assert "sample" not in dataset.coords
    dataset.to_zarr(tmp_path / "a.zarr", consolidated=False)
    assert xarray.open_zarr(tmp_path / "a.zarr", consolidated=False).load().identical(dataset)


def test_samples_have_the_names_of_their_stack(stack, tmp_path):
    pca = ImagePCA(2).fit(stack)
    assert not {"sample", "label"} & {*pca.to_xarray().coords, *vars(pca)}
    named = [
        pca.to_xarray(pca.transform(stack)),
        pca.to_xarray(ImagePCA(2).fit_transform(stack)),
        pca.to_xarray(stack=stack),
        pca.to_xarray(pca.transform(stack.data.compute()), stack=stack),
        pca.to_xarray(pca.transform(stack.to_xarray())),
        pca.to_xarray(stack=stack.to_xarray()),
    ]
    for dataset in named:
        assert_array_equal(dataset["sample"], stack.files)
        assert_array_equal(dataset["label"], stack.labels)
        assert_allclose(dataset.scores, pca.transform(stack.data.compute()), rtol=1e-4, atol=1e-3)
    assert isinstance(named[0].scores.data, da.Array)
    named[0].to_zarr(tmp_path / "a.zarr", consolidated=False)
    again = xarray.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert_allclose(again.scores.sel(sample=stack.files[3]), named[0].scores[3])
    assert again.label.values.tolist() == stack.labels.tolist()
    pipeline = make_pipeline(IntensityRescaler(), ImageFlattener(), ImagePCA(2)).fit(stack)
    assert_array_equal(pipeline[-1].to_xarray(pipeline.transform(stack))["label"], stack.labels)
    some = pca.to_xarray(pca.transform(stack[[4, 0]]))
    assert_array_equal(some["sample"], [stack.files[4], stack.files[0]])


def test_coordinates_of_a_film(tmp_path):
    X = da.from_array(photographs(10, (6, 5)).astype(np.float32), chunks=((3, 1, 6), 6, 5))
    coords = {
        "time": np.arange("2024-01-01", "2024-01-11", dtype="datetime64[D]").astype("datetime64[ns]"),
        "dose": ("time", np.linspace(0, 1, 10)),
        "y": np.arange(6) / 10,
        "run": 7,
    }
    film = xarray.DataArray(X, dims=("time", "y", "x"), coords=coords)
    pca = ImagePCA(2).fit(film)
    scores = pca.transform(film)
    dataset = pca.to_xarray(scores)
    assert dataset.scores.dims == ("time", "component")
    assert set(dataset.coords) == {"component", "time", "dose"}
    dataset.to_zarr(tmp_path / "a.zarr", consolidated=False)  # its blocks are of one size
    again = xarray.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert_allclose(again.scores.sel(time="2024-01-04"), scores.compute()[3], rtol=1e-6)
    # What names a result is told by its input, not by the array in it.
    assert "time" not in pca.to_xarray(pca.transform(X)).dims
    assert "time" not in pca.to_xarray(scores * 2).dims
    labelled = dataset.scores.isel(time=slice(2, 5))
    assert_array_equal(pca.to_xarray(labelled)["dose"], film.dose[2:5])
    rows = film.stack(component=("y", "x")).reset_index("component").rename(time="component_", component="value")
    assert ImagePCA(2).fit(rows).to_xarray(stack=rows.rename(component_="component")).scores.dims[0] == "sample"


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(photographs(10, (4,), "float64"), columns=list("abcd"), index=[f"m{i}" for i in range(10)])
    pca = ImagePCA(2).set_output(transform="pandas").fit(X)
    dataset = pca.to_xarray(pca.transform(X))
    assert_array_equal(dataset["feature"], list("abcd"))
    assert_array_equal(dataset["sample"], X.index)


def test_it_is_lazy_and_refuses(monkeypatch):
    X = photographs(12, (6, 5))
    pca, source = ImagePCA(3).fit(X), counted(X, 5)
    dataset = pca.to_xarray(stack=source.data)
    assert not source.reads
    assert_allclose(dataset.scores.compute(), pca.transform(X), atol=1e-3)
    with pytest.raises(NotFittedError):
        ImagePCA().to_xarray()
    with pytest.raises(ValueError, match=r"rows of 3 values"):
        pca.to_xarray(np.ones((4, 2)))
    with pytest.raises(ValueError, match="scores has 4 rows, and stack has 12 images"):
        pca.to_xarray(np.ones((4, 3)), stack=X)

    def without_xarray(name, *args, original=builtins.__import__, **kwargs):
        if name == "xarray":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_xarray)
    with pytest.raises(ImportError, match=r"pip install 'imgstack_ml\[xarray\]'"):
        pca.to_xarray()
