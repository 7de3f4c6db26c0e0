"""HDF5 data sets: which is meant, and files that were cut."""

from collections import Counter

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.arrays import write_hdf5
from tests.lib.images import random_pixels


def test_data_sets_are_named(tmp_path):
    source = write_hdf5(tmp_path, random_pixels((4, 3, 2)), None)
    path = source.split("::")[0]
    with pytest.raises(
        BadImageError, match=rf"not said which .* has 'run/images'\. Give one: open_stack\('{source}'\)"
    ):
        open_stack(path)
    with pytest.raises(BadImageError, match="holds no data set 'run'; it has 'run/images'"):
        open_stack(f"{path}::run")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(BadImageError, match=r"text\.h5"):
        open_stack(f"{tmp_path}/text.h5::images")


def test_hdf5_that_was_cut(tmp_path):
    h5py = pytest.importorskip("h5py")
    pixels, path = random_pixels((20, 30, 30)), tmp_path / "a.h5"
    counts = Counter()
    for options in ({}, {"chunks": (3, 30, 30)}, {"chunks": (3, 30, 30), "compression": "gzip"}):
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=pixels, **options)
        content = path.read_bytes()
        for end in np.linspace(0, len(content) - 1, 20).astype(int).tolist():
            path.write_bytes(content[:end])
            try:
                found = open_stack(f"{path}::images").data.compute()
            except (BadImageError, FileNotFoundError) as error:
                counts["named" if "a.h5" in str(error) else "named wrongly"] += 1
            else:
                counts["whole" if np.array_equal(found, pixels) else "silent"] += 1
    print(f"\nHDF5 cut: {counts.total()} files tried, {counts['named']} named, silent = {counts['silent']}")
    assert set(counts) == {"named"}
