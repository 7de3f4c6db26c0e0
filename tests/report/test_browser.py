"""The page in a real browser: it loads nothing, raises nothing, and follows the colours of the reader."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.lib.pages import Page

from .conftest import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --log-level=0
""".split()  # noqa: SIM905 (a list would be long)


def in_browser(page, folder, *options):
    profile = folder / "profile"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    shutil.rmtree(profile)
    assert done.returncode == 0, done.stderr
    return done


def requests(log):
    """URLs that pages asked for, without those that the browser asks its maker for."""
    return re.findall(r'"url":\s*"((?:https?|wss?)://(?![^"/]*(?:google|gvt1))[^"]*)"', log.read_text())


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, e.g. apt-get install chromium")


@needs_chromium
def test_requests_and_errors_of_a_page_are_noticed(tmp_path):
    page, log = tmp_path / "wrong.html", tmp_path / "net.json"
    page.write_text("<img src='http://127.0.0.1:9/a.png'><script>console.error('no')</script>")
    done = in_browser(page, tmp_path, f"--screenshot={tmp_path / 'shot.png'}", f"--log-net-log={log}")
    assert "CONSOLE" in done.stderr
    assert "http://127.0.0.1:9/a.png" in requests(log)


@needs_chromium
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 500)])
def test_in_chromium(scheme, width, hostile_report, tmp_path):
    page, shot = tmp_path / "report.html", tmp_path / "report.png"
    hostile_report.report.save_as_html(page)
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
def test_chromium_builds_the_same_page(hostile_report, tmp_path):
    report = hostile_report.report
    report.save_as_html(tmp_path / "report.html")
    built = in_browser(tmp_path / "report.html", tmp_path, "--dump-dom").stdout
    assert Page(built).sections == Page(report.html).sections
    assert Page(built).ids == Page(report.html).ids
    assert len(Page(built).all("img")) == len(Page(report.html).all("img"))
    assert html.escape(HOSTILE, quote=False) in built
