"""How fast does open_stack read JPEG, PNG and TIFF files, beside a bare loop, Dask's imread and imagecodecs?

Takes a few minutes, 4 GB of disk, 1 GB of memory. Trial: --n 50 --pages 50 --rounds 1

Each line of the table is one folder, or one TIFF of many pages, read whole by two threads, in images a second: by a
bare loop over the library of the format, by open_stack, by dask.array.image.imread, and by imagecodecs if it is
installed. In each round all of them run once, and the best round counts. Files are in the operating system's cache.
Only one pixel of each image is kept.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import dask
import numpy as np
import tifffile
from dask.array.image import imread
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.datasets import cell_image

from ..lib.command import command_parser
from ..lib.measure import seconds_of
from ..lib.threads import THREADS, in_threads

__all__ = ["compare"]

COLUMNS = ("bare loop", "stack", "dask imread", "imagecodecs")
Reader = Callable[[], object]


def compare(folder: Path, n_images: int, n_pages: int, n_rounds: int) -> dict[str, dict[str, float]]:
    """Measure every format.

    Parameters
    ----------
    folder : Path
        Where files are written.
    n_images : int
        Files of each format.
    n_pages : int
        Pages of the TIFF, half a megabyte each.
    n_rounds : int

    Returns
    -------
    dict
        Images a second, by format and reader.
    """
    results = {}
    kinds = [(".jpg", 256, n_images), (".png", 256, n_images), (".tif", 256, n_images), (".png", 64, 2 * n_images)]
    for suffix, size, n in kinds:
        readers = _readers(suffix, _write_folder(folder / f"{suffix[1:]}{size}", suffix, size, n))
        results[f"{suffix[1:].upper()} {size}×{size}×3"] = _rates(readers, n, n_rounds)
    path = _write_pages(folder / "pages.tif", n_pages)
    readers = {"bare loop": lambda: _read_pages(path, n_pages), "stack": lambda: _read_by_stack(path)}
    results[f"TIFF, {n_pages} pages"] = _rates(readers, n_pages, n_rounds)
    return results


def _readers(suffix: str, files: list[str]) -> dict[str, Reader]:
    pattern = f"{Path(files[0]).parent}/*{suffix}"
    readers: dict[str, Reader] = {
        "bare loop": lambda: in_threads(_library_decoder(suffix), files),
        "stack": lambda: _read_by_stack(pattern),
        "dask imread": lambda: imread(pattern)[:, 0, 0].compute(),
    }
    decoder = _imagecodecs_decoder(suffix)
    if decoder is not None:
        readers["imagecodecs"] = lambda: in_threads(decoder, files)
    return readers


def _rates(readers: dict[str, Reader], n: int, n_rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(n_rounds):
        for name, read in readers.items():
            seconds[name].append(seconds_of(read))
    return {name: n / min(times) for name, times in seconds.items()}


def _read_by_stack(source: str) -> None:
    open_stack(source).data[:, 0, 0].compute()


def _library_decoder(suffix: str) -> Callable[[str], object]:
    def by_pillow(path: str) -> object:
        with Image.open(path) as picture:
            return np.asarray(picture)[0, 0]

    return (lambda path: tifffile.imread(path)[0, 0]) if suffix == ".tif" else by_pillow


def _imagecodecs_decoder(suffix: str) -> Callable[[str], object] | None:
    try:
        import imagecodecs
    except ImportError:
        return None
    decode = {".jpg": imagecodecs.jpeg8_decode, ".png": imagecodecs.png_decode}.get(suffix)
    return None if decode is None else lambda path: decode(Path(path).read_bytes())[0, 0]


def _read_pages(path: str, n_pages: int) -> None:
    def read(pages: range) -> None:
        with tifffile.TiffFile(path) as tiff:
            for page in pages:
                tiff.pages[page].asarray(maxworkers=1)[0, 0]

    in_threads(read, [range(n_pages // 2), range(n_pages // 2, n_pages)])


def _write_folder(folder: Path, suffix: str, size: int, n: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05d}{suffix}" for i in range(n)]
    for i, path in enumerate(paths):
        if suffix == ".tif":
            tifffile.imwrite(path, cell_image(i, size), photometric="rgb")
        else:
            Image.fromarray(cell_image(i, size)).save(path)
    return list(map(str, paths))


def _write_pages(path: Path, n_pages: int) -> str:
    page = np.random.default_rng(0).integers(0, 65535, (512, 512), dtype=np.uint16)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for i in range(n_pages):
            tiff.write(page + np.uint16(i), photometric="minisblack", metadata=None)
    return str(path)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("benchmarks.comparisons.formats", __doc__)
    parser.add_argument("--n", type=int, default=844, help="files of each format (default: 844)")
    parser.add_argument("--pages", type=int, default=4000, help="pages of the TIFF, 0.5 MB each (default: 4000)")
    parser.add_argument("--rounds", type=int, default=5, help="the best of which counts (default: 5)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    given = arguments(argv)
    with tempfile.TemporaryDirectory() as scratch, dask.config.set(scheduler="threads", num_workers=THREADS):
        results = compare(Path(scratch), given.n, given.pages, given.rounds)
    print(f"{'images a second':<24}", *(f"{name:>12}" for name in (*COLUMNS, "loop / stack")))
    for name, rates in results.items():
        shown = [f"{rates[reader]:,.0f}" if reader in rates else "" for reader in COLUMNS]
        ratio = rates["bare loop"] / rates["stack"]
        print(f"{name:<24}", *(f"{rate:>12}" for rate in shown), f"{ratio:>12.2f}")


if __name__ == "__main__":
    main()
