"""Reports as a browser reads them: tags, identifiers, text."""

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
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def sections(self):
        return [attrs["id"] for attrs in self.all("section")]


def assert_sound(report):
    """Check that the page is complete in itself: no script, nothing to load, every picture described, at most 5 MB."""
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
