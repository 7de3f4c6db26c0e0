"""Scores of the images along two components, as points, colours by label, thumbnails, or densities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..base.validation import StackLike
from ._drawing import BLUE, GREY, MANY_POINTS, PALETTE, array_of_shape, axes_or_new, draw_thumbnail
from .pictures import common_limits, component_title, plain_picture, shrink, visible_channels
from .pipelines import find_mask, hide_outside, split_at_pca
from .stacks import read_images, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 20_000  # more points cover each other, and their density is drawn
_SIDE = 48  # pixels of a thumbnail
_OTHERS = "others"


class ScoresDisplay:
    """Each image as a point in the plane of two components.

    Parameters
    ----------
    scores : array-like of shape (n_images, n_components)
        Projections of the images, as from ``transform``.
    components : (int, int), default=(1, 2)
        Components on the x and the y axis, counted from 1 as in titles and tables.
    labels : array-like of shape (n_images,), optional
        A label for each image; each of the six most frequent has its own colour, and all others share grey.
    thumbnails : dict of int to ndarray, optional
        Small images, (height, width[, n_channels]), by the position of the image; drawn beside their points.
    explained_variance_ratio : array-like of shape (n_components,), optional
        Shares of the variance, for the names of the axes.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    points_ : list of matplotlib PathCollection, or PolyCollection
        One for each colour; a hexagonal density for more than 20,000 images without labels.
    thumbnails_ : list of matplotlib AnnotationBbox
        In the order of ``thumbnails``.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ScoresDisplay
    >>> display = ScoresDisplay(np.eye(4), labels=list("aabb"), explained_variance_ratio=[0.5, 0.25, 0.2, 0.05]).plot()
    >>> display.ax_.get_xlabel(), len(display.points_)
    ('PC 1 · 50.0 %', 2)
    """

    def __init__(
        self,
        scores: npt.ArrayLike,
        *,
        components: tuple[int, int] = (1, 2),
        labels: npt.ArrayLike | None = None,
        thumbnails: dict[int, np.ndarray] | None = None,
        explained_variance_ratio: npt.ArrayLike | None = None,
    ):
        self.scores = np.asarray(scores)
        if self.scores.ndim != 2 or self.scores.size == 0:
            raise ValueError(f"scores has shape {self.scores.shape}; needed is (n_images, n_components)")
        k = self.scores.shape[1]
        if len(components) != 2 or not 1 <= min(components) <= max(components) <= k:
            raise ValueError(f"components={components!r}; needed are two numbers from 1 to {k}, e.g. (1, 2)")
        self.components = components
        n_images = len(self.scores)
        self.labels = array_of_shape("labels", labels, (n_images,), f"{n_images} images")
        self.thumbnails = thumbnails or {}
        self.explained_variance_ratio = (
            None if explained_variance_ratio is None else np.asarray(explained_variance_ratio)
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: StackLike,
        *,
        scores: npt.ArrayLike | None = None,
        components: tuple[int, int] = (1, 2),
        labels: npt.ArrayLike | None = None,
        n_thumbnails: int = 0,
        ax: Axes | None = None,
    ) -> ScoresDisplay:
        """Draw the scores of images by a fitted PCA, or a Pipeline that has one.

        Parameters
        ----------
        estimator : ImagePCA or Pipeline
            The fitted estimator; steps after the PCA are ignored.
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images, as for its `transform`; a lazy stack is read once, and not at all where `scores` are given.
        scores : array-like of shape (n_images, n_components), optional
            The scores of the images, if they are known already.
        components : (int, int), default=(1, 2)
            Components on the x and the y axis, counted from 1.
        labels : array-like of shape (n_images,), optional
            A label for each image; by default ``X.labels``, the sub-folders of an ImageStack, if it has any.
        n_thumbnails : int, default=0
            Number of images to draw beside their points. They are spread over the plane, and only they are read again.
        ax : matplotlib Axes, optional
            Axes to draw in; a new figure if None.

        Returns
        -------
        ScoresDisplay

        Raises
        ------
        NotFittedError
            If there is no fitted PCA.
        """
        before, pca = split_at_pca(estimator)
        if scores is None:
            images: Any = X
            for step in (*before, pca):
                images = step.transform(images)
            scores = np.asarray(images)
        display = cls(
            scores,
            components=components,
            labels=getattr(X, "labels", None) if labels is None else labels,
            explained_variance_ratio=pca.explained_variance_ratio_,
        )
        chosen = spread_out(display.plane, n_thumbnails)
        if chosen:
            inside = find_mask(estimator)
            images = hide_outside(read_images(cls.__name__, X, chosen, inside), inside)
            pictures = shrink(visible_channels(images), _SIDE)
            display.thumbnails = dict(zip(chosen, pictures, strict=True))
        return display.plot(ax=ax)

    @property
    def plane(self) -> np.ndarray:
        """Scores along the two components, (n_images, 2)."""
        return self.scores[:, [component - 1 for component in self.components]]

    def plot(self, *, ax: Axes | None = None) -> ScoresDisplay:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw in; a new figure if None.

        Returns
        -------
        self : ScoresDisplay
        """
        self.ax_ = ax = axes_or_new(ax, (6.4, 5.2))
        self.figure_: Any = ax.get_figure()
        ax.axhline(0, color=GREY, linewidth=0.6, alpha=0.6, zorder=0)
        ax.axvline(0, color=GREY, linewidth=0.6, alpha=0.6, zorder=0)
        self.points_ = self._draw_points()
        ax.set(xlabel=self._label(0), ylabel=self._label(1))
        ax.margins(0.08)
        self.thumbnails_ = self._draw_thumbnails()
        return self

    def _draw_points(self) -> Any:
        x, y = self.plane.T
        if self.labels is None:
            if len(x) > MAX_POINTS:
                density = self.ax_.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="viridis", rasterized=True)
                self.figure_.colorbar(density, ax=self.ax_, label="images")
                return density
            return [self.ax_.scatter(x, y, color=BLUE, **_point_style(len(x)))]
        groups = _groups_by_label(self.labels)
        points = [
            self.ax_.scatter(x[inside], y[inside], color=colour, **_point_style(len(x))) for _, inside, colour in groups
        ]
        # The names are set afterwards, because a legend leaves out names that begin with an underscore.
        legend = self.ax_.legend(points, ["name"] * len(points), frameon=False, fontsize="small")
        for text, (name, _, _) in zip(legend.get_texts(), groups, strict=True):
            text.set_parse_math(False)
            text.set_text(short_name(name))
        return points

    def _label(self, axis: int) -> str:
        number, ratio = self.components[axis], self.explained_variance_ratio
        return component_title(number, None if ratio is None else ratio[number - 1])

    def _draw_thumbnails(self) -> list[Any]:
        if not self.thumbnails:
            return []
        limits = common_limits(np.ma.stack(list(self.thumbnails.values())))
        return [
            draw_thumbnail(self.ax_, self.plane[index], plain_picture(picture, limits))
            for index, picture in self.thumbnails.items()
        ]


def spread_out(points: np.ndarray, n_chosen: int, candidates: Sequence[int] | None = None) -> list[int]:
    """Choose `n_chosen` points of (n, 2), or of the `candidates` among them, that lie far from each other.

    The first is the farthest from the mean of all points; each next one is the farthest from those chosen before:
    Gonzalez (1985), "Clustering to minimize the maximum intercluster distance".
    """
    rows = np.arange(len(points)) if candidates is None else np.asarray(candidates, dtype=int)
    if n_chosen < 1 or not len(rows):
        return []
    spread = points.std(axis=0)
    scaled = (points[rows] - points.mean(axis=0)) / np.where(spread > 0, spread, 1)
    nearest = (scaled**2).sum(axis=1)
    chosen = [int(nearest.argmax())]
    nearest[:] = np.inf
    while len(chosen) < min(n_chosen, len(rows)):
        nearest = np.minimum(nearest, ((scaled - scaled[chosen[-1]]) ** 2).sum(axis=1))
        if nearest.max() == 0:
            break
        chosen.append(int(nearest.argmax()))
    return rows[chosen].tolist()


def _point_style(n: int) -> dict[str, Any]:
    size = 22 if n <= 500 else 10 if n <= MANY_POINTS else 4
    return {"s": size, "alpha": 0.75, "linewidths": 0, "rasterized": n > MANY_POINTS}


def _groups_by_label(labels: np.ndarray) -> list[tuple[str, np.ndarray, str]]:
    """Name, members (mask over the images) and colour of each label; labels beyond the six colours are one group."""
    counts = Counter(labels.tolist())
    frequent = sorted(name for name, _ in counts.most_common(len(PALETTE)))
    groups = [(str(name), labels == name, colour) for name, colour in zip(frequent, PALETTE, strict=False)]
    if len(counts) > len(frequent):
        groups.insert(0, (_OTHERS, ~np.isin(labels, frequent), GREY))
    return groups
