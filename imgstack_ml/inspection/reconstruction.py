"""Images beside their reconstructions from few components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..base.validation import StackLike
from ._drawing import draw_picture, picture_grid
from .pictures import common_limits, plain_picture, signed_picture, visible_channels
from .pipelines import Route, find_mask, find_route, hide_outside, refuse_marks
from .stacks import evenly_spaced, image_names, read_images, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_N_COMPONENTS = (1, 5, 20, 100)  # shown by default, if the PCA has more


class ReconstructionDisplay:
    """One row for each image: the original, reconstructions from more and more components, and what is still missing.

    All pictures of a row have the intensity limits of the original. The last picture is the original less the last
    reconstruction; it has its own limits, symmetric about zero. Titles give the root mean square error over the pixels
    of the image. Pixels outside the mask of a PCA, or hidden by a masked array, are transparent, and no part of errors.

    Parameters
    ----------
    images : array-like of shape (n_shown, height, width[, n_channels])
        The originals.
    reconstructions : array-like of shape (n_shown, n_steps, height, width[, n_channels])
        Step j is the reconstruction from ``n_components[j]`` components.
    n_components : sequence of int
        The number of components of each step.
    names : sequence of str, optional
        A name for each image, for the titles of the originals.

    Attributes
    ----------
    errors : ndarray of shape (n_shown, n_steps), float64
        Root mean square errors, in the intensity units of the images.
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes of shape (n_shown, 2 + n_steps)
        One row for each image.
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
        self.images, self.reconstructions = np.asanyarray(images), np.asanyarray(reconstructions)
        self.n_components = [int(k) for k in n_components]
        self.names = names
        expected = (len(self.images), len(self.n_components), *self.images.shape[1:])
        if self.images.ndim not in (3, 4) or self.images.size == 0:
            raise ValueError(f"images has shape {self.images.shape}; needed is (n_shown, height, width[, n_channels])")
        if self.reconstructions.shape != expected or not self.n_components:
            raise ValueError(f"reconstructions has shape {self.reconstructions.shape}; needed is {expected}")
        difference = self.reconstructions - self.images[:, np.newaxis].astype(np.float64)
        self.errors = np.asarray(np.sqrt((difference**2).mean(axis=tuple(range(2, difference.ndim)))))

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: StackLike,
        *,
        indices: Sequence[int] | None = None,
        n_components: Sequence[int] | None = None,
        ax: Axes | None = None,
        **plot_options: Any,
    ) -> ReconstructionDisplay:
        """Draw images next to their reconstructions by a fitted PCA, alone or in a Pipeline.

        Only the images shown are read from a lazy stack. If a step before the PCA cannot be inverted, such as an
        IntensityRescaler, images and reconstructions are both shown after that step.

        Parameters
        ----------
        estimator : ImagePCA or Pipeline
            The fitted estimator.
        X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
            Images that the estimator's `transform` accepts.
        indices : sequence of int, optional
            Positions of the images to show; by default four at equal distances, from the first to the last.
        n_components : sequence of int, optional
            Numbers of components to show; by default 1, 5, 20 and 100, as far as the PCA has more, and then all.
        ax : matplotlib Axes, optional
            Subplot to fill; a new figure if None.
        **plot_options
            Passed on to `plot`.

        Returns
        -------
        ReconstructionDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted, or has no PCA.
        ValueError
            If `n_components` is empty or holds a number outside of 1 to the number of components; if the input of
            the PCA cannot be reshaped to images; or if a number marks missing pixels.
        """
        route = find_route(estimator)
        refuse_marks(cls.__name__, route.pca)
        k = len(route.pca.components_)
        if n_components is None:
            n_components = [number for number in _N_COMPONENTS if number < k] + [k]
        if not len(n_components) or not 0 < min(n_components) <= max(n_components) <= k:
            raise ValueError(f"n_components={n_components!r} must be one or more numbers from 1 to {k}")
        n_images = len(X)  # type: ignore[arg-type]  # NumPy's type of array-likes includes numbers
        if indices is None:
            indices = evenly_spaced(n_images, 4)
        inside = find_mask(estimator)
        found = _reconstruct(route, read_images(cls.__name__, X, indices, inside), n_components)
        images = hide_outside(found[0], inside)
        reconstructions = found[1]
        if isinstance(images, np.ma.MaskedArray):
            hidden = np.ma.getmaskarray(images)[:, np.newaxis]
            reconstructions = np.ma.array(reconstructions, mask=np.broadcast_to(hidden, reconstructions.shape))
        all_names = image_names(X, n_images)
        names = [all_names[index] for index in indices]
        return cls(images, reconstructions, n_components, names=names).plot(ax=ax, **plot_options)

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
        self.figure_, grid = picture_grid(n_shown * n_columns, height / width, ax, n_columns=n_columns)
        self.axes_ = np.array(
            [[self.figure_.add_subplot(grid[row, column]) for column in range(n_columns)] for row in range(n_shown)]
        )
        self.images_ = np.array([self._draw_row(row, cmap) for row in range(n_shown)])
        return self

    def _draw_row(self, row: int, cmap: str) -> list[Any]:
        (original,), reconstructions = visible_channels(self.images[[row]]), visible_channels(self.reconstructions[row])
        limits = common_limits(original[np.newaxis])
        pictures = [plain_picture(image, limits) for image in (original, *reconstructions)]
        pictures.append(signed_picture(original.astype(np.float64) - reconstructions[-1], cmap))
        name = "original" if self.names is None else short_name(self.names[row], 20)
        errors = zip(self.n_components, self.errors[row], strict=True)
        titles = [name, *(f"k = {k} · {error:.3g}" for k, error in errors), "missing"]
        drawn = [
            draw_picture(axes, title, picture)
            for axes, title, picture in zip(self.axes_[row], titles, pictures, strict=True)
        ]
        self.axes_[row, 0].title.set_parse_math(False)  # dollars in a file name are no formula
        return drawn


def _reconstruct(route: Route, images: np.ndarray, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return prepared images (b, *image_shape), and reconstructions (b, n_steps, *image_shape) from each number.

    Raises
    ------
    ValueError
        If the PCA gets rows of which no images can be made.
    """
    prepared = route.prepare(images)
    if prepared.ndim < 3:
        raise ValueError(
            f"the PCA gets rows of {prepared.shape[1]} features, of which no images can be made. "
            "Fit it on images, with an ImageFlattener before a PCA that needs rows"
        )
    scores = route.scores(prepared)
    return prepared, np.stack([route.reconstruct(scores, number) for number in numbers], axis=1)
