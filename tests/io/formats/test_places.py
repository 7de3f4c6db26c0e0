"""Every format from every place: the pixels that another reader gives, or a refusal by name that the page tells.

``python -m tests.io.formats.test_places`` prints the table of the page.
"""

import json
import os
import re
import struct
import tempfile
import warnings
from pathlib import Path

import dask
import fsspec
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence, features

from imgstack_ml import open_stack
from tests.lib.commands import read_table, run
from tests.lib.images import pack, random_pixels

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "formats.md"
SHAPE = (24, 32, 3)
IMAGES = np.cumsum(random_pixels((3, *SHAPE)) % 5, 2, dtype=np.uint8)
SERIES = np.moveaxis(IMAGES, -1, 1)  # of channels


def by_pillow(**options):
    """Write a picture by Pillow; an animation where it is asked to save all."""

    def write(path):
        first, *others = map(Image.fromarray, IMAGES[:2])
        first.save(path, **{"append_images": others} if "save_all" in options else {}, **options)

    return write, read_by_pillow


def read_by_pillow(path):
    with Image.open(path) as picture:
        n_frames = getattr(picture, "n_frames", 1)
        frames = ImageSequence.Iterator(picture) if n_frames > 1 else [picture]
        return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])


def by_tifffile(pixels, **options):
    return lambda path: tifffile.imwrite(path, pixels, **options), read_by_tifffile


def read_by_tifffile(path):
    with tifffile.TiffFile(path) as tiff:
        (series,) = tiff.series
        pixels = series.asarray()
    return (np.moveaxis(pixels, 1, -1) if series.axes == "TCYX" else pixels).reshape(-1, *SHAPE)


def write_psd(path):
    """Write what Photoshop writes, as the format is described: no layers, three planes of bytes."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, *SHAPE[:2], 8, 3)
    Path(path).write_bytes(head + bytes(12 + 2) + np.moveaxis(IMAGES[0], -1, 0).tobytes())


def write_qoi(path):
    """Write each pixel by three bytes, which every decoder of QOI has to take."""
    pixels = b"".join(b"\xfe" + pixel.tobytes() for pixel in IMAGES[0].reshape(-1, 3))
    Path(path).write_bytes(b"qoif" + struct.pack(">IIBB", SHAPE[1], SHAPE[0], 3, 0) + pixels + bytes(7) + b"\1")


def write_hdf5(path):
    with pytest.importorskip("h5py").File(path, "w") as file:
        file["images"] = IMAGES


def read_hdf5(path):
    with pytest.importorskip("h5py").File(path) as file:
        return file["images"][:]


def write_film(path):
    pytest.importorskip("av")
    from tests.io.formats.test_video import write

    write(path, "libx264", "yuv420p", {"g": "3"}, n=5)


def read_film(path):
    from tests.io.formats.test_video import in_order

    return in_order(str(path))


def write_dicom(path):
    pydicom = pytest.importorskip("pydicom")
    head = pydicom.dataset.FileMetaDataset()
    head.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image = pydicom.Dataset()
    image.file_meta, image.SOPClassUID, image.SOPInstanceUID = head, "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 24, 32, 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.NumberOfFrames = 15, 0, 3
    image.PixelData = SERIES[0].astype(np.uint16).tobytes()
    image.save_as(path, enforce_file_format=True)


def read_dicom(path):
    return pytest.importorskip("pydicom").dcmread(path).pixel_array


def write_fits(path):
    pytest.importorskip("astropy.io.fits").writeto(path, SERIES[0])


def read_fits(path):
    return pytest.importorskip("astropy.io.fits").getdata(path)


# By format: suffix, how a file is written, and by what other reader it is read.
BASE = {
    "JPEG": (".jpg", *by_pillow()),
    "MPO": (".mpo", *by_pillow(save_all=True)),
    "PNG": (".png", *by_pillow()),
    "APNG": (".apng", *by_pillow(save_all=True, format="PNG")),
    "TIFF": (".tif", *by_tifffile(IMAGES[0], photometric="rgb")),
    "TIFF, many pages": (".tif", *by_tifffile(IMAGES, photometric="rgb")),
    "OME-TIFF": (".ome.tif", *by_tifffile(SERIES, photometric="minisblack", metadata={"axes": "TCYX"})),
    "GIF": (".gif", *by_pillow()),
    "GIF, animated": (".gif", *by_pillow(save_all=True)),
    "WebP": (".webp", *by_pillow()),
    "WebP, animated": (".webp", *by_pillow(save_all=True)),
    "AVIF": (".avif", *by_pillow()),
    "BMP": (".bmp", *by_pillow()),
    "JPEG 2000": (".jp2", *by_pillow()),
    "PNM": (".ppm", *by_pillow()),
    "TGA": (".tga", *by_pillow()),
    "ICO": (".ico", *by_pillow(sizes=[(32, 24)])),
    "PSD": (".psd", write_psd, read_by_pillow),
    "DDS": (".dds", *by_pillow()),
    "SGI": (".sgi", *by_pillow()),
    "PCX": (".pcx", *by_pillow()),
    "QOI": (".qoi", write_qoi, read_by_pillow),
    "NPY": (".npy", lambda path: np.save(path, IMAGES), np.load),
    "NPZ": (".npz", lambda path: np.savez(path, IMAGES), lambda path: np.load(path)["arr_0"]),
    "HDF5": (".h5", write_hdf5, read_hdf5),
}
EXTRAS = {
    "video": (".mp4", write_film, read_film),
    "DICOM": (".dcm", write_dicom, read_dicom),
    "FITS": (".fits", write_fits, read_fits),
}
FORMATS = BASE | EXTRAS


class Made:
    """A file of a format, the pixels that it has by another reader, and a folder for it in every place."""

    def __init__(self, name, root):
        if name == "AVIF" and "avif" not in features.get_supported():
            pytest.skip("this Pillow has no AVIF")
        suffix, write, read = FORMATS[name]
        path = root / f"a{suffix}"
        write(path)
        self.pixels, self.content = read(path), path.read_bytes()
        self.mode = "RGB" if suffix == ".ico" else None  # it has an alpha channel

    def put(self, root, name):
        """Put the file into a sub-folder of a new folder."""
        self.root, self.folder = root, root / "in" / "kind"
        self.folder.mkdir(parents=True)
        self.path = self.folder / name
        self.path.write_bytes(self.content)

    def equals(self, source, **options):
        stack = open_stack(source, mode=self.mode, **options)
        assert stack.dtype == self.pixels.dtype.newbyteorder("=")
        np.testing.assert_array_equal(stack.data.compute(), self.pixels)
        return stack

    def archived(self, suffix):
        archive = pack(self.root / "in", self.root / f"x{suffix}")
        for source in (archive, f"{archive}::kind/{self.path.name}"):
            self.equals(source)


def in_folder(made):
    assert made.equals(made.folder).labels is None


def beside_a_picture(made):
    Image.fromarray(IMAGES[2]).save(made.folder / "b.bmp")
    files = open_stack(made.folder, mode="F").files
    assert len(files) == len(made.pixels) + 1


def in_list(made):
    made.equals([made.path])
    made.equals(made.path)


def at_url(made):
    system = fsspec.filesystem("memory")
    system.put(str(made.path), f"/places/{made.path.name}")
    try:
        for source in ("memory://places", f"memory://places/{made.path.name}"):
            made.equals(source)
    finally:
        system.rm("/places", recursive=True)


def labelled(made):
    (made.root / "in" / "other").mkdir()
    (made.root / "in" / "other" / made.path.name).write_bytes(made.content)
    stack = open_stack(made.root / "in", recursive=True, mode=made.mode)
    for label in ("kind", "other"):
        np.testing.assert_array_equal(stack[stack.labels == label].data.compute(), made.pixels)


def scanned(made):
    mode = ["--mode", made.mode] if made.mode else []
    result = run("scan", made.folder, "--verify", "--json", "-q", *mode)
    found = json.loads(result.stdout)
    assert (found["n_images"], found["image_shape"]) == (len(made.pixels), list(made.pixels.shape[1:]))
    assert (found["problems"], result.exit_code) == ([], 0)


def verified(made):
    assert made.equals(made.path).verify().problems == ()


def skipping(made):
    """A damaged file beside it is left out, by its header or else by its pixels; the others stay, and are right."""
    (made.folder / f"cut{made.path.suffix}").write_bytes(made.content[: len(made.content) // 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack = open_stack(made.folder, on_error="skip", mode=made.mode).verify()
    assert any("cannot be" in str(warning.message) for warning in caught)
    assert {os.path.basename(name).partition("[")[0] for name, _ in stack.problems} == {f"cut{made.path.suffix}"}
    for file, pixels in zip(stack.files, stack.data.compute(), strict=True):
        number = re.search(r"\[(\d+)\]\Z", file)
        np.testing.assert_array_equal(pixels, made.pixels[int(number[1]) if number else 0])
    assert sum("/cut." not in file for file in stack.files) == len(made.pixels)


def by_command(made):
    table = made.root / "x.csv"
    mode = ["--mode", made.mode] if made.mode else []
    assert run("features", made.folder, "-o", table, "-f", "stats", "-q", *mode).exit_code == 0
    header, rows = read_table(table)
    at = [i for i, name in enumerate(header) if name.endswith("_mean")]
    means = made.pixels.mean((1, 2)).reshape(len(made.pixels), -1)
    np.testing.assert_allclose([[float(row[i]) for i in at] for row in rows], means)


PLACES = {
    "folder": in_folder,
    "with pictures": beside_a_picture,
    "list": in_list,
    "glob": lambda made: made.equals(f"{made.folder}/*{made.path.suffix}"),
    "zip": lambda made: made.archived(".zip"),
    "tar": lambda made: made.archived(".tar"),
    "URL": at_url,
    "`file://`": lambda made: made.equals(f"file://{made.path}"),
    "labels": labelled,
    "`scan`": scanned,
    "`verify`": verified,
    "skip": skipping,
    "`features`": by_command,
}
# Where a format is refused on purpose: what is said.
REFUSED = {
    (name, "with pictures"): rf"\{FORMATS[name][0]} \(beside images\) \(1\)"
    for name in ("ICO", "PSD", "NPY", "NPZ", "HDF5", "video")
}


def row(name, root):
    """Put a file of a format into every place; return its row of the table."""
    made, cells = Made(name, root), []
    for number, (place, check) in enumerate(PLACES.items()):
        made.put(root / str(number), f"a{FORMATS[name][0]}")
        if told := REFUSED.get((name, place)):
            with pytest.warns(UserWarning, match=told), pytest.raises(AssertionError):
                check(made)
        else:
            check(made)
        cells.append("no" if told else "yes")
    return f"| {name} | {' | '.join(cells)} |"


def head():
    return f"| format | {' | '.join(PLACES)} |\n|{'---|' * (1 + len(PLACES))}"


@pytest.mark.parametrize("name", [*BASE, *(pytest.param(name, marks=pytest.mark.extras) for name in EXTRAS)])
def test_every_format_from_every_place(tmp_path, name):
    page = PAGE.read_text(encoding="utf-8")
    assert head() in page
    assert row(name, tmp_path) in page, "run python -m tests.io.formats.test_places"


if __name__ == "__main__":
    with dask.config.set(scheduler="synchronous"):
        print(head())
        for name in FORMATS:
            print(row(name, Path(tempfile.mkdtemp())))
