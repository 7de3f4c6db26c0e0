"""Alerts on real images: planted faults are found, each of them and nothing else; clean collections raise none."""

import numpy as np
import pytest

import imgstack_ml as im
from imgstack_ml.datasets import load_digits, load_faces, load_textures, load_tissue, make_cells
from imgstack_ml.report.alerts import Evidence, find_alerts
from imgstack_ml.report.survey import outlier_statistics, read_survey


def alerts_of(images, labels=None, n_components=12, problems=()):
    """All alerts about images and their PCA."""
    pca = im.ImagePCA(n_components).fit(images)
    found = read_survey(pca, images)
    names = [f"{i}.png" for i in range(len(images))]
    ratio = pca.explained_variance_ratio_
    outliers = outlier_statistics(pca, found)
    given = (found.statistics, found.scores, outliers, ratio, names, labels, problems, found.prepared, pca)
    return find_alerts(Evidence(*given))


def only(alerts, *kinds):
    assert set(alerts) == set(kinds)
    return alerts[kinds[0]]


def shuffled(images, seed=0):
    return images[np.random.default_rng(seed).permutation(len(images))]


@pytest.fixture
def textures():
    """192 patches of three textures, in random order, without faults."""
    return shuffled(load_textures()[0])


def test_outliers_are_those_of_the_pca():
    """The report tells them from its one read; images far along the components are found, too."""
    images = shuffled(load_textures()[0]).astype(np.float32)
    for pca in (im.ImagePCA(12).fit(images), im.ImagePCA(12, whiten=True).fit(images)):
        expected = pca.outlier_statistics(images)
        found = outlier_statistics(pca, read_survey(pca, images))
        np.testing.assert_allclose(found.q, expected.q, rtol=1e-4)
        np.testing.assert_allclose(found.t2, expected.t2, rtol=1e-4)
    scores = np.zeros((1, 12), np.float32)
    scores[0, :6] = 9  # standard deviations
    images[5] = pca.inverse_transform(scores)[0]
    survey = read_survey(pca, images)
    names = [f"{i}.png" for i in range(len(images))]
    evidence = Evidence(None, None, outlier_statistics(pca, survey), pca.explained_variance_ratio_, names)
    alert = only(find_alerts(evidence), "outliers")
    assert alert.names == ["5.png"]
    assert "Hotelling" in alert.meaning


# Clean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("faces", {"clipped"}),  # one of them is: a white wall
        ("digits", set()),
        ("textures", set()),
        ("textures by label", set()),
        ("tissue", set()),
    ],
)
def test_clean_collections_raise_no_false_alarm(name, kinds):
    images, labels = {
        "faces": lambda: (load_faces()[0][:100], None),
        "digits": load_digits,
        "textures": lambda: (shuffled(load_textures()[0]), None),
        "textures by label": load_textures,
        "tissue": lambda: (load_tissue(), None),
    }[name]()
    assert set(alerts_of(images, labels)) == kinds


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [3, 12, 40, 300])
def test_noise_raises_no_alarm(n, seed):
    images = np.random.default_rng(seed).normal(size=(n, 10, 10)) + np.random.default_rng(99).normal(size=(10, 10))
    assert alerts_of(images, n_components=2) == {}


def test_cells_are_dim_and_overexposed_as_they_were_made():
    assert set(alerts_of(make_cells(150, 48))) == {"range", "clipped", "brightness"}


# Planted -----------------------------------------------------------------------------------------------


def test_constant_images(textures):
    textures[[4, 99]] = 0
    textures[30] = 200
    alerts = alerts_of(textures)
    np.testing.assert_array_equal(alerts["constant"].images, [4, 30, 99])
    assert alerts["constant"].title == "3 images of one value throughout"
    assert "duplicates" not in alerts


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 4095), ("uint16", 65535)])
def test_overexposed_images(dtype, top, textures):
    images = (textures.astype(float) / 255 * top).astype(dtype)
    for index in (3, 50, 51):
        images[index] = np.minimum(images[index] * (top / np.percentile(images[index], 90)), top)
    alert = alerts_of(images)["clipped"]
    np.testing.assert_array_equal(alert.images, [3, 50, 51])
    assert alert.names == ["3.png", "50.png", "51.png"]


def test_overexposure_of_one_channel():
    tissue = shuffled(load_tissue())
    tissue[9, :20, :, 1] = 255
    np.testing.assert_array_equal(alerts_of(tissue)["clipped"].images, [9])


@pytest.mark.parametrize("factor", [0.3, 0.1])
def test_dim_images(factor, textures):
    dim = [0, 17, 18, 190]
    textures[dim] = (textures[dim] * factor).astype(np.uint8)
    np.testing.assert_array_equal(alerts_of(textures)["range"].images, dim)


def test_many_copies_are_one_group_and_name_each_other(textures):
    textures[10:150:7] = textures[10]
    alert = only(alerts_of(textures), "duplicates")
    np.testing.assert_array_equal(alert.images, np.arange(17, 150, 7))
    assert alert.names[0].startswith("10.png ≈ 17.png ≈ 24.png")


def test_images_unlike_the_others_are_found_though_they_were_fitted_too():
    digits = shuffled(load_digits()[0])[:600]
    digits[[77, 300]] = np.random.default_rng(0).integers(0, 256, (2, 8, 8))
    np.testing.assert_array_equal(alerts_of(digits, n_components=20)["outliers"].images, [77, 300])


def test_one_strong_image_is_named_by_its_leverage():
    digits = load_digits()[0][:400].astype(np.float64)
    digits[123] = np.indices((8, 8)).sum(axis=0) % 2 * 2000
    alerts = alerts_of(digits)
    np.testing.assert_array_equal(alerts["leverage"].images, [123])


@pytest.mark.parametrize("last", [0.5, 1.6])
def test_a_lamp_that_drifts(last, textures):
    lamp = np.linspace(1, last, len(textures))[:, None, None]
    drifting = (textures * lamp / 2).astype(np.uint8)
    alert = alerts_of(drifting)["drift"]
    assert "order" in alert.title
    assert len(alert.images) == 0


def test_drift_within_labels_only():
    images, labels = load_textures()
    assert alerts_of(images) == {}  # sorted by texture, which is no drift
    lamp = np.concatenate([np.linspace(1, 0.5, (labels == label).sum()) for label in np.unique(labels)])
    assert "within each label" in alerts_of((images * lamp[:, None, None]).astype(np.uint8), labels)["drift"].title


def test_brightness_that_is_the_first_component(textures):
    rng = np.random.default_rng(0)
    exposed = textures * rng.uniform(0.3, 1, len(textures))[:, None, None]
    assert "brightness" in alerts_of(exposed.astype(np.uint8))


@pytest.mark.parametrize("factor", [1e-140, 1e140])
def test_alerts_in_all_units(textures, factor):
    images = textures[:60] * np.linspace(0.2, 1, 60)[:, None, None]
    images[11], images[40] = images[30], images[20] / 99
    expected, found = alerts_of(images, n_components=4), alerts_of(images * factor, n_components=4)
    assert {kind: alert.images.tolist() for kind, alert in found.items()} == {
        kind: alert.images.tolist() for kind, alert in expected.items()
    }
    assert {"brightness", "duplicates", "range"} <= set(found)


def test_files_that_were_left_out(textures):
    alert = only(alerts_of(textures, problems=[("a.png", "it is empty")]), "skipped")
    assert alert.names == ["a.png: it is empty"]


# Words -------------------------------------------------------------------------------------------------


def test_what_to_type_works(textures):
    stack = textures.copy()
    stack[[4, 99]] = 0
    stack[60] = stack[61]
    stack[70] = (stack[70].astype(int) * 3).clip(0, 255)
    model = im.ImagePCA(12).fit(stack)
    report = im.Report(alerts_of(stack), "")
    assert {"constant", "duplicates", "clipped"} <= set(report.alerts)
    for alert in report.alerts.values():
        assert alert.meaning.endswith(".")
        assert alert.names or not len(alert.images)
        scope = {"stack": stack, "model": model, "report": report, "np": np, "im": im}
        exec("from sklearn.pipeline import make_pipeline\n" + alert.action, scope)
        if alert.action.startswith("stack = "):
            assert len(scope["stack"]) == len(stack) - len(alert.images)


def test_without_images_only_scores_are_judged():
    scores = np.random.default_rng(0).normal(size=(100, 3))
    scores[:, 1] = np.sort(scores[:, 1])
    scores[5, 2] = 100
    names = [str(i) for i in range(100)]
    alerts = find_alerts(Evidence(None, scores, None, np.array([0.5, 0.3, 0.1]), names))
    assert set(alerts) == {"leverage", "drift"}
    np.testing.assert_array_equal(alerts["leverage"].images, [5])
