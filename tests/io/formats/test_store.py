"""Stored stacks that are incomplete or damaged."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from imgstack_ml import open_stack, save_stack
from imgstack_ml.errors import BadImageError, StoreError
from imgstack_ml.io.formats.store import MARKER
from tests.lib.arrays import chunk_files
from tests.lib.images import random_pixels


def test_store_without_marker_is_refused(store):
    os.remove(os.path.join(store, MARKER))
    with pytest.raises(StoreError, match=r"stack\.zarr' is incomplete: .*save_stack\(stack, .*overwrite=True\)"):
        open_stack(store)


def test_a_dataset_of_a_pca_is_no_store_that_was_cut(tmp_path):
    group = zarr.open_group(str(tmp_path / "pca.zarr"), mode="w", attributes={"imgstack_ml": "0.2"})
    group.create_array("scores", shape=(6, 2), dtype="f4")
    with pytest.raises(BadImageError, match=r"it holds \['scores'\]. Give one: open_stack\(.*pca.zarr/scores"):
        open_stack(tmp_path / "pca.zarr")


@pytest.mark.parametrize("marker", ["", "text", "[]", "{}"])
def test_damaged_marker_is_refused(store, marker):
    with open(os.path.join(store, MARKER), "w") as file:
        file.write(marker)
    with pytest.raises(StoreError, match=r"is damaged: \.imgstack-complete cannot be read"):
        open_stack(store)


def test_lost_and_cut_chunks_are_refused(store):
    chunk = chunk_files(store)[1]
    with open(chunk, "rb") as file:
        content = file.read()
    with open(chunk, "wb") as file:
        file.write(content[:-1])
    with pytest.raises(StoreError, match=r"is damaged: it holds 3 chunks of [\d,]+ bytes, and was written with 3"):
        open_stack(store)
    os.remove(chunk)
    with pytest.raises(StoreError, match="is damaged: it holds 2 chunks"):
        open_stack(store)


@pytest.mark.parametrize("content", [None, b"text", b"{}"])
def test_damaged_metadata_is_refused(store, content):
    metadata = os.path.join(store, "zarr.json")
    if content is None:
        os.remove(metadata)
    else:
        with open(metadata, "wb") as file:
            file.write(content)
    with pytest.raises(StoreError, match=r"cannot be opened as a zarr array: .*overwrite=True"):
        open_stack(store)


@pytest.mark.parametrize("attributes", [{}, {"format": 2, "files": None, "labels": None}])
def test_other_formats_are_refused(store, attributes):
    zarr.open_array(store, mode="r+").attrs["imgstack_ml"] = attributes
    with pytest.raises(StoreError, match="is not in format 1"):
        open_stack(store)


def test_chunk_lost_after_opening_is_not_read_as_zeros(store):
    stack = open_stack(store)
    os.remove(chunk_files(store)[1])
    with pytest.raises(StoreError, match=r"has lost its chunk 'c/1/0/0'"):
        stack.data.compute()
    assert stack[:4].data.compute().all()  # other chunks are still read


def test_stored_stack_that_was_cut(tmp_path):
    store = save_stack(random_pixels((20, 30, 30)), tmp_path / "a.zarr")
    chunks = sorted(path for path in Path(store, "c").rglob("*") if path.is_file())
    whole = chunks[0].read_bytes()
    ends = np.linspace(0, len(whole) - 1, 20).astype(int).tolist()
    for end in ends:
        chunks[0].write_bytes(whole[:end])
        with pytest.raises(StoreError, match=r"a\.zarr"):
            open_stack(store)
    print(f"\nchunks of a stored stack cut: {len(ends)} tried, {len(ends)} named")
