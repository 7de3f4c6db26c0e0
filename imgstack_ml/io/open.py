"""open_stack and imread: from what a user names to a lazy stack."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np

from ..base.warn import warn
from ..errors import BadImageError
from ..files.names import is_url
from .array_stacks import array_stack, converted
from .convert import Conversion
from .formats.base import MAX_PIXELS, Header, mode_of_array
from .formats.registry import how_read
from .keys import FileKeys
from .lazy import check_block_size
from .locations.listing import Source, find_files, root_folder
from .locations.unread import LINKED_FOLDER, Listing, unread_text
from .locations.urls import storage_options_of
from .readers import ConvertingReader, FunctionReader, apply_to_file, decode_file
from .scan import keys_of_files, scan_files
from .select import Select
from .stack import ImageStack
from .summary import Kinds

__all__ = ["imread", "open_stack"]


def open_stack(
    source: Source,
    *,
    recursive: bool = False,
    mode: str | None = None,
    dtype: Any = None,
    shape: tuple[int, int] | None = None,
    fit: str = "resize",
    chunks: str | int = "auto",
    sort: str = "natural",
    on_error: str = "raise",
    max_pixels: int = MAX_PIXELS,
    reader: Callable[[str], Any] | None = None,
    select: Select | None = None,
    axes: str | None = None,
    level: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> ImageStack:
    """Open images on disk as one lazy stack.

    The headers of all files are read, and no pixel is decoded. A second call in the same process reads the headers of
    changed files only.

    Parameters
    ----------
    source : str, PathLike or sequence of these
        - a folder, a glob pattern, a file, or a list of files, whose order is kept. A path that exists is taken
          literally, even with brackets in it;
        - a zip or tar archive of images, which is not unpacked: ``"photos.zip"``, ``"photos.zip::folder/*.png"``;
        - a URL that fsspec knows, to a file, a folder or a pattern: ``"s3://bucket/run/*.tif"``,
          ``"memory://folder"``, ``"zip://*.png::photos.zip"``;
        - a plate or a well of OME-Zarr, or what bioformats2raw writes: all its images as one stack, with the wells as
          `labels`;
        - a stack in one array: a folder that `save_stack` wrote, any zarr array, an OME-Zarr image, an HDF5 data set
          ``"file.h5::name"`` (needs h5py; the name may be left out where there is one), a NumPy file ``"stack.npy"``.
          The array is of shape (n_images, height, width[, n_channels]), unless its axes have names (zarr, xarray,
          OME-Zarr, labels or scales of HDF5): then these say which are y, x and channels, and all others count images.
    recursive : bool, default=False
        Whether a folder's sub-folders are searched too; their names become `labels`. Links to folders are not
        followed; those that lead out of the folder are counted like images that are not read. Folders within an archive
        are always searched.
    mode : {"L", "LA", "RGB", "RGBA", "I;16", "I", "F"}, optional
        Bring all images to this mode. The names are Pillow's: grey, grey and alpha, colour, colour and alpha with 8
        bits a channel; grey as uint16, int32, float32. Modes of 8 bits a channel become any of these by Pillow's rules
        (grey is the luma of ITU-R 601-2, rounded except for ``"F"``; an alpha channel is dropped), and ``"I;16"``
        becomes ``"I"`` or ``"F"``. A mode that would lose values is refused. Values are not scaled.
    dtype : dtype, optional
        Bring the pixels to this dtype, after `mode`. Values are not scaled: a dtype that cannot hold all of them is
        refused, except that float64 is rounded to float32.
    shape : (int, int), optional
        Height and width to bring all images to, after `mode` and `dtype`.
    fit : {"resize", "crop", "pad"}, default="resize"
        How images are brought to `shape`. ``"resize"`` averages over the area that each new pixel covers, by Pillow's
        triangle filter in each channel. On photographs, the root mean square difference from
        `skimage.transform.resize` with `anti_aliasing` is at most 1 % of the range. ``"crop"`` and ``"pad"`` keep the
        pixels around the centre, and refuse images that are too small, or too large.
    chunks : "auto" or int, default="auto"
        Images in a block. ``"auto"``: up to 64 MB, but at least 8 blocks per thread as long as a block keeps 16
        images. Blocks of films end at keyframes, and of animations with the file, where 64 MB allow.
    sort : {"natural", "name"}, default="natural"
        Order of the files of a folder or pattern: ``"natural"`` puts ``img2`` before ``img10``, ``"name"`` compares
        the plain strings.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file whose header cannot be read, or a link that leads to nothing, raises, or is left out with a
        warning and listed in `problems`. A file whose pixels cannot be decoded always raises, when they are computed;
        `ImageStack.verify` finds these files.
    max_pixels : int, default=178_956_970
        Most pixels, height times width, that an image or a tile of one may claim to have.
    reader : callable, optional
        From the path of a file to its one image, an array; it reads the files in place of this package. All files of a
        folder are given to it but hidden ones: choose by a pattern, such as ``"plates/*.czi"``. Of files in archives
        and at URLs it gets a copy. Shape and dtype are those of the first file, which is read at once.
    select : dict of str, optional
        Images and channels to take, by the axes of the files: ``{"c": ["DAPI"], "z": 3, "t": slice(0, 100)}``. Strings
        are names of channels; ints, slices and lists of ints are positions from 0. An int drops the axis. The axes are
        t, z, c, s (scene), p (position), and others that a file names. What is not there is refused, with a list of
        what is.
    axes : str, optional
        Letters of the axes of an array or a file that does not name them, such as ``"tyxc"``; those other than y, x and
        c count images.
    level : int, default=0
        Level of the pyramids of OME-Zarr and TIFF; 0 is the full resolution. One that is not there is refused, with the
        shapes of those that are.
    storage_options : dict, optional
        What fsspec needs for the URL, such as ``{"key": ..., "secret": ...}`` or ``{"anon": True}``. It is part of the
        stack, and goes to the workers of a cluster with it, and never into a model, a report, a log or a repr.

    Returns
    -------
    ImageStack

    Raises
    ------
    FileNotFoundError
        The source matches nothing.
    BadImageError
        A header cannot be read; from ``.data.compute()``, a file cannot be decoded.
    MixedStackError
        The images differ in shape or dtype; the message names the option that would accept them.
    StoreError
        A stored stack is incomplete or damaged.
    ValueError, TypeError
        An option or the source has a value that is not known.

    Notes
    -----
    Files are JPEG, PNG, TIFF (also LSM and STK), GIF, WebP, AVIF, JPEG 2000, BMP, Netpbm (PBM, PGM, PPM, PFM), TGA,
    MPO, DDS, PCX, SGI, QOI, ICO (the largest image), PSD (all layers as one image) or of rare kinds (FLI, Sun raster,
    XBM, XPM, CUR and others); with optional packages also video, DICOM, FITS, ND2, CZI and LIF, a frame or plane an
    image; and arrays in ``.npy``, ``.npz`` and HDF5. Their content decides, not their suffix, except for TGA, PCX, XBM,
    CUR and MPO. The page "What is read, and what to install for it" of the documentation lists all kinds. Of a folder
    or an archive, files are read that end so; films, arrays, ICO, PSD and rare kinds only where there is nothing else.
    Other images in it, by their suffix or (at URLs of a few) by their first bytes, are counted by `ImageStack.summary`,
    and a warning says how many there are. Hidden files, and what systems put beside images (``Thumbs.db``, ``__MACOSX``
    and such), are not listed.

    A file that is replaced or written to after the stack is opened raises BadImageError when it is read: its size and
    time of change are compared, or the ETag, digest or time that a URL's file system tells.

    Pixels are read as a viewer shows them: a palette and the orientation are applied, which EXIF or XMP tell, or a tag
    of a TIFF; the rules are those of Pillow's `exif_transpose`. A colour of a PNG that stands for transparency becomes
    an alpha channel under ``mode="LA"`` and ``mode="RGBA"``.

    The frames of an animation (GIF, WebP, AVIF, PNG) are images, composed as Pillow does it, named ``"path[3]"`` in
    `files`; an image of a PNG for viewers that show no animations is the first one. So are the images of a file that
    ends in ``.mpo``, without its thumbnails; a ``.jpg`` that holds further ones is the first of them.

    ==========================  =====================  =======
    mode of the file            shape                  dtype
    ==========================  =====================  =======
    1 (black and white)         (h, w), 0 or 255       uint8
    L                           (h, w)                 uint8
    LA                          (h, w, 2)              uint8
    P (palette)                 (h, w, 3); with        uint8
                                transparency 4
    RGB                         (h, w, 3)              uint8
    RGBA                        (h, w, 4)              uint8
    CMYK                        (h, w, 3), as RGB      uint8
    I;16                        (h, w)                 uint16
    I (TIFF, PGM of 16 bits)    (h, w)                 int32
    F (TIFF, PFM)               (h, w)                 float32
    over 8 bits a channel       (h, w, n_channels)     uint16, as stored
    (PNG, JPEG 2000, AVIF)
    other TIFF                  (h, w[, n_samples])    whole numbers of 8 to 64 bits, of which
                                                       others take the next; floats
    ==========================  =====================  =======

    Colour or alpha of more than 8 bits a channel in PNG, JPEG 2000 and AVIF needs imagecodecs (``pip install
    'imgstack_ml[codecs]'``); grey of 9 to 15 bits in JPEG 2000 and PGM is scaled to 16 by Pillow. In a TIFF, palettes
    and CMYK, with their alpha, YCbCr and grey of 1, 2 and 4 bits are shown in 8 bits, and grey of which 0 is white is
    inverted. Samples of other bits are read as they are stored, and a warning says so if 0 is white. JPEG, LZW, fax and
    other codecs of TIFF are decoded by imagecodecs where it is installed, and else by Pillow where it can; samples of
    unusual bits, 16-bit colour in LZW, ZSTD and others need imagecodecs.

    These files are refused, with a reason: animated PNG of 16 bits in colour, PPM of more than 8 bits in colour, AVIF
    and JPEG 2000 where Pillow was built without them, BLP of a palette or in JPEG with alpha, and TIFF in CIELAB and
    other colours, in CMYK of floats beyond 0 to 1, of palettes or CMYK with alpha that is multiplied into the colours,
    in YCbCr without a codec whose pixels share colours, or without pixels.

    A TIFF of several pages holds several images, named ``"path[3]"`` in `files`. Each page is an image, unless the
    file describes its axes (OME-TIFF, ImageJ, MetaMorph, LSM, tifffile and others): then the images are those of
    ``tifffile.TiffFile(path).series``, all series one after the other. C, or else samples, are channels, the last axis;
    time, z, position and all other axes count images. Smaller copies, pages that are marked so and sub-directories,
    are read by `level` only. Where a file describes other planes than it holds, such as a stopped recording, or was cut
    in front of a page, those that exist are read, and a warning counts them. Each file of an OME-TIFF of several files
    gives its own planes: open the folder of all of them. Raw files of cameras are refused; rawpy reads them.

    Paths become absolute, so that the stack can be read after a change of folder. A compressed tar is refused: its
    members cannot be reached one by one. Missing chunks of a zarr array are read as its fill value, as zarr does it;
    only the stores that `save_stack` wrote are checked for missing chunks, and an array without any is refused. So are
    arrays whose pixels lie elsewhere: behind links out of a zarr folder, in other HDF5 files, in virtual data sets.

    tifffile decodes TIFF; uncompressed TIFF is read without it. simplejpeg decodes JPEG in grey and RGB, to the pixels
    of Pillow; Pillow decodes all others, and what simplejpeg warns of. Its decoders of other formats, such as
    PostScript, are never called. ``python -m benchmarks.comparisons.formats`` compares speeds.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from imgstack_ml import open_stack, write_images
    >>> folder = os.path.join(tempfile.mkdtemp(), "photos")
    >>> paths = write_images(np.zeros((6, 4, 5), np.uint8), folder)
    >>> stack = open_stack(folder)
    >>> stack.shape, stack.dtype, os.path.basename(stack.files[2])
    ((6, 4, 5), dtype('uint8'), '2.png')
    """
    check_block_size(chunks)
    _check_axes(axes)
    if isinstance(level, bool) or not isinstance(level, int) or level < 0:
        raise ValueError(f"level={level!r} is no level of a pyramid; give a number from 0, the full resolution")
    conversion = Conversion(
        mode,
        None if dtype is None else _name_of_dtype(dtype),
        None if shape is None else tuple(map(int, shape)),  # type: ignore[arg-type]
        fit,
        max_pixels,
    )
    with storage_options_of(storage_options):
        stack = _open(source, conversion, recursive, sort, on_error, reader, select, axes, level)
    if storage_options is not None:
        stack = _with_options(stack, storage_options, source)
    return replace(stack, chunks=chunks)


def _open(
    source: Source,
    conversion: Conversion,
    recursive: bool,
    sort: str,
    on_error: str,
    reader: Callable[[str], Any] | None,
    select: Select | None,
    axes: str | None,
    level: int,
) -> ImageStack:
    if reader is not None:
        if on_error != "raise":
            raise ValueError("on_error='skip' goes by headers, and reader=... reads none: open_stack(...).verify()")
        if select or axes or level:
            raise ValueError(
                "select=..., axes=... and level=... go by what a file says of itself, and reader=... gives one image"
            )
        found = find_files(source, lambda _: True, recursive=recursive, sort=sort)
        stack: ImageStack | None = _stack_of_function(found.files, reader, conversion)
    else:
        options: dict[str, Any] = {"on_error": on_error, "select": select, "axes": axes, "level": level}
        stack = array_stack(source, conversion, **options) if isinstance(source, str | os.PathLike) else None
    if stack is None:
        files, unread = _find(source, recursive=recursive, sort=sort)
        stack = scan_files(files, conversion, **options)
        stack = replace(stack, unread=tuple(unread.most_common()))
    is_listed = isinstance(stack.keys, FileKeys) and stack.labels is None  # not an array, nor a plate
    if recursive and is_listed and isinstance(source, str | os.PathLike):
        stack = replace(stack, labels=_folder_labels(stack.files, root_folder(source)))
    return stack


def _with_options(stack: ImageStack, options: Mapping[str, Any], source: Source) -> ImageStack:
    """Give a stack the options for its URLs."""
    reader: Any = stack.reader
    if not any(map(is_url, stack.files)):
        raise ValueError(f"storage_options are for URLs, and {source!s} is none")
    if isinstance(reader, ConvertingReader):
        inner: Any = reader.reader
        return replace(stack, reader=ConvertingReader(replace(inner, storage_options=options), reader.conversion))
    return replace(stack, reader=replace(reader, storage_options=options))


def imread(
    filename: Source | None = None,
    imread: Callable[[str], Any] | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    *,
    pattern: Source | None = None,
) -> da.Array:
    """Read images as one lazy Dask array: the call of `dask.array.image.imread`.

    Unlike there, files come in natural order (2 before 10), a block holds several of them, and an error names the file
    that differs from the others.

    Parameters
    ----------
    filename : str, PathLike or sequence of these
        Glob pattern, or any source of files that `open_stack` takes.
    imread : callable, optional
        From a file name to an image, in place of this package's own reader. Shape and dtype are those of the first
        file, which is read at once.
    preprocess : callable, optional
        Applied to each image.
    pattern : str, PathLike or sequence of these, optional
        The name of `filename` before 0.2, which goes in 0.4.

    Returns
    -------
    dask.array.Array of shape (n_images, ...)

    Raises
    ------
    FileNotFoundError
        The pattern matches nothing.
    BadImageError
        A file cannot be read, or gives another shape or dtype than the first one.
    MixedStackError
        The images differ in shape or dtype. With `imread` or `preprocess` these files raise BadImageError, when they
        are read.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from imgstack_ml import imread
    >>> folder = tempfile.mkdtemp()
    >>> for i in range(12):
    ...     np.save(os.path.join(folder, f"{i}.npy"), np.full((4, 5), i))
    >>> imread(os.path.join(folder, "*.npy"), imread=np.load)[:, 0, 0].compute()
    array([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11])
    """
    if pattern is not None:
        warn(
            "imread(pattern=...) is imread(filename=...) now, as in Dask; the old name goes in 0.4",
            FutureWarning,
        )
        filename = pattern
    if filename is None:
        raise TypeError("imread() needs the files to read, e.g. imread('photos/*.png')")
    if imread is None and preprocess is None:
        return open_stack(filename).data
    files = _find(filename).files if imread is None else find_files(filename, lambda _: True).files
    return _function_stack(files, decode_file if imread is None else imread, preprocess).data


def _function_stack(
    files: Sequence[str], read: Callable[[str], Any], preprocess: Callable[[Any], Any] | None = None
) -> ImageStack:
    """Make a stack of files that functions of the user read."""
    keys = keys_of_files(files)  # before the first is read: what changes later is noticed
    first = apply_to_file(read, preprocess, files[0])
    header = Header(first.shape, first.dtype, "function", mode_of_array(first.shape, first.dtype))
    reader = FunctionReader(read, preprocess, first.shape, first.dtype)
    return ImageStack(reader, tuple(files), keys, kinds=Kinds((header,), np.zeros(len(files), np.uint32)))


def _stack_of_function(files: Sequence[str], read: Callable[[str], Any], conversion: Conversion) -> ImageStack:
    stack = _function_stack(files, read)
    if len(stack.reader.shape) not in (2, 3) or stack.dtype.kind not in "uif":
        raise BadImageError(
            files[0],
            f"the function that reads it makes {stack.reader.shape}, {stack.dtype} of it; an image is of shape "
            "(height, width[, n_channels]), of numbers",
        )
    return converted(stack, conversion, files[0])


def _find(source: Source, **options: Any) -> Listing:
    """List the files of a source; warn once of the images in it that are not read."""
    found = find_files(source, how_read, **options)
    links = found.unread[LINKED_FOLDER]
    if found.unread:
        n = found.unread.total() - links
        lines = [f"{n:,} image{'s' if n > 1 else ''} of kinds that are not read"] if n else []
        lines += [f"{links:,} link{'s' if links > 1 else ''} to folders, which are not followed"] if links else []
        cures = ["Convert images to files that end in .png, .jpg or .tif, or move them elsewhere"] if n else []
        cures += ["Open a folder behind a link by its own name"] if links else []
        kinds, cure = unread_text(found.unread), ". ".join(cures)
        warn(f"{source!s} holds {' and '.join(lines)}; they are left out: {kinds}. {cure}")
    return found


def _check_axes(axes: Any) -> None:
    if axes is None or (isinstance(axes, str) and len(set(axes)) == len(axes) and {"y", "x"} <= set(axes)):
        return
    raise ValueError(f"axes={axes!r} is no text of different letters with y and x among them; give e.g. axes='tyxc'")


def _name_of_dtype(dtype: Any) -> str:
    """Return the name of a numeric dtype, without its byte order: pixels in memory have that of the machine."""
    if np.dtype(dtype).kind not in "uif":
        raise ValueError(f"dtype={dtype!r} is not a dtype of numbers; give e.g. dtype='float32'")
    return np.dtype(dtype).name


def _folder_labels(files: Sequence[str], root: str) -> np.ndarray | None:
    """Name the folder of each file relative to the root, with ``/`` between folders; None where all lie in the root."""
    folders = (os.path.dirname(file).replace(os.sep, "/") for file in files)
    root = root.replace(os.sep, "/").rstrip("/")
    labels = np.array([folder[len(root) :].strip("/") or "." for folder in folders])
    return labels if (labels != ".").any() else None
