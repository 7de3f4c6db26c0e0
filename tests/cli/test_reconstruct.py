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
    in_folders = im.open_stack(tmp_path / "tiff", recursive=True)
    np.testing.assert_array_equal(in_folders.data.compute(), again.data.compute())
    assert in_folders.labels.tolist() == stack.labels.tolist()
    result = run("reconstruct", finished, faces, "-r", "-o", tmp_path / "one.tif", *options)
    assert result.stdout.splitlines()[-1] == f"Next: imgstack-ml scan {tmp_path / 'one.tif'}"
    np.testing.assert_array_equal(im.open_stack(tmp_path / "one.tif").data.compute(), again.data.compute())
    result = run("reconstruct", finished, faces, "-r", "-o", tmp_path / "png", *options)
    assert result.stdout.splitlines()[-1] == f"Next: imgstack-ml scan {tmp_path / 'png'} -r"
    pictures = im.open_stack(tmp_path / "png", recursive=True).data.compute()
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, np.rint(again.data.compute()).clip(0, 255))


def test_chosen_components_and_residuals(finished, faces, stack, model, tmp_path):
    """Numbers from 1 on; what components leave has signs, and the names of its images."""
    images = stack.data.compute()
    out = tmp_path / "left.zarr"
    options = ("--components", "1,3-4", "--residuals", "--json", "-q")
    record = json.loads(run("reconstruct", finished, faces, "-r", "-o", out, *options).stdout)
    assert (record["components"], record["residuals"], record["dtype"]) == ([1, 3, 4], True, "float32")
    left = im.open_stack(out)
    assert (left.files, left.labels.tolist()) == (stack.files, stack.labels.tolist())
    np.testing.assert_allclose(left.data.compute(), model[-1].residuals(images, [0, 2, 3]), atol=1e-3)
    result = run("reconstruct", finished, faces, "-r", "-o", tmp_path / "tiff", *options[:3])
    assert "24 images without 3 components" in result.stdout
    np.testing.assert_array_equal(im.open_stack(tmp_path / "tiff", recursive=True).data.compute(), left.data.compute())
    assert run("reconstruct", finished, faces, "-r", "-o", tmp_path / "some", "--components", 2).exit_code == 0
    drawn = im.open_stack(tmp_path / "some", recursive=True).data.compute()
    np.testing.assert_array_equal(drawn, model[-1].reconstruct(images, [1], "uint8"))
    flat = make_pipeline(im.IntensityRescaler(), im.ImageFlattener(), im.ImagePCA(3)).fit(stack)
    im.save_model(flat, tmp_path / "m.safetensors")
    run("reconstruct", tmp_path / "m.safetensors", faces, "-r", "-o", tmp_path / "flat.zarr", *options[2:3])
    rescaled = flat[0].transform(images)
    expected = rescaled - flat[1:].inverse_transform(flat.transform(images))
    np.testing.assert_allclose(im.open_stack(tmp_path / "flat.zarr").data.compute(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--components", "6"], ["--components 6", "numbers from 1 to 5"]),
        (["--residuals", "--format", "png"], ["negative numbers", "--format tiff"]),
    ],
)
def test_refuses_components(options, messages, finished, faces, tmp_path):
    assert_refused(run("reconstruct", finished, faces, "-r", "-o", tmp_path / "out", *options), *messages)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0", "from 1 on"),
        ("3-1", "'3-1'"),
        ("a", "'a'"),
        ("1,,2", "''"),
        ("1-3,2", "component 2 twice"),
        ("1-9999999", "any"),
    ],
)
def test_lists_of_components(given, message, finished, faces, tmp_path):
    result = run("reconstruct", finished, faces, "-o", tmp_path / "out", "--components", given)
    assert result.exit_code == 2
    assert message in result.stderr
    result = run("reconstruct", finished, faces, "-o", tmp_path / "out", "--components", "1", "-k", 2)
    assert (result.exit_code, "give one of them" in result.stderr) == (2, True)


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
    assert_refused(run("reconstruct", finished, faces, "-r", "-o", tmp_path / "a.png"), "-o a; or one file: -o a.tif")
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
