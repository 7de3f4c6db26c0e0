"""Find images that are nearly the same, by their digests and signatures."""

from __future__ import annotations

import numpy as np

from ..inspection.statistics import ImageStatistics
from .sensor import fitted_surfaces
from .trends import changes_little, changes_slowly, typical_distance

__all__ = ["near_duplicates"]

# Root mean square difference of two signatures; 0.07 is a correlation of 0.9976. A copy that was compressed again,
# brightened or given noise differs by less than 0.06; the most similar different images of five collections, by 0.1.
NEAR_DISTANCE = 0.07
# Skies are alike: bright at one end, and smooth. Copies are alike in what a smooth surface leaves of them, too: of all
# copies that were tried, it differs by less than 0.08 of its deviation; of two skies, by 0.2.
DETAIL_DISTANCE = 2 * NEAR_DISTANCE
_GRID = (8, 8)  # cells of a signature
MIN_CELLS = 16  # images of fewer pixels are often alike by chance
MIN_LEVELS = 8  # so are images whose cells have fewer different values, such as small masks


def near_duplicates(statistics: ImageStatistics) -> list[list[int]]:
    """Group images that are nearly the same; constant images and small masks are left out.

    An image is linked with those of equal pixels, and with the image of the most similar signature, if that is similar
    enough. A group is all images that links connect, directly or not. In a movie, only equal pixels count: its frames
    are alike, and differ by their noise.

    Returns
    -------
    groups : list of list of int
        Positions of the images, ascending; groups in the order of their first images.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = _equal_images(statistics.digests)
    if not _is_movie(statistics.signatures):
        links = np.concatenate([links, _similar_images(statistics)])
    cells = np.sort(np.nan_to_num(statistics.signatures), axis=1)
    n_levels = 1 + np.count_nonzero(np.diff(cells, axis=1), axis=1)
    links = links[n_levels[links[:, 0]] >= max(2, min(MIN_LEVELS, cells.shape[1]))]
    n = len(statistics.digests)
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    _, group_of = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for index in np.unique(links).tolist():
        groups.setdefault(int(group_of[index]), []).append(index)
    return sorted(groups.values())


def _is_movie(signatures: np.ndarray) -> bool:
    """Whether images change slowly, or hardly at all: a scene at rest differs by its noise only."""
    seen = signatures[np.isfinite(signatures).all(axis=1)].astype(np.float64)
    return changes_slowly(seen) or changes_little(seen, NEAR_DISTANCE)


def _equal_images(digests: np.ndarray) -> np.ndarray:
    """Pairs (m, 2) of images whose pixels are equal, each with the next of its copies."""
    order = np.argsort(digests, kind="stable")
    same = digests[order[1:]] == digests[order[:-1]]
    return np.column_stack([order[:-1][same], order[1:][same]])


def _similar_images(statistics: ImageStatistics) -> np.ndarray:
    """Pairs (m, 2) of images whose pixels differ, each with its nearest neighbour among the signatures."""
    from scipy.spatial import cKDTree

    # Of equal images only the first: the nearest neighbour of each of the others would be a copy.
    _, first = np.unique(statistics.digests, return_index=True)
    images = first[np.isfinite(statistics.signatures[first]).all(axis=1)]
    signatures = statistics.signatures[images].astype(np.float32)
    n_images, n_cells = signatures.shape
    if n_images < 2 or n_cells < MIN_CELLS:
        return np.empty((0, 2), dtype=int)
    # Those of registered images, such as radiographs of one view, are alike anyway: copies are so by as much more.
    reach = NEAR_DISTANCE * min(1.0, typical_distance(signatures))
    _, nearest = cKDTree(signatures).query(signatures, k=2, distance_upper_bound=reach * np.sqrt(n_cells))
    # The tree returns each image itself, and `n_images` where there is no neighbour within reach.
    row, column = np.nonzero((nearest < n_images) & (nearest != np.arange(n_images)[:, None]))
    pairs = np.column_stack([row, nearest[row, column]])
    if n_cells == np.prod(_GRID):
        details = signatures - fitted_surfaces(signatures, _GRID)
        details /= np.maximum(details.std(axis=1, keepdims=True), np.finfo(np.float16).eps)
        differences = np.square(details[pairs[:, 0]] - details[pairs[:, 1]]).mean(axis=1)
        pairs = pairs[differences < DETAIL_DISTANCE**2]
    return images[pairs]
