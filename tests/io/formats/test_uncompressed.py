"""Chunks that are not compressed are read without zarr, to the same pixels; all others by zarr."""

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

from imgstack_ml import BadImageError, open_stack
from imgstack_ml.io.formats.uncompressed import read_uncompressed
from tests.lib.images import random_pixels

WHOLE = {
    "v3": {},
    "v2": {"zarr_format": 2},
    "uint16": {"dtype": "uint16"},
    "v2, uint16": {"dtype": "uint16", "zarr_format": 2},
    "float32": {"dtype": "float32"},
    "separator": {"chunk_key_encoding": {"name": "default", "separator": "."}},
}
OTHERS = {
    "compressed": {"compressors": "auto"},
    "big-endian": {"dtype": "uint16", "serializer": zarr.codecs.BytesCodec(endian="big")},
    "v2, big-endian": {"dtype": ">u2", "zarr_format": 2},
    "v2, Fortran": {"zarr_format": 2, "order": "F"},
    "parts of images": {"chunks": (4, 3, 6)},
    "shards": {"shards": (8, 5, 6)},
    "checksum": {"compressors": zarr.codecs.Crc32cCodec()},
}


@pytest.mark.parametrize("case", [*WHOLE, *OTHERS])
def test_pixels(case, tmp_path):
    options = {"chunks": (4, 5, 6), "compressors": None, "dtype": "uint8", **(WHOLE | OTHERS)[case]}
    pixels = random_pixels((11, 5, 6)).astype(options["dtype"])
    array = zarr.create_array(tmp_path / "x.zarr", shape=pixels.shape, **options)
    array[:] = pixels
    region = (slice(2, 10), slice(0, 5), slice(0, 6))
    found = read_uncompressed(str(tmp_path / "x.zarr"), array, region, np.dtype(options["dtype"]).newbyteorder("="))
    assert (found is None) == (case in OTHERS)
    if found is not None:
        assert_array_equal(found, pixels[2:10])
    stack = open_stack(tmp_path / "x.zarr")
    assert_array_equal(stack.data.compute(), pixels)
    assert_array_equal(stack[[10, 3, 4, 0]].data.compute(), pixels[[10, 3, 4, 0]])


def make_uncompressed(folder):
    return zarr.create_array(folder, shape=(6, 4, 4), chunks=(2, 4, 4), dtype="u1", compressors=None, fill_value=7)


def test_a_chunk_that_was_never_written_holds_the_fill_value(tmp_path):
    make_uncompressed(tmp_path / "x.zarr")[:2] = 1
    found = open_stack(tmp_path / "x.zarr").data.compute()
    assert_array_equal(found[:, 0, 0], [1, 1, 7, 7, 7, 7])


@pytest.mark.parametrize("damage", ["cut", "empty", "long"])
def test_a_chunk_of_another_size_is_refused(damage, tmp_path):
    make_uncompressed(tmp_path / "x.zarr")[:] = random_pixels((6, 4, 4))
    chunk = tmp_path / "x.zarr/c/1/0/0"
    content = chunk.read_bytes()
    chunk.write_bytes({"cut": content[:-3], "empty": b"", "long": content + b"1"}[damage])
    with pytest.raises(BadImageError, match="cannot reshape"):
        open_stack(tmp_path / "x.zarr").data.compute()
