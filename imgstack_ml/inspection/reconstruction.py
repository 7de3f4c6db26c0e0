"""Images beside their reconstructions from few components."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..base.validation import StackLike
from ._drawing import check_plot_options, draw_picture, picture_grid
from .channels import MAX_PICTURES, Panel, check_names, choose_panels, composite_key
from .pictures import common_limits, number_text, plain_picture, range_text, shrink, signed_limit, signed_picture
from .pipelines import find_channel_names, find_mask, find_route, refuse_marks
from .reduced import reduced_reconstructions
from .stacks import evenly_spaced, image_names, iterate_images, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SIDE = 512  # pixels of the pictures of larger images
_N_COMPONENTS = (1, 5, 20, 100)  # shown by default, if the PCA has more


class ReconstructionDisplay:
    """One row for each image: the original, reconstructions from more and more components, and what is still missing.

    Images whose channels are no colours have a row for each channel. All pictures of a row have the intensity limits of
    the original: 0 to 255 for uint8, else the 0.5th and 99.5th percentile. The last picture is the original less the
    last reconstruction; all of these have one scale for a channel, symmetric about zero, up to the 99th percentile of
    the absolute values. Captions tell the limits, titles the root mean square error over all pixels of the image.
    Pixels outside the mask of a PCA, or hidden by a masked array, are transparent, and no part of errors.

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
    channel_names : sequence of str, optional
        Names of the channels, by default ``c0``, ``c1``, …; those of ``("red", "green", "blue")``, with or without
        ``"alpha"``, are one picture in colour.

    Attributes
    ----------
    errors : ndarray of shape (n_shown, n_steps), float64
        Root mean square errors, in the intensity units of the images.
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes of shape (n_shown, 2 + n_steps)
        One row for each image, or for each channel of each image.
    images_ : ndarray of matplotlib AxesImage, same shape
        Original, reconstructions, difference.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImagePCA, ReconstructionDisplay
    >>> stack = np.random.default_rng(0).normal(size=(30, 8, 8))
    >>> display = ReconstructionDisplay.from_estimator(ImagePCA(8).fit(stack), stack, indices=[3, 14])
    >>> display.axes_.shape, [axes.get_title() for axes in display.axes_[0]][:2]
    ((2, 5), ['image 3', 'k = 1 · rms 1.08'])
    """

    def __init__(
        self,
        images: npt.ArrayLike,
        reconstructions: npt.ArrayLike,
        n_components: Sequence[int],
        *,
        names: Sequence[str] | None = None,
        channel_names: Sequence[str] | None = None,
    ):
        self.images, self.reconstructions = np.asanyarray(images), np.asanyarray(reconstructions)
        self.n_components = [int(k) for k in n_components]
        self.names = names
        expected = (len(self.images), len(self.n_components), *self.images.shape[1:])
        if self.images.ndim not in (3, 4) or self.images.size == 0:
            raise ValueError(f"images has shape {self.images.shape}; needed is (n_shown, height, width[, n_channels])")
        if self.reconstructions.shape != expected or not self.n_components:
            raise ValueError(f"reconstructions has shape {self.reconstructions.shape}; needed is {expected}")
        self.channel_names = check_names(channel_names, self.images.shape[1:])
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

        Only the images shown are read from a lazy stack, and of those of more than 512 pixels a side reduced copies are
        kept, by means of squares of pixels; errors are those of all pixels. If a step before the PCA cannot be
        inverted, such as an IntensityRescaler, images and reconstructions are both shown after that step.

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
        check_plot_options(cls, plot_options)
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
        shown = iterate_images(cls.__name__, X, indices, inside)
        images, reconstructions, errors = reduced_reconstructions(route, shown, n_components, inside, MAX_SIDE)
        all_names = image_names(X, n_images)
        names = [all_names[index] for index in indices]
        channel_names = find_channel_names(estimator) if images.ndim == 4 else None
        display = cls(images, reconstructions, n_components, names=names, channel_names=channel_names)
        display.errors = errors
        return display.plot(ax=ax, **plot_options)

    def plot(
        self,
        *,
        ax: Axes | None = None,
        cmap: str = "RdBu_r",
        channels: Sequence[int | str] | None = None,
        composite: bool = False,
    ) -> ReconstructionDisplay:
        """Draw the sheet.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Subplot whose place the sheet takes; a new figure of a fitting size if None.
        cmap : str, default="RdBu_r"
            Diverging colours for the difference of grey images: red where the original is brighter.
        channels : sequence of int or str, optional
            Names or positions of the channels to show; all if None.
        composite : bool, default=False
            Show the channels in one picture, each in its colour and on its own scale: red, green, blue, grey, cyan,
            magenta and yellow in this order.

        Returns
        -------
        self : ReconstructionDisplay

        Raises
        ------
        ValueError
            If there is no such channel, or there are more than 256 pictures.
        """
        panels = choose_panels(self.images.shape[1:], self.channel_names, channels, composite=composite)
        n_rows, n_columns = len(self.images) * len(panels), 2 + len(self.n_components)
        if n_rows * n_columns > MAX_PICTURES:
            raise ValueError(
                f"{len(self.images)} images of {len(panels)} channels are {n_rows * n_columns} pictures, and at most "
                f"{MAX_PICTURES} are drawn. Choose some: channels={list(self.channel_names[:2])}, or indices=[0, 1]."
            )
        height, width = self.images.shape[1:3]
        key = composite_key(panels[0], self.channel_names)
        self.figure_, grid = picture_grid(n_rows * n_columns, height / width, ax, n_columns=n_columns, key=key)
        self.axes_ = np.array(
            [[self.figure_.add_subplot(grid[row, column]) for column in range(n_columns)] for row in range(n_rows)]
        )
        images, reconstructions = shrink(self.images, MAX_SIDE), self._small_reconstructions()
        missing = images.astype(np.float64) - reconstructions[:, -1]
        limits = [signed_limit(panel.of(missing), panel.colours) for panel in panels]
        self.images_ = np.array(
            [
                self._draw_row(row, panel, images[row // len(panels)], reconstructions[row // len(panels)], limit, cmap)
                for row, (panel, limit) in enumerate(list(zip(panels, limits, strict=True)) * len(images))
            ]
        )
        return self

    def _small_reconstructions(self) -> np.ndarray:
        n_shown, n_steps, *image_shape = self.reconstructions.shape
        small = shrink(self.reconstructions.reshape(n_shown * n_steps, *image_shape), MAX_SIDE)
        return small.reshape(n_shown, n_steps, *small.shape[1:])

    def _draw_row(
        self, row: int, panel: Panel, image: np.ndarray, reconstructions: np.ndarray, limit: Any, cmap: str
    ) -> list[Any]:
        original = panel.of(image)
        limits = common_limits(original, panel.colours)
        pictures = [plain_picture(panel.of(one), limits, panel.colours) for one in (image, *reconstructions)]
        difference = original.astype(np.float64) - panel.of(reconstructions[-1])
        pictures.append(signed_picture(difference, cmap, limit, panel.colours))
        index = row * len(self.images) // len(self.axes_)
        name = "original" if self.names is None else short_name(self.names[index], 20 - len(panel.name[:10]))
        is_channel = panel.name and panel.colours is None
        errors = zip(self.n_components, self.errors[index], strict=True)
        is_first = index * len(self.axes_) // len(self.images) == row  # errors are those of all channels of the image
        titles = [
            f"{name} · {short_name(panel.name, 10)}" if is_channel else name,
            *(f"k = {k}" + f" · rms {number_text(error)}" * is_first for k, error in errors),
            "missing",
        ]
        captions = (
            [range_text(*limits)] * (len(pictures) - 1) + [f"±{number_text(limit)}"] if panel.colours is None else []
        )
        drawn = [
            draw_picture(axes, title, picture, caption)
            for axes, title, picture, caption in zip_longest(self.axes_[row], titles, pictures, captions)
        ]
        self.axes_[row, 0].title.set_parse_math(False)  # dollars in a file name are no formula
        return drawn
