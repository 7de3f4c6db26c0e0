"""Pictures of eigenimages, pixel by pixel."""

import numpy as np
import tifffile
from PIL import Image

import imgstack_ml as im
from imgstack_ml.inspection.pictures import colours_of, shrink, signed_limit, signed_picture
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


def test_channels_have_pictures_of_their_own_and_large_ones_are_reduced(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 60_000, (4, 2, 40, 60), dtype=np.uint16)
    (tmp_path / "in").mkdir()
    for i, image in enumerate(pixels):
        options = {"metadata": {"axes": "CYX", "Channel": {"Name": ["DAPI", "a/b c"]}}, "photometric": "minisblack"}
        tifffile.imwrite(tmp_path / f"in/{i}.ome.tif", image, ome=True, **options)
    monkeypatch.setattr("imgstack_ml.cli.lib.pictures._MAX_SIDE", 30)
    monkeypatch.setattr("imgstack_ml.cli.lib.pictures._MIN_SIDE", 1)
    monkeypatch.setattr("imgstack_ml.cli.lib.pictures._LARGE", 100)
    run("pca", tmp_path / "in", "-o", tmp_path / "out", "-k", 2, "--no-report", "--full-size")
    pca = im.load_model(tmp_path / "out/model.safetensors")[-1]
    names = sorted(path.name for path in (tmp_path / "out/eigenimages").iterdir())
    assert names[:2] == ["pc_001_DAPI.png", "pc_001_a-b-c.png"]
    small = shrink(pca.eigenimages_, 30)
    for number, channel in np.ndindex(2, 2):
        name = f"pc_00{1 + number}_{['DAPI', 'a-b-c'][channel]}.png"
        shown = np.asarray(Image.open(tmp_path / "out/eigenimages" / name).convert("RGB")).astype(int)
        expected = colours_of(signed_picture(small[number, ..., channel], "RdBu_r", signed_limit(small[number])))
        np.testing.assert_allclose(shown, expected, atol=8)  # a colour further in the map
    whole = im.open_stack(tmp_path / "out/eigenimages.tif")
    np.testing.assert_array_equal(whole.data.compute(), pca.eigenimages_)
    assert whole.channel_names == pca.channel_names_ == ("DAPI", "a/b c")
