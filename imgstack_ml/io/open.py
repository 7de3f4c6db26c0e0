"""open_stack and imread: from what a user names to a lazy stack."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np

from .convert import Conversion
from .formats.arrays import ArrayReader, open_hdf5, open_npy, open_store, open_zarr
from .formats.base import MAX_PIXELS, Header, mode_of
from .formats.hdf5 import split_hdf5
from .formats.npy import is_npy
from .formats.store import is_own_store, is_zarr
from .lazy import check_block_size, lazy_array
from .locations.faults import naming_the_file
from .locations.listing import Source, list_files, root_folder
from .locations.numbered import NumberedNames
from .readers import ConvertingReader, FunctionReader, apply_to_file, decode_file
from .scan import fingerprint_of_files, scan_files
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
) -> ImageStack:
    """Open images on disk as one lazy stack.

    The headers of all files are read, no pixel is decoded. Files that are as they were are not read again by a
    second call in the same process.

    Parameters
    ----------
    source : str, PathLike or sequence of these
        - a folder, a glob pattern, a file, or a list of files (taken in its own order); a path that exists is taken
          literally, brackets included;
        - a zip or tar archive of images, which is not unpacked: ``"photos.zip"``, ``"photos.zip::folder/*.png"``;
        - a URL that fsspec knows, to a file, a folder or a pattern: ``"s3://bucket/run/*.tif"``,
          ``"memory://folder"``, ``"zip://*.png::photos.zip"``;
        - a stack in one array: a folder that `save_stack` wrote, any zarr array, an OME-Zarr image (its full
          resolution), an HDF5 data set ``"file.h5::name"`` (needs h5py), a NumPy file ``"stack.npy"``. Such an array
          is of shape (n_images, height, width[, n_channels]), unless its own axes are named.
    recursive : bool, default=False
        Whether a folder's sub-folders are searched too; their names become `labels`. Those of an archive are
        searched in any case.
    mode : {"L", "LA", "RGB", "RGBA", "I;16", "I", "F"}, optional
        Bring all images to this mode, named as by Pillow: grey, grey and alpha, colour, colour and alpha with 8 bits
        each; grey as uint16, int32, float32. Modes of 8 bits a channel become any of these by Pillow's rules (grey
        is the luma of ITU-R 601-2, an alpha channel is dropped), ``"I;16"`` becomes ``"I"`` or ``"F"``; what would
        lose values is refused. Values are not scaled.
    dtype : dtype, optional
        Bring the pixels to this dtype, after `mode`. Values stay what they are: a dtype that does not hold them all
        is refused, except that float64 is rounded to float32.
    shape : (int, int), optional
        Height and width to bring all images to, after `mode` and `dtype`.
    fit : {"resize", "crop", "pad"}, default="resize"
        How: ``"resize"`` averages over what each new pixel covers (Pillow's triangle filter, channel by channel:
        of Pillow's filters the nearest to `skimage.transform.resize` with `anti_aliasing`, 1 % of the range or less
        from it, root mean square, on photographs), ``"crop"`` and ``"pad"`` keep pixels as they are around
        the centre, and refuse images that are too small, or too large.
    chunks : "auto" or int, default="auto"
        Images in a block. ``"auto"``: up to 64 MB, but at least 8 blocks per thread as long as a block keeps 16
        images.
    sort : {"natural", "name"}, default="natural"
        Order of the files of a folder or pattern: ``img2`` before ``img10``, or by plain comparison.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file whose header cannot be read raises, or is left out with a warning and listed in
        `problems`. A file that fails later, in decoding, always raises; `ImageStack.verify` finds such files.
    max_pixels : int, default=178_956_970
        Most pixels, height times width, that an image or a tile of one may claim to have.

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

    Notes
    -----
    Files are JPEG, PNG or TIFF, told by content. Pixels are what a viewer shows: a palette and the EXIF orientation
    (TIFF's tag of that name too; of a PNG, where it stands in front of the pixels) are applied.

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
    I (TIFF)                    (h, w)                 int32
    F (TIFF)                    (h, w)                 float32
    other TIFF                  (h, w[, n_samples])    integers and floats of 8 to 64 bits
    ==========================  =====================  =======

    Refused, with a reason: PNG in colour or with alpha of 16 bits a channel, animations, and TIFF in other colours
    (palette, inverted grey, CMYK, YCbCr) or bits. TIFF codecs beyond deflate need imagecodecs.

    A TIFF of several pages is several images, ``files[i]`` being ``"path[3]"``: each page, or what ImageJ, OME-TIFF
    and tifffile say of their axes: time, z, position and all other axes count images, C and samples are channels,
    the last axis. Channels of both kinds at once are refused.

    Paths become absolute, so that the stack outlives a change of folder. A compressed tar is refused: its members
    cannot be reached one by one. Chunks that a zarr array lacks are its fill value, as zarr has it; only stores that
    `save_stack` wrote are checked for being complete.

    JPEG and PNG are decoded by Pillow, TIFF by this package where its pixels lie plain in the file and by tifffile
    else. imagecodecs decodes JPEG 1.7 and PNG 1.5 times as fast, pixels equal, but of a JPEG that was cut at 20
    places it decoded 18 without a word. ``python -m benchmarks.formats`` compares all with Dask and a bare loop.
    """
    check_block_size(chunks)
    conversion = Conversion(
        mode,
        None if dtype is None else _name_of_dtype(dtype),
        None if shape is None else tuple(map(int, shape)),  # type: ignore[arg-type]
        fit,
        max_pixels,
    )
    stack = _array_stack(source, conversion) if isinstance(source, str | os.PathLike) else None
    if stack is None:
        stack = scan_files(list_files(source, recursive=recursive, sort=sort), conversion, on_error=on_error)
        if recursive and isinstance(source, str | os.PathLike):
            stack = replace(stack, labels=_folder_labels(stack.files, root_folder(source)))
    return replace(stack, chunks=chunks)


def imread(
    pattern: Source,
    imread: Callable[[str], Any] | None = None,
    preprocess: Callable[[Any], Any] | None = None,
) -> da.Array:
    """Read images as one lazy Dask array: the call of `dask.array.image.imread`.

    Unlike there, files come in natural order (2 before 10), several to a block, and one that does not fit the
    others is named.

    Parameters
    ----------
    pattern : str, PathLike or sequence of these
        Glob pattern, or any source of files that `open_stack` takes.
    imread : callable, optional
        From a file name to an image, instead of this package's own reader. The first file is read at once, to
        learn shape and dtype.
    preprocess : callable, optional
        Applied to each image.

    Returns
    -------
    dask.array.Array of shape (n_images, ...)

    Raises
    ------
    FileNotFoundError
        The pattern matches nothing.
    BadImageError
        A file cannot be read, or makes another shape or dtype than the first one.
    MixedStackError
        The images differ in shape or dtype (found at once without `imread` and `preprocess`).
    """
    if imread is None and preprocess is None:
        return open_stack(pattern).data
    files = list_files(pattern)
    read = decode_file if imread is None else imread
    first = apply_to_file(read, preprocess, files[0])
    reader = FunctionReader(read, preprocess, first.shape, first.dtype, fingerprint_of_files(files))
    return lazy_array(reader, tuple(files), "auto")


def _name_of_dtype(dtype: Any) -> str:
    """Return the name of a numeric dtype, without its byte order: pixels in memory have that of the machine."""
    if np.dtype(dtype).kind not in "uif":
        raise ValueError(f"dtype={dtype!r} is not one of numbers; give one such as 'float32'")
    return np.dtype(dtype).name


def _array_stack(source: str | os.PathLike[str], conversion: Conversion) -> ImageStack | None:
    """Open a source that is one array on disk; None where it names files of images."""
    source = os.fspath(source)
    path = os.path.abspath(source)
    in_hdf5 = split_hdf5(source)
    if is_own_store(source):
        stack = _stack_of_array(*open_store(path))
    elif is_zarr(source):
        stack = _stack_of_array(open_zarr(path))
    elif in_hdf5:
        stack = _stack_of_array(open_hdf5(os.path.abspath(in_hdf5[0]), in_hdf5[1]))
    elif is_npy(source):
        stack = _stack_of_array(open_npy(path))
    else:
        return None
    if conversion.is_identity:
        return stack
    with naming_the_file(source):
        return replace(stack, reader=ConvertingReader(stack.reader, conversion))


def _stack_of_array(
    reader: ArrayReader, files: Sequence[str] | None = None, labels: np.ndarray | None = None
) -> ImageStack:
    """Make a stack of all images of an array, named by their positions if they have no files."""
    header = Header(reader.shape, reader.dtype, reader.kind, mode_of(reader.shape, reader.dtype))
    return ImageStack(
        reader,
        tuple(files) if files else NumberedNames(reader.label, reader.n_images),
        keys=np.arange(reader.n_images),
        labels=labels,
        kinds=Kinds((header,), np.zeros(reader.n_images, np.uint32)),
    )


def _folder_labels(files: Sequence[str], root: str) -> np.ndarray | None:
    """Name the folder of each file relative to the root, with ``/`` between folders; None where all lie in the root."""
    folders = (os.path.dirname(file).replace(os.sep, "/") for file in files)
    root = root.replace(os.sep, "/").rstrip("/")
    labels = np.array([folder[len(root) :].strip("/") or "." for folder in folders])
    return labels if (labels != ".").any() else None
