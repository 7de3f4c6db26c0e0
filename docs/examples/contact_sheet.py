"""All Displays on one page, on images that need no download: to look at after each change of how they are drawn.

python docs/examples/contact_sheet.py                # draws everything, and keeps nothing; half a minute
python docs/examples/contact_sheet.py sheet.png      # all on one page; or .pdf
python docs/examples/contact_sheet.py DIR            # each in a file of its own, as PNG and SVG
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    EigenimageDisplay,
    ImagePCA,
    IntensityDisplay,
    IntensityRescaler,
    ReconstructionDisplay,
    ScoresDisplay,
    ScreeDisplay,
)
from imgstack_ml.datasets import load_digits, load_faces, make_cells

CHANNELS = ("DAPI", "GFP", "TRITC", "transmitted light")


def microscopy(n: int = 40) -> np.ndarray:
    """Four channels in uint16, of which the last varies a hundred times as much as the first."""
    rng = np.random.default_rng(0)
    cells = make_cells(n, 64).astype(np.float64)
    light = rng.normal(size=(n, 1, 1)) * np.linspace(-1, 1, 64) + rng.normal(size=(n, 64, 64)) / 5
    channels = [cells[..., 2] / 4 + 100, cells[..., 1] + 120, cells[..., 0] * 2 + 90, 3000 + 700 * light]
    return np.stack(channels, axis=-1).round().clip(0, 65535).astype(np.uint16)


def displays() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name each picture of the sheet, and the call that draws it."""
    faces, labels = load_faces()
    digits, numbers = load_digits()
    cells, wells = make_cells(120, 64), microscopy()
    pca, of_digits = ImagePCA(32).fit(faces), ImagePCA(8).fit(digits)
    streamed = ImagePCA(12, svd_solver="randomized", max_passes=1, tol=1, random_state=0).fit(faces)
    of_wells, of_cells = ImagePCA(6).fit(wells), make_pipeline(IntensityRescaler(), ImagePCA(7)).fit(cells)
    mask = np.hypot(*(np.indices((25, 25)) - 12)) < 12
    masked = ImagePCA(6, mask=mask).fit(faces)
    named, files = {"channel_names": CHANNELS}, [f"well_{i}.tif" for i in range(40)]

    def sheet(**options: object) -> EigenimageDisplay:
        ratio, mean = of_wells.explained_variance_ratio_, of_wells.mean_image_
        return EigenimageDisplay(of_wells.eigenimages_, ratio, mean, **named).plot(**options)

    yield "eigenimages", lambda: EigenimageDisplay.from_estimator(pca, n_components=15, include_mean=True)
    yield "eigenimages in colour", lambda: EigenimageDisplay.from_estimator(of_cells, include_mean=True)
    yield "eigenimages of channels", sheet
    yield "eigenimages of two channels", lambda: sheet(channels=["GFP", "transmitted light"])
    yield "eigenimages as composite", lambda: sheet(channels=["TRITC", "GFP", "DAPI"], composite=True)
    yield "eigenimages in a mask", lambda: EigenimageDisplay.from_estimator(masked, include_mean=True)
    yield "scree", lambda: ScreeDisplay.from_estimator(pca)
    yield "scree with bounds", lambda: ScreeDisplay.from_estimator(streamed)
    yield "scores", lambda: ScoresDisplay.from_estimator(pca, faces, labels=labels, n_thumbnails=24)
    yield "scores of ten classes", lambda: ScoresDisplay.from_estimator(of_digits, digits, labels=numbers)
    yield (
        "scores of many classes",
        lambda: ScoresDisplay(
            np.random.default_rng(0).normal(size=(900, 2)), labels=[f"plate {i % 60}" for i in range(900)]
        ).plot(),
    )
    yield "scores of channels", lambda: ScoresDisplay.from_estimator(of_wells, wells, n_thumbnails=12)
    yield "density of scores", lambda: ScoresDisplay(np.random.default_rng(0).normal(size=(50_000, 2))).plot()
    yield "reconstructions", lambda: ReconstructionDisplay.from_estimator(pca, faces, indices=[3, 40, 120])
    yield "reconstructions in colour", lambda: ReconstructionDisplay.from_estimator(of_cells, cells, indices=[5, 30])
    yield (
        "reconstructions of channels",
        lambda: ReconstructionDisplay.from_estimator(of_wells, wells, indices=[2, 9], channels=[1, 3]),
    )
    yield "intensities", lambda: IntensityDisplay.from_stack(cells)
    yield (
        "intensities of channels",
        lambda: IntensityDisplay(
            wells.mean(axis=(1, 2)),
            wells.max(axis=(1, 2)),
            marked=[7, 8],
            names=files,
            **named,
        ).plot(),
    )


def main(target: Path) -> None:
    """Draw all displays, each into a file of its own in a folder, or all into one file."""
    plt.switch_backend("Agg")
    figures = [(name, draw().figure_) for name, draw in displays()]
    if not target.suffix:
        target.mkdir(parents=True, exist_ok=True)
        for name, figure in figures:
            for suffix in ("png", "svg"):
                figure.savefig(target / f"{name.replace(' ', '-')}.{suffix}", dpi=100)
        return
    sheet, axes = plt.subplots(-(-len(figures) // 3), 3, figsize=(24, 40), layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, figure) in zip(axes.flat, figures, strict=False):
        figure.set_dpi(150)
        figure.canvas.draw()
        ax.imshow(np.asarray(figure.canvas.buffer_rgba()))
        ax.set_title(name)
    sheet.savefig(target)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
