"""Hidden names: in the folder of the target, of its suffix, and short enough for any target. URLs are refused."""

import os
from pathlib import Path

import pytest

from imgstack_ml.errors import StoreError
from imgstack_ml.files.names import hidden_sibling, name_digest, refuse_url


@pytest.mark.parametrize("suffix", [None, ".lock"])
def test_hidden_names_lie_beside_the_target_and_keep_a_suffix(suffix):
    name = hidden_sibling(os.path.join("folder", "scores.csv"), "abc", suffix)
    assert name == os.path.join("folder", ".scores-abc.tmp" + (suffix or ".csv"))


def test_digests_tell_names_apart_and_repeat():
    long = "x" * 40
    assert name_digest(f"{long}a") != name_digest(f"{long}b")
    assert name_digest("folder/a") == name_digest("other/a") == "433911c6eb0d"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("s3://bucket/out.zarr", "'out.zarr'"),
        ("s3://", "'s3'"),
        ("file:///data/out", "'/data/out'"),
        (Path("file:///data/out"), "'/data/out'"),
    ],
    ids=str,
)
def test_refused_urls_come_with_a_path_to_give(url, advice):
    with pytest.raises(StoreError, match=f"such as {advice}"):
        refuse_url(url)
