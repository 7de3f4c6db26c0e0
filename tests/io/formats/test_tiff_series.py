"""Images of TIFFs as tifffile's series have them: every layout that it writes, and files that contradict themselves."""

import itertools
import json
import logging
import os
import struct
import warnings
from collections import defaultdict

import numpy as np
import pytest
import tifffile

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError, MixedStackError
from imgstack_ml.io.formats.registry import open_images
from imgstack_ml.io.readers import decode_file
from tests.lib.images import assert_named, pack, random_pixels, read_image

SIZES = {"T": 3, "Z": 2, "C": 4, "S": 3, "Y": 9, "X": 7}

# How pixels are stored; each layout gets one of them in turn.
STORAGE = [
    {},
    {"dtype": "uint16"},
    {"compression": "zlib"},
    {"byteorder": ">", "dtype": "uint16"},
    {"rowsperstrip": 4},
    {"tile": (16, 16), "dtype": "float32"},
    {"bigtiff": True},
    {"rowsperstrip": 2, "compression": "zlib", "predictor": True},
]
OF_FILE = ("append", "bigtiff", "byteorder", "imagej")


@pytest.fixture(autouse=True)
def _without_log():
    """Of what is wrong in some of these files, tifffile writes to its log."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def write(path, axes, *, times=1, metadata="axes", seed=0, dtype="uint8", **options):
    """Write arrays of some axes, one after the other."""
    of_file = {name: options.pop(name) for name in OF_FILE if name in options}
    options = {"photometric": "rgb" if "S" in axes else "minisblack", **options}
    options["metadata"] = {"axes": axes} if metadata == "axes" else metadata
    with tifffile.TiffWriter(path, **of_file) as tiff:
        for number in range(times):
            tiff.write(random_pixels([SIZES[axis] for axis in axes], dtype, seed + number), **options)


def append(path, axes, **options):
    write(path, axes, append=True, seed=5, **{name: options[name] for name in options if name not in OF_FILE})


def orders(letters):
    """All orders of all subsets of some axes."""
    for n in range(len(letters) + 1):
        yield from map("".join, itertools.permutations(letters, n))


def write_described(folder):
    """With tifffile's own description, and appended to such files."""
    for leading, storage in zip(orders("TZC"), itertools.cycle(STORAGE)):
        axes = f"{leading}YX"
        write(folder / f"{axes}.tif", axes, **storage)
        write(folder / f"{axes} unnamed.tif", axes, metadata={}, **storage)
        write(folder / f"{axes}S.tif", f"{axes}S", **storage)
        write(folder / f"{leading}SYX.tif", f"{leading}SYX", planarconfig="separate", **storage)
        write(folder / f"{axes} twice.tif", axes, times=2, **storage)
        write(folder / f"{axes} as one.tif", axes, times=2, contiguous=True)
        for appended in (axes, "ZYX"):
            write(folder / f"{axes} and {appended}.tif", axes, **storage)
            append(folder / f"{axes} and {appended}.tif", appended, **storage)
        write(folder / f"{axes} and a page.tif", axes, **storage)
        append(folder / f"{axes} and a page.tif", "YX", **{**storage, "metadata": None})
        if "T" in leading:
            write(folder / f"{axes} in one page.tif", axes, truncate=True)


def write_ome(folder):
    for leading, storage in zip(orders("TZC"), itertools.cycle(STORAGE)):
        for times, axes in ((1, f"{leading}YX"), (2, f"{leading}YX"), (1, f"{leading}YXS"), (2, f"{leading}YXS")):
            write(folder / f"{axes} {times}.ome.tif", axes, times=times, **storage)
        write(folder / f"{leading}SYX.ome.tif", f"{leading}SYX", planarconfig="separate", **storage)


def write_imagej(folder):
    for leading in (axes for axes in orders("TZC") if axes in "TZC" or axes == "TC"):
        for samples, dtype in (("", "uint8"), ("", "uint16"), ("", "float32"), ("S", "uint8")):
            axes = f"{leading}YX{samples}"
            write(folder / f"{axes} {dtype}.tif", axes, imagej=True, dtype=dtype)
        for order in orders("zct"):
            if len(order) == 3:
                axes = {"axes": f"{leading}YX", "order": order}
                write(folder / f"{leading}YX {order}.tif", f"{leading}YX", imagej=True, metadata=axes)


def write_pages(folder):
    """Without a description of axes."""
    for number, storage in enumerate(STORAGE):
        storage = {**storage, "metadata": None}
        for axes in ("YX", "TYX", "YXS", "TYXS", "SYX", "TSYX"):
            planes = {"planarconfig": "separate"} if "SY" in axes else {}
            write(folder / f"{axes} {number}.tif", axes, **planes, **storage)
        write(folder / f"reduced {number}.tif", "TYX", subfiletype=1, **storage)
        write(folder / f"one reduced {number}.tif", "TYX", **storage)
        append(folder / f"one reduced {number}.tif", "YX", **storage, subfiletype=1)
        write(folder / f"storage {number}.tif", "TYX", metadata=None)
        append(folder / f"storage {number}.tif", "TYX", **storage)
        append(folder / f"storage {number}.tif", "YX", metadata=None)
        write(folder / f"text {number}.tif", "TYX", description="a = {b} <c>", software="a=b", **storage)
        write(folder / f"private {number}.tif", "TYX", extratags=[(65000, 3, 1, 7, True)], **storage)
        write(folder / f"JSON {number}.tif", "TYX", description='{"exposure": 1}', **storage)
        write(folder / f"alpha {number}.tif", "YXS", metadata=None, photometric="minisblack", extrasamples=[2, 0])


def write_pyramids(folder):
    described = {"axes": "CYX"}
    for number, storage in enumerate(STORAGE):
        for axes, metadata, suffix in (("TYX", {}, ""), ("CYX", described, ".ome"), ("TYXS", None, ""), ("YX", {}, "")):
            options = {name: value for name, value in storage.items() if name not in (*OF_FILE, "dtype")}
            options |= {"photometric": "rgb" if "S" in axes else "minisblack", "metadata": metadata}
            pixels = random_pixels([SIZES[axis] for axis in axes], storage.get("dtype", "uint8"))
            with tifffile.TiffWriter(folder / f"{axes} {number}{suffix}.tif") as tiff:
                tiff.write(pixels, subifds=1, **options)
                tiff.write(pixels[:, ::2, ::2] if len(axes) > 2 else pixels[::2, ::2], subfiletype=1, **options)


def write_planes_behind_a_page(folder):
    """MetaMorph's STK, and ImageJ's files of more than 4 GB."""
    planes = random_pixels((5, 9, 7), "uint16")
    stk = [(33628, 4, 2, (0, 0), True), (33629, 5, 5, tuple(range(1, 11)), True)]
    for name, options in {
        "stk": {"extratags": stk},
        "stk of strips": {"extratags": stk, "rowsperstrip": 4},
        "frames": {"description": "ImageJ=1.53t\nimages=5\nframes=5\n"},
        "channels": {"description": "ImageJ=1.53t\nimages=5\nchannels=5\n"},
    }.items():
        tifffile.imwrite(folder / f"{name}.tif", planes[0], metadata=None, **options)
        with open(folder / f"{name}.tif", "ab") as file:
            file.write(planes[1:].tobytes())


def lsm(path, kind, axes, has_thumbnails=True, n_bytes=None, **options):
    """Zeiss's LSM: a thumbnail behind each page, and a structure that tells the axes."""
    info = np.zeros(1, tifffile.TIFF.CZ_LSMINFO)
    info["MagicNumber"], info["StructureSize"], info["ScanType"] = 67127628, info.itemsize, kind
    for axis, field in list(tifffile.TIFF.CZ_LSMINFO_DIMENSIONS.items())[:5]:
        axis = axis.replace("C", "S")
        info[field] = SIZES[axis] if axis in axes else 1
    pages = random_pixels([SIZES[axis] for axis in axes], "uint16")
    with tifffile.TiffWriter(path, byteorder="<") as tiff:
        options = {"photometric": "minisblack", "metadata": None, **options}
        for number, page in enumerate(pages.reshape(-1, *[SIZES[axis] for axis in axes if axis in "SYX"])):
            tags = [(34412, 1, info.nbytes, info.tobytes(), True)] if number == 0 else []
            tiff.write(page, extratags=tags, **options)
            if has_thumbnails:
                tiff.write(page[..., ::2, ::2], subfiletype=1, **options)
    if n_bytes:
        os.truncate(path, n_bytes)
    return np.moveaxis(pages, -3, -1) if "S" in axes else pages


def write_lsm(folder):
    lsm(folder / "stack.lsm", 6, "TZYX")
    lsm(folder / "time.lsm", 3, "TYX")


def write_scanners(folder):
    """ScanImage, and slides of Aperio (SVS) with and without smaller copies."""
    text = {"software": "SI.LINE_FORMAT_VERSION = 1", "description": "frameNumbers = 1"}
    for big in (True, False):
        write(folder / f"scanimage {big}.tif", "TYX", bigtiff=big, metadata=None, **text)
    for name, n_copies in {"slide.tif": 0, "pyramid.tif": 1}.items():
        with tifffile.TiffWriter(folder / name) as tiff:
            options = {"photometric": "rgb", "metadata": None, "tile": (16, 16)}
            tiff.write(random_pixels((40, 40, 3)), description="Aperio Image\r\n40x40|AppMag = 20", **options)
            if n_copies:
                tiff.write(random_pixels((10, 10, 3)), photometric="rgb", metadata=None)
                tiff.write(random_pixels((20, 20, 3)), **options)


FAMILIES = [write_described, write_ome, write_imagej, write_pages, write_pyramids, write_planes_behind_a_page]
FAMILIES += [write_lsm, write_scanners]


def as_images(pixels, axes):
    """NumPy's own way: S or else C last, all else one axis of images, in the order given."""
    kept = [i for i, axis in enumerate(axes) if pixels.shape[i] > 1 or axis in "YX"]
    pixels, axes = pixels.reshape([pixels.shape[i] for i in kept]), [axes[i] for i in kept]
    last = "YXS" if "S" in axes else "YXC"
    order = sorted(range(len(axes)), key=lambda i: last.find(axes[i]))
    n_counting = sum(axis not in last for axis in axes)
    moved = pixels.transpose(order)
    return list(moved.reshape(-1, *moved.shape[n_counting:]))


def images_of_series(path):
    """All images of a file as tifffile reads its series; those of pages where nothing describes series."""
    with tifffile.TiffFile(path) as tiff:
        found = [series for series in tiff.series if not series.keyframe.is_subifd]
        found = [series for series in found if series.kind != "lsm" or not series.keyframe.is_reduced]
        if {series.kind for series in found} <= {"generic", "uniform"}:
            pages = [page.aspage() for page in tiff.pages]
            found = [page for page in pages if not page.subfiletype & 5] or pages
        return [image for part in found for image in as_images(part.asarray(), part.axes)]


def is_unclear(images):
    """Whether a file is to be refused: images that differ."""
    return len({(image.shape, image.dtype) for image in images}) > 1


@pytest.mark.parametrize("write_family", FAMILIES)
def test_images_are_those_of_tifffiles_series(tmp_path, write_family):
    (tmp_path / "files").mkdir()
    write_family(tmp_path / "files")
    groups = defaultdict(list)
    for path in sorted(map(str, (tmp_path / "files").iterdir())):
        expected = images_of_series(path)
        if is_unclear(expected):
            with pytest.raises((BadImageError, MixedStackError), match=os.path.basename(path).replace(".", r"\.")):
                open_stack(path)
            continue
        stack = open_stack(path, chunks=1000)
        np.testing.assert_array_equal(stack.data.compute(scheduler="synchronous"), expected, err_msg=path)
        assert (stack.dtype, stack.shape[1:]) == (expected[0].dtype, expected[0].shape)
        assert stack.files == (tuple(f"{path}[{i}]" for i in range(len(stack))) if len(stack) > 1 else (path,))
        if len(expected) == 1:
            np.testing.assert_array_equal(decode_file(path), expected[0])
        else:
            with pytest.raises(BadImageError, match="holds several images"):
                decode_file(path)
        groups[stack.dtype, stack.shape[1:]].append((path, expected))
    for number, group in enumerate(groups.values()):  # all files of one kind together: a list, a folder, an archive
        folder = tmp_path / str(number)
        folder.mkdir()
        for i, (path, _) in enumerate(group):
            os.link(path, folder / f"{i}.tif")
        together = np.concatenate([images for _, images in group])
        source = [[path for path, _ in group], folder, pack(folder, f"{folder}.zip")][number % 3]
        order = np.random.default_rng(0).permutation(len(together))
        found = open_stack(source, chunks=1000)[order].data.compute(scheduler="synchronous")
        np.testing.assert_array_equal(found, together[order])


@pytest.mark.parametrize("write_family", FAMILIES)
def test_layouts_that_were_cut_are_named(tmp_path, write_family):
    write_family(tmp_path)
    counts = {"named": 0, "whole": 0}
    for path in sorted(tmp_path.iterdir())[::8]:
        whole, expected = path.read_bytes(), images_of_series(path)
        with tifffile.TiffFile(path) as tiff:
            pages = [image for page in tiff.pages for image in as_images(page.asarray(), page.aspage().axes)]
        for end in np.linspace(1, len(whole) - 1, 7).astype(int).tolist():
            path.write_bytes(whole[:end])
            try:
                with warnings.catch_warnings(record=True, action="always") as said:
                    images = open_stack(path, chunks=1000).data.compute(scheduler="synchronous")
            except (BadImageError, MixedStackError) as error:
                assert path.name in str(error)  # noqa: PT017 - either outcome is right
                counts["named"] += 1
                continue
            counts["named" if said else "whole"] += 1
            if said:  # further pages were cut
                assert path.name in str(said[0].message)
                assert all(any(np.array_equal(image, page) for page in [*pages, *expected]) for image in images)
            else:  # what was cut are remarks behind the pixels
                np.testing.assert_array_equal(images, expected)
    assert counts["named"] > 5 * counts["whole"]


def test_lsm(tmp_path):
    pages = lsm(tmp_path / "a.lsm", 6, "TZYX")
    stack = open_stack(tmp_path, select={"z": 1})
    assert (stack.axes[0], stack.shape) == ("t", pages[:, 1].shape)
    np.testing.assert_array_equal(stack.data.compute(), pages[:, 1])
    pages = lsm(tmp_path / "a.lsm", 6, "TZSYX", planarconfig="separate")
    np.testing.assert_array_equal(open_stack(tmp_path).data.compute(), pages.reshape(-1, *pages.shape[2:]))
    # One page, and lines whose rows are another axis: tifffile reads no series of these.
    for kind, axes, has_thumbnails in [(0, "YX", False), (1, "YX", True)]:
        page = lsm(tmp_path / "b.lsm", kind, axes, has_thumbnails)
        np.testing.assert_array_equal(read_image(tmp_path / "b.lsm"), page)
    lsm(tmp_path / "b.lsm", 99, "TYX")
    assert_named(tmp_path / "b.lsm", r"it is damaged \(KeyError: 99|it holds several images")  # by tifffile's version
    for options in ({"compression": "zlib"}, {"n_bytes": (1 << 32) + 1}):
        lsm(tmp_path / "b.lsm", 3, "TYX", **options)
        assert_named(tmp_path / "b.lsm", r"an LSM that is compressed or larger than 4 GB.*bfconvert")


def pages_with(*descriptions, shape=(9, 7), **options):
    """A file of one page for each description, None where it has none."""

    def write_pages_with(path):
        with tifffile.TiffWriter(path) as tiff:
            for seed, text in enumerate(descriptions):
                pixels = random_pixels(shape, seed=seed)
                tiff.write(pixels, **{"photometric": "minisblack", "metadata": None, "description": text, **options})

    return write_pages_with


def array_with(shape, **options):
    return lambda path: tifffile.imwrite(path, random_pixels(shape), **{"photometric": "minisblack", **options})


def imagej(n_pages, *lines):
    return pages_with("\n".join(("ImageJ=1.53t", *lines)), *[None] * (n_pages - 1))


def shaped(n_pages, said):
    return pages_with(json.dumps(said), *[None] * (n_pages - 1))


def with_child(size, child, **options):
    def write_with_child(path):
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(random_pixels((size, size)), photometric="minisblack", metadata=None, subifds=1, subfiletype=1)
            tiff.write(random_pixels((child, child)), **{"photometric": "minisblack", "metadata": None, **options})

    return write_with_child


def canon(path):
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 0), (278, 4), (279, 16)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I4sIH", 16, b"CR\2\0", 0, len(tags)) + entries + bytes(4))


FILTERS = {"photometric": 32803, "extratags": [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes([0, 1, 1, 2]), True)]}


@pytest.mark.parametrize(
    ("write_file", "match"),
    [
        # pages that the description does not name, or that it names and are missing
        (imagej(1, "images=3", "frames=3"), "names 3 planes, and it holds 1: it was cut"),
        (shaped(1, {"shape": [2, 9, 7]}), "it was cut"),
        # axes that are not those of images
        (array_with((9, 7), metadata={"axes": "XY"}), r"axes XY \(9, 7\) and those of its pages, YX .*do not match"),
        (array_with((5, 9, 7), metadata={"axes": "XYZ"}), "axes XYZ .*do not match"),
        (array_with((3, 9, 7), planarconfig="separate", metadata={"axes": "ZYX"}), "axes ZYX .*do not match"),
        (array_with((9, 7, 3), planarconfig="contig", metadata={"axes": "YXZ"}), "axes YXZ .*do not match"),
        # values that tifffile scales
        (array_with((9, 7), metadata=None, extratags=[(33445, 4, 1, 2, True), (33446, 5, 1, (1, 3), True)]), "scaled"),
        # raw files of cameras, and images in sub-directories
        (array_with((9, 7), extratags=[(50706, 1, 4, bytes([1, 4, 0, 0]), True)]), "raw file of a camera.*rawpy"),
        (array_with((9, 7), metadata=None, **FILTERS), "rawpy"),
        (with_child(8, 16, **FILTERS), "rawpy"),
        (canon, "rawpy"),
    ],
)
def test_files_that_are_unclear_are_refused(tmp_path, write_file, match):
    write_file(tmp_path / "a.tif")
    for read in (open_stack, decode_file):
        with pytest.raises(BadImageError, match=rf"(?s)a\.tif.*{match}"):
            read(str(tmp_path / "a.tif"))


@pytest.mark.parametrize(
    "write_file",
    [
        imagej(5),  # older versions give no number
        imagej(5, "images=1"),
        imagej(6, "images=6"),
        pages_with("SCIFIO=1\nimages=6\nframes=3\nchannels=2", *[None] * 5),
        shaped(5, {"shape": [5, 10, 10]}),  # of a program that cut them out and kept the description
        shaped(5, {"shape": [3, 9, 7]}),
        array_with((4, 9, 7), metadata=None, description="shape=(4, 9, 7)"),
        pages_with(json.dumps({"shape": [2, 4, 9, 7], "axes": "TCYX", "truncated": False}), *[None] * 7),
        pages_with(*['{"exposure": {"s": 1}}'] * 3),
        pages_with(None, '{"shape": [3, 9, 7]}', None),
        with_child(16, 8),
        pages_with(None, None, None, subfiletype=2),
        pages_with(None, None, None, extratags=[(255, 3, 1, 2, True)]),
    ],
)
def test_files_of_other_programs(tmp_path, write_file):
    write_file(tmp_path / "a.tif")
    expected = images_of_series(tmp_path / "a.tif")
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), expected)


@pytest.mark.parametrize("text", ['{"shape": "round"}', '{"roi": {"shape": [1, 2]}}', '{"shape": [1.5]}', '{"shape":'])
def test_descriptions_in_json_of_other_programs(tmp_path, text):
    """Of which tifffile takes some for its own, and raises."""
    pages_with(text, None, extratags=[(65000, 3, 1, 7, True)])(tmp_path / "a.tif")
    expected = [random_pixels((9, 7), seed=seed) for seed in range(2)]
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), expected)


def test_scanimage_of_many_pages(tmp_path):
    """Where tifffile counts pages by the size of the file, and may miss the last one."""
    pages_with(*["state.x = 1"] * 8)(tmp_path / "a.tif")
    expected = [random_pixels((9, 7), seed=seed) for seed in range(8)]
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data.compute(), expected)


@pytest.mark.parametrize(
    ("write_file", "match"),
    [
        (imagej(5, "images=3", "frames=3"), "describes 3 planes, and holds 5"),
        (imagej(5, "images=8", "slices=8"), "describes 8 planes, and holds 5"),
        (imagej(6, "images=6", "channels=2"), "describes 2 planes, and holds 6"),
        (shaped(5, {"shape": [8, 9, 7]}), "describes 1 planes, and holds 5"),
        (pages_with('{"shape": [10, 8, 8]}', *[None] * 9, shape=(4, 4)), "describes 1 planes, and holds 10"),
        (with_child(8, 16), "1 images in sub-directories"),
        (with_child(8, 8), "1 images in sub-directories"),
    ],
)
def test_planes_that_exist_are_read_where_others_are_described(tmp_path, write_file, match):
    write_file(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        expected = [page.asarray() for page in tiff.pages]
    with pytest.warns(UserWarning, match=match):
        stack = open_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack.data.compute(), expected)


def found_axes(path):
    with open_images(str(path)) as images:
        return [(series.axes, series.sizes, series.channel_names) for series in images.list_images()]


def test_axes_and_channel_names(tmp_path):
    names = ["DAPI", "GFP"]
    pixels = random_pixels((3, 2, 4, 9, 7))
    described = {"axes": "TCZYX", "Channel": {"Name": names}}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="minisblack", metadata=described)
    assert found_axes(tmp_path / "a.ome.tif") == [("tz", (3, 4), ("DAPI", "GFP"))]
    expected = np.moveaxis(pixels, 1, -1).reshape(12, 9, 7, 2)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.ome.tif").data.compute(), expected)
    with tifffile.TiffWriter(tmp_path / "b.ome.tif") as tiff:  # two scenes
        for part in pixels[:2]:
            tiff.write(part[0], photometric="minisblack", metadata={"axes": "ZYX", "Channel": {"Name": "GFP"}})
    assert found_axes(tmp_path / "b.ome.tif") == [("z", (4,), ("GFP",))] * 2
    tifffile.imwrite(tmp_path / "c.tif", pixels[:, 0], imagej=True, metadata={"axes": "TZYX"})
    assert found_axes(tmp_path / "c.tif") == [("tz", (3, 4), ())]
    tifffile.imwrite(tmp_path / "d.tif", pixels[:, 0], photometric="minisblack", metadata=None)
    assert found_axes(tmp_path / "d.tif") == [("", (), ())]
    tifffile.imwrite(tmp_path / "e.tif", random_pixels((2, 4, 9, 7, 3)), photometric="rgb", metadata={"axes": "CZYXS"})
    assert found_axes(tmp_path / "e.tif") == [("cz", (2, 4), ())]
