"""Find images that are nearly the same, by their digests and signatures."""

from __future__ import annotations

import numpy as np

from ..inspection.statistics import ImageStatistics

__all__ = ["near_duplicates"]

# Root mean square difference of two signatures; 0.07 is a correlation of 0.9976. A copy that was compressed again,
# brightened or given noise differs by less than 0.06; the most similar different images of five collections, by 0.1.
NEAR_DISTANCE = 0.07
MIN_CELLS = 16  # images of fewer pixels are often alike by chance


def near_duplicates(statistics: ImageStatistics) -> list[list[int]]:
    """Group images that are nearly the same; constant images are left out.

    An image is linked with those of equal pixels, and with the image of the most similar signature, if that is similar
    enough. A group is all images that links connect, directly or not.

    Returns
    -------
    groups : list of list of int
        Positions of the images, ascending; groups in the order of their first images.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.concatenate([_equal_images(statistics.digests), _similar_images(statistics)])
    constant = (statistics.minima == statistics.maxima).all(axis=1)
    links = links[~constant[links[:, 0]]]
    n = len(statistics.digests)
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    _, group_of = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for index in np.unique(links).tolist():
        groups.setdefault(int(group_of[index]), []).append(index)
    return sorted(groups.values())


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
    _, nearest = cKDTree(signatures).query(signatures, k=2, distance_upper_bound=NEAR_DISTANCE * np.sqrt(n_cells))
    # The tree returns each image itself, and `n_images` where there is no neighbour within reach.
    row, column = np.nonzero((nearest < n_images) & (nearest != np.arange(n_images)[:, None]))
    return np.column_stack([images[row], images[nearest[row, column]]])
