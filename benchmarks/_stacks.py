"""Stacks on disk that comparisons run on, and the plainest means of reading them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from PIL import Image
from threadpoolctl import threadpool_limits

from imgstack_ml.datasets import cell_image

from ._common import THREADS

__all__ = ["STACKS", "Source", "Stack", "planted_variances", "rows_in_memory", "write_cells", "write_planted"]

N_MODES = 40  # planted
DECAY = 0.9  # of their singular values
SPREAD = 10  # grey levels, times the root of the values of an image, along the first of them
NOISE = 8  # grey levels
FEWEST = 60  # images of a stack that is scaled down
JPEG_BLOCK = 64  # images read at a time


class Stack(NamedTuple):
    """A stack to be made: `n` images in chunks of `chunk`, as a zarr, or as JPEG files where `jpeg` says so."""

    title: str
    n: int
    image_shape: tuple[int, ...]
    dtype: str
    chunk: int
    jpeg: bool = False

    def scaled(self, scale: float) -> "Stack":
        """Take fewer images of the same shape."""
        return self._replace(n=max(FEWEST, round(self.n * scale)))

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return self.n * prod(self.image_shape) * np.dtype(self.dtype).itemsize

    def describe(self) -> str:
        """Say what it is in a line."""
        size = " × ".join(map(str, self.image_shape))
        kind = "JPEG files" if self.jpeg else "one zarr"
        return (
            f"{self.title}: {self.n:,} images of {size}, {self.dtype}, {self.nbytes / 1e9:.3g} GB of pixels in {kind}"
        )

    def make(self, folder: Path) -> Path:
        """Write the stack into a folder, unless it is there, and return its path."""
        name = f"{self.title.replace(' ', '-')}-{'x'.join(map(str, (self.n, *self.image_shape)))}"
        if self.jpeg:
            path = folder / name
            write_cells(path, self.n, self.image_shape[0])
        else:
            path = folder / f"{name}.zarr"
            write_planted(path, self.n, self.image_shape, self.dtype, self.chunk)
        return path


STACKS = {
    "tutorial": Stack("generated cells", 844, (256, 256, 3), "uint8", JPEG_BLOCK, jpeg=True),
    "long": Stack("long stack", 20_032, (256, 256, 3), "uint8", 64),
    "wide": Stack("wide images", 500, (2048, 2048), "uint16", 4),
    "small": Stack("small images", 1_000_000, (28, 28), "uint8", 8000),
}


# Making them ------------------------------------------------------------------------------------------


def write_cells(folder: Path, n: int, size: int) -> None:
    """Write generated cell images as JPEG files, unless the folder holds them all."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.jpg"))) == n:
        return

    def write(index: int) -> None:
        Image.fromarray(cell_image(index, size)).save(folder / f"{index + 1:06d}.jpg", quality=90)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(n)))


def write_planted(path: Path, n: int, image_shape: tuple[int, ...], dtype: str, chunk: int) -> None:
    """Write an uncompressed zarr of images with 40 planted modes and noise, unless it is there.

    Along the modes, images have standard deviations of 10 sqrt(n_values) grey levels and of nine tenths each of the
    one before; of the noise, 8 grey levels a pixel; all that times 256 for 16 bits.
    """
    done = path.with_name(f"{path.name}.whole")
    if done.exists():
        return
    with threadpool_limits(1, user_api="blas"):  # images are made in threads of their own
        _write_planted(path, n, image_shape, dtype, chunk)
    done.touch()


def _write_planted(path: Path, n: int, image_shape: tuple[int, ...], dtype: str, chunk: int) -> None:
    p, largest, level = prod(image_shape), np.iinfo(dtype).max, _grey_level(dtype)
    modes = np.linalg.qr(np.random.default_rng(0).standard_normal((p, N_MODES), dtype=np.float32))[0].T
    sizes = _deviations(p, level).astype(np.float32)
    images = zarr.create_array(
        path, shape=(n, *image_shape), chunks=(chunk, *image_shape), dtype=dtype, compressors=None, overwrite=True
    )

    def write(start: int) -> None:
        length = min(chunk, n - start)
        own, along = _amounts(start, length)
        pixels = (along * sizes) @ modes
        noise = own.standard_normal((length, p), dtype=np.float32)
        noise *= NOISE * level
        pixels += noise
        pixels += 128 * level
        pixels = np.rint(pixels, out=pixels).clip(0, largest, out=pixels)
        images[start : start + length] = pixels.astype(dtype).reshape(length, *image_shape)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(0, n, chunk)))


def _amounts(start: int, length: int) -> tuple[np.random.Generator, np.ndarray]:
    """Draw how much of each mode is in the images of a chunk, and give the generator that draws their noise."""
    own = np.random.default_rng((1, start))
    return own, own.standard_normal((length, N_MODES), dtype=np.float32)


def planted_variances(n: int, p: int, dtype: str, chunk: int) -> np.ndarray:
    """Variances of the principal components that `write_planted` planted, worked out without the images.

    Those of the amounts that were drawn of each mode. Noise of variance v, in n images of p values, adds v (1 + p/n),
    give or take 2 sqrt(v / (n λ)) of a variance λ; roundings to integers add to v. What is clipped, at 0 and at the
    largest integer, takes about 2.5e-4 of the first and 5e-5 of the twentieth away, and is not allowed for.
    """
    amounts = np.concatenate([_amounts(start, min(chunk, n - start))[1] for start in range(0, n, chunk)])
    level = _grey_level(dtype)
    drawn = np.linalg.eigvalsh(np.cov(amounts * _deviations(p, level), rowvar=False))[::-1]
    return drawn + ((NOISE * level) ** 2 + 1 / 12) * (1 + p / n)


def _deviations(p: int, level: int) -> np.ndarray:
    return SPREAD * level * np.sqrt(p) * DECAY ** np.arange(N_MODES)


def _grey_level(dtype: str) -> int:
    return (int(np.iinfo(dtype).max) + 1) // 256


# Reading them -----------------------------------------------------------------------------------------


class Source:
    """A stack on disk, one block of raw rows at a time.

    Attributes
    ----------
    n, p : int
        Images, and values in one.
    dtype : dtype
    chunk : int
        Images in a block.
    file_bytes : int
        Bytes on disk, for a zarr; 0 for a folder, of which pictures decoded are counted.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files = sorted(path.glob("*.jpg"))
        if self.files:
            shape, self.dtype, self.chunk = (len(self.files), *_decode(self.files[0]).shape), np.dtype("u1"), JPEG_BLOCK
            self.file_bytes = 0
        else:
            self._images = zarr.open_array(path, mode="r")
            shape, self.dtype, self.chunk = self._images.shape, self._images.dtype, self._images.chunks[0]
            self.file_bytes = -(-shape[0] // self.chunk) * self.chunk * prod(shape[1:]) * self.dtype.itemsize
        self.image_shape = shape[1:]
        self.n, self.p = shape[0], prod(shape[1:])

    @property
    def starts(self) -> range:
        """Position of the first image of each block."""
        return range(0, self.n, self.chunk)

    def read(self, start: int) -> np.ndarray:
        """Read the block that begins there, (b, p)."""
        stop = min(start + self.chunk, self.n)
        if self.files:
            return np.stack([_decode(file).reshape(-1) for file in self.files[start:stop]])
        return self._images[start:stop].reshape(stop - start, -1)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield positions and blocks."""
        for start in self.starts:
            yield start, self.read(start)


def rows_in_memory(path: Path, dtype: str = "float32") -> np.ndarray:
    """Read a whole stack as rows, without a second copy of it: the best that a fit in memory can begin with."""
    source = Source(path)
    rows = np.empty((source.n, source.p), dtype)
    for start, block in source.blocks():
        rows[start : start + len(block)] = block
    return rows


def _decode(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)
