"""``imgstack-ml reconstruct``, against the model itself."""

import json

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from tests.lib.commands import assert_refused, run
from tests.lib.images import random_pixels, write_folder, write_image


@pytest.mark.parametrize("k", [None, 2])
def test_draws_what_the_components_give(k, finished, faces, stack, model, tmp_path):
    scores = np.asarray(model.transform(stack))
    scores[:, k or 5 :] = 0
    expected = model.inverse_transform(scores)
    options = [] if k is None else ["-k", k]
    result = run("reconstruct", finished, faces, "-r", "-o", tmp_path / "all.zarr", *options)
    assert result.exit_code == 0, result.output
    assert f"24 images from {k or 5} components" in result.stdout
    assert result.stdout.splitlines()[-1] == f"Next: imgstack-ml scan {tmp_path / 'all.zarr'}"
    again = im.open_stack(tmp_path / "all.zarr")
    assert (again.files, again.labels.tolist()) == (stack.files, stack.labels.tolist())
    np.testing.assert_allclose(again.data.compute(), expected, atol=1e-4)
    run("reconstruct", finished, faces, "-r", "-o", tmp_path / "tiff", "--format", "tiff", *options)
    np.testing.assert_array_equal(im.open_stack(tmp_path / "tiff").data.compute(), again.data.compute())
    run("reconstruct", finished, faces, "-r", "-o", tmp_path / "png", *options)
    pictures = im.open_stack(tmp_path / "png").data.compute()
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, np.rint(again.data.compute()).clip(0, 255))


def test_rescaled_images_stay_rescaled(faces, stack, tmp_path):
    model = make_pipeline(im.IntensityRescaler(), im.StackCenterer(), im.ImageFlattener(), im.ImagePCA(3)).fit(stack)
    im.save_model(model, tmp_path / "m.safetensors")
    assert run("reconstruct", tmp_path / "m.safetensors", faces, "-r", "-o", tmp_path / "o.zarr").exit_code == 0
    expected = model[1:].inverse_transform(np.asarray(model.transform(stack)))
    np.testing.assert_allclose(im.open_stack(tmp_path / "o.zarr").data.compute(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix", "expected"),
    [
        ((9, 7, 3), "uint8", ".png", "uint8"),
        ((9, 7), "uint16", ".tif", "uint16"),
        ((9, 7, 3), "uint16", ".tif", "float32"),
        ((9, 7), "float32", ".tif", "float32"),
    ],
    ids=["uint8 colour", "uint16", "uint16 colour", "float32"],
)
def test_other_kinds(shape, dtype, suffix, expected, tmp_path):
    pixels = write_folder(tmp_path / "in", 5, shape, dtype, suffix)
    im.save_model(im.ImagePCA(4).fit(pixels), tmp_path / "m")
    result = run("reconstruct", tmp_path / "m", tmp_path / "in", "-o", tmp_path / "out", "--json", "-q")
    assert json.loads(result.stdout)["dtype"] == expected
    drawn = im.open_stack(tmp_path / "out").data.compute()
    assert drawn.dtype == expected
    # Four components hold five images exactly.
    np.testing.assert_allclose(drawn, pixels, rtol=0, atol=1e-5 * max(1, abs(pixels).max()))


def test_refuses(finished, faces, stack, tmp_path):
    out = tmp_path / "out"
    assert_refused(run("reconstruct", finished, faces, "-r", "-o", out, "-k", 6), "-k 6", "-k 5 or less")
    assert_refused(run("reconstruct", finished, faces, "-r", "-o", faces / "out"), "inside the input folder")
    im.save_model(im.ImageHistogram().fit(stack), tmp_path / "m")
    assert_refused(run("reconstruct", tmp_path / "m", faces, "-r", "-o", out), "no principal components")
    floats = write_folder(tmp_path / "in", 4, (9, 7), "float32", ".tif")
    im.save_model(im.ImagePCA(2).fit(floats), tmp_path / "floats")
    options = ("-o", out, "--format", "png")
    assert_refused(run("reconstruct", tmp_path / "floats", tmp_path / "in", *options), "PNG does not take", "tiff")
    assert not out.exists()
    write_image(out / "mine.png", random_pixels((5, 5)))
    assert_refused(run("reconstruct", finished, faces, "-r", "-o", out), "--overwrite")
    assert run("reconstruct", finished, faces, "-r", "-o", out, "--overwrite").exit_code == 0
    assert (out / "mine.png").exists()
