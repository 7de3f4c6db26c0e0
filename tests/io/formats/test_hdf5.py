"""HDF5 data sets: which is meant, and files that were cut."""

import os
from collections import Counter

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.arrays import write_hdf5
from tests.lib.images import random_pixels


def test_data_sets_are_named(tmp_path):
    pixels = random_pixels((4, 3, 2))
    source = write_hdf5(tmp_path, pixels, None)
    path = source.split("::")[0]
    np.testing.assert_array_equal(open_stack(path).data.compute(), pixels)  # the only one is meant
    with pytest.importorskip("h5py").File(path, "a") as file:
        file["run/zoom"] = pixels
    with pytest.raises(
        BadImageError, match=rf"not said which .* has 'run/images', 'run/zoom'\. Give one: open_stack\('{source}'\)"
    ):
        open_stack(path)
    with pytest.raises(BadImageError, match="holds no data set 'run'; it has 'run/images'"):
        open_stack(f"{path}::run")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(BadImageError, match=r"text\.h5"):
        open_stack(f"{tmp_path}/text.h5::images")


def test_pixels_elsewhere_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    pixels = random_pixels((4, 3, 2))
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["run/images"] = pixels
    os.mkfifo(tmp_path / "pipe.h5")  # opening it would wait without an end
    (tmp_path / "raw").write_bytes(pixels.tobytes())
    layout = h5py.VirtualLayout(shape=(4, 3, 2), dtype="u1")
    layout[...] = h5py.VirtualSource(tmp_path / "secret.h5", "run/images", shape=(4, 3, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = pixels
        file.create_dataset("external", (4, 3, 2), "u1", external=[(str(tmp_path / "raw"), 0, 24)])
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink("secret.h5", "run/images")
        file["group"] = h5py.ExternalLink("pipe.h5", "/")
        file["soft"], file["softer"] = h5py.SoftLink("/link"), h5py.SoftLink("soft")
        file["soft_group"] = h5py.SoftLink("/group")
        file["ring"] = h5py.SoftLink("/ring")
        file["inside"] = h5py.SoftLink("/images")
        file.create_dataset("empty", (4, 3, 2), "u1")
    np.testing.assert_array_equal(open_stack(f"{tmp_path}/a.h5::inside").data.compute(), pixels)
    for name, match in {
        "external": "lie in other files",
        "virtual": "lie in other data sets",
        "empty": "has no pixel",
        "ring": "link that leads in a circle",
        "nothing/at/all": "no data set 'nothing/at/all'",
        **dict.fromkeys(["link", "soft", "softer"], r"link into another file, 'secret\.h5'"),
        **dict.fromkeys(["group/run/images", "soft_group/run/images"], r"link into another file, 'pipe\.h5'"),
    }.items():
        with pytest.raises(BadImageError, match=rf"a\.h5.*{match}"):
            open_stack(f"{tmp_path}/a.h5::{name}")


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
