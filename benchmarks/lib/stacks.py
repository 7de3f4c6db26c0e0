"""Stacks on disk for the comparisons, and bare readers of them."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
import zarr
from PIL import Image
from threadpoolctl import threadpool_limits

from imgstack_ml.datasets import cell_image

from .threads import in_threads

__all__ = [
    "STACKS",
    "Source",
    "Stack",
    "planted_variances",
    "read_rows",
    "write_cells",
    "write_colour_stack",
    "write_planted",
]

N_MODES = 40  # planted modes
DECAY = 0.9  # ratio of the singular values of a mode and of the one before
SPREAD = 10  # standard deviation along the first mode: grey levels, times the square root of the values of an image
NOISE = 8  # standard deviation of the noise, in grey levels
MIN_IMAGES = 60  # in a stack that is scaled down
COLOUR_CHUNK = 64  # images in a chunk of `write_colour_stack`
JPEG_BLOCK = 64  # images read at a time


class Stack(NamedTuple):
    """A stack to be made: `n` images as one zarr in chunks of `chunk` images, or as JPEG files if `jpeg` is true."""

    title: str
    n: int
    image_shape: tuple[int, ...]
    dtype: str
    chunk: int
    jpeg: bool = False

    def scaled(self, scale: float) -> "Stack":
        """Return the same stack with a share of its images."""
        return self._replace(n=max(MIN_IMAGES, round(self.n * scale)))

    @property
    def nbytes(self) -> int:
        """Number of bytes of all pixels."""
        return self.n * prod(self.image_shape) * np.dtype(self.dtype).itemsize

    def describe(self) -> str:
        """Return title, shape, dtype and size in one line."""
        size = " × ".join(map(str, self.image_shape))
        kind = "JPEG files" if self.jpeg else "one zarr"
        return (
            f"{self.title}: {self.n:,} images of {size}, {self.dtype}, {self.nbytes / 1e9:.3g} GB of pixels in {kind}"
        )

    def make(self, folder: Path) -> Path:
        """Write the stack into a folder, unless it is there already, and return its path."""
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


# Making stacks ------------------------------------------------------------------------------------------


def write_cells(folder: Path, n: int, size: int) -> None:
    """Write generated cell images as JPEG files, unless the folder has `n` JPEG files already."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.jpg"))) == n:
        return

    def write(index: int) -> None:
        Image.fromarray(cell_image(index, size)).save(folder / f"{index + 1:06d}.jpg", quality=90)

    in_threads(write, range(n))


def write_colour_stack(folder: Path, n: int, size: int) -> Path:
    """Write a planted stack of `n` images of size x size x 3 uint8, unless it is there already; return its path."""
    path = folder / f"planted-{n}-{size}.zarr"
    write_planted(path, n, (size, size, 3), "uint8", COLOUR_CHUNK)
    return path


def write_planted(path: Path, n: int, image_shape: tuple[int, ...], dtype: str, chunk: int) -> None:
    """Write an uncompressed zarr of images made of 40 planted modes and noise, unless it is there already.

    The standard deviation along the first mode is 10 sqrt(n_values) grey levels, and along each further mode nine
    tenths of that along the one before. The noise has 8 grey levels in each pixel. For uint16, a grey level is 256.
    """
    done = path.with_name(f"{path.name}.whole")  # made last: without it, a stack is incomplete
    if done.exists():
        return
    with threadpool_limits(1, user_api="blas"):  # `_write_planted` uses threads by itself
        _write_planted(path, n, image_shape, dtype, chunk)
    done.touch()


def _write_planted(path: Path, n: int, image_shape: tuple[int, ...], dtype: str, chunk: int) -> None:
    p, largest, level = prod(image_shape), np.iinfo(dtype).max, _grey_level(dtype)
    modes = np.linalg.qr(np.random.default_rng(0).standard_normal((p, N_MODES), dtype=np.float32))[0].T
    deviations = _deviations(p, level).astype(np.float32)
    images = zarr.create_array(
        path, shape=(n, *image_shape), chunks=(chunk, *image_shape), dtype=dtype, compressors=None, overwrite=True
    )

    def write(start: int) -> None:
        length = min(chunk, n - start)
        noise_generator, amounts = _amounts(start, length)
        pixels = (amounts * deviations) @ modes
        noise = noise_generator.standard_normal((length, p), dtype=np.float32)
        noise *= NOISE * level
        pixels += noise
        pixels += 128 * level
        pixels = np.rint(pixels, out=pixels).clip(0, largest, out=pixels)
        images[start : start + length] = pixels.astype(dtype).reshape(length, *image_shape)

    in_threads(write, range(0, n, chunk))


def _amounts(start: int, length: int) -> tuple[np.random.Generator, np.ndarray]:
    """Draw the amounts of each mode in the images of a chunk; also return the generator, which then draws the noise."""
    generator = np.random.default_rng((1, start))
    return generator, generator.standard_normal((length, N_MODES), dtype=np.float32)


def planted_variances(n: int, p: int, dtype: str, chunk: int) -> np.ndarray:
    """Return the variances of the principal components of `write_planted`, computed without the images.

    They follow from the amounts drawn of each mode. Noise of variance v, in n images of p values, adds v (1 + p/n) to
    a variance λ, with a relative deviation of 2 sqrt(v / (n λ)). Rounding to integers adds 1/12 to v. Clipping at 0 and
    at the largest integer lowers the first variance by about 2.5e-4 and the twentieth by 5e-5; this is left out here.
    """
    amounts = np.concatenate([_amounts(start, min(chunk, n - start))[1] for start in range(0, n, chunk)])
    level = _grey_level(dtype)
    drawn = np.linalg.eigvalsh(np.cov(amounts * _deviations(p, level), rowvar=False))[::-1]
    return drawn + ((NOISE * level) ** 2 + 1 / 12) * (1 + p / n)


def _deviations(p: int, level: int) -> np.ndarray:
    """Return the standard deviation along each mode, for images of p values."""
    return SPREAD * level * np.sqrt(p) * DECAY ** np.arange(N_MODES)


def _grey_level(dtype: str) -> int:
    """Return the size of a grey level: 1 for uint8, 256 for uint16."""
    return (int(np.iinfo(dtype).max) + 1) // 256


# Reading stacks ----------------------------------------------------------------------------------------


class Source:
    """A stack on disk, one block of raw rows at a time.

    Attributes
    ----------
    n, p : int
        Number of images, and of values in an image.
    dtype : dtype
    chunk : int
        Images in a block.
    file_bytes : int
        Bytes on disk of a zarr. 0 for a folder of files: there, decoded pictures are counted instead.
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
        """Positions of the first image of each block."""
        return range(0, self.n, self.chunk)

    def read(self, start: int) -> np.ndarray:
        """Read the block that begins at an image, as rows of shape (b, p)."""
        stop = min(start + self.chunk, self.n)
        if self.files:
            return np.stack([_decode(file).reshape(-1) for file in self.files[start:stop]])
        return self._images[start:stop].reshape(stop - start, -1)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the start and the rows of each block."""
        for start in self.starts:
            yield start, self.read(start)


def read_rows(path: Path, dtype: str | None = "float32", threads: bool = False) -> np.ndarray:
    """Read a whole stack into memory as rows, without a second copy: the best start for a fit in memory.

    In one thread or in two; as `dtype`, or as it is stored if None.
    """
    source = Source(path)
    rows = np.empty((source.n, source.p), dtype or source.dtype)

    def read(start: int) -> None:
        rows[start : start + source.chunk] = source.read(start)

    if threads:
        in_threads(read, source.starts)
    else:
        for start in source.starts:
            read(start)
    return rows


def _decode(file: Path) -> np.ndarray:
    """Decode by the fastest decoder that refuses damaged files."""
    return simplejpeg.decode_jpeg(file.read_bytes(), strict=True)
