"""The check of a block: what it lets pass, what it casts, and what it says of the rest."""

import re

import dask
import dask.array as da
import numpy as np
import pytest

from imgstack_ml.base.gate import Place, Places, checked_block, first_nonfinite, gated
from imgstack_ml.errors import NonFiniteError

BLOCK = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
PLACE = Place((1, 0, 0), 5, (2, 3, 4), ["5.png", "6.png"])
SAYS = r"^X\.blocks\[1\] \(images 5 to 6, from '5\.png', '6\.png'\) "


class Sparse:
    def __init__(self, block):
        self.block = block

    def todense(self):
        return self.block


def test_a_block_as_declared_passes_without_a_copy():
    assert checked_block(BLOCK.dtype, True, BLOCK, PLACE) is BLOCK
    assert type(checked_block(BLOCK.dtype, True, BLOCK.view(np.memmap), PLACE)) is np.ndarray


@pytest.mark.parametrize("dtype", ["float16", "uint16", "bool", ">f4"])
def test_a_dtype_that_casts_safely_is_cast(dtype):
    block = checked_block(BLOCK.dtype, True, BLOCK.astype(dtype), PLACE)
    assert block.dtype.str == BLOCK.dtype.str
    np.testing.assert_array_equal(block, BLOCK.astype(dtype))


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (BLOCK[:1], ValueError, r"has shape \(1, 3, 4\), and X declares \(2, 3, 4\)"),
        (BLOCK.reshape(2, 12), ValueError, r"has shape \(2, 12\)"),
        (BLOCK.astype(np.float64), ValueError, r"has dtype float64.*X\.map_blocks\(np\.ndarray\.astype, 'float32'"),
        (BLOCK.astype(np.int32), ValueError, "has dtype int32, which does not cast safely to float32"),
        (BLOCK.astype("M8[s]"), ValueError, "has dtype datetime64"),
        (np.ma.masked_array(BLOCK), TypeError, r"is a masked array.*dask\.array\.ma\.filled\(X, value\)"),
        (Sparse(BLOCK), TypeError, r"is a Sparse.*lambda block: block\.todense\(\)"),
        (BLOCK.tolist(), TypeError, r"is a list.*np\.asarray\(block\)"),
        (None, TypeError, "is a NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_as_declared_is_named(block, error, message):
    with pytest.raises(error, match=SAYS + message):
        checked_block(BLOCK.dtype, False, block, PLACE)


def test_the_lines_to_type_do_what_they_say():
    for wrong in (lambda block: block.astype(np.float64), np.ma.masked_array, Sparse):
        X = da.from_array(BLOCK, chunks=1).map_blocks(lambda block, wrong=wrong: wrong(block), meta=BLOCK[:0])
        with pytest.raises((TypeError, ValueError)) as caught:
            gated(X).compute(scheduler="synchronous")
        line = re.search(r"(X\.map_blocks|dask\.array\.ma\.filled).*\)(?=[.,])", str(caught.value))[0]
        line = line.partition(", or ")[0].replace("dask.array", "da").replace("value", "0")
        mended = eval(line, {"X": X, "np": np, "da": da})
        np.testing.assert_array_equal(gated(mended).compute(scheduler="synchronous"), BLOCK)


def test_places_name_block_images_and_files():
    places = Places(((2, 1), (3, 3)), ["a", "b", "c"])
    assert str(places[0, 1]) == "X.blocks[0, 1] (images 0 to 1, from 'a', 'b')"
    assert str(places[1, 0]) == "X.blocks[1] (image 2, from 'c')"
    assert places[1, 1].shape == (1, 3)
    assert str(Places(((2, 1), (6,)), None, n_axes=1)[(1,)]) == "X.blocks[1] (image 2)"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_first_nonfinite_image(bad, dtype):
    X = np.zeros((4, 3, 2), dtype)
    assert first_nonfinite(X) is None
    X[2, 1, 1] = X[3, 0, 0] = bad
    assert first_nonfinite(X) == 2
    assert first_nonfinite(np.full((2, 2), np.finfo(dtype).max, dtype)) is None  # the sum alone is infinite
    assert first_nonfinite(BLOCK.astype(np.uint8)) is None
    with pytest.raises(NonFiniteError, match=r"^image 7 \('7'\)"):
        checked_block(X.dtype, True, X, Place((0, 0, 0), 5, X.shape, list("5678")))
    assert checked_block(X.dtype, False, X, Place((0, 0, 0), 5, X.shape, None)) is X


@pytest.mark.parametrize("dtype", ["complex64", "object", "longdouble", "float64"])
def test_the_line_to_convert_blocks_works_when_typed(dtype):
    X = da.from_delayed(dask.delayed(BLOCK.astype)(dtype), BLOCK.shape, "float32")
    with pytest.raises(ValueError, match="has dtype") as caught:
        gated(X).compute(scheduler="sync")
    line = str(caught.value).partition("X.map_blocks")
    assert ("Declare dtype=" in line[0]) == (dtype == "float64")
    converted = eval("X.map_blocks" + line[2].rstrip("."))
    np.testing.assert_array_equal(gated(converted).compute(scheduler="sync"), BLOCK.astype("float32"))
