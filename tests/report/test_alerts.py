"""Alerts on real images: planted faults are found, each of them and nothing else; clean collections raise none."""

import html
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml.cli.lib.labels import are_kept
from imgstack_ml.datasets import load_digits, load_faces, load_textures, load_tissue, make_cells
from imgstack_ml.inspection.pipelines import split_at_pca
from imgstack_ml.report.alerts import find_alerts
from imgstack_ml.report.evidence import Alert, Evidence
from imgstack_ml.report.remedies import Run
from imgstack_ml.report.survey import outlier_statistics, read_survey
from tests.campaigns import test_alerts_on_a_fourth_set as fourth
from tests.campaigns import test_alerts_on_a_third_set as third
from tests.campaigns import test_believable_alerts as campaign
from tests.lib.commands import run_pca

KINDS = [
    "constant",
    "blank",
    "clipped",
    "range",
    "sharpness",
    "duplicates",
    "leverage",
    "channels",
    "turned",
    "empty",
    "pixels",
    "illumination",
    "drift",
    "brightness",
]


def alerts_of(images, labels=None, n_components=12, problems=(), pca=None, names=None, run=None):
    """All alerts about images and their PCA."""
    pca = im.ImagePCA(n_components).fit(images) if pca is None else pca
    found = read_survey(pca, images)
    names = names or [f"{i}.png" for i in range(len(images))]
    last = split_at_pca(pca)[1]
    ratio, outliers = last.explained_variance_ratio_, outlier_statistics(last, found)
    given = (found.statistics, found.scores, outliers, ratio, names, labels, problems, found.prepared, pca, run)
    return find_alerts(Evidence(*given, sharpness=found.sharpness))


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


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 3600), ("uint16", 4095), ("uint16", 65535)])
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
    assert alerts["leverage"].title == "1 image with a component of its own"


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
    assert {"drift", "duplicates", "range"} <= set(found)


def test_files_that_were_left_out(textures):
    alert = only(alerts_of(textures, problems=[("a.png", "it is empty")]), "skipped")
    assert alert.names == ["a.png: it is empty"]


# Words -------------------------------------------------------------------------------------------------


def small_images(seed=0, n=40):
    """Smooth textures, of which one has nothing to do with the next."""
    rng = np.random.default_rng(seed)
    return np.rint(90 + 60 * gaussian_filter(rng.normal(size=(n, 24, 24)), (0, 1, 1))).clip(1, 250).astype(np.uint8)


def with_fault(kind):
    """Small images with a fault."""
    images, y = small_images(), np.linspace(1, 0.3, 24)[:, None]
    steps = np.linspace(1, 0.4, 40)[:, None, None]
    lamp = np.random.default_rng(1).permutation(steps)
    pixels = images.copy()
    pixels[:, 5, 7] = 250
    coloured = images[..., None] / [1, 2, 4]
    coloured[-2:] = coloured[-2:, ..., ::-1]
    view = images / 4 + 0.75 * images[0]
    with_empty = np.stack([images, images.transpose(0, 2, 1), images // 60], axis=3)
    with_empty[..., 2] = 7 + (np.random.default_rng(2).random(images.shape) < 1e-2)
    faulty = {
        "empty": with_empty,
        "constant": np.r_[images[:-2], np.full((2, 24, 24), 7, np.uint8)],
        "blank": np.r_[images[:-2], images[-2:] * (np.arange(24) < 18)[:, None]],
        "clipped": np.r_[images[:-2], np.where(images[-2:] > 90, 255, images[-2:])],
        "range": np.r_[images[:-2], images[-2:] // 10],
        "sharpness": np.r_[images[:-2], gaussian_filter(images[-2:], (0, 2, 2))],
        "duplicates": np.r_[images[:-2], images[3:4], images[3:4]],
        "leverage": np.r_[images[:-1], 40 + 170 * (np.indices((1, 24, 24)).sum(axis=0) % 2)],
        "channels": coloured,
        "turned": np.r_[view[:-2], view[-2:, ::-1]],
        "pixels": pixels,
        "illumination": small_images(n=150) * y,
        "drift": images * steps,
        "brightness": images * lamp**1.5,
    }[kind]
    return np.asarray(faulty).clip(0, 255).astype(np.uint8)


MODELS = {
    "ImagePCA": lambda: im.ImagePCA(6),
    "Pipeline": lambda: make_pipeline(im.StackCenterer(), im.ImageFlattener(), im.ImagePCA(6)),
}


@pytest.mark.parametrize("model", MODELS)
def test_what_to_type_helps(model):
    """Each remedy is Python that runs; where it changes stack or model, the alert is gone."""
    for kind in KINDS if model == "ImagePCA" else ["constant", "range", "empty", "pixels", "illumination"]:
        stack = with_fault(kind)
        fitted = MODELS[model]().fit(stack)
        report = im.Report(alerts_of(stack, pca=fitted), "")
        alert = report.alerts[kind]
        assert alert.meaning.endswith(".")
        scope = {"stack": stack, "model": fitted, "report": report}
        exec(alert.action, scope)
        left = stack[scope["keep"]] if "keep" in scope else stack
        assert len(left) == len(stack) - len(alert.images) * ("keep" in scope)
        if "plt" not in scope:
            assert kind not in alerts_of(left, pca=scope["model"])


@pytest.mark.filterwarnings("ignore::imgstack_ml.RankWarning")  # of the fits with the faulty images
def test_images_of_several_alerts_are_left_out_by_one_line():
    """With fewer components where few images are left; where next to none are, the line says so."""
    for model, n_constant in (("ImagePCA", 2), ("Pipeline", 34), ("ImagePCA", 38)):
        stack = small_images()
        stack[:n_constant], stack[39] = 7, stack[38]
        fitted = MODELS[model]().fit(stack)
        report = im.generate_report(fitted, stack)
        assert {"constant", "duplicates"} <= report.alerts.keys()
        named = {index for alert in report.alerts.values() for index in alert.images.tolist()}
        assert report.keep.tolist() == sorted(set(range(40)) - named)
        (line,) = re.findall(r"at once</strong>\n<pre>(.*)</pre>", report.html)
        exec(html.unescape(line), {"stack": stack, "model": fitted, "report": report})
        last, n_left = split_at_pca(fitted)[1], len(report.keep)
        assert (last.n_samples_, len(last.components_)) == ((n_left, min(6, n_left - 1)) if n_left > 1 else (40, 6))


def test_what_the_pipeline_corrects_is_no_alert():
    for kind in ("range", "brightness", "drift"):
        stack = with_fault(kind)
        assert kind not in alerts_of(stack, pca=make_pipeline(im.IntensityRescaler(), im.ImagePCA(6)).fit(stack))


@pytest.mark.parametrize("kind", ["movie", "movie with an event", "sorted by folder", "drift", "leverage"])
def test_without_reading_no_alert_that_reading_denies(kind):
    names = None
    if "movie" in kind:
        stack = campaign.growing_colony(np.random.default_rng(0), 60, 24)
        stack[30] += 90 * np.uint8("event" in kind)
    elif "folder" in kind:
        stack = small_images() // np.repeat([[[1]], [[2]]], 20, axis=0)
        names = [f"{'ab'[i // 20]}/{i}.png" for i in range(40)]
    else:
        stack = with_fault(kind)
    pca = im.ImagePCA(6).fit(stack)
    names = names or [str(i) for i in range(len(stack))]
    read = alerts_of(stack, pca=pca, names=names)
    unread = find_alerts(
        Evidence(None, pca.transform(stack), None, pca.explained_variance_ratio_, names, estimator=pca)
    )
    assert set(unread) <= set(read)
    assert ("leverage" in unread) == (kind in ("leverage", "movie with an event"))
    assert ("drift" in unread) == (kind == "drift")


def test_many_names_are_counted():
    stack = small_images()
    stack[::2] = stack[0]
    alert = alerts_of(stack)["duplicates"]
    assert alert.names == ["0.png ≈ 2.png ≈ 4.png ≈ 6.png ≈ 8.png ≈ 15 more"]
    alert = Alert("constant", "40 images", "Meaning.", "what()", np.arange(40), [str(i) for i in range(40)])
    assert "0, 1, 2, 3, 4, 35 more" in repr(alert)


def alerts_of_run(folder, out):
    """Alerts of the report that the command line makes of a run, with names as it has them."""
    record = json.loads(Path(out, "run.json").read_text())
    command = record.get("command_line") or shlex.join(["imgstack-ml", "pca", folder, "-o", out])
    stack, model = im.open_stack(folder), im.load_model(Path(out, "model.safetensors"))
    kept = are_kept(record["parameters"]["leave_out"], [Path(file).name for file in stack.files])
    stack = stack[kept]
    names = [Path(file).name for file in stack.files]
    return alerts_of(stack, pca=model, names=names, run=Run(record, command))


def test_what_to_type_on_the_command_line(tmp_path, monkeypatch):
    """Options where there are some, a move of few files, and Python that opens what the command read and wrote."""
    monkeypatch.chdir(tmp_path)
    for kind, options in {"constant": [], "empty": [], "brightness": ["-r"], "duplicates": ["-k", 5]}.items():
        folder, out = f"in {kind}", f"out {kind}"
        images = with_fault(kind)
        images = np.r_[images[:30], images[30:31].repeat(10, axis=0)] if kind == "duplicates" else images
        im.write_images(images, folder)
        assert run_pca(folder, "-o", out, *options).exit_code == 0
        alert = alerts_of_run(folder, out)[kind]
        for line in [] if alert.action.startswith("from") else alert.action.splitlines():
            if line.startswith("imgstack-ml "):
                assert run_pca(*shlex.split(line)[2:]).exit_code == 0
            else:
                subprocess.run(line, shell=True, check=True)
        if alert.action.startswith("from"):
            exec(alert.action, scope := {})
            left = scope["stack"][scope.get("keep", slice(None))]
            assert kind not in alerts_of(left, pca=scope["model"])
        else:
            assert kind not in alerts_of_run(folder, out)
        assert ("--rescale" in alert.action) == (kind == "brightness")
        assert ("--leave-out" in alert.action) == (kind == "constant")


@pytest.mark.parametrize(
    "case",
    [
        "movie: a scene at rest",
        "frames of a movie written twice",
        "red for blue",
        "dead pixels",
        "two units, half of each",
        "a lamp that fades within wells",
        "X-ray diffraction",
        "radiographs",
        "negatives",
        "upside down",
        "green is missing",
    ],
)
def test_cases_of_the_campaign(case):
    sets = [campaign.ORDINARY_FIRST, campaign.FAULTS_FIRST, campaign.FAULTS_SECOND]
    sets += [third.ORDINARY_THIRD, fourth.ORDINARY_FOURTH, fourth.FAULTS_FOURTH]
    found = next(cases[case] for cases in sets if case in cases)()
    assert not campaign.verdict(found, alerts_of(found.images, names=found.names))


def test_without_images_only_scores_are_judged():
    scores = np.random.default_rng(0).normal(size=(100, 3))
    scores[:, 1] = np.sort(scores[:, 1])
    scores[5, 2] = 100
    names = [str(i) for i in range(100)]
    alerts = find_alerts(Evidence(None, scores, None, np.array([0.5, 0.3, 0.1]), names))
    assert set(alerts) == {"leverage", "drift"}
    np.testing.assert_array_equal(alerts["leverage"].images, [5])
