"""``imgstack-ml cluster``: groups of images that are alike, without labels."""

from __future__ import annotations

import os
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..errors import MemoryLimitError
from ..files.space import explain_full_disk
from .lib.features import count_features, features_option, make_features
from .lib.images import ImageOptions, image_options
from .lib.line import typed
from .lib.model import MODEL_FILE
from .lib.options import memory_limit_option, overwrite_option, results_option, run_options, seed_option
from .lib.output import OutputFolder, pyplot_without_windows
from .lib.run import Run
from .lib.table import in_small_blocks, iterate_rows
from .lib.task import Task, hint
from .lib.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np

    from .. import ImageFeatureUnion, ImageStack
    from .lib.clustering import Clusters

__all__ = ["cluster"]

_FEATURES_FILE = "features.npy"
_MAX_DRAWN = 16  # clusters on the sheet
_N_TYPICAL, _N_BORDER = 6, 4  # images of each
_SIDE = 128  # pixels of a picture on the sheet


@click.command(cls=Task, short_help="Groups of images that are alike, without labels.")
@results_option()
@click.option(
    "-k",
    "n_clusters",
    metavar="N",
    type=click.IntRange(min=2),
    required=True,
    help="Number of clusters.",
)
@features_option("stats", "texture")
@seed_option("Seed of the starts of k-means.")
@memory_limit_option
@image_options(labels=True)
@overwrite_option()
@run_options()
def cluster(
    images: ImageOptions,
    terminal: Terminal,
    out: str,
    n_clusters: int,
    features: tuple[str, ...],
    seed: int,
    memory_limit: str,
    overwrite: bool,
) -> None:
    """Divide the images in FOLDER into clusters of images that are alike, by k-means.

    Each image is described by a row of features, which is computed once and stored; dask-ml's KMeans then works on the
    rows, so that neither images nor rows need fit into memory. Features are scaled to mean 0 and standard deviation 1;
    scores (-f pca) keep their proportions. The best of four starts counts. clusters.csv has the cluster of each image,
    1 for the largest, and its distances to the centres of this cluster and of the next one; clusters.png shows images
    near the centres, and those on the border to another cluster. model.safetensors finds the clusters of other images,
    by imgstack-ml transform, or in Python by model.predict(stack) + 1.

    \b
    Examples:
      imgstack-ml cluster photos -k 6 -o groups
      imgstack-ml cluster cells -k 8 -f pca --on-error skip -o groups
    """  # noqa: D301 (click looks for the real character)
    started = perf_counter()
    folder = OutputFolder(out, overwrite=overwrite)
    check = partial(_plan, n_clusters, features, memory_limit)
    run = images.open(terminal, started, out=out, check=check)
    transformer = check(run.stack)
    folder.create()
    found = _clusters(folder, transformer, n_clusters, seed, run)
    _write_results(folder, transformer, found, run)
    record = run.describe(
        features=list(features),
        feature_names=transformer.get_feature_names_out().tolist(),
        clusters=_describe(found, n_clusters, run.stack),
    )
    run.finish(
        folder,
        record,
        f"Next, in Python: model = imgstack_ml.load_model({os.path.join(out, MODEL_FILE)!r})\n"
        f"or, for other images: {typed('imgstack-ml', 'transform', out)} FOLDER -o others.csv",
    )


def _plan(n_clusters: int, names: tuple[str, ...], memory_limit: str, stack: ImageStack) -> ImageFeatureUnion:
    """Make the features, not fitted; refuse what cannot be, before an image is decoded."""
    from .lib.clustering import plan_bytes

    if n_clusters > len(stack):
        raise click.BadParameter(f"there are {len(stack):,} images; give -k {len(stack)} or less", param_hint="'-k'")
    transformer = make_features(names, stack, n_components=None, n_fitted=len(stack), memory_limit=memory_limit)
    with hint(MemoryLimitError, "here these are the options --memory-limit and -k; or take fewer features: -f stats"):
        plan_bytes(n_clusters, len(stack), count_features(transformer, stack), memory_limit)
    return transformer


def _clusters(folder: OutputFolder, transformer: ImageFeatureUnion, n_clusters: int, seed: int, run: Run) -> Clusters:
    """Compute and store the features, and find the clusters of their rows."""
    from .lib.clustering import RowsOnDisk, StoredRows, find_clusters

    n_columns = count_features(transformer, run.stack)
    run.terminal.status(f"describing {len(run.stack):,} images by {n_columns:,} features")
    rows = transformer.fit_transform(in_small_blocks(run.stack, n_columns))  # scores come from the fit, in one read
    n_bytes = len(run.stack) * n_columns * rows.dtype.itemsize
    with folder.writing(_FEATURES_FILE) as temporary, explain_full_disk(folder.path, n_bytes):
        stored = RowsOnDisk(temporary, (len(run.stack), n_columns), rows.dtype)
        stored.write(iterate_rows(rows, run, "features"))
    run.terminal.status(f"looking for {n_clusters} clusters")
    name, last = transformer.transformer_list[-1]
    n_scores = last.n_components_ if name == "pca" else 0
    path = os.path.abspath(os.path.join(folder.path, _FEATURES_FILE))
    return find_clusters(StoredRows(path), stored.scaler, n_clusters, seed=seed, n_scores=n_scores)


def _describe(found: Clusters, n_clusters: int, stack: ImageStack) -> dict[str, Any]:
    import numpy as np
    from sklearn.metrics import adjusted_rand_score

    sizes = np.bincount(found.number, minlength=n_clusters + 1)[1:]
    labels = {} if stack.labels is None else {"rand_index": float(adjusted_rand_score(stack.labels, found.number))}
    return {"n_clusters": n_clusters, "sizes": sizes.tolist(), "explained": found.explained, **labels}


def _write_results(folder: OutputFolder, transformer: ImageFeatureUnion, found: Clusters, run: Run) -> None:
    from sklearn.pipeline import Pipeline

    from .. import save_model

    run.terminal.status(f"writing results to {folder.path}")
    folder.remove_record()
    labels = [] if run.stack.labels is None else [run.stack.labels]
    header = ["file", *["label"] * len(labels), "cluster", "distance", "next_cluster", "next_distance"]
    numbers = (found.number, found.distance, found.next_number, found.next_distance)
    folder.write_table("clusters.csv", header, (run.image_names, *labels), [column.tolist() for column in numbers])
    run.write_skipped(folder)
    with folder.writing(MODEL_FILE) as temporary:
        save_model(Pipeline([("features", transformer), *found.steps.steps]), temporary)
    _draw(folder, found, run.stack)


def _chosen(found: Clusters, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images nearest to the centre of a cluster, and others nearest to the border, by their positions."""
    import numpy as np

    members = np.flatnonzero(found.number == number)
    typical = members[np.argsort(found.distance[members], kind="stable")][:_N_TYPICAL]
    others = np.setdiff1d(members, typical)
    margin = found.next_distance[others] - found.distance[others]
    return typical, others[np.argsort(margin, kind="stable")][:_N_BORDER]


def _draw(folder: OutputFolder, found: Clusters, stack: ImageStack) -> None:
    """Draw a sheet with a row for each cluster: typical images, and images on the border."""
    import numpy as np

    from ..inspection.pictures import common_limits, plain_picture

    plt = pyplot_without_windows()
    sizes = np.bincount(found.number)[1:]
    numbers = [number for number in range(1, 1 + len(sizes)) if sizes[number - 1]][:_MAX_DRAWN]
    chosen = [_chosen(found, number) for number in numbers]
    positions = np.concatenate([part for pair in chosen for part in pair])
    pictures = dict(zip(positions.tolist(), _small_pictures(stack, positions), strict=True))
    limits = common_limits(np.stack(list(pictures.values())))
    widths = [1.0] * _N_TYPICAL + [0.3] + [1.0] * _N_BORDER  # with a gap between the two kinds
    size = (1.1 * sum(widths), 1.35 * len(numbers) + 0.5)
    figure, axes = plt.subplots(
        len(numbers), len(widths), figsize=size, width_ratios=widths, squeeze=False, layout="constrained"
    )
    for number, (typical, border), row in zip(numbers, chosen, axes, strict=True):
        for ax in row:
            ax.set_axis_off()
        drawn = [*zip(row, typical.tolist(), strict=False), *zip(row[_N_TYPICAL + 1 :], border.tolist(), strict=False)]
        for ax, position in drawn:
            picture = plain_picture(pictures[position], limits)
            ax.imshow(picture.pixels, **picture.options)
        for ax, position in drawn[len(typical) :]:
            ax.set_title(f"next: {found.next_number[position]}", fontsize=8)
        share = 100 * sizes[number - 1] / len(stack)
        row[0].set_title(f"{number}: {sizes[number - 1]:,} images, {share:.1f} %", fontsize=9, loc="left")
    more = f"; the {len(numbers)} largest of {np.count_nonzero(sizes)} clusters" if len(numbers) < len(sizes) else ""
    figure.suptitle(f"nearest to the centre (left) and to another cluster (right{more})", fontsize=10)
    folder.write_figure("clusters.png", figure)


def _small_pictures(stack: ImageStack, positions: np.ndarray) -> list[np.ndarray]:
    """Decode some images one by one, and reduce each at once: memory for one image, whatever its size.

    They are read here, not by the workers of a cluster, where each would take a round trip.
    """
    import dask

    from ..inspection.pictures import shrink, visible_channels

    with dask.config.set(scheduler="threads"):
        return [shrink(visible_channels(stack[[i]].data.compute()), _SIDE)[0] for i in positions.tolist()]
