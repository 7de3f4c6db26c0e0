"""The report: what it reads, what stands on the page, and how a real browser takes it."""

import html
import os
import re
import shutil
import subprocess
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import dask
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml.datasets import load_faces
from imgstack_ml.report.survey import read_survey
from tests.lib.images import write_folder, write_image
from tests.lib.stacks import counted, photographs

VOID = {"meta", "link", "img", "br"}  # elements without an end
HOSTILE = "<img src=x onerror=alert(1)>&\"'$.png"


class Page(HTMLParser):
    """Tags, identifiers and text of a page; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.ids, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def assert_sound(report):
    """One page that stands alone: no script, nothing to load, every picture described, at most 5 MB."""
    assert len(report.html.encode("utf-8")) <= 5e6
    page = Page(report.html)
    assert not page.all("script")
    assert not page.all("iframe")
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], attrs
        for name in ("src", "href", "xlink:href"):
            assert attrs.get(name, "#").startswith(("data:", "#")), (tag, attrs)
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert all(attrs["aria-label"] for attrs in page.all("svg"))
    assert "url(http" not in report.html
    assert len(page.ids) == len(set(page.ids))
    return page


def sections(page):
    return [attrs["id"] for attrs in page.all("section")]


@pytest.fixture(scope="module")
def faces():
    images, labels = load_faces()
    return images[::4].copy(), labels[::4]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of images one of which has a hostile name and is constant, so that an alert names it."""
    folder = tmp_path_factory.mktemp("hostile")
    for i, image in enumerate(photographs(30, (20, 16, 3))):
        write_image(folder / f"img{i}.png", image)
    Image.fromarray(np.full((20, 16, 3), 9, np.uint8)).save(folder / HOSTILE)
    return im.open_stack(folder)


# The survey --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", [1, 7, 50])
def test_one_read_finds_scores_errors_and_the_best_and_worst(chunks, scheduler, faces):
    images, _ = faces
    pipeline = make_pipeline(im.StackCenterer(), im.ImageFlattener(), im.ImagePCA(6)).fit(images)
    source = counted(images, chunks)
    with dask.config.set(scheduler=scheduler):
        found = read_survey(pipeline, source.data)
    assert source.n_reads == 1
    pca = PCA(6, svd_solver="full").fit(images.reshape(50, -1).astype(float))
    expected = pca.transform(images.reshape(50, -1).astype(float))
    np.testing.assert_allclose(np.abs(found.scores), np.abs(expected), atol=1e-4 * np.abs(expected).max())
    off = pca.inverse_transform(expected).reshape(50, 25, 25) - images
    errors = np.sqrt((off**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(found.errors, errors, rtol=1e-4)
    order = np.argsort(errors)
    assert [one.position for one in found.best] == order[:4].tolist()
    assert [one.position for one in found.worst] == order[:-5:-1].tolist()
    for one in found.worst:
        np.testing.assert_array_equal(one.image, images[one.position])
        np.testing.assert_allclose(one.reconstruction, images[one.position] + off[one.position], atol=0.1)
    assert list(found.thumbnails) == list(range(50))
    np.testing.assert_array_equal(found.thumbnails[7], images[7])


def test_thumbnails_are_small_and_few():
    source = counted(
        (lambda start, stop: np.ones((stop - start, 100, 90), np.uint8), (5000, 100, 90), np.dtype("u1")), 500
    )
    pca = im.ImagePCA(2).fit(np.random.default_rng(0).random((9, 100, 90)))
    found = read_survey(pca, source.data)
    assert len(found.thumbnails) == 1000
    assert {picture.shape for picture in found.thumbnails.values()} == {(33, 30)}


# The page ----------------------------------------------------------------------------------------------


def test_a_report_with_images_reads_them_once_and_has_every_section(faces):
    images, _ = faces
    source = counted(images, 10)
    pca = im.ImagePCA(8).fit(images)
    report = im.generate_report(pca, source.data)
    assert source.n_reads == 1
    page = assert_sound(report)
    assert [name for name in sections(page) if name != "alerts"] == [
        "images", "variance", "eigenimages", "scores", "reconstructions", "fit", "reproduce"
    ]  # fmt: skip
    assert "8 components explain" in page.text
    assert "50 of 25 × 25, uint8" in page.text
    assert "ImagePCA(n_components=8)" in page.text


def test_a_report_without_images_reads_nothing(faces):
    source = counted(faces[0], 10)
    pca = im.ImagePCA(8).fit(source.data)
    before = source.n_reads
    page = assert_sound(im.generate_report(pca))
    assert source.n_reads == before
    assert sections(page) == ["variance", "eigenimages", "fit", "reproduce"]
    scores = np.random.default_rng(0).normal(size=(50, 8))
    assert "scores" in sections(assert_sound(im.generate_report(pca, scores=scores)))
    with pytest.raises(ValueError, match=r"the PCA has 8 components and needs \(n_images, 8\)"):
        im.generate_report(pca, scores=scores[:, :3])


def test_the_fingerprint_is_that_of_the_pixels(faces):
    images, _ = faces
    pca = im.ImagePCA(2).fit(images)

    def fingerprint(stack):
        return re.search(r"fingerprint of the pixels</th><td>([0-9a-f]{16})<", im.generate_report(pca, stack).html)[1]

    other = images.copy()
    other[7, 3, 3] ^= 1
    assert fingerprint(images) == fingerprint(counted(images, 7).data) != fingerprint(other)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((20, 16), "uint16"),
        ((20, 16, 1), "uint8"),
        ((20, 16, 4), "uint8"),
        ((20, 16, 2), "float32"),
        ((7,), "float64"),
        ((1, 1), "uint8"),
    ],
)
def test_images_of_any_kind(shape, dtype):
    images = photographs(30, shape, dtype)
    k = min(3, int(np.prod(shape)))
    page = assert_sound(im.generate_report(im.ImagePCA(k).fit(images), images))
    assert ("eigenimages" in sections(page)) == (len(shape) > 1)


def test_a_pca_of_what_are_no_images(faces):
    images, _ = faces
    rows = images.reshape(50, -1).astype(float)
    page = assert_sound(im.generate_report(PCA(3).fit(rows), rows))
    assert sections(page)[-5:] == ["images", "variance", "scores", "fit", "reproduce"]


def test_certificates_are_told():
    images = photographs(60, (16, 16))
    pca = im.ImagePCA(4, svd_solver="randomized", random_state=0).fit(images)
    page = assert_sound(im.generate_report(pca))
    assert "missed, for certain" in page.text
    assert f"{pca.certificate_.captured_variance / pca.certificate_.total_variance:.4%}".replace("%", " %") in page.text


def test_large_noisy_images_stay_within_5_mb():
    images = np.random.default_rng(0).integers(0, 256, (70, 300, 300, 3), dtype=np.uint8)
    report = im.generate_report(im.ImagePCA(64).fit(images), images)
    page = assert_sound(report)
    assert "40 more are in eigenimages_" in page.text


def test_very_many_points_stay_small():
    pca = im.ImagePCA(2).fit(np.random.default_rng(0).random((10, 4, 4)))
    images = np.random.default_rng(1).random((30_000, 4, 4))
    assert len(assert_sound(im.generate_report(pca, images)).text) < 1e5


def test_unfitted_estimators_are_refused(faces):
    with pytest.raises(NotFittedError, match="holds no fitted PCA"):
        im.generate_report(im.ImagePCA(2), faces[0])


def test_hostile_names_are_text(hostile):
    report = im.generate_report(im.ImagePCA(3).fit(hostile), hostile)
    page = assert_sound(report)
    assert HOSTILE in page.text
    assert "onerror" not in re.sub(r"&lt;img src=x onerror", "", report.html)


def test_names_that_are_not_utf8(tmp_path):
    write_folder(tmp_path, 5)
    os.rename(tmp_path / "img3.png", os.fsencode(tmp_path) + b"/img\xff.png")
    stack = im.open_stack(tmp_path)
    report = im.generate_report(im.ImagePCA(2).fit(stack), stack)
    report.save_as_html(tmp_path / "report.html")
    assert_sound(report)


def test_saving_is_all_or_nothing(tmp_path, faces):
    report = im.generate_report(im.ImagePCA(2).fit(faces[0]))
    report.save_as_html(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == report.html
    with pytest.raises(im.StoreError, match="exists"):
        report.save_as_html(tmp_path / "a.html")
    with pytest.raises(im.StoreError):
        report.save_as_html(tmp_path / "missing" / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_in_a_notebook_and_in_a_browser(faces):
    opened = []

    class Recorder(webbrowser.BaseBrowser):
        def open(self, url, new=0, autoraise=True):
            opened.append(url)
            return True

    webbrowser.register("recorder", None, Recorder(), preferred=True)
    report = im.generate_report(im.ImagePCA(2).fit(faces[0]), faces[0])
    path = Path(report.open_in_browser())
    assert opened == [path.as_uri()]
    assert path.read_text(encoding="utf-8") == report.html
    path.unlink()
    path.parent.rmdir()
    frame = Page(report._repr_html_()).all("iframe")[0]
    assert frame["srcdoc"] == report.html
    assert repr(report).startswith("Report of ")


# A real browser ----------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --log-level=0
""".split()  # noqa: SIM905 (one a line would be long)


def in_browser(page, folder, *options):
    profile = folder / "profile"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    shutil.rmtree(profile)
    assert done.returncode == 0, done.stderr
    return done


def requests(log):
    """What pages asked for; the browser's own errands are to its maker."""
    return re.findall(r'"url":\s*"((?:https?|wss?)://(?![^"/]*(?:google|gvt1))[^"]*)"', log.read_text())


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, e.g. apt-get install chromium")


@needs_chromium
def test_wrongs_would_be_noticed(tmp_path):
    page, log = tmp_path / "wrong.html", tmp_path / "net.json"
    page.write_text("<img src='http://127.0.0.1:9/a.png'><script>console.error('no')</script>")
    done = in_browser(page, tmp_path, f"--screenshot={tmp_path / 'shot.png'}", f"--log-net-log={log}")
    assert "CONSOLE" in done.stderr
    assert "http://127.0.0.1:9/a.png" in requests(log)


@needs_chromium
@pytest.mark.parametrize("width", [1200, 500])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_chromium(scheme, width, hostile, tmp_path):
    report = im.generate_report(im.ImagePCA(6).fit(hostile), hostile)
    page, shot = tmp_path / "report.html", tmp_path / "report.png"
    report.save_as_html(page)
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    log = tmp_path / "net.json"
    done = in_browser(
        page, tmp_path, *dark, f"--window-size={width},3000", f"--screenshot={shot}", f"--log-net-log={log}"
    )
    assert "CONSOLE" not in done.stderr
    assert not requests(log)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape == (3000, width)
    assert (pixels[:, 2].mean() < 60) == (scheme == "dark")
    assert pixels.std() > 20


@needs_chromium
def test_chromium_builds_the_same_page(hostile, tmp_path):
    report = im.generate_report(im.ImagePCA(6).fit(hostile), hostile)
    report.save_as_html(tmp_path / "report.html")
    built = in_browser(tmp_path / "report.html", tmp_path, "--dump-dom").stdout
    assert sections(Page(built)) == sections(Page(report.html))
    assert Page(built).ids == Page(report.html).ids
    assert len(Page(built).all("img")) == len(Page(report.html).all("img"))
    assert html.escape(HOSTILE, quote=False) in built


def test_a_report_on_a_cluster_is_the_same(hostile):
    from distributed import Client, LocalCluster

    pca = im.ImagePCA(4).fit(hostile)
    here = read_survey(pca, hostile)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        there = read_survey(pca, hostile)
    np.testing.assert_array_equal(there.statistics.digests, here.statistics.digests)
    np.testing.assert_allclose(there.errors, here.errors, rtol=1e-6)
    assert [one.position for one in there.worst] == [one.position for one in here.worst]
