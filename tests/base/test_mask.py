import dask.array as da
import numpy as np
import pytest

from imgstack_ml.base.mask import check_mask, pixels_at, positions_inside, put_back

SHAPE = (6, 5, 3)
HALF = np.arange(30).reshape(6, 5) % 3 == 0


@pytest.mark.parametrize("mask", [HALF, HALF.tolist(), HALF[..., None].repeat(3, axis=2)])
def test_a_mask_is_for_all_channels_or_for_each(mask):
    found = check_mask(mask, SHAPE)
    assert found.flags.owndata
    np.testing.assert_array_equal(found, HALF[..., None].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (HALF.astype("uint8"), r"dtype uint8, and must be Boolean, True = used: mask=mask > 0\.$"),
        (np.ma.array(HALF), r"means the opposite.*mask=~numpy\.ma\.getmaskarray\(mask\)\.$"),
        (da.from_array(HALF), r"mask=mask\.compute\(\)\.$"),
        (HALF.T, r"shape \(5, 6\).*need \(6, 5\) or \(6, 5, 3\)\. Pass mask=mask\.T\.$"),
        (HALF.ravel(), r"Pass mask=mask\.reshape\(6, 5\)\.$"),
        (HALF[:4], r"Crop or resize"),
        (np.stack([HALF] * 4, axis=-1), r"Pass mask=mask\[\.\.\., :3\]\.any\(axis=-1\)\.$"),
        (HALF & False, r"False everywhere.*mask=~mask\.$"),
        ("roi.png", r"mask=skimage\.io\.imread\('roi\.png'\) > 0\.$"),
        (3, "Boolean"),
        (np.bool_(True), "shape"),
    ],
)
def test_masks_that_are_refused(mask, match):
    with pytest.raises(ValueError, match=match):
        check_mask(mask, SHAPE)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("n_images", [1, 12])
@pytest.mark.parametrize("kind", ["random", "disc", "first", "last", "all"])
def test_pixels_are_taken_and_put_back(kind, n_images, dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (n_images, 90, 80)).astype(dtype)
    y, x = np.mgrid[:90, :80]
    masks = {"random": rng.random((90, 80)) < 0.5, "disc": np.hypot(y - 45, x - 40) < 30, "first": y + x == 0}
    mask = {**masks, "last": (y == 89) & (x == 79), "all": y >= 0}[kind]
    positions = positions_inside(mask)
    assert (positions is None) == (kind == "all")
    rows = pixels_at(images, np.arange(7200) if positions is None else positions)
    np.testing.assert_array_equal(rows, images[:, mask])
    back = put_back(rows, mask).reshape(images.shape)
    np.testing.assert_array_equal(back, np.where(mask, images, np.zeros(1, dtype)))
    assert back.dtype == dtype
