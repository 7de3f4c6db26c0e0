"""Scores of the images along two components, or their order, as points, colours by label, thumbnails, or densities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.validation import StackLike
from ..io.locations.names import natural_key
from ._drawing import (
    BLUE,
    GREY,
    MANY_POINTS,
    MAX_GROUPS,
    array_of_shape,
    axes_or_new,
    draw_legend,
    draw_thumbnails,
    group_styles,
    tick_whole_numbers,
)
from .channels import whole_pictures
from .pictures import component_title, shrink, visible_channels
from .pipelines import find_mask, hide_outside, names_of_channels, split_at_pca
from .stacks import iterate_images, short_name

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
    components : (int or None, int or None), default=(1, 2)
        Components on the x and the y axis, counted from 1 as in titles and tables. None stands for the position of the
        image in the stack, from 0: ``(None, 1)`` draws the first component of a movie against its frames.
    labels : array-like of shape (n_images,), optional
        A label for each image; each of the 80 most frequent has its own colour and marker, and all others are grey.
    thumbnails : dict of int to ndarray, optional
        Small images, (height, width[, n_channels]), by the position of the image; drawn in a frame around all points,
        each joined to its own. Channels that are no colours make a composite.
    explained_variance_ratio : array-like of shape (n_components,), optional
        Shares of the variance, for the names of the axes.
    channel_names : sequence of str, optional
        Names of the channels of the thumbnails, by default ``c0``, ``c1``, …

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    points_ : list of matplotlib PathCollection, or PolyCollection
        One for each label; a hexagonal density for more than 20,000 images without labels.
    thumbnails_ : list of matplotlib AnnotationBbox
        In the order of ``thumbnails``; without those for which there is no room.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ScoresDisplay
    >>> display = ScoresDisplay(np.eye(4), labels=list("aabb"), explained_variance_ratio=[0.5, 0.25, 0.2, 0.05]).plot()
    >>> display.ax_.get_xlabel(), len(display.points_)
    ('score on PC 1 · 50.0 % of variance', 2)
    """

    def __init__(
        self,
        scores: npt.ArrayLike,
        *,
        components: tuple[int | None, int | None] = (1, 2),
        labels: npt.ArrayLike | None = None,
        thumbnails: dict[int, np.ndarray] | None = None,
        explained_variance_ratio: npt.ArrayLike | None = None,
        channel_names: Sequence[str] | None = None,
    ):
        self.scores = np.asarray(scores)
        if self.scores.ndim != 2 or self.scores.size == 0:
            raise ValueError(f"scores has shape {self.scores.shape}; needed is (n_images, n_components)")
        k = self.scores.shape[1]
        numbers = [number for number in components if number is not None]
        if len(components) != 2 or not numbers or not 1 <= min(numbers) <= max(numbers) <= k:
            raise ValueError(
                f"components={components!r}; needed are two numbers from 1 to {k}, e.g. (1, 2), or None in place of "
                "one for the order of the images, e.g. (None, 1)"
            )
        self.components = components
        n_images = len(self.scores)
        self.labels = array_of_shape("labels", labels, (n_images,), f"{n_images} images")
        self.thumbnails = thumbnails or {}
        self.explained_variance_ratio = (
            None if explained_variance_ratio is None else np.asarray(explained_variance_ratio)
        )
        self.channel_names = channel_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: StackLike,
        *,
        scores: npt.ArrayLike | None = None,
        components: tuple[int | None, int | None] = (1, 2),
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
        components : (int or None, int or None), default=(1, 2)
            Components on the x and the y axis, counted from 1; None for the order of the images.
        labels : array-like of shape (n_images,), optional
            A label for each image; by default ``X.labels``, the sub-folders of an ImageStack, if it has any.
        n_thumbnails : int, default=0
            Number of images to draw around the points. They are spread over the plane, and only they are read again.
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
            channel_names=names_of_channels(estimator, X),
        )
        chosen = spread_out(display.plane, n_thumbnails)
        if chosen:
            inside = find_mask(estimator)
            display.thumbnails = {
                index: shrink(visible_channels(hide_outside(image, inside)), _SIDE)[0]
                for index, image in zip(chosen, iterate_images(cls.__name__, X, chosen, inside), strict=True)
            }
        return display.plot(ax=ax)

    @property
    def plane(self) -> np.ndarray:
        """Scores along the two components, or positions of the images, (n_images, 2)."""
        order = np.arange(len(self.scores))
        return np.column_stack([order if one is None else self.scores[:, one - 1] for one in self.components])

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
        groups = [] if self.labels is None else _groups_by_label(self.labels)
        self.ax_ = ax = axes_or_new(ax, (6.4 + 1.3 * ceil(len(groups) / 16), 5.2))
        self.figure_: Any = ax.get_figure()
        lines = zip((ax.axvline, ax.axhline), (ax.xaxis, ax.yaxis), self.components, strict=True)
        for line, axis, component in lines:
            if component is None:
                tick_whole_numbers(axis)
            else:
                line(0, color=GREY, linewidth=0.6, alpha=0.6, zorder=0)
        ax.margins(0.08)
        self.points_ = self._draw_points(groups)
        ax.set(xlabel=self._label(0), ylabel=self._label(1))
        self.thumbnails_ = self._draw_thumbnails()
        return self

    def _draw_points(self, groups: list[_Group]) -> Any:
        x, y = self.plane.T
        if not groups:
            if len(x) > MAX_POINTS:
                density = self.ax_.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="viridis", rasterized=True)
                self.figure_.colorbar(density, ax=self.ax_, label="images")
                return density
            return [self.ax_.scatter(x, y, color=BLUE, **_point_style(len(x)))]
        style = _point_style(len(x))
        points = [
            self.ax_.scatter(x[one.inside], y[one.inside], color=one.colour, marker=one.marker, **style)
            for one in groups
        ]
        names = [short_name(one.name) for one in groups]
        draw_legend(self.ax_, points, names, loc="upper left", bbox_to_anchor=(1, 1))
        return points

    def _label(self, axis: int) -> str:
        number, ratio = self.components[axis], self.explained_variance_ratio
        if number is None:
            return "position of the image in the stack"
        title = component_title(number, None if ratio is None else ratio[number - 1])
        return f"score on {title}" + " of variance" * (title.endswith("%"))

    def _draw_thumbnails(self) -> list[Any]:
        if not self.thumbnails:
            return []
        images = list(self.thumbnails.values())
        points = self.plane[list(self.thumbnails)]
        return draw_thumbnails(self.ax_, points, whole_pictures(images, self.channel_names))


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


class _Group(NamedTuple):
    """Images of one label, a mask over all images, and how they are drawn."""

    name: str
    inside: np.ndarray
    colour: str
    marker: str


def _groups_by_label(labels: np.ndarray) -> list[_Group]:
    """Give each of the most frequent labels a style of its own; all others are one group."""
    counts = Counter(labels.tolist())
    frequent = sorted((name for name, _ in counts.most_common(MAX_GROUPS)), key=lambda name: natural_key(str(name)))
    styles = group_styles(len(frequent))
    groups = [_Group(str(name), labels == name, *style) for name, style in zip(frequent, styles, strict=True)]
    if len(counts) > len(frequent):
        groups.insert(0, _Group(_OTHERS, ~np.isin(labels, frequent), GREY, "o"))
    return groups
