"""DICOM and FITS against files that come with pydicom and astropy, read by these packages themselves."""

import os
import shutil

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore:::pydicom"),
    pytest.mark.filterwarnings("ignore:::astropy"),
]


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("CT_small.dcm", (1, 128, 128), "f8"),  # begins like TIFF, too; Hounsfield units
        ("MR_small_bigendian.dcm", (1, 64, 64), "i2"),
        ("SC_rgb_rle_2frame.dcm", (2, 100, 100, 3), "u1"),
        ("SC_ybr_full_422_uncompressed.dcm", (1, 100, 100, 3), "u1"),
        ("rtdose.dcm", (15, 10, 10), "f8"),
        ("image_dfl.dcm", (1, 512, 512), "u1"),
        ("liver_1frame.dcm", (1, 512, 512), "u1"),
    ],
)
def test_dicom_gives_values_after_rescaling(name, shape, dtype, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pixels = pytest.importorskip("pydicom.pixels")
    path = os.path.join(os.path.dirname(pydicom.__file__), "data", "test_files", name)
    data = pydicom.dcmread(path)
    expected = pixels.apply_rescale(pixels.pixel_array(data, raw=False), data).reshape(shape)
    expected = expected * float(data.get("DoseGridScaling", 1)) if name == "rtdose.dcm" else expected
    shutil.copy(path, tmp_path / "no_suffix")
    for source in (path, [tmp_path / "no_suffix"]):
        stack = open_stack(source)
        assert (stack.shape, stack.dtype) == (shape, np.dtype(dtype))
        np.testing.assert_array_equal(stack[::-1].data.compute(), expected[::-1])


def test_dicom_without_pixels_or_cut_is_named():
    folder = os.path.join(os.path.dirname(pytest.importorskip("pydicom").__file__), "data", "test_files")
    for name, match in (("MR_truncated.dcm", "less than expected"), ("reportsi.dcm", "no image: its modality is SR")):
        with pytest.raises(BadImageError, match=rf"{name}.*{match}"):
            open_stack(os.path.join(folder, name)).data.compute()


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("arange.fits", (7, 10, 11), "i4"),
        ("blank.fits", (1, 1, 1), "f8"),
        ("scale.fits", (1, 21, 20), "f4"),
        ("fixed-1890.fits", (1, 100, 100), "u2"),
        ("test0.fits", (4, 40, 40), "i2"),
        ("comp.fits", (1, 300, 440), "i2"),
    ],
)
def test_fits_gives_values_after_scaling(name, shape, dtype, tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    path = os.path.join(os.path.dirname(fits.__file__), "tests", "data", name)
    with fits.open(path) as units:
        images = [unit.data for unit in units if unit.is_image and unit.data is not None]
    expected = np.concatenate([image.reshape(-1, *image.shape[-2:]) for image in images])
    stack = open_stack(path)
    assert (stack.shape, stack.dtype) == (shape, np.dtype(dtype))
    np.testing.assert_array_equal(stack[::-1].data.compute(), expected[::-1])
    with open(path, "rb") as file:
        (tmp_path / "cut.fits").write_bytes(file.read()[:4000])
    if name not in ("blank.fits", "scale.fits", "test0.fits"):
        with pytest.raises(BadImageError, match=r"cut\.fits"):
            open_stack(tmp_path / "cut.fits").data.compute()
