"""Our writer of safetensors files, against the library that reads them."""

import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file

from imgstack_ml.errors import StoreError
from imgstack_ml.files.tensors import save_tensors
from tests.lib.faults import every_fault

DTYPES = ["bool", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8"]


def values(dtype):
    order = st.sampled_from("<>").map(lambda order: np.dtype(dtype).newbyteorder(order))
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return order.flatmap(lambda dtype: hnp.arrays(dtype, shapes))


names = st.text(max_size=8).filter("__metadata__".__ne__)
arrays_of_all_kinds = st.dictionaries(
    st.text(max_size=8).filter("__metadata__".__ne__), st.sampled_from(DTYPES).flatmap(values), max_size=5
)


@settings(deadline=None, max_examples=40)
@given(arrays=arrays_of_all_kinds, text=st.text(), reverse=st.booleans())
def test_safetensors_reads_what_was_written(arrays, text, reverse, tmp_path_factory):
    path = tmp_path_factory.mktemp("tensors") / "arrays.safetensors"
    arrays = {name: array.T[..., ::-1] if reverse and array.ndim else array for name, array in arrays.items()}
    save_tensors(path, arrays, {"note": text})
    found = load_file(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array.astype(array.dtype.newbyteorder("=")), strict=True)
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"note": text}


def test_arrays_lie_at_multiples_of_their_items(tmp_path):
    path = tmp_path / "arrays.safetensors"
    save_tensors(path, {str(i): np.full(i + 1, i, dtype) for i, dtype in enumerate(DTYPES)}, {"odd": "é"})
    content = path.read_bytes()
    first = 8 + int.from_bytes(content[:8], "little")
    assert first % 8 == 0
    places = [content.index(np.full(i + 1, i, d).tobytes(), first) for i, d in enumerate(DTYPES) if np.dtype(d) == "f8"]
    assert all(place % 8 == 0 for place in places)


def test_no_copy_of_the_arrays_is_made(tmp_path):
    array = np.ones((1000, 1000))
    tracemalloc.start()
    save_tensors(tmp_path / "arrays.safetensors", {"a": array}, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 20


def test_every_fault_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path, seen = tmp_path / "arrays.safetensors", []
    arrays = {"a": np.arange(1000.0), "b": np.arange(5)}

    def save(sign):
        save_tensors(path, {name: sign * array for name, array in arrays.items()}, {"note": "x" * 100})

    save(-1)
    for failed in every_fault(monkeypatch, tmp_path, lambda: save(1)):
        found = load_file(path)
        assert {np.sign(array.sum()) for array in found.values()} in ({-1}, {1})
        seen.append((failed, int(np.sign(found["a"].sum()))))
        assert os.listdir(tmp_path) == ["arrays.safetensors"]
        save(-1)
    assert [name for name, _ in seen].count("write") == 3
    assert {("open", -1), ("write", -1), ("fsync", -1), ("replace", -1), ("fsync", 1)} <= set(seen)
    np.testing.assert_array_equal(load_file(path)["a"], arrays["a"])


def test_what_fails_is_named_with_the_bytes_it_takes(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "arrays.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreError, match=r"the disk is full: '.*arrays\.safetensors' needs up to 800,\d{3} bytes"):
            save_tensors(path, {"a": np.ones(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


KILLED = """
import builtins, os, signal, sys
import numpy as np
from imgstack_ml.files.tensors import save_tensors
array, names = np.ones(1000), []
class Deadly:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def write(self, data):
        self.file.write(data)
        self.file.flush()
        if len(data) == array.nbytes:
            os.kill(os.getpid(), signal.SIGKILL)
here = builtins.open
builtins.open = lambda path, *args: Deadly(here(path, *args))
save_tensors(sys.argv[1], {"a": array}, {})
"""


def test_killed_while_writing_it_leaves_a_name_of_the_package_only(tmp_path):
    path = tmp_path / "arrays.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".arrays-")
    assert left.endswith(".tmp.safetensors")
