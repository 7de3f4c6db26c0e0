"""Writing a stack as a folder of image files, one for each image, or as one TIFF of all."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np

from ...base.lazy import whole_images
from ...base.validation import StackLike
from ...errors import StoreError
from ...files.atomic import atomic_path
from ...files.locks import lock_output
from ...files.names import refuse_url
from ...files.space import explain_full_disk
from ...passes.progress import ImageBar
from .filenames import file_names, names_in_folders, refuse_file_suffix
from .one_tiff import is_tiff_name, write_one_tiff
from .save_stack import array_name, refuse_overlap
from .waves import BLOCK_BYTES, as_dask, named_stack, regions_of, run_on_blocks

__all__ = ["write_images", "write_in_folders"]

_SUFFIXES = {"png": ".png", "tiff": ".tif"}
_PNG = [("uint8", ()), ("uint8", (2,)), ("uint8", (3,)), ("uint8", (4,)), ("uint16", ())]


def write_images(
    stack: StackLike,
    folder: str | os.PathLike[str],
    *,
    format: str = "png",
    names: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[str]:
    """Write each image of a stack into a file of its own, or all of them into one TIFF.

    Each file appears when it is complete. If the call fails, the files that are complete stay.

    Parameters
    ----------
    stack : ImageStack, dask.array.Array or ndarray of shape (n_images, height, width[, n_channels])
        Pixels are written as they are, never scaled. PNG takes uint8 as grey, grey and alpha, RGB or RGBA, and uint16
        as grey; TIFF takes whole numbers of 8 to 64 bits and floating-point numbers of 16 to 64 bits, in any number of
        channels, of which 3 or 4 are RGB or RGBA.
    folder : str or PathLike
        Made if it is missing; the folder that it lies in has to exist. A name that ends in ``.tif`` or ``.tiff``, and
        is no folder, is one OME-TIFF instead, whose time points are the images; `format` is "tiff" then, whatever is
        given. It takes numbers of at most 32 bits, and float64.
    format : {"png", "tiff"}, default="png"
        PNG is compressed lightly (level 1 of 9), TIFF is not.
    names : sequence of str, optional
        A name for each image, with or without suffix, and without folders. By default the names of the images'
        files, in which ``_`` replaces characters that some systems refuse. A number leads each name where two of them
        are equal, or where their natural order is not that of the stack. Images of an array are numbered, unless it is
        the lazy result of a transformer of an ImageStack.
    overwrite : bool, default=False
        Whether `folder` may hold files already. Files of the same names are then replaced. Other files stay, and
        ``open_stack(folder)`` reads them as well.
    progress : bool, default=False
        Whether to show a bar of images, with megabytes a second.

    Returns
    -------
    list of str
        ``paths[i]`` is the file of image ``i``; of one OME-TIFF there is one path. ``open_stack(paths)``, and
        ``open_stack(folder)`` with default names, gives the same pixels in the same order.

    Raises
    ------
    StoreError
        `folder` is a URL, or has the suffix of another file, as ``out.png``; it is not empty, or a TIFF that exists,
        and `overwrite` is False; it is another file; it is, holds or lies in a folder of the input (it may lie
        beside the only file of it); another process writes into it; or its disk is full.
    ValueError
        The format does not take images of this shape or dtype; a block is not of the shape or dtype that `stack`
        declares; or a name is empty, hidden, used twice, or has a separator.
    TypeError
        `stack` is something else, or masked; or a block of it is masked or no array.
    BadImageError
        An image cannot be read.

    Notes
    -----
    Memory: a block of at most 64 MB, or of one image, for each thread of the scheduler; twice that for one OME-TIFF.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from imgstack_ml import write_images
    >>> paths = write_images(np.zeros((3, 4, 4), np.uint8), os.path.join(tempfile.mkdtemp(), "out"))
    >>> [os.path.basename(path) for path in paths]
    ['0.png', '1.png', '2.png']
    """
    return write_in_folders(stack, folder, None, format=format, names=names, overwrite=overwrite, progress=progress)


def write_in_folders(
    stack: StackLike,
    folder: str | os.PathLike[str],
    folders: Sequence[str] | None,
    *,
    format: str = "png",
    names: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[str]:
    """Write images as `write_images` does, each in a folder below `folder`: in ``folders[i]``, with ``/`` in it.

    Names of folders become such that every system takes, and no folder lies outside of `folder`.
    """
    if format not in _SUFFIXES:
        raise ValueError(f"format={format!r} is not known; it is one of {', '.join(map(repr, _SUFFIXES))}")
    refuse_url(folder)
    data = as_dask(stack)
    is_one = is_tiff_name(folder)
    _check_images(data, "tiff" if is_one else format, array_name(stack))
    target = os.path.realpath(folder)
    named = named_stack(stack)
    sources = None if named is None else named.files
    _refuse_input_folders(named, sources or (), target)
    if is_one:
        if names is not None:
            raise ValueError(f"names are those of files in a folder, and {target!r} is one file; leave names out")
        write_one_tiff(stack, data, target, overwrite=overwrite, progress=progress)
        return [target]
    if folders is None or sources is None:
        found = file_names(names, sources, len(data), _SUFFIXES[format])
    else:
        found = names_in_folders(folders, sources, _SUFFIXES[format])
    paths = [os.path.join(target, *name.split("/")) for name in found]
    example = f"write_images({array_name(stack)}, '{{}}', format={format!r})"
    refuse_file_suffix(target, "a folder of files, one an image,", example)
    _check_folder(target, overwrite)
    with lock_output(target), explain_full_disk(target, int(data.nbytes)):
        _check_folder(target, overwrite)  # again: another process may have filled it before the lock
        for parent in {target, *map(os.path.dirname, paths)}:
            os.makedirs(parent, exist_ok=True)
        _refuse_links(paths)
        _write_files(whole_images(data), paths, format, progress)
    return paths


def _check_images(data: da.Array, format: str, name: str) -> None:
    channels = data.shape[3:]
    if 0 in data.shape[1:] or data.ndim not in (3, 4) or channels == (1,):
        hint = f"{name}[..., 0]" if data.ndim == 4 else f"{name}.reshape(n_images, height, width)"
        raise ValueError(
            f"images of shape {data.shape[1:]} are not pictures: (height, width) or (height, width, n_channels > 1) "
            f"is needed, e.g. write_images({hint}, …)"
        )
    dtype = data.dtype.name
    if data.dtype.kind not in "uif" or data.dtype.itemsize > 8:
        cure = {"b": f"as 0 and 1: write_images({name}.astype('uint8'), …)", "c": f"save_stack({name}, path)"}
        other = f"write_images({name}.astype('float64'), …, format='tiff')"
        raise ValueError(f"no format of pictures takes {dtype}; {cure.get(data.dtype.kind, other)}")
    if format == "png" and (dtype, channels) not in _PNG:
        kind = f"{dtype} with {channels[0]} channels" if channels else dtype
        rounded = f", or round: write_images({name}.round().clip(0, 255).astype('uint8'), folder)"
        raise ValueError(
            f"PNG does not take {kind}; write TIFF: write_images({name}, folder, format='tiff')"
            + rounded * (data.dtype.kind == "f" and ("uint8", channels) in _PNG)
        )


def _refuse_input_folders(stack: Any, files: Sequence[str], target: str) -> None:
    """Raise if the files would be read as input the next time, or replace files of the input."""
    refuse_overlap(stack, target)
    # A store names files that it does not read. Writing below their folder is harmless, writing over them is not.
    # A film or a TIFF of many pages is opened by its own name, so that a folder beside it is no input either.
    reads_own_store = getattr(getattr(stack, "reader", None), "is_own_store", False)
    is_alone = len(files) > 1 and len(getattr(stack, "inputs", ())) == 1
    for folder in {os.path.dirname(file) for file in files}:
        source = os.path.realpath(folder)
        if source == target or (not (reads_own_store or is_alone) and target.startswith(os.path.join(source, ""))):
            raise StoreError(f"{target!r} is, or lies in, the folder {source!r} of the input; choose another place")


def _check_folder(folder: str, overwrite: bool) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise StoreError(f"{folder!r} is a file; give the name of a folder to write in")
    parent = os.path.dirname(folder)
    if not os.path.isdir(parent):
        raise StoreError(f"there is no folder {parent!r} to write in; make it first: os.makedirs({parent!r})")
    if not overwrite and os.path.isdir(folder) and os.listdir(folder):
        raise StoreError(
            f"the folder {folder!r} is not empty; name a new one, or pass overwrite=True to replace files of the same "
            "names in it"
        )


def _refuse_links(paths: list[str]) -> None:
    """Raise if a file to be written is a link, which may lead out of the folder."""
    links = list(filter(os.path.islink, paths))
    if links:
        raise StoreError(f"{links[0]!r} is a link to {os.path.realpath(links[0])!r}; remove it, or name another folder")


def _write_files(data: da.Array, paths: list[str], format: str, progress: bool) -> None:
    image_bytes = math.prod(data.shape[1:]) * data.dtype.itemsize
    rows = min(max(1, *data.chunks[0]), max(1, BLOCK_BYTES // image_bytes))
    sizes = (rows, *data.shape[1:])
    with ImageBar(image_bytes, total=len(data), desc="write_images", unit=" images", disable=not progress) as bar:
        run_on_blocks(
            functools.partial(_write_block, format),
            data,
            sizes,
            regions_of(data.shape, sizes),
            lambda region: (paths[region[0]],),
            bar,
        )


def _write_block(format: str, block: np.ndarray, paths: list[str]) -> None:
    write = {"png": _write_png, "tiff": _write_tiff}[format]
    for path, image in zip(paths, block, strict=True):
        with atomic_path(path) as temporary:
            write(temporary, np.ascontiguousarray(image, image.dtype.newbyteorder("=")))


def _write_png(path: str, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, format="PNG", compress_level=1)


def _write_tiff(path: str, image: np.ndarray) -> None:
    import tifffile

    photometric = "rgb" if image.shape[2:] in ((3,), (4,)) else "minisblack"
    planar = "contig" if image.ndim == 3 else None  # else tifffile takes the first of three axes for pages
    tifffile.imwrite(path, image, photometric=photometric, planarconfig=planar, metadata=None)
