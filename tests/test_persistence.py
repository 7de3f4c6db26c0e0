"""Models as files: round trips, refusals, and files that are damaged or hostile."""

import json
import os
import pickle
import struct
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from imgstack_ml.decomposition import ComponentFilter, ImagePCA
from imgstack_ml.errors import StoreError
from imgstack_ml.features import ChannelStatistics, HOGFeatures, ImageFeatureUnion, ImageHistogram, TextureFeatures
from imgstack_ml.files import tensors
from imgstack_ml.persistence import FORMAT_VERSION, HEADER_KEY, MAX_HEADER_BYTES, load_model, save_model
from imgstack_ml.preprocessing import ImageFlattener, IntensityRescaler, StackCenterer
from tests.lib.faults import every_fault
from tests.lib.workers import run_code


@pytest.fixture(scope="module")
def stack():
    return np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assert_same_value(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert np.array_equal(found, expected)
    elif isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_value(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same_value(found[key], expected[key])
    else:
        np.testing.assert_equal(found, expected)  # NaN is the default of a parameter


def assert_same_model(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, Pipeline | ImageFeatureUnion):
        found_members, members = (
            model.steps if isinstance(model, Pipeline) else model.transformer_list for model in (found, expected)
        )
        assert [name for name, _ in found_members] == [name for name, _ in members]
        for (_, one), (_, other) in zip(found_members, members, strict=True):
            assert_same_model(one, other)
    elif isinstance(expected, str):
        assert found == expected
    else:
        values, expected_values = ({**model.get_params(deep=False), **learned(model)} for model in (found, expected))
        for name in ("estimator", "estimator_"):
            if name in expected_values:
                assert_same_model(values.pop(name), expected_values.pop(name))
        assert_same_value(values, expected_values)


def learned(model):
    return {name: value for name, value in sorted(vars(model).items()) if name.endswith("_")}


# Round trips


@pytest.mark.parametrize(
    "model",
    [
        ImageFlattener(),
        IntensityRescaler(in_range="stack", out_range=(0.0, 1.0), channel_axis=-1),
        IntensityRescaler(percentiles=(2, 98.5)),
        StackCenterer(with_std=True),
        StackCenterer(),
        ImagePCA(3, random_state=7, memory_limit="1GB"),
        ImagePCA(0.9, whiten=True),
        ChannelStatistics(("mean",), percentiles=(5, 95)),
        ImageHistogram(8, "stack", density=True),
        TextureFeatures(range=(0, 255), levels=8),
        HOGFeatures(pixels_per_cell=(2, 2), cells_per_block=(1, 1)),
        ImageFeatureUnion([("hist", ImageHistogram()), ("pca", make_pipeline(StackCenterer(), ImagePCA(2)))]),
        ImageFeatureUnion([("hist", ImageHistogram()), ("no", "drop")], transformer_weights={"hist": 0.5}),
        make_pipeline(IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(2)),
        make_pipeline(IntensityRescaler(), ComponentFilter(ImagePCA(3), remove=(0, -1)), ImagePCA(2)),
        make_pipeline("passthrough", make_pipeline(StackCenterer(), ImageFlattener()), ImagePCA(2)),
    ],
    ids=repr,
)
def test_a_loaded_model_is_the_saved_one(model, stack, path):
    save_model(model, path)
    assert_same_model(load_model(path), model)

    model.fit(stack)
    save_model(model, path, overwrite=True)
    loaded = load_model(path)
    assert_same_model(loaded, model)
    assert_same_value(loaded.transform(stack), model.transform(stack))


def test_a_frozen_estimator_is_saved_once(stack, path):
    pca = ImagePCA(2).fit(stack)
    model = ComponentFilter(FrozenEstimator(pca), keep=[1]).fit(stack)
    save_model(model, path)
    loaded = load_model(path)
    assert_same_model(loaded, model)
    assert loaded.estimator_ is loaded.estimator
    assert path.stat().st_size < 1.2 * pca.components_.nbytes + 20_000
    assert_same_value(loaded.transform(stack), model.transform(stack))


def test_components_of_a_loaded_model_are_still_images(stack, path):
    model = ImagePCA(2).fit(da.from_array(stack, chunks=(4, 5, 4, 3)))
    save_model(model, path)
    loaded = load_model(path)
    assert_same_value(loaded.eigenimages_, model.eigenimages_)
    assert_same_value(
        loaded.inverse_transform(loaded.transform(stack)), model.inverse_transform(model.transform(stack))
    )


@pytest.mark.parametrize("labels", [["cat", "dog", "übrig"], [3, 5, 7]])
def test_a_pipeline_loads_with_its_linear_classifier(labels, stack, path):
    model = make_pipeline(ImageFlattener(), ImagePCA(3), StandardScaler(), LogisticRegression(C=0.5))
    model.fit(stack, np.array(labels)[np.arange(12) % 3])
    save_model(model, path)
    loaded = load_model(path)
    assert_same_model(loaded, model)
    np.testing.assert_array_equal(loaded.predict_proba(stack), model.predict_proba(stack))
    assert_same_value(loaded.predict(stack), model.predict(stack))
    assert loaded.score(stack, model.predict(stack)) == 1


def test_column_names_stay_a_vector_of_objects(path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.eye(4), columns=["a", "b", "ü", 'd"'])
    model = ImageFlattener().fit(table)
    save_model(model, path)
    assert_same_value(load_model(path).feature_names_in_, model.feature_names_in_)


BASE = np.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize(
    "array",
    [
        BASE.T,
        BASE[::2, ::-3],
        np.asfortranarray(BASE),
        np.moveaxis(BASE.reshape(2, 3, 4), 0, 2),
        np.broadcast_to(np.float32(3), (2, 5)),
        BASE.astype(np.uint16)[:, 1:4],
        np.array(2.5),
        np.zeros((0, 3), np.int8),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}{array.strides}",
)
def test_arrays_of_any_layout_are_saved_as_they_look(array, path):
    model = StackCenterer()
    model.mean_ = array
    save_model(model, path)
    assert_same_value(load_model(path).mean_, array)


def test_foreign_byte_order_becomes_native(path):
    model = StackCenterer()
    model.mean_ = BASE.astype(">f4")
    save_model(model, path)
    assert_same_value(load_model(path).mean_, BASE.astype("f4"))


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
numpy_scalars = (
    st.builds(np.float32, st.floats(width=32, allow_nan=False, allow_infinity=False))
    | st.builds(np.float64, st.floats(allow_nan=False, allow_infinity=False))
    | st.builds(np.int64, st.integers(-(2**63), 2**63 - 1))
    | st.builds(np.uint8, st.integers(0, 255))
    | st.builds(np.bool_, st.booleans())
)
values = st.recursive(
    plain | numpy_scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(value=values)
def test_values_keep_their_type(value, tmp_path_factory):
    file = tmp_path_factory.mktemp("value") / "model.safetensors"
    model = StackCenterer(with_std=value)
    model.extra_ = value
    save_model(model, file)
    loaded = load_model(file)
    assert_same_value(loaded.extra_, value)
    assert_same_value(loaded.with_std, value)


def test_what_no_fit_learns_is_left_out(path):
    model = StackCenterer()
    model._cache, model._cache_, model.notes = np.ones(3), np.ones(3), "not saved"
    save_model(model, path)
    assert vars(load_model(path)) == {"with_std": False}


def test_a_loaded_model_does_not_need_its_file(stack, path):
    model = StackCenterer().fit(stack)
    save_model(model, path)
    loaded = load_model(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert_same_model(loaded, model)
    loaded.mean_ += 1


# Large components stay in the file


@pytest.fixture
def no_small_arrays(monkeypatch):
    monkeypatch.setattr(tensors, "MAPPED_BYTES", 0)


@pytest.mark.usefixtures("no_small_arrays")
def test_a_mapped_model_is_the_saved_one(stack, path, tmp_path):
    model = make_pipeline(IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(2)).fit(stack)
    save_model(model, path)
    mapped = load_model(path, mmap_mode="r")
    assert_same_model(mapped, model)
    assert_same_value(mapped.transform(stack), model.transform(stack))
    assert_same_value(pickle.loads(pickle.dumps(mapped[-1])).components_, model[-1].components_)
    with pytest.raises(ValueError, match="read-only"):
        mapped[-1].components_ += 1
    save_model(mapped, path, overwrite=True)  # what it was mapped from
    assert_same_model(mapped, model)
    assert_same_model(load_model(path), model)


@pytest.mark.usefixtures("no_small_arrays")
@pytest.mark.parametrize("array", [np.arange(6, dtype=np.uint16), np.zeros((0, 3)), np.array(2.5), np.array([True])])
def test_arrays_of_any_dtype_are_mapped(array, path):
    model = StackCenterer()
    model.mean_ = array
    save_model(model, path)
    assert_same_value(load_model(path, mmap_mode="r").mean_, array)


@pytest.mark.usefixtures("no_small_arrays")
def test_damaged_files_are_not_mapped(stack, path):
    save_model(ImagePCA(2).fit(stack), path)
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 20, dtype=int):
        path.write_bytes(content[:length])
        with pytest.raises(StoreError):
            load_model(path, mmap_mode="r")


def test_other_modes_are_refused(path):
    with pytest.raises(ValueError, match=r"mmap_mode='r\+' must be None or 'r'"):
        load_model(path, mmap_mode="r+")


MAPPED_GROWTH = """
import re, sys
import numpy as np
from imgstack_ml import ImagePCA, load_model

def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

load_model(sys.argv[1], mmap_mode="r")  # imports
anonymous, resident, peak = status("RssAnon"), status("VmRSS"), status("VmHWM")
model = load_model(sys.argv[2], mmap_mode="r")
opened = max(status("VmRSS") - resident, status("VmHWM") - peak)
model.transform(np.ones((1, 1000, 1000)))
print(model.components_.nbytes, opened, status("RssAnon") - anonymous)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the growth from /proc")
def test_large_components_are_not_read_before_they_are_used(tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (12, 1000, 1000), dtype=np.uint8)
    save_model(ImagePCA(10, svd_solver="gram").fit(large), tmp_path / "large")
    save_model(ImagePCA(10, svd_solver="gram").fit(large[:, :5, :5]), tmp_path / "small")
    done = run_code(MAPPED_GROWTH, tmp_path / "small", tmp_path / "large")
    assert done.returncode == 0, done.stderr
    n_bytes, opened, copied = map(int, done.stdout.split())
    print(f"\ncomponents of {n_bytes:,} bytes: opened with {opened:,} more, a transform took {copied:,} beside them")
    assert n_bytes == 40_000_000
    assert opened < 4 * 2**20
    assert copied < 24 * 2**20


def test_the_same_model_gives_the_same_bytes(stack, tmp_path):
    model = make_pipeline(StackCenterer(), ImageFlattener(), ImagePCA(2)).fit(stack)
    for name in "ab":
        save_model(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# Refusals in saving


class Centerer(StackCenterer):
    pass


@pytest.mark.parametrize(
    "model",
    [
        SVC(),
        make_pipeline(ImageFlattener(), SVC()),
        Centerer(),
        StackCenterer,
        "StackCenterer",
    ],
)
def test_only_estimators_of_the_package_are_saved(model, path):
    with pytest.raises(TypeError, match=r"cannot be saved; what can: ChannelStatistics, .*ImagePCA"):
        save_model(model, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ImagePCA(random_state=np.random.RandomState(0)), "ImagePCA.random_state is of type RandomState"),
        (ImagePCA(progress=print), "ImagePCA.progress is of type builtin_function"),
        (make_pipeline(ImageFlattener(), memory="cache"), r"set_params\(memory=None\)"),
    ],
)
def test_parameters_must_be_plain(model, message, path):
    with pytest.raises(TypeError, match=message):
        save_model(model, path)


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([1.0, 2.0], [True, False]),
        da.ones(3),
        np.array([1, None], dtype=object),
        np.array([1j]),
        {1: 2},
        {"a": np.ones(2)},
        np.longdouble(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attributes_must_be_plain(value, path):
    model = StackCenterer()
    model.mean_ = value
    with pytest.raises(TypeError, match=r"StackCenterer\.mean_"):
        save_model(model, path)


@pytest.mark.parametrize("value", [np.nan, np.inf, np.float32(-np.inf), np.array([0.0, np.nan]), (1, np.nan)])
def test_numbers_must_be_finite(value, path):
    model = StackCenterer()
    model.mean_ = value
    with pytest.raises(ValueError, match=r"StackCenterer\.mean_ (is|holds)"):
        save_model(model, path)


def test_folders_of_this_machine_are_not_saved(path):
    save_model(ImagePCA(3, checkpoint="unfinished"), path)
    assert load_model(path).get_params() == ImagePCA(3).get_params()


GROWTH = """
import resource, sys, json, struct
from imgstack_ml import load_model, ImagePCA, StackCenterer
from imgstack_ml.errors import StoreError
load_model(sys.argv[1])  # imports
import psutil
before = psutil.Process().memory_info().rss
peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        load_model(path)
        sys.exit(f"{path} was loaded")
    except StoreError:
        pass
print(max(0, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - max(before, 1024 * peak_before)))
"""


def test_hostile_files_take_no_memory(tmp_path):
    """Nine that claim, or hold, much more than they are worth; each is refused with the memory as it was."""
    pytest.importorskip("resource")
    save_model(ImageFlattener(), tmp_path / "good")
    huge = {"dtype": "F64", "shape": [2**30], "data_offsets": [0, 2**33]}
    files = {
        "lying shape": raw_file(huge, b"\0" * 8),
        "deep value": HOSTILE_HEADERS["deep value"][0],
        "deep pipeline": HOSTILE_HEADERS["deep pipeline"][0],
        "empty": b"",
        "pickle": pickle.dumps(Bomb(tmp_path / "exploded")),
        "header of 8 EiB": b"\xff" * 8 + b"{}",
        "header of 33 MB": struct.pack("<Q", 33 * 2**20) + b" " * (33 * 2**20),
        "many names": header_of(centerer(fitted={f"a{i}_b": i for i in range(20_000)})),
        "unknown class": header_of(centerer(**{"class": "os:system"})),
    }
    paths = []
    for name, content in files.items():
        paths.append(tmp_path / name)
        if isinstance(content, bytes):
            paths[-1].write_bytes(content)
        else:
            write_file(paths[-1], content)
    done = run_code(GROWTH, tmp_path / "good", *paths)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * 2**20
    assert not (tmp_path / "exploded").exists()


# Files that imgstack_ml 0.1.0 wrote, each with save_model(model.fit(stack, np.arange(12) % 2), file).
OLD_MODELS = {
    "ChannelStatistics": ChannelStatistics(("mean",), percentiles=(5, 95)),
    "HOGFeatures": HOGFeatures(pixels_per_cell=(2, 2), cells_per_block=(1, 1)),
    "ImageFeatures": ImageFeatureUnion(
        [("hist", ImageHistogram(8, "dtype")), ("pca", ImagePCA(2, svd_solver="gram")), ("no", "drop")],
        transformer_weights={"hist": 0.5},
    ),
    "ImageFlattener": ImageFlattener(),
    "ImageHistogram": ImageHistogram(8, "stack", density=True),
    "ImagePCA": ImagePCA(2, svd_solver="gram", whiten=True),
    "IntensityRescaler": IntensityRescaler("stack", (0.0, 1.0), -1),
    "Pipeline": Pipeline(
        [
            ("stackcenterer", StackCenterer()),
            ("imagefeatures", ImageFeatureUnion([("rows", ImageFlattener())])),
            ("standardscaler", StandardScaler()),
            ("logisticregression", LogisticRegression()),
        ]
    ),
    "StackCenterer": StackCenterer(with_std=True),
    "TextureFeatures": TextureFeatures(range="stack", levels=8),
}


@pytest.mark.parametrize("name", OLD_MODELS)
def test_models_of_version_0_1_load_and_are_written_under_todays_names(name, stack, path):
    loaded = load_model(Path(__file__).parent / "data" / "models_0.1" / f"{name}.safetensors")
    model = OLD_MODELS[name].fit(stack, np.arange(12) % 2)
    assert repr(loaded) == repr(model)
    new = {"residual_variance_image_", "total_weight_", "channel_names_"}
    assert learned(loaded).keys() == learned(model).keys() - new
    apply = "predict_proba" if name == "Pipeline" else "transform"
    np.testing.assert_allclose(getattr(loaded, apply)(stack), getattr(model, apply)(stack), rtol=1e-6, atol=1e-6)
    save_model(loaded, path)
    assert b"ImageFeatures" not in path.read_bytes()
    assert_same_model(load_model(path), loaded)
    if name == "ImagePCA":  # how much each pixel varied is not known: it is not made up
        save_model(loaded.partial_fit(stack), path, overwrite=True)
        assert not hasattr(load_model(path), "residual_variance_image_")


def test_files_of_before_a_parameter_was_there_load(path):
    node = {"class": "ImagePCA", "params": {"n_components": 3}, "arrays": [], "fitted": {}}
    write_file(path, header_of(node), {})
    assert load_model(path).get_params() == ImagePCA(3).get_params()


def test_what_partial_fit_keeps_is_saved_and_checked(stack, path):
    model = ImagePCA(2).partial_fit(stack)
    pipeline = make_pipeline(IntensityRescaler(), model)
    for saved in (model, pipeline):
        save_model(saved, path, overwrite=True)
        loaded = load_model(path)
        state = (loaded if saved is model else loaded[-1])._summary
        assert_same_value(state._asdict(), model._summary._asdict())
        assert b'format_version\\": 2' in path.read_bytes()  # which version 0.1 refuses by name
    save_model(ImagePCA(2).fit(stack), path, overwrite=True)
    assert b'format_version\\": 1' in path.read_bytes()
    model._summary = model._summary._replace(mean=np.zeros(7))
    save_model(model, path, overwrite=True)
    with pytest.raises(StoreError, match="arrays of wrong shapes"):
        load_model(path)


def test_a_header_that_no_load_accepts_is_not_saved(path):
    model = ImageFlattener()
    model.feature_names_in_ = np.array(["n" * (MAX_HEADER_BYTES // 2)], dtype=object)
    with pytest.raises(ValueError, match="the names in this model take"):
        save_model(model, path)


def test_existing_files_are_kept_unless_told_otherwise(path):
    path.write_text("mine")
    with pytest.raises(StoreError, match="overwrite=True"):
        save_model(ImageFlattener(), path)
    assert path.read_text() == "mine"
    save_model(ImageFlattener(), path, overwrite=True)
    assert isinstance(load_model(path), ImageFlattener)


def test_a_save_that_fails_half_way_leaves_the_old_file(path):
    resource = pytest.importorskip("resource")
    save_model(ImageFlattener(), path)
    model = StackCenterer()
    model.mean_ = np.ones(100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreError, match=r"the disk is full: '.*model\.safetensors' needs up to 80\d,\d{3} bytes"):
            save_model(model, path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(load_model(path), ImageFlattener)
    assert list(path.parent.iterdir()) == [path]


def test_every_fault_leaves_the_old_model_or_the_new_one(path, monkeypatch):
    old, new = StackCenterer(), StackCenterer()
    old.mean_, new.mean_ = np.zeros(5), np.ones(5)
    save_model(old, path)
    seen = set()
    for failed in every_fault(monkeypatch, path.parent, lambda: save_model(new, path, overwrite=True)):
        seen.add((failed, float(load_model(path).mean_.max())))
        assert list(path.parent.iterdir()) == [path]
        save_model(old, path, overwrite=True)
    assert {("open", 0.0), ("fsync", 0.0), ("replace", 0.0)} <= seen
    assert load_model(path).mean_.all()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_follow_the_umask(umask, mode, path):
    before = os.umask(umask)
    try:
        save_model(ImageFlattener(), path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


# Hostile files


def write_file(path, header, arrays=None):
    text = header if isinstance(header, str) else json.dumps(header)
    save_file({"mean_": np.ones(3)} if arrays is None else arrays, path, metadata={HEADER_KEY: text})


def centerer(**changes):
    return {"class": "StackCenterer", "params": {}, "arrays": ["mean_"], "fitted": {}} | changes


def header_of(node, **changes):
    return {"format_version": FORMAT_VERSION, "versions": {}, "model": node} | changes


def pipeline_of(steps, **changes):
    node = {"class": "Pipeline", "params": {}, "arrays": [], "fitted": {}, "steps": steps}
    return header_of(node | changes)


def nested(depth):
    # Written by hand: Python's own encoder refuses such depths.
    text = json.dumps(header_of("HERE"))
    step = '{"class":"Pipeline","params":{},"arrays":[],"fitted":{},"steps":[["a",'
    return text.replace('"HERE"', step * depth + '"passthrough"' + "]]}" * depth)


def test_the_file_that_the_hostile_ones_are_made_of_is_good(path):
    write_file(path, header_of(centerer()))
    assert_same_value(load_model(path).mean_, np.ones(3))
    write_file(path, pipeline_of([["a", centerer()]]), {"0.mean_": np.ones(3)})
    assert_same_value(load_model(path)[0].mean_, np.ones(3))


HOSTILE_HEADERS = {
    "no JSON": ("{", "cannot be loaded"),
    "no object": ([1], "not a JSON object"),
    "no version": ({"model": centerer()}, "no 'format_version' of type int"),
    "version of another type": (header_of(centerer(), format_version="1"), "no 'format_version' of type int"),
    "newer version": (header_of(centerer(), format_version=FORMAT_VERSION + 1), "pip install --upgrade"),
    "no model": (header_of(None), "no 'model' of type dict"),
    "no parameters": (header_of({"class": "StackCenterer"}), "no 'params' of type dict"),
    "deep value": ('{"format_version":1,"model":' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be loaded"),
    "deep pipeline": (nested(3_000), "cannot be loaded"),
    "class of another package": (header_of(centerer(**{"class": "os:system"})), "names the class 'os:system'"),
    "class of sklearn": (header_of(centerer(**{"class": "SVC"})), "names the class"),
    "class by its module": (header_of(centerer(**{"class": "sklearn.pipeline:Pipeline"})), "names the class"),
    "class that is a list": (header_of(centerer(**{"class": ["Pipeline"]})), "no 'class' of type str"),
    "unknown parameter": (header_of(centerer(params={"with_mean": True})), r"unknown parameters \['with_mean'\]"),
    "self as parameter": (header_of(centerer(params={"self": 1})), "unknown parameters"),
    "nested parameter": (header_of(centerer(params={"a__b": 1})), "unknown parameters"),
    "a cache of pickles": (pipeline_of([], params={"memory": "/tmp/cache"}), r"unknown parameters \['memory'\]"),
    "a folder to write": (
        header_of({"class": "ImagePCA", "params": {"checkpoint": "/tmp"}, "arrays": [], "fitted": {}}),
        r"unknown parameters \['checkpoint'\]",
    ),
    "state of another class": (header_of(centerer(state={})), "a state, which no fit learns"),
    "state without fields": (
        header_of({"class": "ImagePCA", "params": {}, "arrays": [], "fitted": {}, "state": {}}),
        "state of ImagePCA with wrong fields",
    ),
    "method": (header_of(centerer(fitted={"transform": 1})), "attribute 'transform', which no fit learns"),
    "dunder": (header_of(centerer(fitted={"__class__": 1})), "attribute '__class__'"),
    "private": (header_of(centerer(fitted={"_a_": 1})), "attribute '_a_'"),
    "no identifier": (header_of(centerer(fitted={"a.b_": 1})), r"attribute 'a\.b_'"),
    "new line": (header_of(centerer(fitted={"a_\n": 1})), "attribute"),
    "property": (
        header_of({"class": "ImagePCA", "params": {}, "arrays": [], "fitted": {"eigenimages_": 1}}),
        "attribute 'eigenimages_'",
    ),
    "name that is a list": (header_of(centerer(arrays=[["mean_"]])), "attribute"),
    "attribute twice": (header_of(centerer(fitted={"mean_": 1})), "an attribute twice"),
    "array missing": (header_of(centerer(arrays=["mean_", "scale_"])), "array 'scale_' is missing"),
    "array too many": (header_of(centerer(arrays=[])), r"does not mention the arrays \['mean_'\]"),
    "NaN": (header_of(centerer(fitted={"a_": float("nan")})), "number nan"),
    "number too large": (json.dumps(header_of(centerer(fitted={"a_": "1"}))).replace('"1"', "1e999"), "number inf"),
    "scalar too large": (header_of(centerer(fitted={"a_": {"uint8": 256}})), "256, which is no uint8"),
    "integer too large": (header_of(centerer(fitted={"a_": {"int64": 10**30}})), "cannot be loaded"),
    "scalar of a string": (header_of(centerer(fitted={"a_": {"float32": "1"}})), "unknown kind 'float32'"),
    "unknown kind": (header_of(centerer(fitted={"a_": {"py/object": "os.system"}})), "unknown kind 'py/object'"),
    "no kind": (header_of(centerer(fitted={"a_": {}})), "no known kind"),
    "names that are none": (header_of(centerer(fitted={"a_": {"strings": [1]}})), "unknown kind 'strings'"),
    "labels that are none": (header_of(centerer(fitted={"a_": {"labels": [["a"]]}})), "unknown kind 'labels'"),
    "steps missing": (header_of(centerer(**{"class": "Pipeline"})), "no 'steps' of type list"),
    "filter without an estimator": (
        pipeline_of([["estimator", "drop"]], **{"class": "ComponentFilter"}),
        "no estimator",
    ),
    "filter of another name": (pipeline_of([["a", "drop"]], **{"class": "FrozenEstimator"}), "no estimator"),
    "step without name": (pipeline_of([centerer()]), "step 0"),
    "step of another word": (pipeline_of([["a", "os.system"]]), "step 0"),
}


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_hostile_headers_are_refused(case, path):
    header, message = HOSTILE_HEADERS[case]
    write_file(path, header)
    with pytest.raises(StoreError, match=message) as caught:
        load_model(path)
    assert repr(str(path)) in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_arrays_that_are_not_finite_are_refused(value, path):
    write_file(path, header_of(centerer()), {"mean_": np.array([0, value])})
    with pytest.raises(StoreError, match="'mean_' holds NaN or infinity"):
        load_model(path)


def raw_file(tensor, data):
    entries = {"__metadata__": {HEADER_KEY: json.dumps(header_of(centerer()))}, "mean_": tensor}
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}, "dtype BF16"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "dtype F8_E4M3"),
        ({"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}, "dtype C64"),
        ({"dtype": "O", "shape": [1], "data_offsets": [0, 8]}, "damaged or no model file"),
        ({"dtype": "F64", "shape": [2**40], "data_offsets": [0, 8]}, "damaged or no model file"),
        ({"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}, "damaged or no model file"),
        ({"dtype": "F64", "shape": [2**63, 2], "data_offsets": [0, 8]}, "damaged or no model file"),
        ({"dtype": "F64", "shape": [1], "data_offsets": [8, 0]}, "damaged or no model file"),
    ],
)
def test_arrays_of_lying_or_foreign_types_are_refused(tensor, message, path):
    path.write_bytes(raw_file(tensor, b"\0" * 8))
    with pytest.raises(StoreError, match=message):
        load_model(path)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_is_refused_and_not_run(path, tmp_path):
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(StoreError):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"1234", b"\0" * 8, b"\0" * 100, b"just some text, longer than a header"])
def test_other_files_are_refused(content, path):
    path.write_bytes(content)
    with pytest.raises(StoreError, match="no model file"):
        load_model(path)


def test_a_giant_header_is_refused_unread(path):
    with path.open("wb") as file:  # a sparse file as large as its header claims
        file.write(struct.pack("<Q", 2**33))
        file.truncate(2**33 + 8)
    with pytest.raises(StoreError, match="its header claims 8,589,934,592 bytes"):
        load_model(path)


def test_safetensors_files_of_others_are_refused(path):
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": np.ones(3)}, path, metadata=metadata)
        with pytest.raises(StoreError, match=r"was not written by imgstack_ml\.save_model"):
            load_model(path)


def test_a_truncated_file_is_refused_wherever_it_is_cut(stack, path):
    save_model(ImagePCA(2).fit(stack), path)
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 40, dtype=int):
        path.write_bytes(content[:length])
        with pytest.raises(StoreError):
            load_model(path)


def test_no_change_of_a_header_makes_another_error(stack, path):
    save_model(make_pipeline(StackCenterer(), ImageFlattener(), ImagePCA(2)).fit(stack), path)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.integers(0, end)] = rng.choice(list(b'{}[]",:0aE-'))
        path.write_bytes(changed)
        try:
            load_model(path)
        except StoreError:
            refused += 1
    assert refused > 200


def test_no_file_and_folders_are_refused(tmp_path):
    for missing in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="there is no model file"):
            load_model(missing)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(StoreError, match=r"one in that folder: load_model\('.*model.safetensors'\)"):
        load_model(tmp_path)


def test_masks_are_saved(path):
    stack = np.random.default_rng(0).normal(size=(12, 4, 5))
    mask = np.arange(20).reshape(4, 5) % 3 == 0
    stack[:, ~mask] = np.nan
    models = [ImagePCA(2, mask=mask), ImagePCA(2, mask=mask.tolist()), ImagePCA(2, mask="finite")]
    models += [
        ImageFlattener(mask, fill_value=7),
        make_pipeline(ImageFlattener("finite"), StandardScaler(), ImagePCA(2)),
    ]
    for unfitted in models:
        save_model(unfitted, path, overwrite=True)
        assert repr(load_model(path)) == repr(unfitted)
        fitted = unfitted.fit(stack)
        save_model(fitted, path, overwrite=True)
        assert b'format_version\\": 2' in path.read_bytes()  # which version 0.1 refuses by name
        loaded = load_model(path)
        assert_same_model(loaded, fitted)
        np.testing.assert_array_equal(loaded.transform(stack), fitted.transform(stack))
