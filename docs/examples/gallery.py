"""The pictures of the gallery: each Display once, on images that need no download.

python docs/examples/gallery.py          # takes a few seconds
python docs/examples/gallery.py DIR      # keeps the pictures in DIR
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from contact_sheet import CHANNELS, microscopy

from imgstack_ml import (
    EigenimageDisplay,
    ImagePCA,
    IntensityDisplay,
    ReconstructionDisplay,
    ScoresDisplay,
    ScreeDisplay,
    open_stack,
)
from imgstack_ml.datasets import make_cells, write_sample


def draw(images: Path) -> dict[str, plt.Figure]:
    """Draw each figure of the gallery; sample images are written to the folder `images`."""
    write_sample("faces", images)
    stack = open_stack(images, recursive=True)
    pca = ImagePCA(32).fit(stack)
    cells = make_cells(120, 64)
    wells = ImagePCA(3).fit(microscopy())
    ratio = wells.explained_variance_ratio_
    streamed = ImagePCA(12, svd_solver="randomized", max_passes=1, tol=1, random_state=0).fit(stack)
    displays = {
        "eigenimages": EigenimageDisplay.from_estimator(pca, n_components=15, include_mean=True),
        "colour": EigenimageDisplay.from_estimator(ImagePCA(7).fit(cells), include_mean=True),
        "channels": EigenimageDisplay(wells.eigenimages_, ratio, wells.mean_image_, channel_names=CHANNELS).plot(),
        "scree": ScreeDisplay.from_estimator(streamed),
        "scores": ScoresDisplay.from_estimator(pca, stack, n_thumbnails=14),
        "reconstruction": ReconstructionDisplay.from_estimator(pca, stack, indices=[3, 40, 120]),
        "intensity": IntensityDisplay.from_stack(cells),
    }
    return {name: display.figure_ for name, display in displays.items()}


def main(folder: Path) -> None:
    """Draw all figures into `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, figure in draw(Path(scratch) / "faces").items():
            figure.savefig(folder / f"gallery-{name}.png", dpi=100)
    print(f"pictures: {', '.join(path.name for path in sorted(folder.glob('gallery-*.png')))}")


if __name__ == "__main__":
    plt.switch_backend("Agg")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
