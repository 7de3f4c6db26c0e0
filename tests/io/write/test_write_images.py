"""Folders of image files, written from stacks."""

import os
import time

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray
from PIL import Image

from imgstack_ml import open_stack, save_stack, write_images
from imgstack_ml.errors import BadImageError, StoreError
from tests.lib import workers
from tests.lib.faults import every_fault
from tests.lib.images import random_pixels, write_folder, write_image


def base_names(paths):
    return [os.path.basename(path) for path in paths]


KINDS = [
    ("png", "uint8", ()),
    ("png", "uint8", (3,)),
    ("png", "uint8", (4,)),
    ("png", "uint16", ()),
    ("png", ">u2", ()),
    ("png", "uint8", (2,)),
    *(("tiff", dtype, channels) for dtype in ("uint8", "uint16", "float32", ">f8") for channels in ((), (3,), (4,))),
    *(
        ("tiff", dtype, (2 + i % 5,))
        for i, dtype in enumerate(("u4", "u8", "i1", "i2", "i4", "i8", "f2", ">i2", ">f2"))
    ),
    *(("tiff", dtype, ()) for dtype in ("u4", "u8", "i1", "i2", ">i4", "i8", "f2")),
]
CHUNKS = [(12, -1, -1), (5, 3, 4), (1, -1, -1)]


# Chunks and schedulers in turn: each occurs with PNG and TIFF, and with grey and colour.
@pytest.mark.parametrize(
    ("format", "dtype", "channels", "chunks", "scheduler"),
    [(*kind, CHUNKS[i % 3], ("threads", "synchronous")[i // 2 % 2]) for i, kind in enumerate(KINDS)],
)
def test_round_trip(tmp_path, format, dtype, channels, chunks, scheduler):
    pixels = random_pixels((12, 7, 5, *channels), np.dtype(dtype).name).astype(dtype)
    if pixels.dtype.kind == "i":
        pixels[::2] *= -1
    stack = da.from_array(pixels, chunks=(*chunks, *(-1 for _ in channels)))
    with dask.config.set(scheduler=scheduler):
        paths = write_images(stack, tmp_path / "out", format=format)
        for source in (tmp_path / "out", paths):
            found = open_stack(source)
            assert list(found.files) == paths
            assert found.dtype == pixels.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found.data.compute(), pixels)
    read = tifffile.imread if format == "tiff" else lambda path: np.asarray(Image.open(path))
    for path, image in zip(paths, pixels, strict=True):
        np.testing.assert_array_equal(read(path), image)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("dtype", "channels", "names"),
    [
        ("uint8", (3,), ()),
        ("uint16", (3,), ("DAPI", "GFP", "Cy5")),
        (">f4", (), ()),
        ("float64", (5,), ()),
        ("int8", (), ()),
    ],
)
def test_one_tiff(tmp_path, dtype, channels, names):
    """All images in one file that tifffile reads as a series, and the package as the same stack."""
    pixels = random_pixels((11, 7, 5, *channels), np.dtype(dtype).name).astype(dtype)
    stack = da.from_array(pixels, chunks=(4, 3, 5, *channels))
    if names:
        stack = xarray.DataArray(stack, dims=("sample", "y", "x", "channel"), coords={"channel": list(names)})
    (path,) = write_images(stack, tmp_path / "film.ome.tif")
    found = open_stack(path)
    assert found.channel_names == names or not names
    np.testing.assert_array_equal(found.data.compute(), pixels)
    read = tifffile.imread(path)
    np.testing.assert_array_equal(read, expected_series(pixels, names))
    with pytest.raises(StoreError, match="exists"):
        write_images(stack, path)
    assert write_images(found[::-1], tmp_path / "again.TIFF", overwrite=True) == [str(tmp_path / "again.TIFF")]
    np.testing.assert_array_equal(open_stack(tmp_path / "again.TIFF").data.compute(), pixels[::-1])
    with pytest.raises(StoreError, match="is, holds or lies in"):
        write_images(found, path, overwrite=True)
    with pytest.raises(ValueError, match="leave names out"):
        write_images(pixels, tmp_path / "x.tif", names=["a"] * 11)
    assert sorted(os.listdir(tmp_path)) == ["again.TIFF", "film.ome.tif"]


def expected_series(pixels, names):
    """Colours come last, other channels before the pixels."""
    return pixels if pixels.ndim == 3 or (pixels.shape[3] == 3 and not names) else np.moveaxis(pixels, 3, 1)


def test_images_are_read_once_and_counted(tmp_path, capsys):
    pixels = write_folder(tmp_path / "in", 12)
    write_images(open_stack(tmp_path / "in", chunks=4), tmp_path / "out", progress=True)
    np.testing.assert_array_equal(open_stack(tmp_path / "out").data.compute(), pixels)
    bar = capsys.readouterr().err
    assert "write_images: 100%" in bar
    assert "12/12" in bar


def test_names_are_those_of_the_files(tmp_path):
    write_folder(tmp_path / "in", 12)
    paths = write_images(open_stack(tmp_path / "in"), tmp_path / "out", format="tiff")
    assert base_names(paths) == [f"img{i}.tif" for i in range(12)]


@pytest.mark.parametrize("key", [[5, 0, 3], [1, 1], slice(None, None, -1)])
def test_another_order_is_numbered(tmp_path, key):
    pixels = write_folder(tmp_path / "in", 12)
    stack = open_stack(tmp_path / "in")[key]
    paths = write_images(stack, tmp_path / "out")
    assert base_names(paths)[0].endswith(f"0_{os.path.basename(stack.files[0])}")
    np.testing.assert_array_equal(open_stack(tmp_path / "out").data.compute(), pixels[key])


def test_names_alike_in_two_folders_are_numbered(tmp_path):
    for i in range(4):
        write_image(tmp_path / "in" / f"class{i % 2}" / f"{i // 2}.png", random_pixels((4, 4), seed=i))
    stack = open_stack(tmp_path / "in", recursive=True)
    paths = write_images(stack, tmp_path / "out")
    assert base_names(paths) == ["0_0.png", "1_1.png", "2_0.png", "3_1.png"]
    np.testing.assert_array_equal(open_stack(tmp_path / "out").data.compute(), stack.data.compute())


def test_images_of_an_array_and_of_its_store_are_numbered(tmp_path):
    pixels = random_pixels((11, 4, 4))
    assert base_names(write_images(pixels, tmp_path / "a"))[9:] == ["09.png", "10.png"]
    stored = open_stack(save_stack(pixels, tmp_path / "x.zarr"))
    paths = write_images(stored, tmp_path / "b")
    assert base_names(paths)[10] == "x.zarr[10].png"
    np.testing.assert_array_equal(open_stack(tmp_path / "b").data.compute(), pixels)


def test_names_given(tmp_path):
    pixels = random_pixels((3, 4, 4))
    paths = write_images(pixels, tmp_path / "out", names=["b", "a.png", "c.tif"])
    assert base_names(paths) == ["b.png", "a.png", "c.tif.png"]
    np.testing.assert_array_equal(open_stack(paths).data.compute(), pixels)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "2 entries and the stack 3 images"),
        ("abc", "give one name for each"),
        (["a", "../b", "c"], r"names\[1\]='\.\./b' cannot name a file"),
        (["a", "b\\c", "c"], "cannot name a file"),
        (["a", "b\0", "c"], "cannot name a file"),
        (["a", "", "c"], "cannot name a file"),
        (["a", ".b", "c"], "cannot name a file"),
        (["a", None, "c"], "cannot name a file"),
        (["a", "b", "A.png"], r"names\[0\] and names\[2\] are both"),
        (["a", "b", "n" * 252], "too long"),
    ],
)
def test_names_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        write_images(random_pixels((3, 4, 4)), tmp_path / "out", names=names)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("stack", "format", "message"),
    [
        (np.zeros((2, 4, 4), "f4"), "png", r"float32; write TIFF: .*format='tiff'\), or round: .*\.astype\('uint8'\)"),
        (np.zeros((2, 4, 4, 3), "u2"), "png", "PNG does not take uint16 with 3 channels; write TIFF"),
        (np.zeros((2, 4, 4), "c8"), "tiff", r"no format of pictures takes complex64; save_stack\(stack, path\)"),
        (np.zeros((2, 4, 4), bool), "png", r"takes bool; as 0 and 1: write_images\(stack.astype\('uint8'\)"),
        (np.zeros((2, 4, 4, 1), "u1"), "png", r"\(4, 4, 1\) are not pictures.*write_images\(stack\[..., 0\]"),
        (np.zeros((2, 4, 4), "u1"), "jpeg", "format='jpeg' is not known; it is one of 'png', 'tiff'"),
        (np.zeros((2, 4), "u1"), "png", r"images of shape \(4,\) are not pictures"),
        (np.zeros((2, 0, 4), "u1"), "png", "are not pictures"),
    ],
)
def test_images_that_no_format_takes(tmp_path, stack, format, message):
    with pytest.raises(ValueError, match=message):
        write_images(stack, tmp_path / "out", format=format)
    assert os.listdir(tmp_path) == []


def test_overwrite_rules(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_images(np.zeros((2, 4, 4), "u1"), out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"out' is not empty; .*overwrite=True"):
        write_images(np.ones((2, 4, 4), "u1"), out)
    assert not open_stack(out).data.compute().any()
    write_images(np.ones((2, 4, 4), "u1"), out, overwrite=True)
    assert open_stack(out).data.compute().all()
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(StoreError, match=r"is a file; give the name of a folder"):
        write_images(np.ones((2, 4, 4), "u1"), out / "notes.txt", overwrite=True)
    with pytest.raises(StoreError, match=r"no folder .*missing.*os\.makedirs"):
        write_images(np.ones((2, 4, 4), "u1"), tmp_path / "missing" / "out")


def test_links_lead_nowhere(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "precious.png").write_text("mine")
    (tmp_path / "out" / "0.png").symlink_to(tmp_path / "precious.png")
    with pytest.raises(StoreError, match=r"0\.png' is a link to '.*precious\.png'"):
        write_images(np.ones((1, 4, 4), "u1"), tmp_path / "out", overwrite=True)
    assert (tmp_path / "precious.png").read_text() == "mine"


def test_folders_of_the_input_are_refused(tmp_path):
    write_folder(tmp_path / "in", 3)
    stack = open_stack(tmp_path / "in")
    before = {path: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    (tmp_path / "link").symlink_to(tmp_path / "in")
    stored = open_stack(save_stack(stack, tmp_path / "x.zarr"))
    for source, folder in [
        (stack, "in"),
        (stack, "in/sub"),
        (stack, "link"),
        (stack, "."),
        (stored, "in"),
        (stored, "x.zarr"),
        (stored, "x.zarr/images"),
    ]:
        with pytest.raises(StoreError, match="choose another place"):
            write_images(source, tmp_path / folder, overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before


def test_bad_image_is_named_and_no_file_is_half_written(tmp_path):
    pixels = write_folder(tmp_path / "in", 8)
    stack = open_stack(tmp_path / "in", chunks=2)
    with open(stack.files[4], "r+b") as file:
        file.truncate(60)
    with dask.config.set(scheduler="synchronous"), pytest.raises(BadImageError, match=r"img4\.png"):
        write_images(stack, tmp_path / "out")  # by threads, others than the first might be written
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [f"img{i}.png" for i in range(4)]
    for path in written:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels[int(path.stem[3:])])


def test_every_fault_leaves_whole_files(tmp_path, monkeypatch):
    old, new = np.ones((3, 6, 5), "u1"), random_pixels((3, 6, 5))
    out = tmp_path / "out"
    write_images(old, out)
    n_faults = 0
    for _ in every_fault(monkeypatch, tmp_path, lambda: write_images(new, out, overwrite=True)):
        n_faults += 1
        found = open_stack(out).data.compute()
        assert all((a == b).all() or (a == c).all() for a, b, c in zip(found, old, new, strict=True))
        assert sorted(os.listdir(out)) == ["0.png", "1.png", "2.png"]
        write_images(old, out, overwrite=True)
    assert n_faults >= 12
    np.testing.assert_array_equal(open_stack(out).data.compute(), new)
    assert os.listdir(tmp_path) == ["out"]


def write_when_told(target, begun, go):
    def make(block_id):
        begun.touch()
        while not go.exists():
            time.sleep(0.001)
        return np.ones((2, 4, 4), "u1")

    stack = da.map_blocks(make, chunks=((2,), (4,), (4,)), dtype="u1", meta=np.empty((0, 0, 0), "u1"))
    write_images(stack, target)


def test_second_run_is_refused(tmp_path):
    begun, go = tmp_path / "begun", tmp_path / "go"
    process = workers.start(write_when_told, tmp_path / "out", begun, go)
    while not begun.exists() and process.is_alive():
        time.sleep(0.001)
    with pytest.raises(StoreError, match=rf"is being written by process {process.pid} on"):
        write_images(np.zeros((2, 4, 4), "u1"), tmp_path / "out")
    go.touch()
    process.join()
    assert process.exitcode == 0
    assert open_stack(tmp_path / "out").data.compute().all()
