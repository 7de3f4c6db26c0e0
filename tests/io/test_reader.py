import os
import pickle
import struct

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import KFold, cross_val_score, train_test_split
from sklearn.utils import indexable

from imgstack_ml.errors import BadImageError, MixedStackError
from imgstack_ml.io import ImageStack, imread, open_stack
from imgstack_ml.io.formats.registry import read_header
from imgstack_ml.io.lazy import images_per_block, lazy_array
from imgstack_ml.io.readers import FileReader, decode_file
from tests.lib.images import count_decoded, png_bytes, random_pixels, write_folder, write_image


@pytest.fixture(autouse=True)
def two_threads():
    with dask.config.set(scheduler="synchronous", num_workers=2):
        yield


@pytest.fixture
def decoded(monkeypatch):
    return count_decoded(monkeypatch)


# --- one file ---------------------------------------------------------------------------------------------------

KINDS = [
    (".png", (9, 7), "uint8", {}),
    (".png", (9, 7), "uint16", {}),
    (".png", (9, 7, 3), "uint8", {}),
    (".png", (9, 7, 4), "uint8", {}),
    (".tif", (9, 7), "uint8", {}),
    (".tif", (9, 7), "uint16", {"byteorder": ">"}),
    (".tiff", (9, 7, 3), "uint16", {"compression": "zlib", "predictor": True}),
    (".tif", (40, 33), "uint16", {"compression": "zlib", "tile": (16, 16)}),
    (".tif", (9, 7, 4), "uint8", {"bigtiff": True, "rowsperstrip": 2}),
    (".tif", (9, 7, 4), "uint16", {}),
    (".tif", (9, 7), "float32", {}),
    (".tif", (9, 7, 3), "float64", {"compression": "zlib"}),
    (".tif", (1, 1), "uint8", {}),
    (".png", (1, 1), "uint8", {}),
]


@pytest.mark.parametrize(("suffix", "shape", "dtype", "options"), KINDS)
def test_lossless_files_give_their_pixels(tmp_path, suffix, shape, dtype, options):
    pixels = random_pixels(shape, dtype)
    path = write_image(tmp_path / f"image{suffix}", pixels, **options)
    header = read_header(path)
    image = decode_file(path)
    assert (header.shape, header.dtype) == (image.shape, image.dtype) == (pixels.shape, pixels.dtype)
    np.testing.assert_array_equal(image, pixels)
    assert open_stack(path).data.compute().tobytes() == pixels.tobytes()


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 3)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg_is_what_pillow_decodes(tmp_path, shape, options):
    path = write_image(tmp_path / "image.jpg", random_pixels(shape), **options)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(decode_file(path), np.asarray(picture))
    assert read_header(path)[:2] == (shape, np.uint8)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_files_are_told_by_content(tmp_path, suffix):
    pixels = random_pixels((5, 4))
    path = write_image(tmp_path / f"a{suffix}", pixels)
    os.rename(path, tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode_file(str(tmp_path / "a.jpg")), pixels)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("shape", [(16, 13), (3, 2), (1, 1), (9, 1), (64, 64)])
def test_png_with_black_last_row_and_interlaced(tmp_path, interlaced, shape):
    pixels = random_pixels(shape)
    pixels[-1] = 0
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(pixels, interlaced=interlaced) + b"data after the end are allowed")
    np.testing.assert_array_equal(decode_file(str(path)), pixels)


# --- bad files --------------------------------------------------------------------------------------------------


def assert_named(path, match=None):
    """Neither the header nor the decoding may let the file pass."""
    with pytest.raises(BadImageError, match=match) as caught:
        decode_file(str(path))
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)


CUT = {
    "grey.jpg": ((24, 20), "uint8", {}),
    "color.jpg": ((24, 20, 3), "uint8", {}),
    "progressive.jpg": ((24, 20, 3), "uint8", {"progressive": True}),
    "grey.png": ((12, 10), "uint16", {}),
    "color.png": ((8, 8, 3), "uint8", {}),
    "raw.tif": ((12, 10), "uint16", {}),
    "strips.tif": ((12, 10, 3), "uint8", {"rowsperstrip": 4}),
    "deflate.tif": ((12, 10), "uint16", {"compression": "zlib", "rowsperstrip": 4}),
    "tiles.tif": ((20, 18), "uint8", {"compression": "zlib", "tile": (16, 16)}),
}


@pytest.mark.parametrize("name", CUT)
def test_cut_anywhere_is_named(tmp_path, name):
    shape, dtype, options = CUT[name]
    path = tmp_path / name
    write_image(path, random_pixels(shape, dtype), **options)
    whole = path.read_bytes()
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        assert_named(path)


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
def test_cut_tiff_with_directory_at_the_end_is_named(tmp_path, compression):
    path = tmp_path / "pillow.tif"
    Image.fromarray(random_pixels((12, 10))).save(path, compression=compression)
    whole = path.read_bytes()
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        assert_named(path)


def test_cut_tiff_of_two_pages_is_named(tmp_path):
    path = tmp_path / "two.tif"
    pixels = random_pixels((2, 8, 6))
    write_image(path, pixels, photometric="minisblack", metadata=None)
    whole = path.read_bytes()
    n_read = 0
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        try:
            stack = open_stack(path)
        except BadImageError as error:
            assert error.path == str(path)  # noqa: PT017 - either outcome is right
        else:  # what was cut are remarks behind the directories
            n_read += 1
            np.testing.assert_array_equal(stack.data.compute(), pixels)
    assert n_read < 20


@pytest.mark.parametrize("interlaced", [False, True])
def test_png_with_too_few_rows_is_named(tmp_path, interlaced):
    path = tmp_path / "short.png"
    path.write_bytes(png_bytes(random_pixels((64, 64)), interlaced=interlaced, rows=10))
    with Image.open(path) as picture:
        picture.load()  # Pillow has nothing to say
    assert_named(path, "its pixel data end .* early")


def test_tiff_with_too_few_rows_is_named(tmp_path):
    path = tmp_path / "short.tif"
    write_image(path, random_pixels((10, 16)), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("ImageLength", "RowsPerStrip"):
            tiff.pages.first.tags[tag].overwrite(64)
    assert_named(path)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert_named(tmp_path / "empty.png", r"empty \(0 bytes\)")
    assert_named(tmp_path / "text.png", "neither JPEG, PNG nor TIFF .*b'not an i'")
    assert_named(tmp_path / "folder.png", "it is a folder")
    assert_named(tmp_path / "pipe.png", "it is a named pipe")
    assert_named(tmp_path / "zero.png", "it is a device")
    assert_named(tmp_path / "missing.png", "No such file")


def test_animation_is_not_read(tmp_path):
    first, second = (Image.fromarray(random_pixels((4, 4), seed=seed)) for seed in range(2))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    assert_named(tmp_path / "a.png", "an animation of 2 images")


def test_png_of_16_bits_in_color_is_not_cut_to_8(tmp_path):
    path = tmp_path / "a.png"
    content = bytearray(png_bytes(random_pixels((4, 4))))
    content[24:26] = 16, 2
    path.write_bytes(content)
    assert_named(path, "16 bits a channel .* save it as TIFF")


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ((5, 8, 6), {"photometric": "minisblack"}, "it holds several images"),
        ((8, 6), {"photometric": "miniswhite"}, "MINISWHITE"),
        ((8, 6, 4), {"photometric": "separated"}, "SEPARATED"),
        ((8, 6), {"photometric": "palette", "colormap": np.zeros((3, 256), "uint16")}, "PALETTE"),
    ],
)
def test_tiffs_that_are_not_read(tmp_path, shape, options, match):
    write_image(tmp_path / "a.tif", random_pixels(shape), **options)
    assert_named(tmp_path / "a.tif", match)


def test_tiff_dtypes_that_are_not_read(tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((4, 4), "complex64"))
    assert_named(tmp_path / "a.tif", "MINISBLACK of 64 bits; only TIFFs of whole numbers")
    Image.new("1", (9, 9)).save(tmp_path / "b.tif")
    assert_named(tmp_path / "b.tif", "of 1 bits; only TIFFs of whole numbers of 8 to 64")


@pytest.mark.skipif(5 in tifffile.TIFF.DECOMPRESSORS, reason="imagecodecs is installed and reads LZW")
def test_missing_codec_is_named(tmp_path):
    Image.fromarray(random_pixels((8, 6))).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert_named(tmp_path / "a.tif", "compression LZW needs .* pip install imagecodecs")


def claim_size(path, height, width):
    """Rewrite the size in an image's header."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        path.write_bytes(png_bytes(random_pixels((1, width)), height=height))
    elif path.suffix == ".jpg":
        start = content.index(b"\xff\xc0")
        content[start + 5 : start + 9] = struct.pack(">HH", height, width)
        path.write_bytes(content)
    else:
        with tifffile.TiffFile(path, mode="r+") as tiff:
            for tag, value in (("ImageLength", height), ("ImageWidth", width)):
                tiff.pages.first.tags[tag].overwrite(value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_bombs_are_refused_by_their_header(tmp_path, suffix):
    path = tmp_path / f"bomb{suffix}"
    write_image(path, random_pixels((4, 4)))
    claim_size(path, 60_000, 60_000)
    with pytest.raises(BadImageError, match="claims 60000 × 60000 pixels; at most 178,956,970"):
        read_header(str(path))


def test_large_images_do_not_warn(tmp_path):
    # Image.open warns above half of what it refuses.
    path = tmp_path / "large.png"
    path.write_bytes(png_bytes(random_pixels((1, 10_000)), height=10_000))
    assert read_header(str(path)).shape == (10_000, 10_000)


def test_tile_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.tif"
    write_image(path, random_pixels((16, 16)), tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("TileLength", "TileWidth"):
            tiff.pages.first.tags[tag].overwrite(65_520)
    assert_named(path, "claims 65520 × 65520")


def test_pillow_set_to_fill_up_is_refused(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.jpg", random_pixels((8, 8)))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert_named(path, "LOAD_TRUNCATED_IMAGES is True")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "raw.tif", "deflate.tif"])
def test_damaged_bytes_raise_nothing_else(tmp_path, name):
    path = tmp_path / name
    options = {"compression": "zlib", "rowsperstrip": 5} if name == "deflate.tif" else {}
    write_image(path, random_pixels((16, 12)), **options)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), 3):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        try:
            image = decode_file(str(path))
        except BadImageError as error:
            assert error.path == str(path)  # noqa: PT017 - either outcome is right
        else:
            assert image.ndim in (2, 3)


def test_group_checks_what_the_header_said(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", random_pixels((4, 4 + i))) for i in range(2)]
    with pytest.raises(BadImageError, match=r"1\.png'.* shape \(4, 5\), uint8 now, .*shape \(4, 4\)"):
        FileReader((4, 4), np.dtype("uint8"), "").read(paths)


# --- opening ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_stack_of_a_folder(tmp_path, suffix):
    pixels = write_folder(tmp_path, 12, suffix=suffix)
    stack = open_stack(tmp_path)
    assert (stack.shape, stack.dtype, stack.ndim, len(stack)) == ((12, 8, 6, 3), np.uint8, 4, 12)
    assert stack.files == tuple(str(tmp_path / f"img{i}{suffix}") for i in range(12))
    assert (stack.labels, stack.problems) == (None, ())
    computed = stack.data.compute()
    assert (computed.shape, computed.dtype) == (stack.data.shape, stack.data.dtype) == (stack.shape, stack.dtype)
    if suffix != ".jpg":
        np.testing.assert_array_equal(computed, pixels)


def test_list_keeps_its_order(tmp_path):
    pixels = write_folder(tmp_path, 5)
    order = [3, 0, 4, 0]
    stack = open_stack([tmp_path / f"img{i}.png" for i in order])
    np.testing.assert_array_equal(stack.data.compute(), pixels[order])


def test_labels_are_the_sub_folders(tmp_path):
    for name in ("cats/1.png", "cats/b/2.png", "dogs/1.png", "top.png"):
        write_image(tmp_path / name, random_pixels((4, 4)))
    for source in (tmp_path, tmp_path / "**" / "*.png"):
        stack = open_stack(source, recursive=True)
        assert stack.labels.tolist() == ["cats", "cats/b", "dogs", "."]
        assert stack[[2, 0]].labels.tolist() == ["dogs", "cats"]
        assert "labels: '.' (1), 'cats' (1), 'cats/b' (1), 'dogs' (1)" in repr(stack)
    assert open_stack(tmp_path / "cats").labels is None
    assert open_stack(tmp_path / "dogs", recursive=True).labels is None  # no sub-folders


def test_a_source_that_is_none_is_refused():
    for source in (3, None, True):
        with pytest.raises(TypeError, match=f"the source is {source}; give a folder"):
            open_stack(source)


def test_what_arrays_have_is_found_on_the_pixels(tmp_path):
    write_folder(tmp_path, 3)
    stack = open_stack(tmp_path)
    for name in ("mean", "compute", "astype"):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}'; .* stack\.data\.{name}"):
            getattr(stack, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = stack.nothing


def test_stack_outlives_a_change_of_folder(tmp_path, monkeypatch):
    pixels = write_folder(tmp_path / "images", 3)
    monkeypatch.chdir(tmp_path)
    stack = open_stack("images")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(stack.data.compute(), pixels)


def test_mixed_shapes_are_counted(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"a{i}.png", random_pixels((4, 5)))
    write_image(tmp_path / "b.png", random_pixels((4, 5, 3)))
    with pytest.raises(MixedStackError) as caught:
        open_stack(tmp_path)
    message = str(caught.value)
    assert "the 6 images are not of one shape and dtype" in message
    assert f"5 of shape (4, 5), uint8, e.g. '{tmp_path}/a0.png', '{tmp_path}/a1.png'" in message
    assert f"1 of shape (4, 5, 3), uint8, e.g. '{tmp_path}/b.png'" in message
    assert message.endswith("To bring them to one kind: open_stack(..., mode='L')")


def test_mixed_dtypes_are_counted(tmp_path):
    write_image(tmp_path / "a.png", random_pixels((4, 5), "uint16"))
    write_image(tmp_path / "b.tif", random_pixels((4, 5), "uint8"))
    write_image(tmp_path / "c.tif", random_pixels((4, 5), "uint8"))
    with pytest.raises(MixedStackError, match=r"(?s)2 of shape \(4, 5\), uint8.*1 .*uint16.*dtype='uint16'\)$"):
        open_stack(tmp_path)


def test_bad_header_raises_or_is_listed(tmp_path):
    pixels = write_folder(tmp_path, 3)
    bad = tmp_path / "img1.png"
    bad.write_text("text")
    with pytest.raises(BadImageError, match=r"img1\.png"):
        open_stack(tmp_path)
    with pytest.warns(UserWarning, match="1 of 3 files cannot be read .* listed in .problems") as caught:
        stack = open_stack(tmp_path, on_error="skip")
    assert caught[0].filename == __file__
    assert stack.problems == ((str(bad), "it is neither JPEG, PNG nor TIFF (it begins with b'text')"),)
    np.testing.assert_array_equal(stack.data.compute(), pixels[[0, 2]])
    assert stack[:1].problems == stack.problems
    assert "left out: 1 file" in repr(stack)


def test_skipping_all_files_raises(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(BadImageError, match=r"a\.png'.*empty .*nor can any of the 2 files"):
        open_stack(tmp_path, on_error="skip")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_file_that_fails_later_is_named(tmp_path, on_error):
    write_folder(tmp_path, 3, suffix=".jpg")
    stack = open_stack(tmp_path, on_error=on_error)
    bad = tmp_path / "img1.jpg"
    bad.write_bytes(bad.read_bytes()[:-20])
    with pytest.raises(BadImageError, match=r"img1\.jpg") as caught:
        stack.data.compute()
    assert caught.value.path == str(bad)
    bad.unlink()
    with pytest.raises(BadImageError, match=r"img1\.jpg.*No such file"):
        stack.data.compute()


@pytest.mark.parametrize("chunks", [0, -1, 2.5, True, "64MB", None])
def test_bad_chunks(tmp_path, chunks):
    with pytest.raises(ValueError, match='give "auto" or a positive int'):
        open_stack(tmp_path, chunks=chunks)


def test_bad_on_error(tmp_path):
    write_folder(tmp_path, 1)
    with pytest.raises(ValueError, match="on_error='ignore' is not known"):
        open_stack(tmp_path, on_error="ignore")


# --- blocks and graph -------------------------------------------------------------------------------------------


def fake_array(n_images, shape=(256, 256, 3), chunks="auto"):
    files = tuple(f"/data/some/folder/image_{i:06d}.jpg" for i in range(n_images))
    return lazy_array(FileReader(shape, np.dtype("uint8"), "state"), files, chunks)


@pytest.mark.parametrize(
    ("shape", "n_images", "size"),
    [
        ((256, 256, 3), 844, 52),  # 8 blocks for each of two threads
        ((256, 256, 3), 50_000, 325),  # 64 MB
        ((256, 256, 3), 100, 16),
        ((4000, 4000, 3), 100, 1),  # 16 images would be far above 64 MB
        ((10_000, 10_000, 3), 100, 1),
    ],
)
def test_auto_block_size(shape, n_images, size):
    assert images_per_block(FileReader(shape, np.dtype("uint8"), ""), n_images) == size


def test_given_block_size(tmp_path):
    write_folder(tmp_path, 10)
    assert open_stack(tmp_path, chunks=4).data.chunks[0] == (4, 4, 2)
    assert open_stack(tmp_path, chunks=4)[:7].data.chunks[0] == (4, 3)


def test_graph_is_one_task_a_block_and_small():
    data = fake_array(50_000)
    for array in (data, data.astype("float32") / 255):
        (optimized,) = dask.optimize(array)
        assert len(optimized.__dask_graph__()) == array.npartitions == 154
        assert len(pickle.dumps(optimized)) < 10_000_000
    tasks = dict(dask.optimize(data)[0].__dask_graph__())
    # Each names its own files, not all of them.
    assert max(len(pickle.dumps(task)) for task in tasks.values()) < 20_000


def test_names_follow_files_selection_and_state(tmp_path):
    write_folder(tmp_path, 4)
    stack = open_stack(tmp_path)
    again = open_stack(tmp_path)
    assert stack.data.name == again.data.name
    assert stack.data.name != stack[::-1].data.name
    os.utime(stack.files[0], (1, 1))
    assert open_stack(tmp_path).data.name != stack.data.name


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers_agree(tmp_path, scheduler):
    pixels = write_folder(tmp_path, 20)
    stack = open_stack(tmp_path, chunks=3)
    np.testing.assert_array_equal(stack.data.compute(scheduler=scheduler), pixels)


def test_processes_of_a_cluster(tmp_path):
    from distributed import Client, LocalCluster

    pixels = write_folder(tmp_path, 9)
    stack = open_stack(tmp_path, chunks=2)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        np.testing.assert_array_equal(client.compute(stack.data).result(), pixels)
        np.testing.assert_array_equal(client.submit(lambda s: s[1].compute(), stack).result(), pixels[1])
        (tmp_path / "img3.png").write_bytes(b"text")
        with pytest.raises(BadImageError, match=r"img3\.png"):
            client.compute(open_stack_unchecked(stack)).result()


def open_stack_unchecked(stack):
    """The same files under another key, which the cluster has not kept."""
    return lazy_array(FileReader(stack.shape[1:], stack.dtype, "other state"), stack.files, 2)


# --- selection --------------------------------------------------------------------------------------------------

SELECTIONS = [
    slice(2, 9, 3),
    slice(None, None, -1),
    slice(0, 0),
    [],
    [4, 1, 1, -1],
    np.array([7, 0]),
    np.arange(10) % 3 == 0,
    [True, False] * 5,
    range(3),
    (np.array([5, 2]), Ellipsis),
    (slice(4), Ellipsis),
    Ellipsis,
    (Ellipsis,),
]


@pytest.mark.parametrize("key", SELECTIONS, ids=str)
def test_selection_is_numpys(tmp_path, key):
    pixels = write_folder(tmp_path, 10)
    stack = open_stack(tmp_path)[key]
    assert isinstance(stack, ImageStack)
    np.testing.assert_array_equal(stack.data.compute(), pixels[key])
    assert stack.shape == stack.data.shape == pixels[key].shape
    assert [file[-5] for file in stack.files] == [str(i) for i in np.arange(10)[key]]


@pytest.mark.parametrize("key", [3, -1, np.int64(2), (4, Ellipsis)])
def test_one_image_is_a_lazy_array(tmp_path, decoded, key):
    pixels = write_folder(tmp_path, 10)
    image = open_stack(tmp_path)[key]
    assert isinstance(image, da.Array)
    np.testing.assert_array_equal(image.compute(), pixels[key])
    assert sum(decoded.values()) == 1


@pytest.mark.parametrize(
    ("key", "error", "match"),
    [
        ((slice(None), slice(2, 5)), IndexError, r"take stack\.data\[\(slice"),
        ((0, 1), IndexError, r"take stack\.data\[\(0, 1\)\]"),
        ((Ellipsis, 0), IndexError, r"take stack\.data"),
        (10, IndexError, "no image 10 in a stack of 10"),
        (-11, IndexError, "no image -11 in a stack of 10"),
        (False, TypeError, "a list of bools selects images"),
        (np.True_, TypeError, "a list of bools selects images"),
        ([10], IndexError, "out of bounds"),
        ([True], IndexError, "boolean"),
        ([1.5], IndexError, "integer"),
        ([[1, 2]], IndexError, "not by 2 axes"),
        ("a", TypeError, r"stack\.files\.index\('a'\)"),
        (1.5, TypeError, "integer"),
        (da.ones(10, dtype=bool), TypeError, r"stack\[index\.compute\(\)\]"),
    ],
)
def test_selections_that_are_refused(tmp_path, key, error, match):
    write_folder(tmp_path, 10)
    with pytest.raises(error, match=match):
        open_stack(tmp_path)[key]


def test_shuffled_selection_decodes_each_image_once(tmp_path, decoded):
    pixels = write_folder(tmp_path, 30)
    stack = open_stack(tmp_path, chunks=4)
    order = np.random.default_rng(0).permutation(30)[:25]
    np.testing.assert_array_equal(stack[order].data.compute(), pixels[order])
    assert set(decoded.values()) == {1}
    assert sum(decoded.values()) == 25


def test_nothing_is_decoded_unasked(tmp_path, decoded):
    write_folder(tmp_path, 5)
    stack = open_stack(tmp_path)
    repr(stack), stack._repr_html_(), stack[::2].data, stack[0], stack.data.mean(axis=0), list(stack)
    with pytest.raises(TypeError, match=r"take stack\.data .*\.compute\(\)"):
        np.asarray(stack)
    assert not decoded


def test_pickle(tmp_path):
    pixels = write_folder(tmp_path, 6)
    stack = open_stack(tmp_path)[[4, 2]]
    n_bytes = len(pickle.dumps(stack))
    stack.data.persist()
    copy = pickle.loads(pickle.dumps(stack))
    assert len(pickle.dumps(stack)) == n_bytes  # the graph is left out
    assert (copy.files, copy.data.name) == (stack.files, stack.data.name)
    np.testing.assert_array_equal(copy.data.compute(), pixels[[4, 2]])


def test_repr_escapes_names(tmp_path):
    write_image(tmp_path / "<img onerror=alert(1)>.png", random_pixels((4, 4)))
    stack = open_stack(tmp_path)
    assert "ImageStack of 1 images (4, 4), uint8: 16 B in 1 blocks" in repr(stack)
    assert "<img onerror" not in stack._repr_html_()


class MeanThreshold(ClassifierMixin, BaseEstimator):
    """Tells bright images from dark ones."""

    def fit(self, X, y):
        assert isinstance(X, ImageStack)
        self.classes_ = np.unique(y)
        self.threshold_ = float(X.data.mean())
        return self

    def predict(self, X):
        return (X.data.mean(axis=(1, 2)) > self.threshold_).astype(int).compute()


def test_scikit_learn_indexes_a_stack(tmp_path, decoded):
    y = np.arange(12) % 2
    for i, bright in enumerate(y):
        write_image(tmp_path / f"{i}.png", np.full((4, 4), 200 if bright else 20, dtype="uint8"))
    stack = open_stack(tmp_path)
    assert indexable(stack, y)[0] is stack
    train, test, _, y_test = train_test_split(stack, y, random_state=0)
    np.testing.assert_array_equal(test.data[:, 0, 0].compute() > 100, y_test)
    assert len(train) == 9
    decoded.clear()
    folds = KFold(3, shuffle=True, random_state=0)
    assert cross_val_score(MeanThreshold(), stack, y, cv=folds).tolist() == [1, 1, 1]
    assert set(decoded.values()) == {3}  # read once in each fold, to fit or to predict


# --- imread -----------------------------------------------------------------------------------------------------


def test_imread_is_natural_and_grouped(tmp_path):
    pixels = write_folder(tmp_path, 12)
    data = imread(str(tmp_path / "*.png"))
    assert isinstance(data, da.Array)
    assert data.chunks == ((12,), (8,), (6,), (3,))
    np.testing.assert_array_equal(data.compute(), pixels)


def test_imread_with_functions(tmp_path):
    pixels = write_folder(tmp_path, 5)
    grey = imread(str(tmp_path / "*.png"), preprocess=lambda image: image.mean(axis=-1))
    assert (grey.shape, grey.dtype) == ((5, 8, 6), np.float64)
    np.testing.assert_array_equal(grey.compute(), pixels.mean(axis=-1))
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", pixels[i])
    loaded = imread(str(tmp_path / "*.npy"), imread=np.load)
    np.testing.assert_array_equal(loaded.compute(), pixels)
    means = imread(str(tmp_path / "*.npy"), imread=np.load, preprocess=np.mean)
    np.testing.assert_array_equal(means.compute(), pixels.mean(axis=(1, 2, 3)))


def test_imread_with_functions_names_the_file(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.zeros((4, 4 + i // 2)))
    data = imread(str(tmp_path / "*.npy"), imread=np.load)
    assert data.shape == (3, 4, 4)
    with pytest.raises(BadImageError, match=r"2\.npy'.*make \(4, 5\), float64 of it; the first .*\(4, 4\)"):
        data.compute()
    (tmp_path / "1.npy").write_text("text")
    with pytest.raises(BadImageError, match=r"1\.npy"):
        data.compute()
    (tmp_path / "0.npy").write_text("text")
    with pytest.raises(BadImageError, match=r"0\.npy"):
        imread(str(tmp_path / "*.npy"), imread=np.load)


def test_imread_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches '\*\.png'"):
        imread(str(tmp_path / "*.png"))
