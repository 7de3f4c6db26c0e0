"""Counts of the kinds of images."""

import pickle

import pytest

from imgstack_ml import open_stack
from tests.lib.images import random_pixels, write_image


def test_summary_counts_what_files_have(tmp_path):
    for i in range(3):
        write_image(tmp_path / f"{i}.png", random_pixels((4, 5)))
    write_image(tmp_path / "b.jpg", random_pixels((6, 7, 3)))
    write_image(tmp_path / "c.tif", random_pixels((4, 5)))
    (tmp_path / "<b>.png").write_text("text")
    with pytest.warns(UserWarning, match="1 of 6"):
        stack = open_stack(tmp_path, mode="RGB", shape=(4, 4), on_error="skip")
    summary = stack.summary()
    counts = {(header.format, header.mode, header.shape): count for header, count in summary.counts}
    assert counts == {("PNG", "L", (4, 5)): 3, ("JPEG", "RGB", (6, 7, 3)): 1, ("TIFF", "L", (4, 5)): 1}
    assert summary.n_problems == 1
    lines = repr(summary).splitlines()
    assert lines[0] == "5 images"
    assert lines[1].split() == ["3", "PNG", "L", "(4,", "5),", "uint8"]
    assert lines[-1].split()[0] == "1"
    assert "PNG      L" in stack._repr_html_()
    picked = stack[[0, 1]].summary()
    assert [(header.format, count) for header, count in picked.counts] == [("PNG", 2)]
    assert pickle.loads(pickle.dumps(stack)).summary() == summary
