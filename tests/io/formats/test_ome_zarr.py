"""OME-Zarr of all versions."""

import json

import numpy as np
import pytest
import zarr

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from tests.lib.images import random_pixels


def write_ome_zarr(path, pixels, axes, version):
    """Write the metadata as the specification of each version has them."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    levels = {"full": pixels, "half": pixels[..., ::2, ::2]}
    for name, level in levels.items():
        group.create_array(
            name, shape=level.shape, chunks=(*(min(n, 2) for n in level.shape[:-2]), 4, 4), dtype=level.dtype
        )[...] = level
    image = {"version": version, "datasets": [{"path": name} for name in levels]}
    if version == "0.3":
        image["axes"] = list(axes)
    elif version != "0.1":
        image["axes"] = [{"name": axis, "type": "space"} for axis in axes]
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [image]}} if version == "0.5" else {"multiscales": [image]}
    )


@pytest.mark.parametrize(
    ("version", "axes"),
    [
        ("0.1", "tczyx"),  # the only axes of this version
        ("0.3", "tczyx"),
        ("0.3", "cyx"),
        ("0.4", "tzyx"),
        ("0.4", "yx"),
        ("0.4", "tczyx"),
        ("0.5", "tcyx"),
        ("0.5", "zyx"),
        ("0.5", "tczyx"),
    ],
)
def test_ome_zarr(tmp_path, axes, version):
    sizes = {"t": 3, "c": 2, "z": 5, "y": 9, "x": 7}
    pixels = random_pixels(tuple(sizes[axis] for axis in axes), "uint16")
    write_ome_zarr(tmp_path / "a.zarr", pixels, axes, version)
    images = [i for i, axis in enumerate(axes) if axis not in "cyx"]
    order = [*images, axes.index("y"), axes.index("x"), *([axes.index("c")] if "c" in axes else [])]
    expected = pixels.transpose(order)
    expected = expected.reshape(-1, *expected.shape[len(images) :])
    alone = open_stack(tmp_path / "a.zarr" / "full")  # the array within has its axes from the group
    np.testing.assert_array_equal(alone.data.compute(), expected)
    stack = open_stack(tmp_path / "a.zarr", chunks=4)
    np.testing.assert_array_equal(stack.data.compute(), expected)
    order = np.random.default_rng(1).permutation(len(stack))
    np.testing.assert_array_equal(stack[order].data.compute(), expected[order])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_that_contradict_each_other(tmp_path, version):
    pixels = random_pixels((3, 2, 9, 7))
    write_ome_zarr(tmp_path / "a.zarr", pixels, ["t", "c", "y", "x"], version)
    zarr.open_array(tmp_path / "a.zarr" / "full", mode="r+").attrs["_ARRAY_DIMENSIONS"] = ["c", "t", "y", "x"]
    for source in (tmp_path / "a.zarr", tmp_path / "a.zarr" / "full"):
        with pytest.raises(BadImageError, match=r"named \('c', 't', 'y', 'x'\), and \('t', 'c', 'y', 'x'\) by"):
            open_stack(source)


def test_channels_of_any_name(tmp_path):
    pixels = random_pixels((3, 2, 9, 7))
    write_ome_zarr(tmp_path / "a.zarr", pixels, ["t", "c", "y", "x"], "0.4")
    group = zarr.open_group(tmp_path / "a.zarr")
    (image,) = group.attrs["multiscales"]
    image["axes"][1] = {"name": "dye", "type": "channel"}
    group.attrs["multiscales"] = [image]
    assert open_stack(tmp_path / "a.zarr").shape == (3, 9, 7, 2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("path", ["{folder}/secret.zarr", "../secret.zarr", "full/../../secret.zarr", "link"])
def test_images_outside_of_the_group_are_refused(tmp_path, version, path):
    zarr.create_array(tmp_path / "secret.zarr", data=random_pixels((3, 9, 7)))
    write_ome_zarr(tmp_path / "a.zarr", random_pixels((3, 9, 7)), ["t", "y", "x"], version)
    (tmp_path / "a.zarr" / "link").symlink_to("../secret.zarr")
    about = next(
        tmp_path / "a.zarr" / name for name in (".zattrs", "zarr.json") if (tmp_path / "a.zarr" / name).exists()
    )
    about.write_text(about.read_text().replace('"full"', json.dumps(path.format(folder=tmp_path))))
    with pytest.raises(BadImageError, match=r"a\.zarr.*(lies outside of it|leads out of)"):
        open_stack(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("target", "match"), [("../../secret.zarr", "leads out of"), ("..", "behind a link"), (".", "behind a link")]
)
def test_folders_behind_links_within_a_zarr_are_searched(tmp_path, target, match):
    write_ome_zarr(tmp_path / "a.zarr", random_pixels((3, 9, 7)), ["t", "y", "x"], "0.4")
    zarr.create_array(tmp_path / "secret.zarr", data=random_pixels((3, 9, 7)))
    (tmp_path / "a.zarr" / "moved").mkdir()
    (tmp_path / "a.zarr" / "full" / "link").symlink_to("../moved")
    assert open_stack(tmp_path / "a.zarr").shape == (3, 9, 7)
    (tmp_path / "a.zarr" / "moved" / "link").symlink_to(target)
    with pytest.raises(BadImageError, match=rf"a\.zarr.*{match}"):
        open_stack(tmp_path / "a.zarr")


def test_several_images_are_listed(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    for name in "ab":
        group.create_array(name, data=np.full((2, 4, 4), ord(name), np.uint8))
    group.attrs["multiscales"] = [{"axes": ["t", "y", "x"], "datasets": [{"path": name}]} for name in "ab"]
    with pytest.raises(BadImageError, match=r"2 OME-Zarr images, \['a', 'b'\]\. Give one") as caught:
        open_stack(tmp_path / "a.zarr")
    assert (eval(str(caught.value).rpartition("Give one: ")[2]).data.compute() == ord("a")).all()
