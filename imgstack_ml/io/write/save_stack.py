"""Storing a stack as one zarr array, which appears when it is complete; an interrupted call can be resumed."""

import errno
import functools
import math
import os
import shutil
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask.base import tokenize
from numcodecs import Zstd
from zarr.codecs import ZstdCodec

from ... import __version__
from ...base.channels import are_known, channel_names_of
from ...base.validation import FileStack, StackLike
from ...base.warn import warn
from ...errors import StoreError
from ...files.atomic import atomic_folder
from ...files.names import refuse_url
from ...files.space import explain_full_disk, require_space
from ...passes.progress import ImageBar
from ..formats.store import ATTRIBUTE, FORMAT, chunk_files, chunk_names, is_zarr, mark_complete
from .filenames import refuse_file_suffix
from .layers import layer_bytes, run_on_whole_images
from .waves import BLOCK_BYTES, Region, as_dask, named_stack, regions_of, run_on_blocks, run_on_regions

__all__ = ["array_name", "refuse_overlap", "save_stack"]

# Reading one image reads its whole chunk, which must not be too large; much smaller chunks would be too many files.
_CHUNK_BYTES = 1_000_000
_WHOLE_BYTES = 16_000_000  # whole images in a block, where chunks hold parts of more of them

_LEVEL = 1
_PARTIAL = ".partial"


def save_stack(
    stack: StackLike,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    chunks: int | None = None,
) -> str:
    """Store a stack as one zarr array, block by block.

    The array is built under a hidden name beside `path`, and renamed when it is complete. An array at `path` is
    replaced then, not before. A call that fails leaves nothing, or, with `resume`, the blocks that it has stored so
    far.

    Parameters
    ----------
    stack : ImageStack, dask.array.Array or ndarray of shape (n_images, ...)
        Pixels are stored in their dtype. File names and labels of an ImageStack are stored with them, also with a lazy
        array that a transformer has made of it, image by image.
    path : str or PathLike
        Folder to write, usually called ``something.zarr``.
    overwrite : bool, default=False
        Whether a zarr array at `path` may be replaced. Nothing else is ever replaced.
    resume : bool, default=False
        Whether a call resumes an earlier one that failed or was killed, and can itself be resumed. The blocks that
        the earlier call stored, hidden beside `path`, are kept if all of their chunks decode without an error. The
        input has to be the same: its files, with their sizes and times of change, or Dask's name of the array, and
        this package's version. If it is not, all images are stored anew, and a warning says so. A call without
        `resume` removes what an earlier call left.
    progress : bool, default=False
        Whether to show a bar of images, with megabytes a second.
    chunks : int, optional
        Whole images in a stored chunk. By default, chunks are as the notes say, and hold parts of images where those of
        a Dask array do.

    Returns
    -------
    str
        `path`, absolute; ``open_stack(path)`` opens it.

    Raises
    ------
    StoreError
        `path` is a URL, or has the suffix of a file, as ``out.tif``; it exists and is not replaced; it is, holds or
        lies in the input; another process writes it; or its disk has no room for the uncompressed pixels.
    BadImageError
        An image cannot be read.
    TypeError
        `stack` is something else, masked, or holds no numbers; or a block of it is masked or no array.
    ValueError
        A block is not of the shape or dtype that `stack` declares; or `chunks` is no number of images.

    Notes
    -----
    Images are stored in chunks of about 1 MB, or of one image where that is larger. Chunks are read whole: a shuffled
    selection of small images decodes their neighbours too. Blocks of different sizes are rechunked to the size of the
    largest one, at most 64 MB. Memory: a block for each thread of the scheduler.

    Where chunks are to hold whole images, and those of the stack hold parts of more than 16 MB of them, each is read
    once and goes through a file in the hidden folder, uncompressed: of twice as many images at most as a chunk has
    parts of. Memory is then 16 MB of images, or a chunk, for each thread.

    Chunks are compressed by Zstandard at level 1, with a checksum: a damaged chunk raises an error, and is never read
    as other pixels. The table has MB of pixels a second written and read by 2 threads, and the size that is stored:

    ==========================  ==================  ==================  ==================
    codec                       photographs, 8 bit  microscopy, 16 bit  constant images
    ==========================  ==================  ==================  ==================
    none                        1311, 2289, 100 %   831, 1696, 100 %    941, 2419, 100 %
    Zstandard 1, checksum       582, 935, 80 %      363, 840, 51 %      840, 2056, 0 %
    Zstandard 3, checksum       353, 1107, 70 %     226, 750, 48 %      803, 2007, 0 %
    LZ4                         718, 1598, 85 %     396, 1124, 75 %     882, 2091, 0 %
    LZ4, shuffled (Blosc)       755, 1653, 87 %     627, 1127, 53 %     856, 2152, 0 %
    Zstandard 1, bits shuffled  466, 768, 72 %      434, 727, 45 %      667, 1129, 0 %
    ==========================  ==================  ==================  ==================

    Zstandard saves about half of the space of images that can be compressed, in all dtypes, and has a checksum of its
    own.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from imgstack_ml import open_stack, save_stack
    >>> path = save_stack(np.ones((5, 4, 4)), os.path.join(tempfile.mkdtemp(), "ones.zarr"))
    >>> open_stack(path).shape
    (5, 4, 4)
    """
    refuse_url(path)
    data = as_dask(stack)
    target = os.path.realpath(path)
    if data.dtype.kind not in "biufc" or (data.dtype.kind == "f" and data.dtype.itemsize > 8):
        raise TypeError(
            f"stack has dtype {data.dtype}, and only numbers of up to 64 bits are stored; e.g. "
            f"{array_name(stack)}.astype('float64')"
        )
    if chunks is not None and (not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1):
        raise ValueError(f"chunks={chunks!r} is not a number of images in a chunk; give e.g. chunks=1")
    refuse_overlap(stack, target)
    files = f"write_images({array_name(stack)}, '{{0}}', format='tiff')"
    example = f"save_stack({array_name(stack)}, '{{0}}.zarr')"
    refuse_file_suffix(target, "a zarr array, which is a folder,", f"{example}. Files: {files}")
    _check_replaced(target, overwrite)
    described = _description(stack, data)
    if resume:
        described["input"] = tokenize(stack, described, FORMAT, __version__, *([] if chunks is None else [chunks]))
    with (
        explain_full_disk(target, int(data.nbytes)),
        atomic_folder(target, overwrite=overwrite, resume=resume) as folder,
    ):
        array = _unfinished_array(folder, described["input"]) if resume else None
        array = array or _new_array(folder, data, described, chunks)
        stored = as_dask(stack, as_stored=True)
        _store_blocks(stored if _joins_parts(stored, array.chunks) else data, array, folder, progress)
        _describe(folder, described)
        mark_complete(folder)
    return target


def array_name(stack: Any) -> str:
    """Return how the array of a stack is typed: an ImageStack has no methods of arrays."""
    return "stack.data" if isinstance(stack, FileStack) else "stack"


def refuse_overlap(stack: Any, target: str) -> None:
    """Raise if an output is, holds or lies in the input.

    Parameters
    ----------
    stack : object
        Of an ImageStack, or of the one that a lazy array is computed from, `inputs` are compared; others have none.
    target : str
        Path to be written, with all links resolved.

    Raises
    ------
    StoreError
        Naming both.
    """
    for source in map(os.path.realpath, getattr(named_stack(stack), "inputs", ())):
        if os.path.commonpath([source, target]) in (source, target):
            raise StoreError(f"{target!r} is, holds or lies in the input {source!r}; choose another place")


def _check_replaced(target: str, overwrite: bool) -> None:
    if overwrite and os.path.isdir(target) and os.listdir(target) and not is_zarr(target):
        raise StoreError(f"{target!r} is a folder that holds no zarr array, so it is not replaced; choose another name")


def _chunk_shape(data: da.Array) -> tuple[int, ...]:
    """Choose the shape of a stored chunk: about 1 MB of the largest block."""
    rows, *pixels = _largest_block_shape(data)
    most = min(rows, max(1, _CHUNK_BYTES // (math.prod(pixels) * data.dtype.itemsize)))
    # Blocks are stored as they are if a divisor of their size is a suitable size of chunks.
    return max((d for d in range(most // 2 + 1, most + 1) if rows % d == 0), default=most), *pixels


def _block_shape(data: da.Array, chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the shape of the blocks to write, each of which consists of whole chunks."""
    if _joins_parts(data, chunks):
        image_bytes = math.prod(data.shape[1:]) * data.dtype.itemsize
        return max(1, _WHOLE_BYTES // image_bytes // chunks[0]) * chunks[0], *chunks[1:]
    return max(1, _largest_block_shape(data)[0] // chunks[0]) * chunks[0], *chunks[1:]


def _joins_parts(data: da.Array, chunks: tuple[int, ...]) -> bool:
    """Whether chunks to write hold whole images, and those of the stack parts of so many that memory would be large."""
    parts = any(len(sizes) > 1 for sizes in data.chunks[1:]) and chunks[1:] == data.shape[1:]
    return parts and max(data.chunks[0]) > chunks[0] and layer_bytes(data) > _WHOLE_BYTES


def _largest_block_shape(data: da.Array) -> tuple[int, ...]:
    rows, *pixels = (max(1, *sizes) for sizes in data.chunks)
    return min(rows, max(1, BLOCK_BYTES // (math.prod(pixels) * data.dtype.itemsize))), *pixels


def _description(stack: Any, data: da.Array) -> dict[str, Any]:
    named = named_stack(stack)
    labels = getattr(named, "labels", None)
    channels = channel_names_of(stack, data.shape[1:], data.dtype)
    return {
        "format": FORMAT,
        "files": None if named is None else list(named.files),
        "labels": None if labels is None else labels.tolist(),
        **({"channels": list(channels)} if are_known(channels) else {}),
    }


def _new_array(folder: str, data: da.Array, described: dict[str, Any], chunks: int | None) -> zarr.Array:
    # Attributes travel with every task, so that file names are not added before all tasks are done.
    attributes: dict[str, Any] = {ATTRIBUTE: {"input": described.get("input")}}
    return zarr.create_array(
        folder,
        shape=data.shape,
        chunks=_chunk_shape(data) if chunks is None else (min(chunks, len(data)), *data.shape[1:]),
        dtype=data.dtype,
        filters=None,
        compressors=ZstdCodec(level=_LEVEL, checksum=True),
        attributes=attributes,
    )


def _unfinished_array(folder: str, token: str) -> zarr.Array | None:
    """Return the array that an earlier call left of the same input; remove that of another input, with a warning."""
    if not os.listdir(folder):
        return None
    try:
        array = zarr.open_array(folder, mode="r+")
        attributes: Any = array.attrs[ATTRIBUTE]
        if attributes["input"] == token:
            return array
    except (OSError, ValueError, KeyError, TypeError):  # killed before the array was made
        pass
    warn(
        "the blocks that an unfinished call left are from another input or another version; none of them is used, and "
        "all images are stored anew"
    )
    shutil.rmtree(folder)
    os.mkdir(folder)
    return None


def _store_blocks(data: da.Array, array: zarr.Array, folder: str, progress: bool) -> None:
    regions = list(regions_of(data.shape, _block_shape(data, array.chunks)))
    whole = _whole_regions(data, array, folder, regions)
    todo = [region for region, is_whole in zip(regions, whole, strict=True) if not is_whole]
    image_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
    pixels_left = sum(math.prod(part.stop - part.start for part in region) for region in todo)
    joins_parts = _joins_parts(data, array.chunks)
    require_space(folder, pixels_left * array.dtype.itemsize + joins_parts * 2 * layer_bytes(data))
    n_left = sum(region[0].stop - region[0].start for region in todo if not any(part.start for part in region[1:]))
    with ImageBar(
        image_bytes,
        total=len(data),
        initial=len(data) - n_left,
        desc="save_stack",
        unit=" images",
        disable=not progress,
    ) as bar:
        write = functools.partial(_write_chunks, folder, array.chunks)
        sizes = _block_shape(data, array.chunks)
        if joins_parts:
            run_on_whole_images(write, data, sizes, todo, bar, folder)
        else:
            run_on_blocks(write, data, sizes, todo, lambda region: (region,), bar)


def _whole_regions(data: da.Array, array: zarr.Array, folder: str, regions: list[Region]) -> list[bool]:
    """Tell which blocks an earlier call stored whole, and remove the chunks that it did not finish."""
    stored = set()
    for name in chunk_files(folder):
        if name.endswith(_PARTIAL):
            os.remove(os.path.join(folder, name))
        else:
            stored.add(name)
    if not stored:
        return [False] * len(regions)
    candidates = [region for region in regions if stored.issuperset(chunk_names(array.chunks, region))]
    found = run_on_regions(functools.partial(_is_whole, array), data, candidates)
    whole = {id(region) for region, is_whole in zip(candidates, found, strict=True) if is_whole}
    return [id(region) in whole for region in regions]


def _is_whole(array: zarr.Array, region: Region) -> bool:
    """Tell whether the chunks of a block decode without an error: each has a checksum."""
    try:
        array[region]
    except (OSError, ValueError, RuntimeError):
        return False
    return True


def _write_chunks(folder: str, sizes: tuple[int, ...], block: np.ndarray, region: Region) -> None:
    """Write the chunks of a block, each under another name until it is whole.

    The files are those that zarr would write with the codecs of `_new_array`. zarr itself is slower: it hands each
    chunk to an event loop and a thread pool beside Dask's threads. Chunks of zeros are written too: a missing file is a
    lost chunk.
    """
    if not os.path.isdir(folder):  # removed when the call was interrupted, or not shared with this machine
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    codec = Zstd(level=_LEVEL, checksum=True)
    block = block.astype(block.dtype.newbyteorder("<"), copy=False)
    for chunk in regions_of(block.shape, sizes):
        piece = _full_size(block[chunk], sizes)
        place = tuple(
            slice(part.start + at.start, part.start + at.stop) for part, at in zip(region, chunk, strict=True)
        )
        (name,) = chunk_names(sizes, place)
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + _PARTIAL, "wb") as file:
            file.write(codec.encode(piece))
        os.replace(path + _PARTIAL, path)


def _full_size(piece: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Pad a chunk at the end of an axis with zeros: zarr stores all chunks in full size."""
    if piece.shape == sizes:
        return np.ascontiguousarray(piece)
    whole = np.zeros(sizes, piece.dtype)
    whole[tuple(slice(0, n) for n in piece.shape)] = piece
    return whole


def _describe(folder: str, described: dict[str, Any]) -> None:
    zarr.open_array(folder, mode="r+").attrs[ATTRIBUTE] = described
