import dask
import dask.array as da
import pytest

from imgstack_ml import save_stack
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
