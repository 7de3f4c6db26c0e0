"""NumPy files that were cut, that lie, or that hold code."""

import os
import pickle
import re

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.arrays import write_npy
from tests.lib.images import random_pixels


def test_cut_npy_is_named(tmp_path):
    path = write_npy(tmp_path, random_pixels((9, 4, 4)), "C")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)
    with pytest.raises(BadImageError, match=r"stack\.npy"):
        open_stack(path)


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def test_npy_runs_no_code(tmp_path, monkeypatch):
    harm = tmp_path / "harm"
    monkeypatch.setenv("HARM", str(harm))
    objects = np.empty((2, 3, 4), object)
    objects[...] = Harmful()
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)

    (tmp_path / "b.npy").write_bytes(pickle.dumps(Harmful()))
    np.savez(tmp_path / "c.npz", random_pixels((2, 3, 4)))
    os.rename(tmp_path / "c.npz", tmp_path / "c.npy")
    for name in "abc":
        with pytest.raises(BadImageError, match=rf"{name}\.npy"):
            open_stack(tmp_path / f"{name}.npy")
    assert not harm.exists()


@pytest.mark.parametrize(
    "shape", ["(9, 4, 4)", "(2, -3, 4)", "(10**9, 4, 4)", "(2, 3.5, 4)", "(2,)", "(2, 0, 4)", "()"]
)
def test_npy_that_lies_about_its_shape(tmp_path, shape):
    np.save(tmp_path / "a.npy", random_pixels((2, 3, 4)))
    content = (tmp_path / "a.npy").read_bytes()
    # As long as it was, for the padding behind it.
    changed = re.sub(rb"'shape': \(2, 3, 4\), \} *", f"'shape': {shape}, }}".encode().ljust(60), content)
    (tmp_path / "a.npy").write_bytes(changed[: len(content)])
    with pytest.raises(BadImageError, match=r"a\.npy"):
        open_stack(tmp_path / "a.npy").data.compute()


def test_npy_whose_header_is_no_python(tmp_path):
    np.save(tmp_path / "a.npy", random_pixels((2, 3, 4)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"'shape': (2, 3, 4), }", b"'shape': (2, 3, 4), ("))
    with pytest.raises(BadImageError, match=r"a\.npy"):
        open_stack(tmp_path / "a.npy")
