"""Images of TIFFs as tifffile's series have them: every layout that it writes, and files that contradict themselves."""

import itertools
import json
import logging
import os
import struct
from collections import defaultdict

import numpy as np
import pytest
import tifffile

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError, MixedStackError
from imgstack_ml.io.readers import decode_file
from tests.lib.images import pack, random_pixels

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
    for leading, storage in zip(orders("TZC"), itertools.cycle(STORAGE)):  # noqa: B905
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
    for leading, storage in zip(orders("TZC"), itertools.cycle(STORAGE)):  # noqa: B905
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


FAMILIES = [write_described, write_ome, write_imagej, write_pages, write_pyramids, write_planes_behind_a_page]


def as_images(pixels, axes):
    """NumPy's own way: C and S last, all else one axis of images, in the order given."""
    kept = [i for i, axis in enumerate(axes) if pixels.shape[i] > 1 or axis in "YX"]
    pixels, axes = pixels.reshape([pixels.shape[i] for i in kept]), [axes[i] for i in kept]
    order = sorted(range(len(axes)), key=lambda i: "YXCS".find(axes[i]))
    n_counting = sum(axis not in "YXCS" for axis in axes)
    moved = pixels.transpose(order)
    return list(moved.reshape(-1, *moved.shape[n_counting:]))


def images_of_series(path):
    """All images of a file as tifffile reads its series; those of pages where nothing describes series."""
    with tifffile.TiffFile(path) as tiff:
        found = [series for series in tiff.series if not series.keyframe.is_subifd]
        if {series.kind for series in found} <= {"generic", "uniform"}:
            pages = [page.aspage() for page in tiff.pages]
            found = [page for page in pages if not page.subfiletype & 5] or pages
        return [image for part in found for image in as_images(part.asarray(), part.axes)]


def is_unclear(name, images):
    """Whether a file is to be refused: two axes of channels, images that differ, or C for fewer axes than there are."""
    kinds = {(image.shape, image.dtype) for image in images}
    return len(kinds) > 1 or images[0].ndim > 3 or ("as one" in name and "C" in name)


@pytest.mark.parametrize("write_family", FAMILIES)
def test_images_are_those_of_tifffiles_series(tmp_path, write_family):
    (tmp_path / "files").mkdir()
    write_family(tmp_path / "files")
    groups = defaultdict(list)
    for path in sorted(map(str, (tmp_path / "files").iterdir())):
        expected = images_of_series(path)
        if is_unclear(os.path.basename(path), expected):
            with pytest.raises((BadImageError, MixedStackError), match=os.path.basename(path).replace(".", r"\.")):
                open_stack(path)
            continue
        stack = open_stack(path, chunks=1000)
        np.testing.assert_array_equal(stack.data.compute(scheduler="synchronous"), expected, err_msg=path)
        assert (stack.dtype, stack.shape[1:]) == (expected[0].dtype, expected[0].shape)
        if len(expected) == 1:
            np.testing.assert_array_equal(decode_file(path), expected[0])
        else:
            with pytest.raises(BadImageError, match="holds several images"):
                decode_file(path)
        groups[stack.dtype, stack.shape[1:]].append((path, expected))
    for number, group in enumerate(groups.values()):  # all files of one kind as a list, a folder and an archive
        folder = tmp_path / str(number)
        folder.mkdir()
        for i, (path, _) in enumerate(group):
            os.link(path, folder / f"{i}.tif")
        together = np.concatenate([images for _, images in group])
        order = np.random.default_rng(0).permutation(len(together))
        for source in ([path for path, _ in group], folder, pack(folder, f"{folder}.zip")):
            stack = open_stack(source, chunks=100)
            np.testing.assert_array_equal(stack[order].data.compute(scheduler="synchronous"), together[order])


@pytest.mark.parametrize("write_family", FAMILIES)
def test_layouts_that_were_cut_are_named(tmp_path, write_family):
    write_family(tmp_path)
    counts = {"named": 0, "whole": 0}
    for path in sorted(tmp_path.iterdir())[::4]:
        whole, expected = path.read_bytes(), images_of_series(path)
        for end in np.linspace(1, len(whole) - 1, 7).astype(int).tolist():
            path.write_bytes(whole[:end])
            try:
                images = open_stack(path, chunks=1000).data.compute(scheduler="synchronous")
            except (BadImageError, MixedStackError) as error:
                assert path.name in str(error)  # noqa: PT017 - either outcome is right
                counts["named"] += 1
            else:  # what was cut are remarks behind the pixels
                np.testing.assert_array_equal(images, expected)
                counts["whole"] += 1
    assert counts["named"] > 5 * counts["whole"]
