"""Conversion to one mode, dtype and size."""

import itertools

import numpy as np
import pytest
import skimage.data
import skimage.transform
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError, MixedStackError
from tests.lib.images import picture_in_mode, random_pixels, read_image, write_image

EIGHT_BITS = ["L", "LA", "RGB", "RGBA"]


@pytest.mark.parametrize(("mode", "wanted"), [*itertools.product(["1", "P", "CMYK", *EIGHT_BITS], EIGHT_BITS)])
def test_mode_is_pillows_conversion(tmp_path, mode, wanted):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture_in_mode(mode).save(path)
    with Image.open(path) as picture:
        shown = picture.convert({"1": "L", "P": "RGB", "CMYK": "RGB"}.get(mode, mode))
        np.testing.assert_array_equal(read_image(path, mode=wanted), np.asarray(shown.convert(wanted)))


@pytest.mark.parametrize(
    ("mode", "wanted"), [*itertools.product(EIGHT_BITS, ["I;16", "I", "F"]), ("I;16", "I"), ("I;16", "F")]
)
def test_mode_keeps_the_values_of_grey(tmp_path, mode, wanted):
    picture_in_mode(mode).save(tmp_path / "a.png")
    grey = np.asarray(picture_in_mode(mode) if mode == "I;16" else picture_in_mode(mode).convert("L"))
    image = read_image(tmp_path / "a.png", mode=wanted)
    assert image.dtype == {"I;16": "uint16", "I": "int32", "F": "float32"}[wanted]
    if wanted == "F" and mode in ("RGB", "RGBA"):  # the luma of ITU-R 601-2, not rounded
        luma = np.asarray(picture_in_mode(mode))[:, :, :3] @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(image, luma, rtol=1e-6)
    else:
        np.testing.assert_array_equal(image, grey)


@pytest.mark.parametrize(
    ("dtype", "wanted"), [("uint16", "L"), ("uint16", "RGB"), ("int32", "F"), ("float32", "L"), ("int32", "I;16")]
)
def test_modes_that_would_lose_values_are_refused(tmp_path, dtype, wanted):
    path = write_image(tmp_path / "a.tif", random_pixels((4, 4), dtype))
    with pytest.raises(BadImageError, match=rf"a\.tif'.* which mode='{wanted}' cannot hold"):
        open_stack(path, mode=wanted)


def test_mixed_modes_are_accepted(tmp_path):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        picture_in_mode(mode).save(tmp_path / f"{mode}.png")
    with pytest.raises(MixedStackError, match=r"open_stack\(\.\.\., mode='(L|RGB)'\)$"):
        open_stack(tmp_path)
    stack = open_stack(tmp_path, mode="RGB")
    assert stack.data.compute().shape == stack.shape == (6, 9, 7, 3)
    assert sorted(header.mode for header, _ in stack.summary().counts) == ["1", "L", "LA", "P", "RGB", "RGBA"]


@pytest.mark.parametrize("wanted", ["uint8", "uint16", "int32", "float32", "float64", np.float32, ">f4"])
def test_dtype_keeps_values(tmp_path, wanted):
    pixels = random_pixels((4, 4, 3))
    path = write_image(tmp_path / "a.png", pixels)
    image = read_image(path, dtype=wanted)
    assert image.dtype == np.dtype(np.dtype(wanted).name)
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize(
    ("dtype", "wanted"), [("uint16", "uint8"), ("float32", "uint8"), ("int32", "float32"), ("uint8", "int8")]
)
def test_dtypes_that_would_lose_values_are_refused(tmp_path, dtype, wanted):
    path = write_image(tmp_path / "a.tif", random_pixels((4, 4), dtype))
    with pytest.raises(BadImageError, match=rf"a\.tif'.*cannot hold all values of {dtype}. .*out_range='{wanted}'"):
        open_stack(path, dtype=wanted)


def test_float64_is_rounded_to_float32_but_never_infinite(tmp_path):
    pixels = random_pixels((4, 4), "float64")
    path = write_image(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(read_image(path, dtype="float32"), pixels.astype("float32"))
    pixels[1, 2] = 1e300
    write_image(path, pixels)
    with pytest.raises(BadImageError, match=r"a\.tif'.*overflow"):
        read_image(path, dtype="float32")


def test_mixed_dtypes_are_accepted(tmp_path):
    write_image(tmp_path / "a.tif", random_pixels((4, 4), "uint16"))
    write_image(tmp_path / "b.tif", random_pixels((4, 4), "float32"))
    with pytest.raises(MixedStackError, match=r"open_stack\(\.\.\., dtype='float32'\)$"):
        open_stack(tmp_path)
    assert open_stack(tmp_path, dtype="float32").data.compute().dtype == np.float32


SIZES = [(64, 64), (100, 37), (300, 600)]


# Each dtype with two sizes, once in grey and once in colour.
@pytest.mark.parametrize(
    ("dtype", "size", "channels"),
    [
        (dtype, SIZES[(i + j) % 3], channels)
        for i, dtype in enumerate(["uint8", "uint16", "int16", "int32", "float32", "float64"])
        for j, channels in enumerate([(), (3,)])
    ],
)
def test_resize_is_pillows_triangle(tmp_path, size, dtype, channels):
    pixels = random_pixels((180, 150, *channels), dtype)
    path = write_image(tmp_path / "a.tif", pixels)
    image = read_image(path, shape=size)
    exact = triangle(pixels, size)
    assert (image.shape, image.dtype) == ((*size, *channels), pixels.dtype)
    scale = np.abs(exact).max()
    whole = {"uint8": 1.5, "uint16": 0.51, "int16": 0.51, "int32": 1.5}.get(dtype, scale * 1e-6)
    assert np.abs(image.astype("float64") - exact).max() <= whole


def triangle(pixels, size):
    """The filter in float64: each new pixel is a mean, weighted by distance to its centre."""
    result = pixels.astype("float64")
    for axis, n_new in enumerate(size):
        n_old = pixels.shape[axis]
        scale = n_old / n_new
        support = max(1.0, scale)
        centres = (np.arange(n_new) + 0.5) * scale
        distance = np.abs(np.arange(n_old) + 0.5 - centres[:, None]) / support
        weights = np.clip(1 - distance, 0, None)
        weights /= weights.sum(axis=1, keepdims=True)
        result = np.moveaxis(np.tensordot(weights, result, (1, axis)), 0, axis)
    return result


@pytest.mark.parametrize(("name", "size"), [("camera", (128, 128)), ("camera", (64, 48)), ("astronaut", (100, 200))])
def test_resize_is_near_scikit_images(tmp_path, name, size):
    """Both average over what a new pixel covers, by a Gaussian there and a triangle here: 1 % of the range."""
    pixels = getattr(skimage.data, name)()
    path = write_image(tmp_path / "a.png", pixels)
    expected = skimage.transform.resize(pixels, size, anti_aliasing=True, preserve_range=True)
    image = read_image(path, shape=size, dtype="float32")
    rms = np.sqrt(np.mean((image - expected) ** 2)) / 255
    assert rms < 0.01
    without = skimage.transform.resize(pixels, size, anti_aliasing=False, preserve_range=True, order=1)
    assert rms < np.sqrt(np.mean((without - expected) ** 2)) / 255


def test_same_size_is_left_alone(tmp_path):
    pixels = random_pixels((9, 7, 3))
    path = write_image(tmp_path / "a.png", pixels)
    for fit in ("resize", "crop", "pad"):
        np.testing.assert_array_equal(read_image(path, shape=(9, 7), fit=fit), pixels)


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (9, 1), (1, 7)])
def test_crop_is_the_centre(tmp_path, size):
    pixels = random_pixels((9, 7, 3), "uint16")
    path = write_image(tmp_path / "a.tif", pixels)
    top, left = (9 - size[0]) // 2, (7 - size[1]) // 2
    np.testing.assert_array_equal(
        read_image(path, shape=size, fit="crop"), pixels[top : top + size[0], left : left + size[1]]
    )


@pytest.mark.parametrize("size", [(9, 8), (12, 12), (10, 7)])
def test_pad_is_around_the_centre(tmp_path, size):
    pixels = random_pixels((9, 7, 3))
    path = write_image(tmp_path / "a.png", pixels)
    margins = [((n - own) // 2, n - own - (n - own) // 2) for own, n in zip((9, 7), size, strict=True)]
    np.testing.assert_array_equal(read_image(path, shape=size, fit="pad"), np.pad(pixels, [*margins, (0, 0)]))


def test_crop_and_pad_refuse_what_does_not_fit(tmp_path):
    path = write_image(tmp_path / "a.png", random_pixels((9, 7)))
    with pytest.raises(
        BadImageError, match=r"a\.png'.*\(9, 7\), and fit='crop' to \(9, 8\) needs at least that; .*'pad'"
    ):
        open_stack(path, shape=(9, 8), fit="crop")
    with pytest.raises(
        BadImageError, match=r"a\.png'.*\(9, 7\), and fit='pad' to \(9, 6\) needs at most that; .*'crop'"
    ):
        open_stack(path, shape=(9, 6), fit="pad")


def test_mixed_sizes_are_accepted(tmp_path):
    for i, size in enumerate([(9, 7), (9, 7), (4, 12)]):
        write_image(tmp_path / f"{i}.png", random_pixels(size))
    with pytest.raises(MixedStackError, match=r"open_stack\(\.\.\., shape=\(9, 7\)\)$"):
        open_stack(tmp_path)
    stack = open_stack(tmp_path, shape=(9, 7))
    assert stack.data.compute().shape == stack.shape == (3, 9, 7)
    write_image(tmp_path / "3.png", random_pixels((4, 4, 3)))
    with pytest.raises(MixedStackError, match=r"open_stack\(\.\.\., mode='L', shape=\(9, 7\)\)$"):
        open_stack(tmp_path)
    assert open_stack(tmp_path, mode="L", shape=(9, 7)).shape == (4, 9, 7)


def test_mode_then_dtype_then_size(tmp_path):
    pixels = random_pixels((18, 14, 3))
    path = write_image(tmp_path / "a.png", pixels)
    image = read_image(path, mode="L", dtype="float32", shape=(9, 7))
    grey = Image.fromarray(np.asarray(Image.fromarray(pixels).convert("L"), "float32"))
    np.testing.assert_array_equal(image, np.asarray(grey.resize((7, 9), Image.Resampling.BILINEAR)))


def test_unsigned_of_32_bits_is_not_resized(tmp_path):
    path = write_image(tmp_path / "a.tif", random_pixels((9, 7), "uint32"))
    with pytest.raises(BadImageError, match="images of uint32 are not resized; give dtype='float64' too"):
        open_stack(path, shape=(4, 4))
    assert read_image(path, shape=(4, 4), dtype="float64").shape == (4, 4)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "CMYK"}, "mode='CMYK' is not known; it is one of 'L'"),
        ({"fit": "stretch"}, "fit='stretch' is not known"),
        ({"dtype": "U4"}, "is not a dtype of numbers"),
        ({"shape": (4,)}, r"shape=\(4,\) is not the height and width"),
        ({"shape": (4, 0)}, "is not the height and width"),
        ({"max_pixels": 0}, "max_pixels=0 is not a number of pixels"),
    ],
)
def test_options_that_are_no_options(tmp_path, options, match):
    path = write_image(tmp_path / "a.png", random_pixels((4, 4)))
    with pytest.raises(ValueError, match=match):
        open_stack(path, **options)
