import pytest

import imgstack_ml as im
from tests.lib.commands import recorded_reads, run, run_pca


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """24 faces and non-faces in two sub-folders."""
    folder = tmp_path_factory.mktemp("sample") / "faces"
    assert run("sample", "faces", folder, "-n", 24).exit_code == 0
    return folder


@pytest.fixture(scope="session")
def finished(faces, tmp_path_factory):
    """Results of pca on the faces, without report and pictures."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert run_pca(faces, "-r", "-o", out, "-k", 5).exit_code == 0
    return out


@pytest.fixture(scope="session")
def stack(faces):
    return im.open_stack(faces, recursive=True)


@pytest.fixture(scope="session")
def model(finished):
    return im.load_model(finished / "model.safetensors")


@pytest.fixture
def reads():
    """The images that are read from files, in order."""
    with recorded_reads() as read:
        yield read


@pytest.fixture
def small_parts(monkeypatch):
    """Rows are computed and written one block at a time."""
    monkeypatch.setattr("imgstack_ml.passes.progress._BLOCKS_PER_THREAD", 1)
    monkeypatch.setattr("imgstack_ml.passes.progress.CPU_COUNT", 1)
