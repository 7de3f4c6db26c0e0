"""What the script of the page is given, against the estimator; the script itself is in test_browser.py."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import imgstack_ml as im
from imgstack_ml.inspection.pipelines import find_route
from imgstack_ml.report.evidence import Evidence
from imgstack_ml.report.live import MAX_SCORES, as_json, live_data
from imgstack_ml.report.samples import N_SPREAD, spread_positions
from imgstack_ml.report.survey import read_survey
from tests.lib.stacks import photographs

DISC = np.hypot(*np.mgrid[-12:13, -12:13]) < 11


def integers(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def numbers(packed):
    scales = np.array(packed["scales"])[:, None]
    return integers(packed["data"], "<i2").reshape(len(scales), -1) * scales


def names_of(packed):
    names, before = [], b""
    for shared, rest in zip(packed["shared"], packed["rests"], strict=True):
        before = before[: 2 * shared] + rest.encode("utf-16-le")
        names.append(before.decode("utf-16-le"))
    return names


def evidence_of(pca, scores, names=None, labels=None):
    names = [f"image {i}" for i in range(len(scores))] if names is None else names
    return Evidence(None, scores, None, pca.explained_variance_ratio_, names, labels)


def data_of(estimator, images, **known):
    """The data of a stack, as the page holds them."""
    survey = read_survey(estimator, images)
    found = live_data(estimator, survey, evidence_of(find_route(estimator).pca, survey.scores, **known))
    return survey, json.loads(as_json(found))


@pytest.mark.parametrize(
    "estimator",
    [
        im.ImagePCA(30),
        im.ImagePCA(6, whiten=True),
        im.ImagePCA(6, mask=DISC),
        make_pipeline(im.StackCenterer(), im.ImageFlattener(), im.ImagePCA(6)),
        make_pipeline(im.ImageFlattener(), StandardScaler(), PCA(5, whiten=True)),
        make_pipeline(im.IntensityRescaler(out_range=(0.0, 1.0)), im.ImagePCA(6)),
    ],
    ids=["pca", "whitened", "mask", "centred", "scaled pixels", "rescaled"],
)
@pytest.mark.filterwarnings("ignore:Feature names:UserWarning")
def test_sums_of_components_are_what_the_estimator_reconstructs(faces, estimator):
    survey, data = data_of(estimator.fit(faces), faces)
    pca, k = find_route(estimator).pca, len(data["titles"])
    assert k == min(24, len(pca.components_))
    scores = np.zeros((8, len(pca.components_)))
    scores[:, :k] = [row["scores"] for row in data["rows"]]
    np.testing.assert_allclose(scores[0, :k], survey.scores[survey.worst[0].position, :k])
    wanted = np.asarray(find_route(estimator).reconstruct(scores))
    basis = data["basis"]
    made = (numbers(basis["mean"]) + scores[:, :k] @ numbers(basis["components"])).reshape(wanted.shape)
    inside = np.ones((25, 25), bool)
    if basis["hidden"]:
        inside = integers(basis["hidden"], "u1").reshape(25, 25) == 0
        np.testing.assert_array_equal(inside, DISC)
    (low, high) = basis["limits"][0]
    np.testing.assert_allclose(made[:, inside], wanted[:, inside], atol=(high - low) / 255)
    np.testing.assert_allclose(numbers(data["plot"]["scores"]), survey.scores[:, :k].T, atol=1e-4 * survey.scores.max())


def test_what_is_no_image_or_no_sum_is_not_drawn(faces):
    rows = faces.reshape(50, -1)[:, ::5].astype(float)
    _, data = data_of(PCA(3).fit(rows), rows)
    assert data["basis"] is data["sheet"] is None
    assert not data["rows"]
    assert len(data["plot"]["scores"]["scales"]) == 3

    class Bent(StandardScaler):
        def inverse_transform(self, X):
            return super().inverse_transform(X) ** 2

    _, data = data_of(make_pipeline(im.ImageFlattener(), Bent(), PCA(3)).fit(faces), faces)
    assert data["basis"] is None
    assert data["sheet"]


def test_pictures_of_images_are_theirs():
    images = photographs(40, (13, 30, 3))
    _, data = data_of(im.ImagePCA(2).fit(images), images)
    sheet, (low, high) = data["sheet"], data["basis"]["limits"][0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["uri"].partition(",")[2]))))
    np.testing.assert_array_equal(integers(sheet["at"], "<u2"), np.arange(40))
    y, x = (35 // sheet["columns"] * sheet["cell"][0], 35 % sheet["columns"] * sheet["cell"][1])
    wanted = 255 * ((images[35] - float(low)) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(pixels[y : y + 13, x : x + 30], wanted, atol=1)


def test_many_scores_are_a_sample_with_all_that_have_pictures_and_long_names_fit():
    rng = np.random.default_rng(0)
    pca = im.ImagePCA(3).fit(rng.random((10, 4, 4)))
    scores = rng.normal(size=(2 * MAX_SCORES, 3))
    scores[17] = np.nan
    labels = rng.integers(0, 900, len(scores)).astype(str)
    plot = live_data(pca, None, evidence_of(pca, scores, labels=labels))["plot"]
    shown = integers(plot["positions"], "<u4")
    assert len(shown) == plot["n_shown"] == MAX_SCORES
    assert (np.diff(shown.astype(int)) > 0).all()
    assert 17 not in shown
    np.testing.assert_allclose(numbers(plot["scores"]), scores[shown].T, atol=1e-3)
    known = np.array([*plot["labels"][:500], *["other labels"] * 65036])[integers(plot["label_of"], "<u2")]
    assert len(plot["labels"]) == 501
    assert ((known == labels[shown]) | (known == "other labels")).all()
    names = [f"😀{i}" + 300 * "\\<" for i in rng.permutation(len(scores))]
    data = live_data(pca, None, evidence_of(pca, scores, names))
    assert len(as_json(data).encode()) < 1.5e6
    shown = integers(data["plot"]["positions"], "<u4")
    assert names_of(data["plot"]["names"]) == [names[i] for i in shown]
    assert 100 < len(shown) < MAX_SCORES


def test_data_take_no_more_than_their_room():
    images = np.random.default_rng(0).integers(0, 256, (1000, 48, 48, 3), dtype=np.uint8)
    pca = im.ImagePCA(30, random_state=0).fit(images[:60])
    survey = read_survey(pca, images)
    evidence = evidence_of(pca, survey.scores, [f"{i:200d}" for i in range(1000)])
    sizes = [len(as_json(live_data(pca, survey, evidence, room=room))) for room in (6_000_000, 2_500_000, 700_000)]
    assert sizes[0] < 6e6
    assert sizes[1] < 2.5e6
    assert sizes[2] < 7e5
    assert live_data(pca, survey, evidence, room=500_000) is None


def test_images_of_every_label_get_pictures():
    labels = np.array(["rare"] * 3 + ["some"] * 200 + ["many"] * 5000)
    chosen = spread_positions(len(labels), N_SPREAD, labels)
    found = dict(zip(*np.unique(labels[chosen], return_counts=True), strict=True))
    assert found == {"rare": 3, "some": 200, "many": N_SPREAD - 203}
    assert len(spread_positions(3000, N_SPREAD, np.arange(3000))) == N_SPREAD


@pytest.mark.parametrize("chunks", [7, 1500])
def test_images_of_extreme_scores_get_pictures_from_the_one_read(chunks):
    import dask.array as da

    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (3000, 6, 6))
    images[[11, 1234, 2222]] += [[[500]], [[-400]], [[300]]]
    pca = im.ImagePCA(2).fit(images)
    found = read_survey(pca, da.from_array(images, chunks=(chunks, 6, 6)))
    extreme = np.argsort(found.scores, axis=0)[[0, 1, 2, 3, -4, -3, -2, -1]].ravel().tolist()
    assert set(extreme) | {11, 1234, 2222} <= set(found.thumbnails)
    assert len(found.thumbnails) <= 1000
    np.testing.assert_allclose(found.thumbnails[1234], images[1234])
