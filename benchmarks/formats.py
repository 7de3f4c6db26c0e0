"""Reading files of several formats beside bare loops, Dask and imagecodecs: ``python -m benchmarks.formats``.

Each line is one folder (or one TIFF of many pages) that is read whole by two threads, in images a second: by a bare
loop over the format's own library, through the stack, by `dask.array.image.imread`, and by imagecodecs where it is
installed. The ways take turns, and the best of several rounds counts; files are in the operating system's cache.
Nothing is kept of an image but one pixel.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from timeit import default_timer

import dask
import numpy as np
import tifffile
from dask.array.image import imread
from PIL import Image

from imgstack_ml import open_stack
from imgstack_ml.datasets import cell_image

__all__ = ["compare"]

N_THREADS = 2
Way = Callable[[], object]


def compare(folder: Path, n_images: int, n_pages: int, n_rounds: int) -> dict[str, dict[str, float]]:
    """Measure every format.

    Parameters
    ----------
    folder : Path
        Where files are written.
    n_images : int
        Files of each format.
    n_pages : int
        Pages, of half a megabyte each, of the TIFF of many.
    n_rounds : int

    Returns
    -------
    dict
        Images a second by format and way.
    """
    results = {}
    kinds = [(".jpg", 256, n_images), (".png", 256, n_images), (".tif", 256, n_images), (".png", 64, 2 * n_images)]
    for suffix, size, n in kinds:
        ways = _ways(suffix, _write_folder(folder / f"{suffix[1:]}{size}", suffix, size, n))
        results[f"{suffix[1:].upper()} {size}×{size}×3"] = _rates(ways, n, n_rounds)
    path = _write_pages(folder / "pages.tif", n_pages)
    ways: dict[str, Way] = {"bare loop": lambda: _bare_pages(path, n_pages), "stack": lambda: _read(path)}
    results[f"TIFF, {n_pages} pages"] = _rates(ways, n_pages, n_rounds)
    return results


def _ways(suffix: str, files: list[str]) -> dict[str, Way]:
    pattern = f"{Path(files[0]).parent}/*{suffix}"
    ways: dict[str, Way] = {
        "bare loop": lambda: _in_threads(_bare(suffix), files),
        "stack": lambda: _read(pattern),
        "dask imread": lambda: imread(pattern)[:, 0, 0].compute(),
    }
    decoder = _imagecodecs(suffix)
    if decoder is not None:
        ways["imagecodecs"] = lambda: _in_threads(decoder, files)
    return ways


def _rates(ways: dict[str, Way], n: int, n_rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(n_rounds):
        for name, way in ways.items():
            start = default_timer()
            way()
            seconds[name].append(default_timer() - start)
    return {name: n / min(times) for name, times in seconds.items()}


def _read(source: str) -> None:
    open_stack(source).data[:, 0, 0].compute()


def _in_threads(function: Callable[[str], object], items: Sequence[str]) -> None:
    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(function, items))


def _bare(suffix: str) -> Callable[[str], object]:
    def by_pillow(path: str) -> object:
        with Image.open(path) as picture:
            return np.asarray(picture)[0, 0]

    return (lambda path: tifffile.imread(path)[0, 0]) if suffix == ".tif" else by_pillow


def _imagecodecs(suffix: str) -> Callable[[str], object] | None:
    try:
        import imagecodecs
    except ImportError:
        return None
    decode = {".jpg": imagecodecs.jpeg8_decode, ".png": imagecodecs.png_decode}.get(suffix)
    return None if decode is None else lambda path: decode(Path(path).read_bytes())[0, 0]


def _bare_pages(path: str, n_pages: int) -> None:
    def part(pages: range) -> None:
        with tifffile.TiffFile(path) as tiff:
            for page in pages:
                tiff.pages[page].asarray(maxworkers=1)[0, 0]

    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(part, [range(n_pages // 2), range(n_pages // 2, n_pages)]))


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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=844, help="files of each format")
    parser.add_argument("--pages", type=int, default=4000, help="pages of half a megabyte; 4000 are 2 GB")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, dask.config.set(scheduler="threads", num_workers=N_THREADS):
        results = compare(Path(scratch), arguments.n, arguments.pages, arguments.rounds)
    columns = ("bare loop", "stack", "dask imread", "imagecodecs")
    print(f"{'images a second':<24}", *(f"{name:>12}" for name in (*columns, "loop / stack")))
    for name, rates in results.items():
        shown = [f"{rates[way]:,.0f}" if way in rates else "" for way in columns]
        ratio = rates["bare loop"] / rates["stack"]
        print(f"{name:<24}", *(f"{rate:>12}" for rate in shown), f"{ratio:>12.2f}")


if __name__ == "__main__":
    main()
