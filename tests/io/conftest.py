import dask
import dask.array as da
import pytest

from imgstack_ml import save_stack
from imgstack_ml.io import register_format
from imgstack_ml.io.formats import registry
from tests.lib.images import count_decoded, random_pixels


@pytest.fixture(autouse=True)
def two_threads():
    """One task after the other, in blocks as they are for two threads."""
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


@pytest.fixture
def decoded(monkeypatch):
    """Count how often each image is decoded."""
    return count_decoded(monkeypatch)


@pytest.fixture
def store(tmp_path):
    """Ten images stored four to a chunk."""
    return save_stack(da.from_array(random_pixels((10, 8, 6)), chunks=(4, -1, -1)), tmp_path / "stack.zarr")


@pytest.fixture
def registered(monkeypatch):
    """`register_format`, of which all is forgotten at the end of the test."""
    for name in ("_registered", "_overriding"):
        monkeypatch.setattr(registry, name, [])
    registry._forget()
    yield register_format
    monkeypatch.undo()
    registry._forget()
