"""Stacks of arrays on disk: of one array, and of the images of an OME-Zarr plate."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import BadImageError
from .convert import Conversion
from .formats.arrays import ArrayReader, open_hdf5, open_npy, open_store, open_zarr
from .formats.base import Header, check_level, mode_of_array
from .formats.hdf5 import split_hdf5
from .formats.npy import is_npy
from .formats.ome_zarr import images_of_well, wells_of
from .formats.registry import Found, Key
from .formats.store import is_own_store, is_zarr, state_of_zarr
from .locations.base import State
from .locations.faults import READ_ERRORS, naming_the_file
from .locations.numbered import NumberedNames
from .readers import ConvertingReader, places_by_file
from .scan import Layout, scan_sources
from .select import Select, select_channels, select_images
from .stack import ImageStack
from .summary import Kinds

__all__ = ["array_stack", "converted"]


def array_stack(
    source: str | os.PathLike[str],
    conversion: Conversion,
    *,
    on_error: str = "raise",
    select: Select | None = None,
    axes: str | None = None,
    level: int = 0,
) -> ImageStack | None:
    """Open a source that is one array on disk, or a plate of them; None where it names files of images.

    The parameters are those of `imgstack_ml.open_stack`.
    """
    source, select = os.fspath(source), select or {}
    path = os.path.abspath(source)
    in_hdf5 = split_hdf5(source)
    if in_hdf5 or is_npy(source) or is_own_store(source):
        with naming_the_file(source):
            check_level(level, [()])
    if is_own_store(source):
        stack = _stack_of_array(*open_store(path))
    elif is_zarr(source):
        with naming_the_file(path):
            wells = wells_of(path)
        if wells is not None:
            return _plate_stack(path, wells, conversion, on_error=on_error, select=select, axes=axes, level=level)
        stack = _stack_of_array(open_zarr(path, axes, level))
    elif in_hdf5:
        stack = _stack_of_array(open_hdf5(os.path.abspath(in_hdf5[0]), in_hdf5[1], axes))
    elif is_npy(source):
        stack = _stack_of_array(open_npy(path, axes))
    else:
        return None
    with naming_the_file(source):
        found: Any = stack.reader
        channels = select_channels(
            found.axis_names, stack.shape[3] if stack.ndim == 4 else 0, stack.channel_names, select
        )
        selected = select_images(found.axis_names, found.sizes, (), select) if found.axis_names else None
    if selected is not None:
        stack = replace(stack[selected.positions], coords=selected.coords)
    if channels is not None:
        reader = found.with_channels(channels)
        stack = replace(stack, reader=reader, channel_names=reader.channel_names)
    if conversion.mode is not None:
        stack = replace(stack, channel_names=())
    return converted(stack, conversion, source)


def converted(stack: ImageStack, conversion: Conversion, name: str) -> ImageStack:
    """Return a stack whose images are converted when they are read; an error names `name`."""
    if conversion.is_identity:
        return stack
    with naming_the_file(name):
        return replace(stack, reader=ConvertingReader(stack.reader, conversion))


def _stack_of_array(
    reader: ArrayReader, files: Sequence[str] | None = None, labels: np.ndarray | None = None
) -> ImageStack:
    """Make a stack of all images of an array, named by their positions if they have no files."""
    return ImageStack(
        reader,
        tuple(files) if files else NumberedNames(reader.label, reader.n_images),
        keys=np.arange(reader.n_images),
        labels=labels,
        kinds=Kinds((_header(reader),), np.zeros(reader.n_images, np.uint32)),
        channel_names=reader.channel_names,
    )


def _header(reader: ArrayReader) -> Header:
    return Header(reader.shape, reader.dtype, reader.kind, mode_of_array(reader.shape, reader.dtype))


@dataclass(frozen=True)
class PlateReader:
    """Read blocks of images from the arrays of a plate.

    A key names the image of OME-Zarr, and has the number of its array in `arrays` and of the image in it.

    Parameters
    ----------
    path : str
        The folder of the plate.
    arrays : tuple of ArrayReader
        What the arrays have in common: without place, fingerprint and times of change, which keys and states have.
    shape : tuple of int
        Shape of an image once it is converted.
    dtype : numpy.dtype
    conversion : Conversion
    """

    path: str
    arrays: tuple[ArrayReader, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    conversion: Conversion = field(default_factory=Conversion)

    @property
    def images_per_chunk(self) -> int:
        """Number of neighbouring images that are stored together."""
        sizes = {array.images_per_chunk for array in self.arrays}
        return sizes.pop() if len(sizes) == 1 else 1

    def read(self, keys: Sequence[Key]) -> np.ndarray:
        """Read the images that `keys` name into one block, each array opened once."""
        block = np.empty((len(keys), *self.shape), self.dtype)
        for name, (state, places) in places_by_file(keys).items():
            assert state is not None
            array = self.arrays[places[0][1][0]]
            fingerprint = state_of_zarr(os.path.join(name, array.name))
            with naming_the_file(name):
                if _state(fingerprint, state.modified) != state:
                    raise ValueError("it has changed since the stack was opened; open the stack again")
                array = replace(array, path=name, fingerprint=fingerprint, newest=state.modified)
                images = array.read(np.array([row for _, (_, row) in places]))
                for (i, _), image in zip(places, images, strict=True):
                    block[i] = self.conversion.apply(image)
        return block


def _state(fingerprint: str, newest: int) -> State:
    """Return the state of an array: what tells its metadata from others, and the latest change of a chunk."""
    return State(int.from_bytes(hashlib.blake2b(fingerprint.encode(), digest_size=7).digest()), newest)


def _plate_stack(
    path: str,
    described: tuple[str, list[str]],
    conversion: Conversion,
    *,
    on_error: str,
    select: Select,
    axes: str | None,
    level: int,
) -> ImageStack:
    """Make a stack of the images of all wells that `wells_of` gives, with the axis that counts those of a well."""
    axis, wells = described
    places, faults, is_kept = _places(path, axis, wells, select)
    arrays: dict[ArrayReader, int] = {}
    opened = [0]

    def find(name: str) -> tuple[State, tuple[Found, ...]]:
        if name in faults:
            raise faults[name]
        array = open_zarr(name, axes, level)
        alike = replace(array, path="", fingerprint="", newest=0, opened=0, channel_names=())
        number = arrays.setdefault(alike, len(arrays))
        names: Any = (axis, *array.axis_names) if array.axis_names or not array.sizes else ()
        keys = tuple((number, row) for row in range(array.n_images))
        found = Found(_header(array), keys, names, (1, *array.sizes) if names else (), array.channel_names)
        opened.append(array.opened)
        return _state(array.fingerprint, array.newest), (found,)

    def make_reader(layout: Layout, conversion: Conversion, headers: Sequence[Header]) -> PlateReader:
        found = tuple(replace(array, opened=max(opened)) for array in arrays)
        if conversion.channels is not None:
            found = tuple(array.with_channels(conversion.channels) for array in found)
        return PlateReader(path, found, *layout, replace(conversion, channels=None))

    others = {letter: choice for letter, choice in select.items() if letter != axis}
    stack = scan_sources(places, find, make_reader, conversion, on_error=on_error, select=others)
    of_images = [places[key.file] for key in stack.keys or ()]
    coords = {letter: found for letter, found in stack.coords.items() if letter != axis}
    if is_kept:
        coords = {axis: np.array([position for _, position in of_images]), **coords}
    labels = np.array([well for well, _ in of_images]) if any(wells) else None
    return replace(stack, labels=labels, coords=coords)


def _places(
    path: str, axis: str, wells: Sequence[str], select: Select
) -> tuple[dict[str, tuple[str, int]], dict[str, Exception], bool]:
    """List the images of wells: well and position of each, what is wrong with wells, and whether `axis` is kept."""
    places: dict[str, tuple[str, int]] = {}
    faults: dict[str, Exception] = {}
    choice = {axis: select[axis]} if axis in select else {}
    is_kept = True
    for well in wells:
        try:
            names = images_of_well(path, well)
            chosen = select_images((axis,), (len(names),), (), choice)
            is_kept = axis in chosen.coords
            places |= {os.path.join(path, names[i]): (well, i) for i in chosen.positions.tolist()}
        except READ_ERRORS as error:
            faults[os.path.join(path, well).rstrip(os.sep)] = error
            places[os.path.join(path, well).rstrip(os.sep)] = well, 0
    if not places:
        raise BadImageError(path, "it holds no image")
    return places, faults, is_kept
