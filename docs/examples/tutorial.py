"""The ImageXD tutorial "Large-scale image processing on your laptop", row by row.

A folder of cell images is read lazily; images are described, selected and rescaled in parallel; the result is stored as
one array; and the principal components of the collection are shown as images.

    python docs/examples/tutorial.py        # 60 generated images of 256x256x3, a few seconds
    python docs/examples/tutorial.py 844    # the tutorial's own size
    python docs/examples/tutorial.py 844 DIR    # keep what it makes in DIR
"""

import sys
import tempfile
from pathlib import Path

import dask
import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    EigenimageDisplay,
    ImageFlattener,
    ImagePCA,
    IntensityRescaler,
    ScreeDisplay,
    StackCenterer,
    open_stack,
    save_stack,
)
from imgstack_ml.datasets import write_sample


def main(n_images: int, folder: Path) -> None:
    """Walk through the tutorial in `folder`."""
    write_sample("cells", folder / "cells", n=n_images)

    # A lazy folder: headers are checked, no pixel is read. images.files[i] is image i, in natural order.
    images = open_stack(folder / "cells")
    print(images)
    stack = images.data  # the Dask array within

    # The mean image, and mean, max and min of each image and channel: one pass over the files for all of them.
    mean_image, channel_means, channel_max, image_min, image_max = dask.compute(
        stack.mean(axis=0),
        stack.mean(axis=(1, 2)),
        stack.max(axis=(1, 2)),
        stack.min(axis=(1, 2, 3)),
        stack.max(axis=(1, 2, 3)),
    )
    print(f"mean image {mean_image.shape}, intensities {image_min.min()} to {image_max.max()}")
    print(f"brightest value of each channel, first image: {channel_max[0]}")

    # Some images have a very different intensity range.
    odd = np.flatnonzero(image_max < 0.7 * np.median(image_max))
    print(f"{len(odd)} images with an odd intensity range, e.g. {Path(images.files[odd[0]]).name}")

    # Images selected by a Boolean label: files are selected, so that nothing else is read.
    greener = channel_means[:, 0] < channel_means[:, 1]
    print(f"{greener.sum()} images are greener than red; the first that is not: {images[~greener].files[0]}")

    # Every image rescaled in parallel, and the result stored as one array and opened again.
    rescaled = IntensityRescaler().fit_transform(images)
    stored = open_stack(save_stack(rescaled, folder / "rescaled.zarr"))
    maxima = stored.data.max(axis=(1, 2, 3)).compute()
    print(f"now the maximum is always {maxima.min()}: {stored.data.npartitions} blocks on disk")

    # Centring and PCA, as one Pipeline over the lazy stack.
    pipeline = make_pipeline(StackCenterer(), ImageFlattener(), ImagePCA(n_components=10))
    scores = pipeline.fit_transform(stored)
    pca = pipeline[-1]
    print(f"{pca.n_components_} modes explain {pca.explained_variance_ratio_.sum():.1%}; scores {scores.shape}")

    # The modes shown as images.
    figure, (top, bottom) = plt.subplots(2, figsize=(8, 5), layout="constrained")
    top.plot(channel_means[:, 0], channel_means[:, 1], "o")
    top.set(xlabel="mean red", ylabel="mean green")
    bottom.plot(image_max, "o", label="as read")
    bottom.plot(maxima, ".", label="rescaled")
    bottom.set(xlabel="image", ylabel="maximum")
    bottom.legend()
    figure.savefig(folder / "intensities.png")
    EigenimageDisplay.from_estimator(pipeline).figure_.savefig(folder / "modes.png")
    ScreeDisplay.from_estimator(pipeline).figure_.savefig(folder / "scree.png")
    print(f"pictures: {', '.join(path.name for path in sorted(folder.glob('*.png')))}")


if __name__ == "__main__":
    plt.switch_backend("Agg")
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    if len(sys.argv) > 2:
        main(n, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(n, Path(scratch))
