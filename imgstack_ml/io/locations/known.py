"""Kinds of image files: how they are told, what they are called, and what reads them.

One table for all who ask: the counts of files that are not read, the advice where a format or its package is missing,
and the page of the documentation that says what to install.
"""

import functools
import re
from typing import NamedTuple

__all__ = ["KNOWN", "Known", "known_by_content", "known_by_name"]


class Known(NamedTuple):
    """A kind of files.

    Attributes
    ----------
    name : str
        In short, as it is counted.
    suffixes : str
        Without dots, with spaces between them.
    content : bytes
        A pattern of the first bytes; empty where they do not tell.
    extra : str
        The extra that is to be installed; empty where none is needed, or none is known.
    advice : str
        What is to be done where no extra reads it.
    noun : str
        What such a file is, as a sentence has it; by default "of the format ...".
    tested : bool
        Whether the tests read files that other programs made.
    """

    name: str
    suffixes: str
    content: bytes = b""
    extra: str = ""
    advice: str = ""
    noun: str = ""
    tested: bool = True

    @property
    def phrase(self) -> str:
        """What a file is, as a sentence has it."""
        return self.noun or f"of the format {self.name}"


_BY_FUNCTION = "To try imageio: open_stack(..., reader=imageio.v3.imread)"
_BY_RAWPY = "To read it: open_stack(..., reader=lambda path: rawpy.imread(path).postprocess()); pip install rawpy"
_BY_HEIF = (
    "To read it: pip install pillow-heif; pillow_heif.register_heif_opener(); "
    "open_stack(..., reader=lambda path: numpy.asarray(PIL.Image.open(path)))"
)
_BY_BIOFORMATS = "Export it as OME-TIFF in the program that wrote it, or by Bio-Formats: bfconvert old new.ome.tiff"
_BY_SLIDE = "It is a pyramid of tiles; take regions of it as images: pip install tiffslide"
_BY_FFMPEG = "Write it as another kind of video: ffmpeg -i film -c copy new.mkv"
# Most of these files are volumes, whose slices are images.
_BY_SIMPLEITK = (
    "Give an estimator the array: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)); pip install SimpleITK"
)
_BY_NIBABEL = "Give an estimator the array, with the axis of the images first: nibabel.load(path).get_fdata()"
_BY_MRCFILE = "Give an estimator the array: mrcfile.mmap(path).data; pip install mrcfile"
_BY_XARRAY = "Give an estimator the array: xarray.open_dataset(path)[name]"
_BY_LOADMAT = "Save it as MATLAB's version 7.3, or give an estimator the array: scipy.io.loadmat(path)[name]"

KNOWN = (
    Known("JPEG", "jpg jpeg jpe jfif mpo", rb"\xff\xd8\xff"),
    Known("PNG", "png apng", rb"\x89PNG\r\n\x1a\n"),
    Known("TIFF", "tif tiff", rb"II[*+]\0|MM\0[*+]"),
    Known("LSM", "lsm", noun="a TIFF of Zeiss", tested=False),
    Known("STK", "stk", noun="a TIFF of MetaMorph", tested=False),
    Known("GIF", "gif", rb"GIF8[79]a"),
    Known("BMP", "bmp dib", rb"BM.{4}\0{4}.{4}[\x0c\x28\x6c\x7c]\0{3}"),
    Known("WebP", "webp", rb"RIFF.{4}WEBP"),
    Known("AVIF", "avif avifs", rb".{4}ftypavi[fs]"),
    Known("HEIF", "heic heif hif", rb".{4}ftyp(hei[cxsm]|hev[cx]|mif1|msf1)", advice=_BY_HEIF),
    Known("JPEG 2000", "jp2 j2k jpx jpf jpc j2c", rb"\0{3}\x0cjP  |\xff\x4f\xff\x51"),
    Known("JPEG XL", "jxl", rb"\0{3}\x0cJXL ", advice="To read it: open_stack(..., reader=imagecodecs.imread)"),
    Known("PNM", "ppm pgm pbm pnm pfm", rb"P[1-6]\s+(#[^\n]*\n)?\d+\s+\d+\s"),
    Known("PSD", "psd", rb"8BPS\0", noun="a Photoshop file"),
    Known("OpenEXR", "exr", rb"v/1\x01", advice=_BY_FUNCTION),
    Known("icon", "ico"),
    Known("TGA", "tga"),
    Known("DDS", "dds"),
    Known("QOI", "qoi", rb"qoif"),
    Known("SGI", "sgi"),
    Known("PCX", "pcx"),
    Known("rare picture", "fli flc ras sun xbm p7 pxr ftc ftu cur xpm blp", noun="a picture of a rare kind"),
    Known("picture", "hdr xcf", advice=_BY_FUNCTION, noun="a picture of another kind"),
    Known("camera raw", "raw dng cr2 cr3 nef nrw arw sr2 orf rw2 raf pef srw x3f", advice=_BY_RAWPY),
    Known("AVI", "avi", rb"RIFF.{4}AVI ", "video", noun="a video"),
    Known("Matroska", "mkv webm", rb"\x1aE\xdf\xa3", "video", noun="a video"),
    Known("MP4", "mp4 m4v mov 3gp", rb".{4}ftyp|.{4}moov", "video", noun="a video"),
    Known(
        "video", "mpg mpeg wmv asf m2ts", rb"\x00\x00\x01\xba|\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video", noun="a video"
    ),
    Known("video", "flv mj2 ogv mxf", advice=_BY_FFMPEG, noun="a video of another kind"),
    Known("CZI", "czi", rb"ZISRAWFILE", "microscopy", noun="a Zeiss CZI file", tested=False),
    Known("ND2", "nd2", rb"\xda\xce\xbe\x0a", "microscopy", noun="a Nikon ND2 file", tested=False),
    Known("LIF", "lif", rb"p\0{3}.{4}\*", "microscopy", noun="a Leica LIF file", tested=False),
    Known(
        "microscope",
        "oib oif oir vsi flex dv r3d dm3 dm4 ser zvi",
        advice=_BY_BIOFORMATS,
        noun="a file of a microscope",
    ),
    Known("slide", "svs ndpi scn mrxs btf qptiff", advice=_BY_SLIDE, noun="a slide scan"),
    Known("MRC", "mrc mrcs", rb".{208}MAP ", advice=_BY_MRCFILE),
    Known("DICOM", "dcm dicom", rb".{128}DICM", "medical"),
    Known("NIfTI", "nii nii.gz", advice=_BY_NIBABEL),
    Known("NRRD", "nrrd nhdr", rb"NRRD000", advice=_BY_SIMPLEITK),
    Known("medical image", "mha mhd img", advice=_BY_SIMPLEITK),
    Known("FITS", "fits fit fts", rb"SIMPLE  =", "astro"),
    Known("HDF5", "h5 hdf5 hdf he5 nc", rb"(.{512})?\x89HDF\r\n\x1a\n", "hdf5"),
    Known("Imaris", "ims", b"", "hdf5", noun="an Imaris file"),
    Known("HDF5", "mat", b"", "hdf5", noun="a MATLAB file"),
    Known("MATLAB", "", rb"MATLAB 5\.0", advice=_BY_LOADMAT, noun="a MATLAB file of a version before 7.3"),
    Known("netCDF 3", "", rb"CDF[\x01\x02\x05]", advice=_BY_XARRAY),
    Known("NumPy", "npy npz", rb"\x93NUMPY"),
)

_CONTENT = re.compile(
    b"|".join(b"(%b)" % kind.content.replace(b"(", b"(?:") for kind in KNOWN if kind.content), re.DOTALL
)
_WITH_CONTENT = tuple(kind for kind in KNOWN if kind.content)


def known_by_content(head: bytes) -> Known | None:
    """Tell by its first bytes what a file is."""
    found = _CONTENT.match(head)
    return _WITH_CONTENT[found.lastindex - 1] if found and found.lastindex else None


def known_by_name(name: str) -> tuple[str, Known] | None:
    """Tell by its suffix what a file is; with the suffix in lower case, as ``.nii.gz``."""
    found = _suffix_pattern().search(name)
    if found is None:
        return None
    suffix = found[0].lower()
    return suffix, next(kind for kind in KNOWN if suffix[1:] in kind.suffixes.split())


@functools.cache
def _suffix_pattern() -> re.Pattern[str]:
    suffixes = "|".join(re.escape(suffix) for kind in KNOWN for suffix in kind.suffixes.split())
    return re.compile(rf"\.(?:{suffixes})\Z", re.IGNORECASE)
