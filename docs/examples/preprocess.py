"""Any function on every image, in parallel, and the result as one array: a folder of JPEGs becomes one zarr.

python docs/examples/preprocess.py          # 60 generated images of cells, a few seconds
python docs/examples/preprocess.py DIR      # keep what it makes in DIR
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from skimage.color import rgb2gray
from skimage.exposure import equalize_adapthist
from skimage.filters import gaussian
from skimage.measure import label
from skimage.transform import resize
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageMap, open_stack, save_stack
from imgstack_ml.datasets import write_sample


def enhance(image: np.ndarray, side: int) -> np.ndarray:
    """Make a small grey image of even contrast, in 8 bits."""
    grey = resize(rgb2gray(image), (side, side), anti_aliasing=True)
    return (255 * equalize_adapthist(grey)).astype(np.uint8)


def count_bright(image: np.ndarray) -> int:
    """Count bright regions."""
    smooth = gaussian(image, 1)
    return int(label(smooth > smooth.mean() + smooth.std()).max())


def main(folder: Path) -> None:
    """Read lazily, work on each image, store once, and go on from the store."""
    write_sample("cells", folder / "cells", n=60)
    images = open_stack(folder / "cells")
    print(images)

    # Shape and dtype of a result are found by trying the first image; nothing else is read until it is stored.
    pipeline = make_pipeline(ImageMap(enhance, kw_args={"side": 64}))
    enhanced = pipeline.fit_transform(images)
    print(f"to be made: {enhanced.shape}, {enhanced.dtype}, in {enhanced.npartitions} blocks")

    # Every block is read, worked on and written by itself: neither folder nor result need fit into memory.
    stored = open_stack(save_stack(enhanced, folder / "enhanced.zarr", overwrite=True))
    print(f"stored: {stored.shape} in {sum(f.stat().st_size for f in (folder / 'enhanced.zarr').rglob('*')):,} bytes")

    # What a function returns may also be a number.
    counts = np.asarray(ImageMap(count_bright).fit_transform(stored)).ravel()
    print(f"bright regions in an image: {counts.min()} to {counts.max()}, {np.median(counts):.0f} as a rule")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
