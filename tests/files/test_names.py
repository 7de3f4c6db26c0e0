"""Hidden names: in the folder of the target, of its suffix, and short enough for any target."""

import os

import pytest

from imgstack_ml.files.names import hidden_sibling, name_digest


@pytest.mark.parametrize("suffix", [None, ".lock"])
def test_hidden_names_lie_beside_the_target_and_keep_a_suffix(suffix):
    name = hidden_sibling(os.path.join("folder", "scores.csv"), "abc", suffix)
    assert name == os.path.join("folder", ".scores-abc.tmp" + (suffix or ".csv"))


def test_digests_tell_names_apart_and_repeat():
    long = "x" * 40
    assert name_digest(f"{long}a") != name_digest(f"{long}b")
    assert name_digest("folder/a") == name_digest("other/a") == "433911c6eb0d"
