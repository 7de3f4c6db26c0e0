"""Reports as files, in notebooks and in browsers; names are text, whatever they look like."""

import re
import webbrowser
from pathlib import Path

import pytest

import imgstack_ml as im
from tests.lib.pages import Page, assert_sound

from .conftest import HOSTILE


def test_hostile_names_are_text(hostile_report, tmp_path):
    report = hostile_report.report
    page = assert_sound(report)
    assert HOSTILE in page.text
    assert "onerror" not in re.sub(r"(&lt;|\\u003c)img src=x onerror", "", report.html)
    assert "last\\udcff.png" in page.text
    report.save_as_html(tmp_path / "report.html")


def test_saving_is_all_or_nothing(tmp_path, faces_report):
    report = faces_report.report
    report.save_as_html(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == report.html
    with pytest.raises(im.StoreError, match="exists"):
        report.save_as_html(tmp_path / "a.html")
    with pytest.raises(im.StoreError):
        report.save_as_html(tmp_path / "missing" / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_in_a_notebook_and_in_a_browser(faces_report):
    opened = []

    class Recorder(webbrowser.BaseBrowser):
        def open(self, url, new=0, autoraise=True):
            opened.append(url)
            return True

    webbrowser.register("recorder", None, Recorder(), preferred=True)
    report = faces_report.report
    path = Path(report.open_in_browser())
    assert opened == [path.as_uri()]
    assert path.read_text(encoding="utf-8") == report.html
    path.unlink()
    path.parent.rmdir()
    frame = Page(report._repr_html_()).all("iframe")[0]
    assert frame["srcdoc"] == report.html
    assert repr(report).startswith("Report of ")
