"""Reports as a browser reads them: tags, identifiers, text."""

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}  # elements without an end


class Page(HTMLParser):
    """Tags, identifiers and text of a page; fails on tags that do not match."""

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
        if self.open[-1:] != ["script"]:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def sections(self):
        return [attrs["id"] for attrs in self.all("section")]


def assert_sound(report):
    """Check that the page is complete in itself: nothing to load, every picture described, at most 8 MB.

    Its one script is allowed by its hash, and by nothing else.
    """
    assert len(report.html.encode("utf-8")) <= 8e6
    page = Page(report.html)
    policy = next(attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv"))
    for script in re.findall(r"<script>(.*?)</script>", report.html, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in policy
    assert page.all("script") in ([], [{"type": "application/json", "id": "data"}, {}])
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
