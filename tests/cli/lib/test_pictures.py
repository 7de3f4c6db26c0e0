"""Pictures of eigenimages, pixel by pixel."""

import numpy as np
from PIL import Image

import imgstack_ml as im
from tests.lib.commands import run
from tests.lib.images import write_folder


def test_pictures_show_the_eigenimages(tmp_path):
    write_folder(tmp_path / "in", 6, shape=(5, 4))
    run("pca", tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "--no-report")
    for number, eigenimage in enumerate(im.load_model(tmp_path / "out/model.safetensors")[-1].eigenimages_, start=1):
        picture = np.asarray(Image.open(tmp_path / f"out/eigenimages/pc_00{number}.png")).astype(int)
        factor = len(picture) // 5
        shown = picture[::factor, ::factor]
        np.testing.assert_array_equal(np.kron(shown, np.ones((factor, factor, 1))), picture)
        # Red above zero, blue below.
        clear = abs(eigenimage) > 0.1 * abs(eigenimage).max()
        np.testing.assert_array_equal((shown[..., 0] > shown[..., 2])[clear], (eigenimage > 0)[clear])


def test_more_components_than_fit_on_a_sheet(tmp_path, monkeypatch):
    monkeypatch.setattr("imgstack_ml.cli.lib.pictures._MAX_ON_SHEET", 4)
    write_folder(tmp_path / "in", 12, shape=(9, 9))
    result = run("pca", tmp_path / "in", "-o", tmp_path / "out", "-k", 10, "--no-report")
    assert result.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out/eigenimages").iterdir())
    assert names == [f"pc_{i:03d}.png" for i in range(1, 11)]
