"""ImageFeatureUnion and fit_together: each image read once for all members, the same numbers as one by one."""

import pickle

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import imgstack_ml
from imgstack_ml import (
    ChannelStatistics,
    HOGFeatures,
    ImageFeatureUnion,
    ImageFlattener,
    ImageFunctionError,
    ImageHistogram,
    ImageMap,
    ImagePCA,
    IntensityRescaler,
    StackCenterer,
    TextureFeatures,
    fit_together,
    load_model,
    open_stack,
    save_model,
)
from imgstack_ml.errors import NonFiniteError
from tests.lib.grids import chunked, pairwise
from tests.lib.images import write_folder, write_image
from tests.lib.stacks import counted, photographs

SHAPES = [(16, 12, 10), (16, 12, 10, 3)]


def members():
    return [
        ("hist", ImageHistogram(8, "stack")),
        ("stats", ChannelStatistics()),
        ("texture", TextureFeatures(range="stack", levels=8)),
        ("hog", HOGFeatures(pixels_per_cell=(4, 4), cells_per_block=(1, 1))),
    ]


def with_others():
    steps = make_pipeline(IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(2))
    return [*members(), ("pca", ImagePCA(3)), ("steps", steps), ("map", ImageMap(np.median))]


@pytest.mark.parametrize(
    ("shape", "dtype", "chunks", "scheduler"),
    pairwise(SHAPES, ["uint8", "uint16", "float32", "float64"], ["numpy", "uneven", "pixels"], ["sync", "threads"]),
)
def test_the_members_side_by_side(shape, dtype, chunks, scheduler):
    X = photographs(shape[0], shape[1:], dtype)
    data = chunked(X, chunks)
    union = ImageFeatureUnion(with_others())
    with dask.config.set(scheduler=scheduler):
        result = union.fit(data).transform(data)
        alone = [(name, clone(member).fit(data)) for name, member in with_others()]
        expected = np.hstack([np.asarray(member.transform(data)) for _, member in alone])
        assert isinstance(result, type(data))
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
        if isinstance(data, da.Array):
            assert result.chunks == (data.chunks[0], (expected.shape[1],))
            assert result._meta.dtype == expected.dtype
        assert_allclose(np.asarray(result), expected, rtol=1e-5, atol=1e-3)
        assert_array_equal(np.asarray(result)[:, :8], expected[:, :8])
        at_once = ImageFeatureUnion(with_others()).fit_transform(data)
        assert isinstance(at_once, type(data))
        assert_allclose(np.asarray(at_once), expected, rtol=1e-4, atol=1e-2 * np.abs(expected[:, -6:]).max())
    assert len(union.get_feature_names_out()) == expected.shape[1]


def test_features_share_one_read_in_fit_and_one_in_transform(no_arrays):
    source = counted(photographs(30, (12, 10)), 4)
    union = ImageFeatureUnion(members()).fit(source.data)
    assert source.n_reads == union.n_passes_ == 1
    assert set(source.reads.values()) == {1}
    result = union.transform(source.data)
    assert source.n_reads == 1
    result.compute()
    assert set(source.reads.values()) == {2}


def test_nothing_to_learn_reads_nothing():
    source = counted(photographs(30, (12, 10)), 4)
    union = ImageFeatureUnion([("stats", ChannelStatistics()), ("hist", ImageHistogram())]).fit(source.data)
    assert source.n_reads == union.n_passes_ == 0


def test_others_read_for_themselves_and_transform_reads_once(no_arrays):
    source = counted(photographs(30, (12, 10)), 5)
    union = ImageFeatureUnion([*members(), *with_others()[-3:-1]]).fit(source.data)
    assert source.n_reads == union.n_passes_ == 4  # one shared, ImagePCA, StackCenterer and ImagePCA of the Pipeline
    union.transform(source.data).compute()
    assert source.n_reads == 5


def test_fit_transform_takes_the_scores_that_a_fit_has(no_arrays):
    source = counted(photographs(30, (12, 10)), 5)
    union = ImageFeatureUnion([("hist", ImageHistogram(8, "stack")), ("pca", ImagePCA(3, svd_solver="gram"))])
    result = union.fit_transform(source.data)
    assert source.n_reads == union.n_passes_ == 2
    result[:, 8:].compute()
    result.compute()


def test_one_task_a_block_the_read_included(tmp_path):
    write_folder(tmp_path, 30, (12, 10, 3))
    stack = open_stack(tmp_path, chunks=3)
    result = ImageFeatureUnion(with_others()).fit(stack).transform(stack)
    (optimized,) = dask.optimize(result)
    constants = 7  # means and components of the two analyses, the mean of the centring
    assert len(optimized.dask) == 10 + constants


@pytest.mark.parametrize("chunks", ["numpy", "uneven", "pixels"])
def test_sklearns_union_gives_the_same(chunks):
    X = photographs(30, (12, 10))
    data = chunked(X, chunks)
    ours, theirs = (union(members()).fit(data) for union in (ImageFeatureUnion, FeatureUnion))
    assert_array_equal(np.asarray(ours.transform(data)), np.asarray(theirs.transform(data)))
    assert_array_equal(ours.get_feature_names_out(), theirs.get_feature_names_out())


def test_weights_names_and_dropped_members():
    X = photographs(30, (12, 10))
    plain = ImageFeatureUnion(members()).fit(X)
    expected = plain.transform(X)
    union = ImageFeatureUnion(members(), transformer_weights={"stats": 2.0}, verbose_feature_names_out=False).fit(X)
    assert_array_equal(union.transform(X)[:, 8:12], 2 * expected[:, 8:12])
    assert list(union.get_feature_names_out()[8:10]) == ["c0_mean", "c0_std"]
    assert plain.get_feature_names_out()[8] == "stats__c0_mean"
    union.set_params(hist="drop", transformer_weights=None).fit(X)
    assert_array_equal(union.transform(X), expected[:, 8:])
    assert union.get_params()["stats__percentiles"] == ()


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("globally", [False, True])
def test_set_output(container, lazily, globally):
    frames = pytest.importorskip(container)
    X = photographs(30, (12, 10))
    source = counted(X, 4)
    data = source.data if lazily else X
    expected = ImageFeatureUnion(members()).fit_transform(X)
    union = ImageFeatureUnion(members())
    if not globally:
        union.set_output(transform=container)
    with sklearn.config_context(transform_output=container if globally else "default"):
        for frame in (union.fit_transform(data), union.transform(data)):
            assert isinstance(frame, frames.DataFrame)
            assert list(frame.columns) == list(union.get_feature_names_out())
            assert_array_equal(frame.to_numpy(), expected)
    if lazily:
        assert source.n_reads == 3  # the pass of the fit, and one for each frame


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_scores_of_a_lazy_stack_make_a_frame(container):
    frames = pytest.importorskip(container)
    X = photographs(30, (12, 10))
    lazy = da.from_array(X, chunks=(7, -1, -1))
    pca = ImagePCA(2).set_output(transform=container)
    for frame in (pca.fit_transform(lazy), pca.transform(lazy)):
        assert isinstance(frame, frames.DataFrame)
        assert frame.shape == (30, 2)


def test_searches_over_a_union_of_files(tmp_path):
    y = np.arange(40) % 2
    X = photographs(40, (12, 10))
    X[y == 1] //= 2
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.png", image)
    union = ImageFeatureUnion([("hist", ImageHistogram(density=True)), ("pca", ImagePCA(2))])
    union.set_output(transform="pandas")  # in memory: StandardScaler computes what is lazy twice, with a warning
    model = make_pipeline(union, StandardScaler(), LogisticRegression())
    grid = {"imagefeatureunion__hist__bins": [4, 8], "imagefeatureunion__pca__n_components": [1, 3]}
    search = GridSearchCV(model, grid, cv=3).fit(open_stack(tmp_path), y)
    assert search.best_score_ >= 0.9


def test_a_bad_image_is_named(tmp_path):
    X = photographs(12, (12, 10), "float32")
    good = X.copy()
    X[5, 1, 2] = np.nan
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.tif", image)
    stack = open_stack(tmp_path, chunks=4)
    with pytest.raises(NonFiniteError, match=r"image 5 \(.*5\.tif"):
        ImageFeatureUnion(members()).fit(stack)
    with pytest.raises(NonFiniteError, match=r"image 5 \(.*5\.tif"):
        ImageFeatureUnion(members()).fit(good).transform(stack).compute()

    def refuses(image):
        if image.flat[0] != good[7].flat[0]:
            return 0
        raise ArithmeticError("the seventh")

    union = ImageFeatureUnion([("stats", ChannelStatistics()), ("map", ImageMap(refuses))])
    with pytest.raises(ImageFunctionError, match=r"image 1 \(.*7\.tif'\): refuses raised ArithmeticError"):
        union.fit(stack[6:]).transform(stack[6:]).compute()


@pytest.mark.parametrize(
    ("transformers", "message"),
    [
        ([], "has no members"),
        ([("a", "drop")], "has no members"),
        ([("a", "passthrough")], r"'a' is 'passthrough'.*ImageFlattener\(\)"),
        ([("a", StackCenterer())], r"'a' gives shape \(30, 12, 10\).*ImageFlattener"),
        ([("a", FunctionTransformer(lambda X: X[:9, 0]))], "'a' gives 9 rows for 30 images"),
        ([("a", FunctionTransformer(lambda X: X[:, 0, 0]))], r"'a' gives shape \(30,\).*values\[:, None\]"),
        ([("a", ImageHistogram()), ("a", ChannelStatistics())], "not unique"),
    ],
)
def test_what_is_refused(transformers, message):
    X = photographs(30, (12, 10))
    with pytest.raises(ValueError, match=message):
        ImageFeatureUnion(transformers).fit_transform(X)


class Plain(BaseEstimator):
    """A stateless transformer with the least that scikit-learn asks for."""

    def fit(self, X, y=None, sample_weight=None):
        self.weight = sample_weight
        return self

    def transform(self, X):
        return np.asarray(X)[:, :2] * 2

    def get_feature_names_out(self, input_features=None):
        return ["a", "b"]


@pytest.mark.parametrize(
    "members",
    [
        [("plain", Plain()), ("rows", "passthrough"), ("no", "drop")],
        [("rows", "passthrough")],
        [("one hot", OneHotEncoder(max_categories=3, sparse_output=True)), ("scale", StandardScaler())],
        [("function", FunctionTransformer(np.sqrt, feature_names_out="one-to-one")), ("rows", "passthrough")],
        [("supervised", SelectKBest(k=2)), ("rows", "passthrough")],
    ],
    ids=lambda members: members[0][0],
)
@pytest.mark.parametrize("kind", ["array", "frame", "dask"])
def test_members_of_all_kinds_are_those_of_feature_union(members, kind):
    X, y = np.random.default_rng(0).integers(0, 5, (30, 4)).astype(float), np.arange(30) % 2
    data = {"array": X, "frame": pd.DataFrame(X, columns=list("pqrs")), "dask": X}[kind]
    weights = {members[0][0]: 3.0}
    theirs = FeatureUnion(clone_members(members), transformer_weights=weights)
    expected = theirs.fit(data, y).transform(data)
    expected = expected.toarray() if issparse(expected) else expected
    if kind == "dask" and members[0][0] == "rows":  # the only members here that leave lazy rows lazy
        data = da.from_array(X, chunks=(8, 4))
    ours = ImageFeatureUnion(clone_members(members), transformer_weights=weights)
    assert_array_equal(np.asarray(ours.fit_transform(data, y)), expected)
    ours = clone(ours).fit(data, y)
    assert_array_equal(np.asarray(ours.transform(data)), expected)
    assert_array_equal(ours.get_feature_names_out(), theirs.get_feature_names_out())
    assert ours.n_features_in_ == 4 or members[0][0] == "plain"


def test_a_loaded_union_still_passes_rows_through(tmp_path):
    X = photographs(30, (12,), "float64")
    union = ImageFeatureUnion([("rows", "passthrough"), ("mean", ChannelStatistics(("mean",)))]).fit(X)
    save_model(union, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert_array_equal(loaded.transform(X), np.column_stack([X, X.mean(axis=1)]))
    assert_array_equal(loaded.get_feature_names_out(), union.get_feature_names_out())
    with pytest.raises(ValueError, match="11 features"):
        loaded.transform(X[:, :11])


def clone_members(members):
    return [(name, member if isinstance(member, str) else clone(member)) for name, member in members]


@pytest.mark.parametrize("fit", ["fit", "fit_transform"])
def test_metadata_is_routed_to_the_member_that_asks_for_it(fit):
    X, weight = photographs(30, (12,)), np.arange(30.0)
    with sklearn.config_context(enable_metadata_routing=True):
        asks = Plain().set_fit_request(sample_weight=True)
        union = ImageFeatureUnion(
            [("asks", asks), ("hist", ImageHistogram()), ("not", Plain().set_fit_request(sample_weight=False))]
        )
        model = make_pipeline(union, MinMaxScaler())
        getattr(model, fit)(X, sample_weight=weight)
        assert_array_equal(dict(model[0].transformer_list)["asks"].weight, weight)
        assert dict(model[0].transformer_list)["not"].weight is None
        with pytest.raises(TypeError, match="sample_weights"):
            union.fit(X, sample_weights=weight)
    plain = ImageFeatureUnion([("asks", Plain())]).fit(X, sample_weight=weight)  # as FeatureUnion without routing
    assert_array_equal(plain.transformer_list[0][1].weight, weight)
    with pytest.raises(TypeError, match="sample_weight"):
        ImageFeatureUnion([("hist", ImageHistogram())]).fit(X, sample_weight=weight)


def test_classes_and_objects_that_are_no_transformers_are_refused_in_scikit_learns_words():
    X = photographs(30, (12, 10))
    for method in ("fit", "fit_transform"):
        with pytest.raises(
            TypeError, match=r"Expected an estimator instance \(ImageHistogram\(\)\), got estimator class"
        ):
            getattr(ImageFeatureUnion([("a", ImageHistogram)]), method)(X)
        with pytest.raises(TypeError, match="All estimators should implement fit and transform"):
            getattr(ImageFeatureUnion([("a", LogisticRegression())]), method)(X)


def test_what_a_hint_says_works():
    X = photographs(30, (12, 10))
    with pytest.raises(ValueError, match="Flatten them") as caught:
        ImageFeatureUnion([("a", StackCenterer(with_std=True))]).fit_transform(X)
    member = eval(str(caught.value).partition("Flatten them: ")[2], {**vars(imgstack_ml.preprocessing), **globals()})
    assert ImageFeatureUnion([member]).fit_transform(X).shape == (30, 120)


def test_equal_names_of_features_get_numbers():
    X = photographs(30, (12, 10))
    twice = ChannelStatistics(("mean", "mean"), percentiles=(50, 50.0000001, 50))
    names = ["mean", "mean_2", "percentile50", "percentile50_2", "percentile50_3"]
    assert twice.fit(X).get_feature_names_out().tolist() == [f"c0_{name}" for name in names]
    frame = ImageFeatureUnion([("a", twice)]).set_output(transform="polars").fit_transform(X)  # refuses equal names
    assert frame.columns == [f"a__c0_{name}" for name in names]


def test_unknown_weights_and_unfitted_members():
    X = photographs(30, (12, 10))
    with pytest.raises(ValueError, match="weight transformer"):
        ImageFeatureUnion(members(), transformer_weights={"no": 1.0}).fit(X)
    with pytest.raises(NotFittedError):
        ImageFeatureUnion(members()).transform(X)


def test_clone_and_pickle():
    X = photographs(30, (12, 10))
    union = ImageFeatureUnion(members()).fit(X)
    assert_array_equal(pickle.loads(pickle.dumps(union)).transform(X), union.transform(X))
    assert not hasattr(clone(union), "n_passes_")
    assert "ImageHistogram" in union._repr_html_()


@pytest.mark.parametrize("module", [imgstack_ml, imgstack_ml.features])
def test_the_name_of_before_0_2_is_the_same_class_and_warns(module):
    with pytest.warns(FutureWarning, match=r"ImageFeatures is called ImageFeatureUnion now.*0\.4") as caught:
        assert module.ImageFeatures is ImageFeatureUnion
    assert [warning.filename for warning in caught] == [__file__]
    assert not {"ImageFeatures"} & {*module.__all__, *dir(module)}
    assert repr(ImageFeatureUnion([])) == "ImageFeatureUnion(transformer_list=[])"
    with pytest.raises(AttributeError, match="NoFeatures"):
        _ = module.NoFeatures


def test_a_table_keeps_its_index():
    table = pd.DataFrame(photographs(6, (12,), "float64"), index=list("abcdef"))
    table.columns = table.columns.astype(str)
    frame = ImageFeatureUnion(members()[:2]).set_output(transform="pandas").fit_transform(table)
    assert list(frame.index) == list("abcdef")


IN_PLACE = {"check_estimators_overwrite_params": "members are fitted in place, as scikit-learn's FeatureUnion does"}


@parametrize_with_checks(
    [ImageFeatureUnion([("hist", ImageHistogram(range="stack")), ("rows", ImageFlattener()), ("pca", ImagePCA(1))])],
    expected_failed_checks=lambda estimator: IN_PLACE,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# fit_together


def test_fits_together_are_fits_alone_in_one_read(no_arrays):
    X = photographs(30, (12, 10, 3), "uint16")
    source = counted(X, 4)
    together = [
        StackCenterer(with_std=True),
        IntensityRescaler(in_range="stack", channel_axis=-1),
        IntensityRescaler(),
        ImageFlattener(),
        ImageHistogram(range="stack"),
    ]
    assert fit_together(together, source.data) == 1
    assert source.n_reads == 1
    centerer, rescaler, plain, flattener, histogram = together
    alone = StackCenterer(with_std=True).fit(source.data)
    assert_array_equal(centerer.mean_, alone.mean_)
    assert_array_equal(centerer.scale_, alone.scale_)
    assert_array_equal(rescaler.in_range_, [X.min(axis=(0, 1, 2)), X.max(axis=(0, 1, 2))])
    assert (plain.in_range_, plain.n_passes_, centerer.n_passes_) == ("image", 0, 1)
    assert flattener.image_shape_ == (12, 10, 3)
    assert histogram.range_ == (X.min(), X.max())


def test_others_are_fitted_after_those_that_share():
    source = counted(photographs(30, (12, 10)), 4)
    y = np.arange(30) % 2
    model = make_pipeline(ImagePCA(2), LogisticRegression())
    assert fit_together([model, StackCenterer()], source.data, y) == source.n_reads == 2
    assert model.predict(source.data).shape == (30,)


def test_bad_parameters_are_refused_before_anything_is_read():
    source = counted(photographs(30, (12, 10)), 4)
    with pytest.raises(ValueError, match="bins=0"):
        fit_together([StackCenterer(), ImageHistogram(0)], source.data)
    assert not source.reads
    assert fit_together([], source.data) == 0


def test_a_nonfinite_image_stops_all_of_them(tmp_path):
    X = photographs(9, (6, 5), "float32")
    X[4, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="image 4"):
        fit_together([StackCenterer(), ImageHistogram(range="stack")], da.from_array(X, chunks=2))
