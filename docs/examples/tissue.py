"""Tiles of stained tissue, clustered by colour and texture: what belongs together, without a label.

python docs/examples/tissue.py          # 256 tiles of an image that scikit-image ships, a few seconds
python docs/examples/tissue.py DIR      # keep the picture in DIR
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from sklearn.cluster import KMeans
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from imgstack_ml import ImageHistogram, open_stack, save_stack
from imgstack_ml.datasets import load_tissue

N_CLUSTERS, SIDE = 4, 32
COLOURS = np.array([[230, 159, 0], [86, 180, 233], [0, 158, 115], [213, 94, 0]])  # told apart by any eye


def main(folder: Path) -> None:
    """Describe each tile by its histograms, cluster these, and draw where the clusters lie."""
    stack = open_stack(save_stack(load_tissue(SIDE), folder / "tiles.zarr", overwrite=True))
    print(stack)

    # Distances between square roots of histograms are those between distributions (Hellinger's): rare colours count as
    # rare. As a table, the rows are computed once for both steps after them.
    histograms = ImageHistogram(bins=16, density=True).set_output(transform="pandas")
    model = make_pipeline(histograms, FunctionTransformer(np.sqrt), KMeans(N_CLUSTERS, n_init=10, random_state=0))
    clusters = model.fit_predict(stack)
    brightness = stack.data.mean(axis=(1, 2, 3)).compute()
    order = np.argsort([brightness[clusters == c].mean() for c in range(N_CLUSTERS)])  # a name that means something
    clusters = np.argsort(order)[clusters]
    for c in range(N_CLUSTERS):
        print(f"cluster {c}: {np.sum(clusters == c):3d} tiles of mean intensity {brightness[clusters == c].mean():.0f}")

    draw(stack.data.compute(), clusters).savefig(folder / "tissue.png", dpi=110)
    print(f"pictures: {', '.join(path.name for path in sorted(folder.glob('*.png')))}")


def draw(tiles: np.ndarray, clusters: np.ndarray) -> plt.Figure:
    """Put the tiles back in their places, framed by cluster, beside some of each cluster."""
    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    n = int(np.sqrt(len(tiles)))
    framed = tiles.copy()
    for tile, c in zip(framed, clusters, strict=True):
        for edge in (tile[:2], tile[-2:], tile[:, :2], tile[:, -2:]):
            edge[:] = COLOURS[c]
    show(left.subplots(), framed.reshape(n, n, SIDE, SIDE, 3).swapaxes(1, 2).reshape(n * SIDE, n * SIDE, 3))
    left.suptitle(f"{len(tiles)} tiles of tissue, framed by cluster")
    rng = np.random.default_rng(0)
    for c, ax in enumerate(right.subplots(N_CLUSTERS)):
        chosen = rng.permutation(np.flatnonzero(clusters == c))[:7]
        row = np.full((SIDE, 7 * SIDE, 3), 255, np.uint8)
        row[:, : len(chosen) * SIDE] = np.concatenate(tiles[chosen], axis=1)
        show(ax, row)
        ax.set_title(
            f"cluster {c}: {np.sum(clusters == c)} tiles", color=COLOURS[c] / 255, fontweight="bold", loc="left"
        )
    return figure


def show(ax: Axes, image: np.ndarray) -> None:
    """Show an image without ticks."""
    ax.imshow(image)
    ax.set_axis_off()


if __name__ == "__main__":
    plt.switch_backend("Agg")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
