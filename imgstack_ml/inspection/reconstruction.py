"""Images beside their reconstructions from few components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._drawing import as_shown, draw_picture, limits_of, make_grid, plain_picture, signed_picture
from ._steps import Route, evenly_spaced, find_route, names_of, short_name, take_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS = (1, 5, 20, 100)  # numbers of components shown, as far as there are so many


class ReconstructionDisplay:
    """Each image in a row: as it is, from more and more components, and what is missing at last.

    All pictures of a row have the limits of its original; the difference (original less last reconstruction) has
    limits of its own, symmetric about zero. Titles give the root mean square error over the pixels of the image.

    Parameters
    ----------
    images : array-like of shape (n_shown, height, width[, n_channels])
        The originals.
    reconstructions : array-like of shape (n_shown, n_steps, height, width[, n_channels])
        Each original from ``n_components[j]`` components.
    n_components : sequence of int
        The numbers of components.
    names : sequence of str, optional
        A name for each image, for the titles of the originals.

    Attributes
    ----------
    errors : ndarray of shape (n_shown, n_steps), float64
        Root mean square errors, in the intensity units of the images.
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes of shape (n_shown, 2 + n_steps)
    images_ : ndarray of matplotlib AxesImage, same shape
        Original, reconstructions, difference.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImagePCA, ReconstructionDisplay
    >>> stack = np.random.default_rng(0).normal(size=(30, 8, 8))
    >>> display = ReconstructionDisplay.from_estimator(ImagePCA(8).fit(stack), stack, indices=[3, 14])
    >>> display.axes_.shape, [axes.get_title() for axes in display.axes_[0]][:2]
    ((2, 5), ['image 3', 'k = 1 · 1.08'])
    """

    def __init__(
        self,
        images: npt.ArrayLike,
        reconstructions: npt.ArrayLike,
        n_components: Sequence[int],
        *,
        names: Sequence[str] | None = None,
    ):
        self.images, self.reconstructions = np.asarray(images), np.asarray(reconstructions)
        self.n_components = [int(k) for k in n_components]
        self.names = names
        expected = (len(self.images), len(self.n_components), *self.images.shape[1:])
        if self.images.ndim not in (3, 4) or self.images.size == 0:
            raise ValueError(f"images has shape {self.images.shape}; needed is (n_shown, height, width[, n_channels])")
        if self.reconstructions.shape != expected or not self.n_components:
            raise ValueError(f"reconstructions has shape {self.reconstructions.shape}; needed is {expected}")
        off = self.reconstructions - self.images[:, np.newaxis].astype(np.float64)
        self.errors = np.sqrt((off**2).mean(axis=tuple(range(2, off.ndim))))

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        indices: Sequence[int] | None = None,
        n_components: Sequence[int] | None = None,
        ax: Axes | None = None,
        **plot_options: Any,
    ) -> ReconstructionDisplay:
        """Draw images and what a fitted PCA, or a Pipeline that has one, makes of them.

        Of a lazy stack only the images shown are read. Where a step before the PCA cannot be undone, such as an
        IntensityRescaler, images are shown as they leave it.

        Parameters
        ----------
        estimator : ImagePCA or Pipeline
            The fitted estimator.
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images, as for its `transform`.
        indices : sequence of int, optional
            Images to show; by default four from all over the stack.
        n_components : sequence of int, optional
            Numbers of components to show; by default 1, 5, 20, 100 as far as there are so many, and all.
        ax : matplotlib Axes, optional
            Subplot to fill; a new figure if None.
        **plot_options
            For `plot`.

        Returns
        -------
        ReconstructionDisplay

        Raises
        ------
        NotFittedError
            If there is no fitted PCA.
        ValueError
            If there are not as many components, or what reaches the PCA are no images.
        """
        route = find_route(estimator)
        k = len(route.pca.components_)
        steps = [step for step in _STEPS if step < k] + [k] if n_components is None else list(n_components)
        if not steps or not 0 < min(steps) <= max(steps) <= k:
            raise ValueError(f"n_components={n_components!r}; needed are numbers from 1 to {k}")
        if indices is None:
            indices = evenly_spaced(X.shape[0], 4)
        images, reconstructions = reconstruct_some(route, take_images(cls.__name__, X, indices), steps)
        every_name = names_of(X, X.shape[0])
        names = [every_name[index] for index in indices]
        return cls(images, reconstructions, steps, names=names).plot(ax=ax, **plot_options)

    def plot(self, *, ax: Axes | None = None, cmap: str = "RdBu_r") -> ReconstructionDisplay:
        """Draw the sheet.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Subplot whose place the sheet takes; a new figure of a fitting size if None.
        cmap : str, default="RdBu_r"
            Diverging colours for the difference of grey images: red where the original is brighter.

        Returns
        -------
        self : ReconstructionDisplay
        """
        n_shown, n_columns = len(self.images), 2 + len(self.n_components)
        height, width = self.images.shape[1:3]
        self.figure_, grid = make_grid(n_shown * n_columns, height / width, ax, n_columns=n_columns)
        self.axes_ = np.array(
            [[self.figure_.add_subplot(grid[row, column]) for column in range(n_columns)] for row in range(n_shown)]
        )
        self.images_ = np.array([self._draw_row(row, cmap) for row in range(n_shown)])
        return self

    def _draw_row(self, row: int, cmap: str) -> list[Any]:
        original, reconstructions = as_shown(self.images[row : row + 1]), as_shown(self.reconstructions[row])
        limits = limits_of(original)
        pictures = [plain_picture(image, limits) for image in (original[0], *reconstructions)]
        missing = original[0].astype(np.float64) - reconstructions[-1]
        pictures.append(signed_picture(missing, cmap))
        name = "original" if self.names is None else short_name(self.names[row], 20)
        errors = zip(self.n_components, self.errors[row], strict=True)
        titles = [name, *(f"k = {k} · {error:.3g}" for k, error in errors), "missing"]
        drawn = [
            draw_picture(axes, title, *picture)
            for axes, title, picture in zip(self.axes_[row], titles, pictures, strict=True)
        ]
        self.axes_[row, 0].title.set_parse_math(False)  # a file name may hold dollars
        return drawn


def reconstruct_some(route: Route, images: np.ndarray, steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return prepared images, and each from so many components: (b, *image_shape) and (b, n_steps, *image_shape).

    Raises
    ------
    ValueError
        If what reaches the PCA are no images.
    """
    prepared = route.prepare(images)
    if prepared.ndim < 3:
        raise ValueError(
            f"the PCA gets rows of {prepared.shape[1]} features, of which no images can be made. "
            "Fit it on images, with an ImageFlattener before a PCA that needs rows"
        )
    scores = route.scores(prepared)
    return prepared, np.stack([route.reconstruct(scores, step) for step in steps], axis=1)
